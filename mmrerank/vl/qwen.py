"""A Qwen-VL model as tensors in, tensors out: messages to token ids, pixels and M-RoPE positions.

Used by whatever runs a Qwen-VL checkpoint (chat, later embedders). It knows nothing of sampling, grammars
or asks. One object holds one lock: transformers keeps state on the model between calls, so two threads
must not use it at once.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mmrerank.errors import ModelError
from mmrerank.images import decode
from mmrerank.messages import Message
from mmrerank.types import Image
from mmrerank.vl.load import Checkpoint
from mmrerank.vl.load import load as load_checkpoint

if TYPE_CHECKING:
    import PIL.Image
    import torch

MAX_RATIO = 180
"""Longest side over shortest; qwen-vl-utils refuses 200. Longer strips are padded in grey."""


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """One prompt: ``ids`` (L,), ``positions`` (3, L) for M-RoPE, ``pixels`` (P, D) and ``grids`` (n, 3).

    ``pixels`` and ``grids`` are None without images; P is the sum of the grids' products (patches).
    """

    ids: torch.Tensor
    positions: torch.Tensor
    pixels: torch.Tensor | None
    grids: torch.Tensor | None

    @property
    def length(self) -> int:
        """Prompt tokens, visual ones included."""
        return len(self.ids)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Prompts side by side, left padded: ``ids`` and ``mask`` (B, L), ``positions`` (3, B, L)."""

    ids: torch.Tensor
    mask: torch.Tensor
    positions: torch.Tensor
    pixels: torch.Tensor | None
    grids: torch.Tensor | None


class QwenVL:
    """A loaded checkpoint. ``lock`` must be held while `forward` runs."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.name = checkpoint.name
        self.family = checkpoint.family
        self.model = checkpoint.model
        self.processor = checkpoint.processor
        self.tokenizer = checkpoint.processor.tokenizer
        self.lock = threading.RLock()
        images = checkpoint.processor.image_processor
        self.patch: int = images.patch_size
        self.pixels_per_token: int = (images.patch_size * images.merge_size) ** 2
        # pixel counts, despite what the processor calls them
        self.min_pixels: int = images.size["shortest_edge"]
        self.max_pixels: int = images.size["longest_edge"]
        self.image_id: int = self.model.config.image_token_id
        self._thinks = "enable_thinking" in str(self.processor.chat_template)

    @classmethod
    def load(cls, name: str, *, device: str | None = None, dtype: str | None = None) -> QwenVL:
        """Loads a folder or hub name; arguments and errors as in `mmrerank.vl.load.load`."""
        return cls(load_checkpoint(name, device=device, dtype=dtype))

    @property
    def vocabulary(self) -> int:
        """Width of the logits: the embedding table's rows, at least the tokenizer's tokens."""
        return int(self.model.config.get_text_config().vocab_size)

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """Token ids that end a reply."""
        stop = self.model.generation_config.eos_token_id
        ids = stop if isinstance(stop, list) else [stop]
        return tuple(sorted({i for i in (*ids, self.tokenizer.eos_token_id) if i is not None}))

    @cached_property
    def _special(self) -> re.Pattern[str]:
        # added tokens are more than the special ones: <think>, <tool_call>
        names = {*self.tokenizer.all_special_tokens, *self.tokenizer.get_added_vocab()}
        return re.compile("|".join(re.escape(n) for n in sorted(names, key=len, reverse=True) if n))

    def defuse(self, text: str) -> str:
        """``text`` with every special token's spelling opened by a space, so that it stays plain text."""
        return self._special.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)

    def encode(self, messages: Sequence[Message], *, image_tokens: int) -> Encoded:
        """The prompt that asks for an answer to ``messages``, each image within ``image_tokens`` tokens.

        Raises `ImageError` or `OSError` when an image cannot be read or decoded.
        """
        import torch

        images = [p.image for m in messages for p in m.parts if p.image is not None]
        pixels = grids = None
        if images:
            pixels, grids = self._pixels(images, image_tokens)
        plain = self.tokenizer(self.prompt(messages), add_special_tokens=False)["input_ids"]
        if plain.count(self.image_id) != len(images):
            raise ModelError(
                f"{self.name}: its chat template drops images; give another checkpoint"
            )
        merged = self.processor.image_processor.merge_size**2
        sizes = iter([] if grids is None else (grids.prod(-1) // merged).tolist())
        ids = torch.tensor(
            [i for t in plain for i in ((t,) if t != self.image_id else (t,) * next(sizes))]
        )
        types = (ids == self.image_id).int()[None]
        positions, _ = self.model.model.get_rope_index(
            ids[None], mm_token_type_ids=types, image_grid_thw=grids
        )
        return Encoded(ids=ids, positions=positions[:, 0], pixels=pixels, grids=grids)

    def prompt(self, messages: Sequence[Message]) -> str:
        """``messages`` as the chat template writes them, one placeholder an image, thinking switched off."""
        turns = [{"role": m.role, "content": self._content(m)} for m in messages]
        options = {"enable_thinking": False} if self._thinks else {}
        text: str = self.processor.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=True, **options
        )
        # templates of thinking models open the block whatever they are told
        opened = text.rstrip()
        return f"{opened}\n\n</think>\n\n" if opened.endswith("<think>") else text

    def _content(self, message: Message) -> list[dict[str, str]]:
        content: list[dict[str, str]] = []
        for part in message.parts:
            if part.text is None:
                content.append({"type": "image"})
            elif content and content[-1]["type"] == "text":
                content[-1]["text"] += part.text
            else:
                content.append({"type": "text", "text": part.text})
        # only now: a special token could be spelt across two parts
        return [{**c, "text": self.defuse(c["text"])} if "text" in c else c for c in content]

    def _pixels(self, images: Sequence[Image], tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        from qwen_vl_utils import process_vision_info

        most = max(min(tokens * self.pixels_per_token, self.max_pixels), self.pixels_per_token)
        least = min(self.min_pixels, most)
        strip = min(MAX_RATIO, most // self.pixels_per_token)
        content = [
            {
                "type": "image",
                "image": _widen(decode(i), strip),
                "min_pixels": least,
                "max_pixels": most,
            }
            for i in images
        ]
        sized, _ = process_vision_info(
            [{"role": "user", "content": content}], image_patch_size=self.patch
        )
        made = self.processor.image_processor(images=sized, do_resize=False, return_tensors="pt")
        return made["pixel_values"], made["image_grid_thw"]

    def collate(self, rows: Sequence[Encoded]) -> Batch:
        """``rows`` left padded to one length, on the model's device."""
        import torch

        length = max(r.length for r in rows)
        pad = self.tokenizer.pad_token_id
        ids = torch.full((len(rows), length), 0 if pad is None else pad)
        mask = torch.zeros(len(rows), length, dtype=torch.long)
        positions = torch.zeros(3, len(rows), length, dtype=torch.long)
        for n, row in enumerate(rows):
            ids[n, length - row.length :] = row.ids
            mask[n, length - row.length :] = 1
            positions[:, n, length - row.length :] = row.positions
        pixels = [r.pixels for r in rows if r.pixels is not None]
        grids = [r.grids for r in rows if r.grids is not None]
        device = self.model.device
        return Batch(
            ids=ids.to(device),
            mask=mask.to(device),
            positions=positions.to(device),
            pixels=torch.cat(pixels).to(device) if pixels else None,
            grids=torch.cat(grids).to(device) if grids else None,
        )

    def forward(self, batch: Batch, cache: Any = None) -> torch.Tensor:
        """Logits (B, vocabulary) float32 at each row's last prompt token; fills ``cache`` if given."""
        out = self.model(
            input_ids=batch.ids,
            attention_mask=batch.mask,
            position_ids=batch.positions,
            pixel_values=batch.pixels,
            image_grid_thw=batch.grids,
            mm_token_type_ids=(batch.ids == self.image_id).int(),
            past_key_values=cache,
            use_cache=cache is not None,
            logits_to_keep=1,
        )
        logits: torch.Tensor = out.logits[:, -1].float()
        return logits

    def step(
        self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: Any
    ) -> torch.Tensor:
        """Logits (B, vocabulary) after one more token a row.

        ``ids`` (B,), ``mask`` (B, L so far), ``positions`` (B,): the rotary position of the new token.
        """
        out = self.model(
            input_ids=ids[:, None],
            attention_mask=mask,
            position_ids=positions[None, :, None].expand(3, -1, 1),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = out.logits[:, -1].float()
        return logits

    def new_cache(self) -> Any:
        """An empty key-value cache for `forward` and `step`."""
        from transformers import DynamicCache

        return DynamicCache(config=self.model.config.get_text_config())


def _widen(picture: PIL.Image.Image, ratio: int) -> PIL.Image.Image:
    """``picture``, padded with grey where its long side exceeds ``ratio`` times the short one."""
    from PIL import Image as Pillow

    wide, high = picture.size
    least = -(-max(wide, high) // max(ratio, 1))
    if min(wide, high) >= least:
        return picture
    canvas = Pillow.new("RGB", (max(wide, least), max(high, least)), (128, 128, 128))
    canvas.paste(picture, ((canvas.width - wide) // 2, (canvas.height - high) // 2))
    return canvas
