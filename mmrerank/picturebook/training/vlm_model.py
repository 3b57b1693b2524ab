"""The bundled multimodal model's architecture: a small Qwen2.5-VL, as transformers defines it.

Small enough to ship and to train on one processor core, and in every other respect a Qwen2.5-VL folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from mmrerank.picturebook.training.tokens import CHAT_TEMPLATE


@dataclass(frozen=True, kw_only=True)
class VlmShape:
    """Sizes. Pictures become ``side`` x ``side`` pixels, ``(side / 2 patch)^2`` visual tokens."""

    side: int = 96
    patch: int = 8
    vision_hidden: int = 128
    vision_layers: int = 4
    vision_heads: int = 4
    hidden: int = 192
    layers: int = 5
    heads: int = 6
    intermediate: int = 512
    init_gain: float = 3.0
    embedding_gain: float = 1.0
    rope_theta: float = 1e6


def build(shape: VlmShape, tokenizer: Any) -> tuple[Any, Any]:
    """A model with fresh weights and its processor."""
    import torch
    import transformers as hf

    model = hf.Qwen2_5_VLForConditionalGeneration(_config(shape, tokenizer))
    ids = tokenizer.convert_tokens_to_ids
    with torch.no_grad():
        # the usual 0.02 leaves a model this narrow at chance for hundreds of steps
        for name, weight in model.named_parameters():
            if weight.ndim >= 2:
                embedding = "embed_tokens" in name or "lm_head" in name
                weight.mul_(shape.embedding_gain if embedding else shape.init_gain)
    model.generation_config = hf.GenerationConfig(
        eos_token_id=[ids("<|im_end|>"), ids("<|endoftext|>")],
        pad_token_id=ids("<|endoftext|>"),
        do_sample=False,
    )
    size = {"shortest_edge": shape.side**2, "longest_edge": shape.side**2}
    processor = hf.Qwen2_5_VLProcessor(
        image_processor=hf.Qwen2VLImageProcessor(
            patch_size=shape.patch, merge_size=2, temporal_patch_size=2, size=size
        ),
        tokenizer=tokenizer,
        video_processor=hf.Qwen2VLVideoProcessor(patch_size=shape.patch),
        chat_template=CHAT_TEMPLATE,
    )
    return model, processor


def _config(shape: VlmShape, tokenizer: Any) -> Any:
    import transformers as hf

    ids = tokenizer.convert_tokens_to_ids
    # head width 32 gives 16 rotary pairs, which time, height and width share
    if shape.hidden // shape.heads != 32:
        raise ValueError("hidden / heads must be 32")
    return hf.Qwen2_5_VLConfig(
        text_config={
            "vocab_size": -(-len(tokenizer) // 16) * 16,
            "hidden_size": shape.hidden,
            "intermediate_size": shape.intermediate,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.heads,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "default",
                # as in Qwen2.5-VL: at 10,000 only 6 of 16 rotary pairs hold still over 100 tokens, too
                # few to find "dog" by what it means and not by how far away it stands
                "rope_theta": shape.rope_theta,
                "mrope_section": [4, 6, 6],
            },
            "pad_token_id": ids("<|endoftext|>"),
            "eos_token_id": ids("<|im_end|>"),
            "bos_token_id": ids("<|im_start|>"),
        },
        vision_config={
            "depth": shape.vision_layers,
            "hidden_size": shape.vision_hidden,
            "intermediate_size": 2 * shape.vision_hidden,
            "num_heads": shape.vision_heads,
            "patch_size": shape.patch,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": shape.side,
            "fullatt_block_indexes": list(range(shape.vision_layers)),
            "out_hidden_size": shape.hidden,
        },
        tie_word_embeddings=True,
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
    )


def embeddings_of(model: Any, tokenizer: Any, texts: Sequence[str]) -> Any:
    """The model's embeddings of the first token of each text, ``(n, width)``, cut off from learning."""
    ids = first_tokens(tokenizer, tuple(texts))
    return model.get_input_embeddings().weight[ids].detach().clone()


@lru_cache(maxsize=8)
def first_tokens(tokenizer: Any, texts: tuple[str, ...]) -> list[int]:
    """The id of the first token of each text."""
    return [tokenizer(t, add_special_tokens=False)["input_ids"][0] for t in texts]


def save(model: Any, processor: Any, folder: Path) -> None:
    """Writes a folder that opens like any Qwen-VL checkpoint, in half precision."""
    import copy

    half = copy.deepcopy(model).half().cpu()
    half.save_pretrained(folder)
    processor.save_pretrained(folder)
