"""Many prompts to the last state of each, or to its next token: what dedicated rerankers are read off.

A prompt is given as turns for the checkpoint's chat template, or as a text of its own; pictures are sized as
the authors of a reranker size them. One prompt that fails costs no other.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mmrerank import cancel
from mmrerank.errors import CancelledError, ChatError, InputError, ModelError, UsageError
from mmrerank.images import decode
from mmrerank.paths import expanded
from mmrerank.types import Image
from mmrerank.vl.features import FeatureStore, Picture
from mmrerank.vl.load import Checkpoint
from mmrerank.vl.prompts import MAX_RATIO, PIXELS_VERSION, Encoded
from mmrerank.vl.qwen import QwenVL

if TYPE_CHECKING:
    import torch

IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
"""An image in a text of one's own."""
AT_ONCE = 4
"""Batches whose pictures are prepared together."""
Piece = str | Image


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A role and its texts and images in order."""

    role: Literal["system", "user", "assistant"]
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """How pictures are sized: ``least`` to ``most`` pixels, each None for what the checkpoint says.

    ``by`` says who resizes: ``processor``, or the ``utils`` of the Qwen family, which round alike but blur
    differently.
    """

    least: int | None = None
    most: int | None = None
    by: Literal["utils", "processor"] = "utils"


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What one question looks like: ``turns`` for the chat template, or ``text`` with its ``images``.

    ``begun`` is how the answer begins, and ``tail`` are token ids after everything.
    """

    turns: tuple[Turn, ...] = ()
    text: str = ""
    images: tuple[Image, ...] = ()
    begun: str = ""
    tail: tuple[int, ...] = ()


def _images(prompt: Prompt) -> tuple[Image, ...]:
    return prompt.images or tuple(p for t in prompt.turns for p in t.pieces if isinstance(p, Image))


class Reader:
    """A Qwen-VL checkpoint that reads prompts. Safe to call from several threads; they take turns."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        pixels: Pixels,
        *,
        batch_size: int = 8,
        batch_tokens: int = 16384,
        image_tokens: int = 0,
    ) -> None:
        if batch_size < 1 or batch_tokens < 1 or image_tokens < 0:
            raise UsageError("batch_size and batch_tokens must be at least 1, image_tokens 0 or more")
        self.name = checkpoint.name
        self.qwen = QwenVL(checkpoint, FeatureStore())
        prompts = self.qwen.prompts
        prompts.min_pixels = pixels.least if pixels.least is not None else prompts.min_pixels
        prompts.max_pixels = pixels.most if pixels.most is not None else prompts.max_pixels
        if image_tokens:
            prompts.max_pixels = min(prompts.max_pixels, image_tokens * prompts.pixels_per_token)
        self._by = pixels.by
        self.batch_size, self._batch_tokens = batch_size, batch_tokens

    @property
    def tokenizer(self) -> Any:
        """The checkpoint's."""
        return self.qwen.tokenizer

    @property
    def image_tokens(self) -> int:
        """Visual tokens of an image at most."""
        return self.qwen.prompts.max_pixels // self.qwen.prompts.pixels_per_token

    @property
    def identity(self) -> str:
        """A digest of what, beside the weights, changes what it reads: pixels, template, precision."""
        prompts = self.qwen.prompts
        body = [
            PIXELS_VERSION, self._by, prompts.min_pixels, prompts.max_pixels, str(self.qwen.model.dtype),
            str(self.qwen.processor.chat_template),
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(body).encode()).hexdigest()[:16]

    # ------------------------------------------------------------ prompts

    def text(self, prompt: Prompt) -> str:
        """``prompt`` as a text, one placeholder an image."""
        if not prompt.turns:
            return prompt.text + prompt.begun
        turns = [{"role": t.role, "content": list(self._content(t))} for t in prompt.turns]
        return self.qwen.prompts.apply(turns) + prompt.begun

    def encode(self, prompt: Prompt) -> Encoded:
        """``prompt`` as token ids, positions and pictures. Raises `InputError` or `OSError` for a picture."""
        import torch

        pictures = [self._picture(image) for image in _images(prompt)]
        encoded = self.qwen.prompts.assemble(self.text(prompt), pictures)
        if not prompt.tail:
            return encoded
        # what follows is text: each of its three positions is one more than the largest so far
        after = int(encoded.positions.max()) + 1 + torch.arange(len(prompt.tail))
        return replace(
            encoded,
            ids=torch.cat([encoded.ids, torch.tensor(prompt.tail)]),
            positions=torch.cat([encoded.positions, after.expand(3, -1).to(encoded.positions.dtype)], -1),
        )

    def safe(self, text: str, marks: re.Pattern[str] | None = None) -> str:
        """Somebody's ``text`` with special tokens, and what matches ``marks``, opened by a space.

        A mark that is a colon goes.
        """
        if marks is not None:
            text = marks.sub(lambda found: "" if found[0] == ":" else f"{found[0]} ", text)
        return self.qwen.prompts.defuse(text)

    def _content(self, turn: Turn) -> Iterator[dict[str, str]]:
        for piece in turn.pieces:
            if isinstance(piece, Image):
                yield {"type": "image"}
            elif piece:
                yield {"type": "text", "text": piece}

    def _picture(self, image: Image) -> Picture:
        prompts, tokens = self.qwen.prompts, self.image_tokens
        if self._by == "utils":
            return prompts.picture(image, tokens)
        key = f"{image.digest}:processor:{tokens}"
        if (features := self.qwen.features.get(key)) is not None:
            return Picture(key=key, grid=features.grid, features=features)
        picture = decode(image)
        if max(picture.size) > MAX_RATIO * min(picture.size):  # the processor takes no such strip
            return prompts.picture(image, tokens)
        sized = {"shortest_edge": prompts.min_pixels, "longest_edge": prompts.max_pixels}
        made = self.qwen.processor.image_processor(images=[picture], size=sized, return_tensors="pt")
        return Picture(key=key, grid=made["image_grid_thw"][0], pixels=made["pixel_values"])

    # ------------------------------------------------------------ reading

    def states(self, prompts: Sequence[Prompt]) -> list[State]:
        """The last layer's normed state of each prompt's last token, float32, or why there is none."""
        # pictures of a whole list would fill the memory before the first of them is looked at
        some = AT_ONCE * self.batch_size
        parts = [self._states(prompts[n : n + some]) for n in range(0, len(prompts), some)]
        return [state for part in parts for state in part]

    def _states(self, prompts: Sequence[Prompt]) -> list[State]:
        found: list[State | None] = [None] * len(prompts)
        waiting: list[tuple[int, Encoded]] = []
        # held while they are encoded, so that each is found again
        ready = self.qwen.prompts.ahead(
            [(i, self.image_tokens) for p in prompts for i in _images(p)] if self._by == "utils" else []
        )
        for place, prompt in enumerate(prompts):
            try:
                waiting.append((place, self.encode(prompt)))
            except (InputError, OSError, ValueError) as error:
                why = ChatError(f"an image of the question cannot be shown: {error}", kind="image")
                found[place] = State(error=why)
        del ready
        for batch in self._batches(waiting):
            cancel.check()
            states = self._read([row for _, row in batch])
            for (place, _), state in zip(batch, states, strict=True):
                found[place] = state
        return [s for s in found if s is not None]

    def _batches(self, rows: Sequence[tuple[int, Encoded]]) -> Iterator[list[tuple[int, Encoded]]]:
        """Rows of similar length together, within the rows and padded tokens allowed."""
        batch: list[tuple[int, Encoded]] = []
        for row in sorted(rows, key=lambda r: r[1].length):
            room = len(batch) < self.batch_size and (len(batch) + 1) * row[1].length <= self._batch_tokens
            if batch and not room:
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    def _read(self, rows: Sequence[Encoded]) -> list[State]:
        """States of one batch; if it fails, of each row on its own, so that one cannot spoil the others."""
        import torch

        why = ""
        try:
            with self.qwen.lock, torch.inference_mode():
                # left padding: the last token of every row stands at the end
                last = self.qwen.hidden(self.qwen.collate(rows))[:, -1].cpu()
            return [State(state=s, tokens=r.length) for s, r in zip(last, rows, strict=True)]
        except CancelledError:
            raise
        except Exception as error:  # out of memory above all, but nothing may take down the other rows
            why = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(rows) == 1:
            return [State(error=ChatError(f"{self.name} failed: {why}", kind="server"))]
        return [s for row in rows for s in self._read([row])]

    # ------------------------------------------------------------ labels

    def weights(self, ids: Sequence[int]) -> torch.Tensor:
        """Rows ``ids`` of the output embedding, (n, width) float32: a state times these are their logits."""
        rows = self.qwen.model.get_output_embeddings().weight
        found: torch.Tensor = rows.detach()[list(ids)].float().cpu()
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class State:
    """What one prompt came to: its ``state`` (width,) after so many ``tokens``, or an ``error``."""

    state: torch.Tensor | None = None
    tokens: int = 0
    error: ChatError | None = None


def head_of(name: str, wanted: Sequence[str]) -> dict[str, torch.Tensor]:
    """Tensors of a checkpoint that its architecture here has no place for, float32, by name.

    ``name`` is a folder or a hub name that was loaded before. Raises `ModelError` where one is missing.
    """
    from safetensors import safe_open

    folder = expanded(name)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(name, local_files_only=True))
    found: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(str(file), framework="pt") as tensors:
            found |= {k: tensors.get_tensor(k).float() for k in tensors.keys() if k in wanted}  # noqa: SIM118
    if absent := sorted(set(wanted) - found.keys()):
        raise ModelError(
            f"{name} lacks {absent[0]}, a part of its scoring head; give a checkpoint of the reranker itself"
        )
    return found
