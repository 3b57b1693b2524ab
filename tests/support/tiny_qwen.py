"""Builds tiny Qwen-VL folders with random weights, offline: they prove plumbing, never quality."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

KINDS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")

# order and names as the Qwen-VL family has them, so that ids stay contiguous above the BPE part
SPECIAL = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>",
    "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>",
    "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
]  # fmt: skip

TEMPLATE = (
    "{%- for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{%- if m.content is string %}{{ m.content }}{%- else %}{%- for c in m.content %}"
    "{%- if c.type == 'image' or 'image' in c or 'image_url' in c %}"
    "{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{%- elif 'text' in c %}{{ c.text }}{%- endif %}"
    "{%- endfor %}{%- endif %}{{ '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{%- endif %}"
)


FAMILIES = ("qwen2_5_vl", "qwen3_vl")
EACH = (pytest.param(FAMILIES[0], marks=pytest.mark.slow), FAMILIES[1])
"""For fixtures: the default suite runs over one family, the slow one over the other."""


def _corpus() -> Iterator[str]:
    nouns = ["dog", "cat", "car", "tree", "house", "red", "blue", "green", "street", "beach", "table", "cup"]
    verbs = ["is", "shows", "holds", "rides", "sits", "near", "under", "with", "matches", "contains"]
    base = [
        "Does this image match the query? Answer Yes or No.",
        'Return JSON such as {"A": {"note": "red", "grade": 3}}',
        "yes no Yes No A B C D E F G H I J met partly missed cannot_tell grade verdict note",
        "You judge images for a search engine.", "system user assistant", "Image 1: Image A:",
    ]  # fmt: skip
    for _ in range(20):
        yield from base
    for a, v, b in itertools.product(nouns, verbs, nouns):
        yield f"A {a} {v} the {b}."


def tokenizer(vocabulary: int = 600) -> Any:
    """A Qwen tokenizer trained on a few sentences; "yes", "no" and single letters are one token."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX, Qwen2Tokenizer

    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        _corpus(), trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False)
    )
    table = json.loads(bpe.to_str())["model"]
    made = Qwen2Tokenizer(
        vocab=table["vocab"],
        merges=[tuple(m) for m in table["merges"]],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token=None,
        model_max_length=32768,
    )
    made.add_special_tokens({"extra_special_tokens": SPECIAL})
    return made


def build(
    folder: Path,
    kind: str,
    *,
    seed: int = 0,
    hidden: int = 128,
    layers: int = 3,
    scale: float = 4.0,
    heads: int = 4,
    text_options: dict[str, Any] | None = None,
    vision_options: dict[str, Any] | None = None,
) -> Path:
    """Writes a checkpoint of ``kind`` (one of `KINDS`) into ``folder`` and returns it.

    ``scale`` widens the output embedding, so that greedy choices are not near ties. The options override
    what the two configurations say, for larger models.
    """
    import torch
    import transformers as T
    from transformers import GenerationConfig

    tok = tokenizer()
    sid = tok.convert_tokens_to_ids
    head = hidden // heads
    third = kind == "qwen3_vl"
    rope = {"mrope_section": [head // 2 - 2 * (head // 6), head // 6, head // 6], "rope_type": "default"}
    text = {
        "vocab_size": -(-len(tok) // 64) * 64, "hidden_size": hidden, "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": 2,
        "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
        "pad_token_id": sid("<|endoftext|>"), "eos_token_id": sid("<|im_end|>"),
        "bos_token_id": sid("<|im_start|>"),
        "rope_parameters": rope | {"rope_theta": 1e6} | ({"mrope_interleaved": True} if third else {}),
    } | (text_options or {})  # fmt: skip
    ids = {
        "image_token_id": sid("<|image_pad|>"), "video_token_id": sid("<|video_pad|>"),
        "vision_start_token_id": sid("<|vision_start|>"), "vision_end_token_id": sid("<|vision_end|>"),
        "tie_word_embeddings": False,
    }  # fmt: skip
    patch, video = 14, T.Qwen2VLVideoProcessor
    if kind == "qwen2_vl":
        eyes = {
            "depth": 2,
            "embed_dim": 64,
            "hidden_size": hidden,
            "num_heads": 4,
            "mlp_ratio": 2,
            "patch_size": 14,
        }
        config = T.Qwen2VLConfig(text_config=text, vision_config=eyes | (vision_options or {}), **ids)
        model_type, processor_type = T.Qwen2VLForConditionalGeneration, T.Qwen2VLProcessor
    elif kind == "qwen2_5_vl":
        eyes = {
            "depth": 4, "hidden_size": 64, "intermediate_size": 128, "num_heads": 4, "patch_size": 14,
            "window_size": 112, "fullatt_block_indexes": [1, 3], "out_hidden_size": hidden,
        }  # fmt: skip
        config = T.Qwen2_5_VLConfig(text_config=text, vision_config=eyes | (vision_options or {}), **ids)
        model_type, processor_type = T.Qwen2_5_VLForConditionalGeneration, T.Qwen2_5_VLProcessor
    elif kind == "qwen3_vl":
        patch, video = 16, T.Qwen3VLVideoProcessor
        eyes = {
            "depth": 4, "hidden_size": 64, "intermediate_size": 128, "num_heads": 4, "patch_size": 16,
            "out_hidden_size": hidden, "num_position_embeddings": 256,
            "deepstack_visual_indexes": [0, 1, 2],
        }  # fmt: skip
        config = T.Qwen3VLConfig(
            text_config=text | {"head_dim": head}, vision_config=eyes | (vision_options or {}), **ids
        )
        model_type, processor_type = T.Qwen3VLForConditionalGeneration, T.Qwen3VLProcessor
    else:
        raise ValueError(f"no kind {kind!r}; there are {KINDS}")
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    model = model_type(config).to(torch.float32).eval()
    with torch.no_grad():
        # freshly initialised weights barely depend on the prompt; wider ones do, as trained ones would
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.mul_(scale if "lm_head" not in name else 2 * scale)
    torch.random.set_rng_state(state)
    model.generation_config = GenerationConfig(
        eos_token_id=[sid("<|im_end|>"), sid("<|endoftext|>")],
        pad_token_id=sid("<|endoftext|>"),
        do_sample=False,
    )
    stats = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3} if third else {}
    processor = processor_type(
        image_processor=T.Qwen2VLImageProcessor(
            patch_size=patch, merge_size=2, temporal_patch_size=2,
            size={"shortest_edge": 56 * 56, "longest_edge": 512 * 512}, **stats,
        ),
        tokenizer=tok,
        video_processor=video(patch_size=patch),
        chat_template=TEMPLATE,
    )  # fmt: skip
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
