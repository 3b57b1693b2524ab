"""A chat over tiny Qwen weights that counts what its model does, and one plain run to compare it with."""

from __future__ import annotations

from typing import Any

from mmrerank.chat.transformers import TransformersChat
from mmrerank.messages import Ask
from mmrerank.ports import Chat
from mmrerank.vl.features import FeatureStore
from mmrerank.vl.load import Checkpoint
from mmrerank.vl.qwen import QwenVL


class Counted(Chat):
    """A chat of its own over the shared tiny weights, and what its model was made to do."""

    label_share = 0.0

    def __init__(self, shared: Any, **options: Any) -> None:
        q = shared.qwen
        checkpoint = Checkpoint(name=q.name, family=q.family, model=q.model, processor=q.processor)
        store = options.pop("features", None) or FeatureStore(options.pop("feature_bytes", 1 << 30))
        self.qwen = QwenVL(checkpoint, store)
        self.chat = TransformersChat(self.qwen, **options)
        self.chat.label_share = 0.0
        self.looked = self.tokens = self.passes = 0
        inputs, look = self.qwen._inputs, self.qwen._look

        def counted(batch: Any, cache: Any) -> Any:
            self.tokens += batch.ids.numel()
            self.passes += 1
            return inputs(batch, cache)

        def counted_look(pictures: Any) -> None:
            self.looked += len(pictures)
            look(pictures)

        self.qwen._inputs, self.qwen._look = counted, counted_look  # type: ignore[method-assign]

    def reply(self, asks: list[Ask]) -> Any:
        self.looked = self.tokens = self.passes = 0
        replies = self.chat.reply(asks)
        assert [r.error for r in replies] == [None] * len(asks)
        return replies


def plain_run(chat: Counted, question: Ask) -> tuple[Any, Any]:
    """The prompt and the output of an eager run over it, from its pixels."""
    import torch

    qwen = chat.qwen
    qwen.features.clear()
    prompt = qwen.prompts.encode(question.messages, image_tokens=question.image_tokens, words=True)
    inputs = {"input_ids": prompt.ids[None], "mm_token_type_ids": (prompt.ids == qwen.image_id).int()[None]}
    if prompt.pictures:
        inputs["pixel_values"] = torch.cat([p.pixels for p in prompt.pictures])  # type: ignore[misc]
        inputs["image_grid_thw"] = torch.stack([p.grid for p in prompt.pictures])
    qwen.model.set_attn_implementation("eager")
    with torch.inference_mode():
        out = qwen.model(**inputs, output_attentions=True, output_hidden_states=True)
    qwen.model.set_attn_implementation("sdpa")
    return prompt, out
