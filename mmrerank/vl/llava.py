"""LLaVA-OneVision and LLaVA-1.6 as hidden states: prompts side by side, images by the checkpoint's processor.

It only reads (`mmrerank.embed`); chats run on Qwen-VL.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mmrerank.loading import ModelLock
from mmrerank.vl.load import Checkpoint
from mmrerank.vl.model_folder import template_of

if TYPE_CHECKING:
    import torch

MODEL_TYPES = {"llava_onevision": "LLaVA-OneVision", "llava_next": "LLaVA-1.6"}


class Llava:
    """A loaded checkpoint. ``lock`` must be held while `hidden` runs."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.name = checkpoint.name
        self.model, self.processor = checkpoint.model, checkpoint.processor
        self.lock = ModelLock()
        if checkpoint.family == "llava_next":
            self._count_patches()

    @property
    def width(self) -> int:
        """Width of a hidden state."""
        return int(self.model.config.get_text_config().hidden_size)

    def _count_patches(self) -> None:
        """Tells an older LLaVA-1.6 processor what it counts an image's tokens with, as the model does."""
        config, own = self.model.config, self.processor
        if own.patch_size is None:
            own.patch_size = config.vision_config.patch_size
        if own.vision_feature_select_strategy is None:
            own.vision_feature_select_strategy = config.vision_feature_select_strategy
        if not own.num_additional_image_tokens and config.vision_config.model_type == "clip_vision_model":
            own.num_additional_image_tokens = 1  # CLIP's class token

    @cached_property
    def _special(self) -> re.Pattern[str]:
        known = self.processor.tokenizer
        names = {*known.all_special_tokens, *known.get_added_vocab(), self.processor.image_token}
        return re.compile("|".join(re.escape(n) for n in sorted(names, key=len, reverse=True) if n))

    def defuse(self, text: str) -> str:
        """``text`` with every special token's spelling opened by a space, so that it stays plain text."""
        return self._special.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)

    def apply(self, turns: Sequence[dict[str, Any]]) -> str:
        """What the chat template makes of ``turns``, up to where the answer begins."""
        with template_of(self.name):
            text: str = self.processor.apply_chat_template(
                list(turns), tokenize=False, add_generation_prompt=True
            )
        return text

    def hidden(self, texts: Sequence[str], images: Sequence[Any]) -> torch.Tensor:
        """The last layer's normed states (B, L, width) float32, left padded.

        ``images`` are RGB ``PIL.Image``, in the order of the placeholders of all ``texts``.
        """
        inputs = self.processor(
            text=list(texts),
            images=list(images) or None,
            padding=True,
            padding_side="left",
            return_tensors="pt",
        ).to(self.model.device, self.model.dtype)
        states: torch.Tensor = self.model.model(**inputs, use_cache=False).last_hidden_state
        return states.float()
