"""A Qwen-VL model as tensors in, tensors out: prompts side by side to logits, hidden states or attention.

Used by whatever runs a Qwen-VL checkpoint (chat, embedders). It knows nothing of sampling, grammars or asks.
One object holds one lock: transformers keeps state on the model between calls, so two threads must not use it
at once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from mmrerank.loading import ModelLock
from mmrerank.messages import Message
from mmrerank.ports import Ability, Capability
from mmrerank.types import Image
from mmrerank.vl.features import Features, FeatureStore, Picture
from mmrerank.vl.load import Checkpoint
from mmrerank.vl.load import load as load_checkpoint
from mmrerank.vl.local import Batch, Weights
from mmrerank.vl.prompts import PIXELS_VERSION, Encoded, Prompts

if TYPE_CHECKING:
    import torch

LOOK_TOKENS = 8192
"""Visual tokens that go through the vision tower at once."""
LOOK_TOKENS_CPU = 256
"""The same on a CPU, where what does not fit the core's cache took a sixth longer."""


class QwenVL(Weights):
    """A loaded checkpoint. ``lock`` must be held while the model runs: all methods but `encode`."""

    resumes = True
    capabilities: frozenset[Capability] = frozenset(
        {"generate", "choice_logprobs", "attention", "embed", "token_embeddings"}
    )

    def __init__(self, checkpoint: Checkpoint, features: FeatureStore | None = None) -> None:
        self.name = checkpoint.name
        self.family = checkpoint.family
        self.model = checkpoint.model
        self.processor = checkpoint.processor
        self.tokenizer = checkpoint.processor.tokenizer
        self.lock = ModelLock()
        self.features = FeatureStore() if features is None else features
        self.prompts = Prompts(checkpoint, self.features)
        self.image_id = self.prompts.image_id

    @classmethod
    def load(
        cls,
        name: str,
        *,
        device: str | None = None,
        dtype: str | None = None,
        features: FeatureStore | None = None,
        trust_remote_code: bool = False,
    ) -> QwenVL:
        """Loads a folder or hub name; arguments and errors as in `mmrerank.vl.load.load`."""
        loaded = load_checkpoint(name, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
        return cls(loaded, features)

    @cached_property
    def eyes(self) -> str:
        """A digest of what, beside the weights, changes an image's features: preparation and vision tower."""
        identity = [
            PIXELS_VERSION,
            self.processor.image_processor.to_dict(),
            self.model.config.vision_config.to_dict(),
        ]
        return hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()

    @property
    def before(self) -> str:
        """What stands before the first token of an answer."""
        return self.prompts.before

    @property
    def abilities(self) -> tuple[Ability, ...]:
        """What is reused, for `mmrerank doctor`."""
        side = int(self.prompts.pixels_per_token**0.5)
        return (
            Ability(
                name="image size", on=True, why=f"{side} x {side} pixels a token, as many as are asked for"
            ),
            Ability(name="image reuse", on=True, why="what was seen of an image does not depend on others"),
            Ability(name="prompt reuse", on=True, why="beginnings that prompts share are computed once"),
        )

    def encode(self, messages: Sequence[Message], *, image_tokens: int, words: bool = False) -> Encoded:
        """`Prompts.encode`: the prompt that asks for an answer to ``messages``."""
        return self.prompts.encode(messages, image_tokens=image_tokens, words=words)

    def ahead(self, images: Iterable[tuple[Image, int]]) -> list[Picture]:
        """`Prompts.ahead`: pictures made in threads."""
        return self.prompts.ahead(images)

    def look(self, pictures: Iterable[Picture]) -> None:
        """Runs the vision tower over the pictures that were not looked at yet, and keeps what it made."""
        new = list({id(p): p for p in pictures if p.features is None}.values())
        sizes = [int(p.grid.prod()) // self.prompts.merged for p in new]
        most = LOOK_TOKENS_CPU if self.model.device.type == "cpu" else LOOK_TOKENS
        first = 0
        while first < len(new):
            last, total = first + 1, sizes[first]
            while last < len(new) and total + sizes[last] <= most:
                total += sizes[last]
                last += 1
            self._look(new[first:last])
            first = last

    def _look(self, pictures: Sequence[Picture]) -> None:
        import torch

        device = self.model.device
        pixels = torch.cat([p.pixels for p in pictures if p.pixels is not None]).to(device)
        grids = torch.stack([p.grid for p in pictures]).to(device)
        with torch.inference_mode():
            seen = self.model.model.get_image_features(pixels, grids, return_dict=True)
        layers = [seen.pooler_output, *(seen.get("deepstack_features") or [])]
        for n, picture in enumerate(pictures):
            # copies: a view would keep every other picture of the call alive
            pooled, *deep = (layer[n].to("cpu", copy=True) for layer in layers)
            picture.features = Features(grid=picture.grid, pooled=pooled, deep=tuple(deep))
            picture.pixels = None
            if picture.key:
                self.features.put(picture.key, picture.features)

    def forward(self, batch: Batch, cache: Any = None) -> torch.Tensor:
        """Logits (B, vocabulary) float32 at each row's last prompt token; fills ``cache`` if given."""
        out = self.model(**self._inputs(batch, cache), logits_to_keep=1)
        return sound(out.logits[:, -1].float())

    def hidden(self, batch: Batch, cache: Any = None) -> torch.Tensor:
        """The last layer's normed states (B, L, width) float32; fills ``cache`` if given."""
        out = self.model.model(**self._inputs(batch, cache))
        states: torch.Tensor = out.last_hidden_state.float()
        return states

    def attention(self, batch: Batch, cache: Any) -> torch.Tensor:
        """Attention (B, L, start + L) float32 from each new token, summed over heads and layers.

        Fast kernels never form it: for this call the model computes attention step by step.
        """
        fast = self.model.config._attn_implementation
        inputs = self._inputs(batch, cache)
        self.model.set_attn_implementation("eager")
        try:
            layers = self.model.model(**inputs, output_attentions=True).attentions
        finally:
            self.model.set_attn_implementation(fast)
        total: torch.Tensor = sum(layer.float().sum(1).to(layers[0].device) for layer in layers)
        return total

    def _inputs(self, batch: Batch, cache: Any) -> dict[str, Any]:
        inputs = {
            "input_ids": batch.ids,
            "attention_mask": batch.mask,
            "position_ids": batch.positions,
            "past_key_values": cache,
            "use_cache": cache is not None,
        }
        if batch.pictures:
            self.look(batch.pictures)
            features = [p.features for p in batch.pictures if p.features is not None]
            inputs["mm_encoder_outputs"] = {"image": self._as_seen(features)}
        return inputs

    def _as_seen(self, features: Sequence[Features]) -> SimpleNamespace:
        """Stored features in the shape that the vision tower's output has."""
        device = self.model.device
        deep = [
            tuple(layer.to(device) for layer in layers)
            for layers in zip(*(f.deep for f in features), strict=True)
        ]
        pooled = tuple(f.pooled.to(device) for f in features)
        return SimpleNamespace(pooler_output=pooled, deepstack_features=deep)

    def step(
        self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: Any
    ) -> torch.Tensor:
        """Logits (B, vocabulary) after one more token a row.

        ``ids`` (B,), ``mask`` (B, L so far), ``positions`` (B,): the rotary position of the new token.
        """
        # a written token is text: its three M-RoPE positions are the same number, one more than the largest
        # so far, which after an image is not the count of tokens
        out = self.model(
            input_ids=ids[:, None],
            attention_mask=mask,
            position_ids=positions[None, :, None].expand(3, -1, 1),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return sound(out.logits[:, -1].float())

    def new_cache(self) -> Any:
        """An empty key-value cache for `forward`, `hidden` and `step`."""
        from transformers import DynamicCache

        return DynamicCache(config=self.model.config.get_text_config())


def sound(logits: torch.Tensor) -> torch.Tensor:
    """``logits``, or an `ArithmeticError` where a row says nothing: a grammar would make words of it."""
    if not logits.amax(-1).isfinite().all():
        raise ArithmeticError(
            "the model's numbers overflowed, or its weights are damaged; try dtype=bfloat16 or float32"
        )
    return logits
