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
_OPENED, _CLOSED = "<think>", "</think>"
_BLANKS = re.compile(r"\s*")
_BLOCKS = 50  # blocks of thoughts that are looked at one by one
_TRIES = 20  # braces that are tried as the beginning of an answer


def without_thinking(text: str) -> str:
    """``text`` without its ``<think>`` block, even one opened before the reply or never closed.

    Tags inside a JSON answer are words that it quotes (an image may show them) and stay.
    """
    text = _one_spelling(text)
    if "think>" not in text:
        return text
    at = _skipped(text, 0)
    for _ in range(_BLOCKS):
        if text.startswith(("{", "["), at):
            return text[at:]
        close = text.find(_CLOSED, at)
        if text.startswith(_OPENED, at):
            if close < 0:
                return ""
        elif close < 0 or text.find(_OPENED, at, close) >= 0 or _quoted(text, close, at):
            break  # what a block may follow, or a tag that the answer quotes
        at = _skipped(text, close + len(_CLOSED))
    else:  # no model thinks so often; the answer stands after the last of them
        at = _skipped(text, max(at, text.rfind(_CLOSED) + len(_CLOSED)))
    tag = text.find(_OPENED, at)
    if tag < 0 or text.startswith(("{", "["), at) or _quoted(text, tag, at):
        return text[at:]
    kept: list[str] = []
    while (tag := text.find(_OPENED, at)) >= 0:
        kept.append(text[at:tag])
        close = text.find(_CLOSED, tag)
        if close < 0:
            return "".join(kept)
        at = _skipped(text, close + len(_CLOSED))
    return "".join([*kept, text[at:]])


def _skipped(text: str, at: int) -> int:
    """The place of the first character from ``at`` on that is no blank."""
    found = _BLANKS.match(text, at)
    return found.end() if found else at


def _one_spelling(text: str) -> str:
    """``text`` that begins with thoughts, in whichever tags, with those of `without_thinking`."""
    begun = text.lstrip()
    for opened, closed in _OTHER_TAGS:
        if begun.startswith(opened):
            return begun.replace(opened, "<think>", 1).replace(closed, "</think>", 1)
    return text


_TAG = re.compile(r"<(?=[|\uff5c]|/?\w{1,30}>)|\[(?=/?[A-Z_]{3,24}\])|\u25c1(?=/?\w)")


def quoted_back(text: str) -> str:
    """A model's own text as it may stand in a later turn: a tag in it opens no turn and shows no image."""
    return _TAG.sub(lambda found: f"{found[0]} ", text.encode("utf-8", "replace").decode("utf-8"))


def thinks_on(text: str) -> bool:
    """Whether ``text`` opens its thoughts and never closes them."""
    text = _one_spelling(text)
    return "<think>" in text and not without_thinking(text).strip() and "</think>" not in text


def _quoted(text: str, place: int, start: int) -> bool:
    """Whether ``place`` lies inside a JSON object of ``text`` from ``start`` on."""
    start = text.find("{", start, place)
    for _ in range(_TRIES):
        if not 0 <= start < place:
            return False
        try:
            _, end = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            end = start + 1
        if end > place:
            return True
        start = text.find("{", end, place)
    return False


_DECODER = json.JSONDecoder()


def valid_json(text: str) -> str:
    """Grammar-made JSON with control characters as spaces: xgrammar lets them into strings, JSON does not."""
    return re.sub(r"[\x00-\x1f]", " ", text)
