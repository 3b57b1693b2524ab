"""Any multimodal or text-only model of transformers as tensors in, tensors out: the path of every family.

Batches are left padded, every value that the processor returned is passed on, nothing is cut off. What was
seen of an image is kept where it does not depend on other images; that is measured when the model is opened.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from mmrerank.loading import ModelLock
from mmrerank.messages import Message
from mmrerank.ports import Ability, Capability
from mmrerank.types import Image
from mmrerank.vl.features import Features, FeatureStore, Picture
from mmrerank.vl.generic_prompts import GenericPrompts, Prompt, Shown, noise
from mmrerank.vl.load import Checkpoint
from mmrerank.vl.local import Batch, Weights
from mmrerank.vl.prompts import PIXELS_VERSION, Encoded
from mmrerank.vl.qwen import sound

if TYPE_CHECKING:
    import torch

FEATURES = "mm_encoder_outputs"
"""The argument with which a family takes what was seen of images before."""
CLOSE = {"float32": 1e-4, "bfloat16": 0.05, "float16": 0.01}
"""How far, relative to the largest, features of an image may differ alone and beside another."""


class AnyModel(Weights):
    """A loaded checkpoint of any family (`mmrerank.vl.local.LocalModel`)."""

    def __init__(self, checkpoint: Checkpoint, features: FeatureStore | None = None) -> None:
        self.name, self.family = checkpoint.name, checkpoint.family
        self.model, self.processor, self.tokenizer = (
            checkpoint.model, checkpoint.processor, checkpoint.tokenizer,
        )  # fmt: skip
        self.sees = checkpoint.sees
        self.lock = ModelLock()
        self.features = FeatureStore() if features is None else features
        self._takes = frozenset(inspect.signature(checkpoint.model.forward).parameters)
        self.prompts = GenericPrompts(checkpoint, self.features)
        if self.sees and self.prompts.apart:
            self.prompts.why = self._differs()
            self.prompts.apart = not self.prompts.why

    # ------------------------------------------------------------------ what it is

    @property
    def image_id(self) -> int:
        """The token of an image."""
        return self.prompts.image_id

    @property
    def before(self) -> str:
        """What stands before the first token of an answer."""
        return self.prompts.before

    @cached_property
    def resumes(self) -> bool:
        """Whether a prompt may go on from a beginning that was computed for another."""
        # tokens of an image that look ahead within it are told apart by this key
        return self.prompts.apart and "token_type_ids" not in self.prompts.types

    @cached_property
    def _plain_layers(self) -> bool:
        from transformers.cache_utils import DynamicLayer

        return all(type(layer) is DynamicLayer for layer in self.new_cache().layers)

    @cached_property
    def capabilities(self) -> frozenset[Capability]:
        """Which questions it answers: attention only where every layer attends to everything before."""
        found: set[Capability] = {"generate", "choice_logprobs", "embed", "token_embeddings"}
        if self.sees and self._plain_layers and self.resumes:
            found.add("attention")
        return frozenset(found)

    @property
    def abilities(self) -> tuple[Ability, ...]:
        """What is on and off for this family, and why."""
        made = self.prompts
        if not self.sees:
            return (Ability(name="images", on=False, why="reads text only"),)
        shared = self.resumes and self._plain_layers
        attends = "attention" in self.capabilities
        layers = "some layers keep no whole past"
        marks = "images attend within themselves"
        return (
            Ability(name="image size", on=True, why=made.sizing.why()),
            Ability(name="image order", on=True, why=made.placed()),
            Ability(
                name="image reuse", on=made.apart,
                why=made.why or "what was seen of an image does not depend on others (measured)",
            ),
            Ability(
                name="prompt reuse", on=shared,
                why="beginnings that prompts share are computed once" if shared
                else made.why or (marks if not self.resumes else layers),
            ),
            Ability(
                name="attention", on=attends,
                why="every layer attends to everything before" if attends
                else made.why or (marks if not self.resumes else layers),
            ),
        )  # fmt: skip

    @cached_property
    def eyes(self) -> str:
        """A digest of what, beside the weights, changes an image's features: preparation and vision tower."""
        import transformers

        config = self.model.config.to_dict()
        identity = [
            PIXELS_VERSION, transformers.__version__, self.processor.to_dict() if self.sees else None,
            config.get("vision_config"),
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()

    # ------------------------------------------------------------------ prompts

    def encode(self, messages: Sequence[Message], *, image_tokens: int, words: bool = False) -> Prompt:
        """`GenericPrompts.encode`: the prompt that asks for an answer to ``messages``."""
        return self.prompts.encode(messages, image_tokens=image_tokens, words=words)

    def ahead(self, images: Iterable[tuple[Image, int]]) -> list[Picture]:
        """`GenericPrompts.ahead`: pictures made in threads."""
        return self.prompts.ahead(images)

    def collate(self, rows: Sequence[Encoded], start: int = 0) -> Batch:
        """`Weights.collate`, with what else the processor says of each token, or of the whole prompts."""
        import torch

        batch = super().collate(rows, start)
        if batch.pictures and not self.prompts.apart:
            extra = self._whole(rows)
        else:
            length = batch.ids.shape[1]
            names = rows[0].types if isinstance(rows[0], Prompt) else {}
            extra = {k: torch.zeros(len(rows), length, dtype=torch.long) for k in names}
            for n, row in enumerate(rows):
                for key, value in extra.items():
                    first = length - (row.length - start)
                    value[n, first:] = row.types[key][start:] if isinstance(row, Prompt) else 0
        return replace(batch, extra={k: v.to(self.model.device) for k, v in extra.items()})

    def _whole(self, rows: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        """All that the processor returns for prompts with their images, but the tokens, which are known."""
        prompts = [r for r in rows if isinstance(r, Prompt)]
        images = [[p.image for p in r.pictures if isinstance(p, Shown) and p.image] for r in prompts]
        options = next(p.options for r in prompts for p in r.pictures if isinstance(p, Shown))
        found = self.prompts.process([r.text for r in prompts], images, options)
        known = {"input_ids", "attention_mask", "text_replacement_offsets"}
        dtype = self.model.dtype
        return {k: v.to(dtype) if v.is_floating_point() else v for k, v in found.items() if k not in known}

    # ------------------------------------------------------------------ images

    def look(self, pictures: Iterable[Picture]) -> None:
        """Runs the vision tower over the pictures that were not looked at yet, and keeps what it made."""
        for picture in {id(p): p for p in pictures if p.features is None}.values():
            assert isinstance(picture, Shown)
            pooled, deep = self._seen(picture.inputs)
            picture.features = Features(
                grid=picture.grid, pooled=pooled.to("cpu"), deep=tuple(d.to("cpu") for d in deep),
                text=picture.text,
            )  # fmt: skip
            picture.inputs = {}
            if picture.key:
                self.features.put(picture.key, picture.features)

    def _seen(self, inputs: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """What the vision tower makes of images: pooled, and what is added after the first layers."""
        import torch

        takes = inspect.signature(self.model.get_image_features).parameters
        given = {
            k: v.to(self.model.device, self.model.dtype) if v.is_floating_point() else v.to(self.model.device)
            for k, v in inputs.items()
            if k in takes
        }
        with torch.inference_mode():
            seen = self.model.get_image_features(**given, return_dict=True)
        self._by_image = not isinstance(seen.pooler_output, torch.Tensor)
        return _joined(seen.pooler_output), [_joined(d) for d in seen.get("deepstack_features") or []]

    def _differs(self) -> str:
        """Why features of an image cannot be kept; empty where they can: measured with two images."""
        if FEATURES not in self._takes:
            return "this family takes no features of images that were computed before"
        one, two = noise(90, 70, 1), noise(60, 150, 2)
        made = self.prompts.sizing.fit(one, 256)
        try:
            alone, _ = self._seen(made.inputs)
            text = self.prompts.placeholder * 2
            pair = self.prompts.process([text], [[made.image, two]], made.options)
            both, _ = self._seen({k: v for k, v in pair.items() if k != "text_replacement_offsets"})
        except (AttributeError, TypeError, ValueError, RuntimeError) as error:
            return f"features cannot be computed apart ({' '.join(str(error).split())[:100]})"
        near = CLOSE.get(str(self.model.dtype).removeprefix("torch."), 0.05)
        gap = (alone.float() - both[: len(alone)].float()).abs().max() / alone.float().abs().max()
        return "" if float(gap) <= near else "what is seen of an image depends on the images beside it"

    # ------------------------------------------------------------------ the model

    def forward(self, batch: Batch, cache: Any = None) -> torch.Tensor:
        """Logits (B, vocabulary) float32 at each row's last prompt token; fills ``cache`` if given."""
        out = self.model(**self._inputs(batch, cache), **self._last)
        return sound(out.logits[:, -1].float())

    def hidden(self, batch: Batch, cache: Any = None) -> torch.Tensor:
        """The last layer's normed states (B, L, width) float32; fills ``cache`` if given."""
        out = self.model.base_model(**self._inputs(batch, cache))
        states: torch.Tensor = out.last_hidden_state.float()
        return states

    def attention(self, batch: Batch, cache: Any) -> torch.Tensor:
        """Attention (B, L, start + L) float32 from each new token, summed over heads and layers."""
        fast = self.model.config._attn_implementation
        inputs = self._inputs(batch, cache)
        self.model.set_attn_implementation("eager")
        try:
            layers = self.model.base_model(**inputs, output_attentions=True).attentions
        finally:
            self.model.set_attn_implementation(fast)
        total: torch.Tensor = sum(layer.float().sum(1).to(layers[0].device) for layer in layers)
        return total

    @property
    def _last(self) -> dict[str, int]:
        return {"logits_to_keep": 1} if "logits_to_keep" in self._takes else {}

    def _inputs(self, batch: Batch, cache: Any) -> dict[str, Any]:
        inputs: dict[str, Any] = {
            "input_ids": batch.ids,
            "attention_mask": batch.mask,
            **batch.extra,
            "past_key_values": cache,
            "use_cache": cache is not None,
        }
        inputs |= self._places(batch.positions)
        if batch.pictures and self.prompts.apart:
            self.look(batch.pictures)
            features = [p.features for p in batch.pictures if p.features is not None]
            inputs[FEATURES] = {"image": self._as_seen(features)}
        return inputs

    def _places(self, positions: torch.Tensor) -> dict[str, torch.Tensor]:
        if "position_ids" not in self._takes:
            return {}
        return {"position_ids": positions if len(positions) > 1 else positions[0]}

    def _as_seen(self, features: Sequence[Features]) -> SimpleNamespace:
        """Stored features in the shape that the vision tower's output has."""
        import torch

        device = self.model.device
        pooled = [f.pooled.to(device) for f in features]
        deep = [
            torch.cat([layer.to(device) for layer in layers])
            for layers in zip(*(f.deep for f in features), strict=True)
        ]
        return SimpleNamespace(
            pooler_output=tuple(pooled) if self._by_image else torch.cat(pooled), deepstack_features=deep
        )

    def step(
        self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: Any
    ) -> torch.Tensor:
        """Logits (B, vocabulary) after one more token a row; ``positions`` (B,) are the new tokens'."""
        out = self.model(
            input_ids=ids[:, None],
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
            **self._places(positions[None, :, None].expand(self.prompts.axes, -1, 1)),
            **self._last,
        )
        return sound(out.logits[:, -1].float())

    def new_cache(self) -> Any:
        """An empty key-value cache for `forward`, `hidden` and `step`."""
        from transformers import DynamicCache

        return DynamicCache(config=self.model.config.get_text_config())


def _joined(pooled: Any) -> torch.Tensor:
    """One tensor of what comes as one, or as one an image."""
    import torch

    return pooled if isinstance(pooled, torch.Tensor) else torch.cat(list(pooled))
