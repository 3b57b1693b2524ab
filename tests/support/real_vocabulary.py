"""Tiny Qwen-VL checkpoints with the real vocabulary of Qwen3, where it lies beside the checkout.

``MMRERANK_TOKENIZERS`` names the folder that holds ``qwen3/tokenizer.json``; tests that need it are skipped
without it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import tiny_qwen

DEFAULT_SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
"""What the chat templates of Qwen2-VL and Qwen2.5-VL write where no system turn is given."""
TEMPLATE = (
    "{%- if messages[0].role != 'system' %}{{ '<|im_start|>system\nYou are a helpful "
    "assistant.<|im_end|>\n' }}"
    "{%- endif %}" + tiny_qwen.TEMPLATE
)


def folder() -> Path:
    """Where the vocabulary lies; skips the test where there is none."""
    root = Path(__file__).resolve().parents[2]
    found = Path(os.environ.get("MMRERANK_TOKENIZERS", root / "../shared/tokenizers")).resolve() / "qwen3"
    if not (found / "tokenizer.json").is_file():
        pytest.skip(f"no vocabulary of Qwen3 at {found}; set MMRERANK_TOKENIZERS")
    return found


def tokenizer() -> Any:
    """The tokenizer of Qwen3."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder()))


def build(place: Path, kind: str, *, default_system: bool = False, seed: int = 0) -> Path:
    """A random checkpoint of ``kind`` (of `tiny_qwen.KINDS`) whose tokens are Qwen3's."""
    there = tokenizer()
    before = tiny_qwen.tokenizer, tiny_qwen.TEMPLATE
    tiny_qwen.tokenizer = lambda vocabulary=0: there
    tiny_qwen.TEMPLATE = TEMPLATE if default_system else tiny_qwen.TEMPLATE
    try:
        return tiny_qwen.build(place, kind, seed=seed, hidden=48, layers=2, heads=4, scale=6.0)
    finally:
        tiny_qwen.tokenizer, tiny_qwen.TEMPLATE = before
