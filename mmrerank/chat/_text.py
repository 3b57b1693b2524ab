"""What every chat backend does to a model's text."""

from __future__ import annotations

import re

_THINKING = re.compile(r"<think>.*?</think>\s*", re.S)


def without_thinking(text: str) -> str:
    """``text`` without its ``<think>`` block, even one opened before the reply or never closed."""
    text = _THINKING.sub("", text)
    _, closed, rest = text.rpartition("</think>")
    return (rest.lstrip() if closed else text).partition("<think>")[0]


def valid_json(text: str) -> str:
    """Grammar-made JSON with control characters as spaces: xgrammar lets them into strings, JSON does not."""
    return re.sub(r"[\x00-\x1f]", " ", text)
