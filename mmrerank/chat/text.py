"""What every chat backend does to a model's text."""

from __future__ import annotations

import json
import re

_OTHER_TAGS = (
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("[THINK]", "[/THINK]"),
    ("\u25c1think\u25b7", "\u25c1/think\u25b7"),
    ("<seed:think>", "</seed:think>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|channel|>analysis<|message|>", "<|end|>"),
)
"""How other families of models write ``<think>`` and ``</think>`` (Magistral, Kimi-VL, gpt-oss, ...)."""
_THINKING = re.compile(r"<think>.*?</think>\s*", re.S)
_TRIES = 20  # braces that are tried as the beginning of an answer


def without_thinking(text: str) -> str:
    """``text`` without its ``<think>`` block, even one opened before the reply or never closed.

    Tags inside a JSON answer are words that it quotes (an image may show them) and stay.
    """
    text = _one_spelling(text)
    rest = text.lstrip() if "think>" in text else text
    while not rest.startswith(("{", "[")):
        close = rest.find("</think>")
        if rest.startswith("<think>"):
            if close < 0:
                return ""
        elif close < 0 or 0 <= rest.find("<think>") < close or _quoted(rest, close):
            break  # what a block may follow, or a tag that the answer quotes
        rest = rest[close + len("</think>") :].lstrip()
    tag = rest.find("<think>")
    if tag < 0 or rest.startswith(("{", "[")) or _quoted(rest, tag):
        return rest
    return _THINKING.sub("", rest).partition("<think>")[0]


def _one_spelling(text: str) -> str:
    """``text`` that begins with thoughts, in whichever tags, with those of `without_thinking`."""
    begun = text.lstrip()
    for opened, closed in _OTHER_TAGS:
        if begun.startswith(opened):
            return begun.replace(opened, "<think>", 1).replace(closed, "</think>", 1)
    return text


def thinks_on(text: str) -> bool:
    """Whether ``text`` opens its thoughts and never closes them."""
    text = _one_spelling(text)
    return "<think>" in text and not without_thinking(text).strip() and "</think>" not in text


def _quoted(text: str, place: int) -> bool:
    """Whether ``place`` lies inside a JSON object of ``text``."""
    start = text.find("{")
    for _ in range(_TRIES):
        if not 0 <= start < place:
            return False
        try:
            _, end = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            end = start + 1
        if end > place:
            return True
        start = text.find("{", end)
    return False


_DECODER = json.JSONDecoder()


def valid_json(text: str) -> str:
    """Grammar-made JSON with control characters as spaces: xgrammar lets them into strings, JSON does not."""
    return re.sub(r"[\x00-\x1f]", " ", text)
