"""JSON as models write it without a grammar: read where the strict reader gives up.

Takes comments, trailing and missing commas, single, curly and full-width quotes and punctuation, keys and
words without quotes, Python's ``None``, ``True`` and tuples, quotes inside a text that are not escaped, and
an object that is cut off. Says nothing about what the data means. A name that stands twice with two values
is left out: which one was meant is not known.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from itertools import islice
from typing import Any

MAX_CHARS = 2**17
_MAX_QUOTES = 2_000  # quotes that are tried as the end of one text
_MAX_SCALAR = 400  # characters of a number or a word without quotes
_MAX_DEPTH = 60
_SKIP = r"\s*+(?:(?://[^\n]{0,500}+|/\*.{0,500}?\*/|\#[^\n]{0,500}+|\.\.\.|…)\s*+){0,4}+"
"""Blanks and comments, few and short: they are looked at again after every quote."""
_OPEN = {"{": "}", "｛": "}", "[": "]", "［": "]", "【": "]", "(": ")", "（": ")"}
_CLOSE = {"}": "}", "｝": "}", "]": "]", "］": "]", "】": "]", ")": ")", "）": ")"}
_QUOTES = {
    '"': '"', "'": "'", "“": "”“", "”": "”", "‘": "’‘", "’": "’", "„": "“”", "＂": "＂", "＇": "＇",
    "「": "」", "`": "`'",
}  # fmt: skip
"""By a quote that opens, those that close."""
_CLOSING = {opening: re.compile(f"[{closing}]") for opening, closing in _QUOTES.items()}
_QUOTED_KEY = r"[\"'“”‘＂＇「`][^\"'“”’＂＇」`\n]{1,80}[\"'“”’＂＇」`]\s*[:：]"
_BARE_KEY = r"[^\s:：=,，{}\[\]\"'“”‘][^:：=,，{}\[\]\n\"'“”‘]{0,80}\s*[:：]"
_SPACE = re.compile(_SKIP, re.S)
_COMMA = re.compile("[,，;；、]")
_COLON = re.compile("[:：]|=>?")
_KEY_ENDS = re.compile(rf"{_SKIP}[:：=]", re.S)
_VALUE_ENDS = re.compile(
    rf"{_SKIP}(?:[}}\]｝］】)）]|\Z|{_QUOTED_KEY}|[,，;；]{_SKIP}(?:[}}\]｝］】]|\Z|{_QUOTED_KEY}|{_BARE_KEY}))",
    re.S,
)
_ITEM_ENDS = re.compile(rf"{_SKIP}(?:[,，;；、\]｝］】)）}}]|\Z|[\"'“‘＂＇「])", re.S)
_KEY = re.compile(r"[^\s:：=,，{}\[\]\"'][^:：=,，{}\[\]\n\"']{0,80}")
_WORD = re.compile(r"(?:(?!//|/\*|\s\#)[^,，;；、\n{}\[\]｛｝［］【】])+")
_NUMBER = re.compile(r"[+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|(.|\n))", re.S)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "\n": ""}
_LITERALS: dict[str, Any] = {
    "true": True, "false": False, "null": None, "none": None, "nil": None, "undefined": None,
    "nan": math.nan, "infinity": math.inf, "+infinity": math.inf, "-infinity": -math.inf, "inf": math.inf,
}  # fmt: skip


class _EndError(Exception):
    """The text ends before the value does."""


def pairs(found: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object out of its pairs, without a name that stands twice with two values."""
    body = dict(found)
    if len(body) == len(found):
        return body
    first: dict[str, Any] = {}
    for name, value in found:
        if name in first and first[name] != value:
            body.pop(name, None)
        first.setdefault(name, value)
    return body


def loose_value(text: str, position: int) -> tuple[Any, int, bool]:
    """The object or list that begins at ``position``, where it ends, and whether the text ends before it.

    Of one that is cut off, what is complete is given. Raises `ValueError` for what is neither.
    """
    reader = _Reader(text, position)
    try:
        value = reader.container(0)
    except _EndError:
        raise ValueError("nothing of it is complete") from None
    return value, reader.at, reader.cut


class _Reader:
    """Reads forward through ``text``; ``at`` is the next character, ``cut`` whether the end came early."""

    def __init__(self, text: str, position: int) -> None:
        self.text, self.at, self.cut = text, position, False
        self._end = min(len(text), position + MAX_CHARS)

    def container(self, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise ValueError("too deep")
        closing = _OPEN[self.text[self.at]]
        self.at += 1
        return self._object(depth) if closing == "}" else self._list(closing, depth)

    def _object(self, depth: int) -> dict[str, Any]:
        found: list[tuple[str, Any]] = []
        try:
            while not self._closes("}"):
                key = self._key()
                self._skip()
                colon = _COLON.match(self.text, self.at)
                if colon is None:
                    raise ValueError("no colon")
                self.at = colon.end()
                found.append((key, self._value(_VALUE_ENDS, depth)))
        except _EndError:
            self.cut = True
            if not found:
                raise
        return pairs(found)

    def _list(self, closing: str, depth: int) -> list[Any]:
        found: list[Any] = []
        try:
            while not self._closes(closing):
                found.append(self._value(_ITEM_ENDS, depth))
        except _EndError:
            self.cut = True
            if not found:
                raise
        return found

    def _closes(self, closing: str) -> bool:
        """Passes commas; whether the container ends here."""
        self._skip()
        while _COMMA.match(self._here()):
            self.at += 1
            self._skip()
        char = _CLOSE.get(self._here())
        if char is None:
            return False
        if char != closing:
            raise ValueError("another bracket closes")
        self.at += 1
        return True

    def _skip(self) -> None:
        space = _SPACE.match(self.text, self.at)
        self.at = space.end() if space else self.at

    def _here(self) -> str:
        if self.at >= self._end:
            raise _EndError
        return self.text[self.at]

    def _key(self) -> str:
        if self._here() in _QUOTES:
            return self._quoted(_KEY_ENDS)
        word = _KEY.match(self.text, self.at)
        if word is None:
            raise ValueError("no key")
        self.at = word.end()
        self._here()
        return word[0].strip()

    def _value(self, ends: re.Pattern[str], depth: int) -> Any:
        self._skip()
        char = self._here()
        if char in _QUOTES:
            return self._quoted(ends)
        if char in "{[｛［【(（":
            return self.container(depth + 1)
        if char in _CLOSE or _COMMA.match(char):
            return None  # a field that is left empty
        word = _WORD.match(self.text, self.at)
        if word is None or not word[0].strip():
            raise ValueError("no value")
        self.at = word.end()
        self._here()  # one that the text ends in may go on
        return scalar(word[0].strip())

    def _quoted(self, ends: re.Pattern[str]) -> str:
        """A text in quotes; a quote that nothing fitting follows belongs to it."""
        opening = self.text[self.at]
        start = self.at + 1
        if self.text.startswith(opening * 3, self.at):
            stop = self.text.find(opening * 3, self.at + 3)
            if stop < 0:
                raise _EndError
            self.at = stop + 3
            return self.text[start + 2 : stop]
        for closing in islice(_CLOSING[opening].finditer(self.text, start, self._end), _MAX_QUOTES):
            place = closing.start()
            before = place
            while before > start and self.text[before - 1] == "\\":
                before -= 1
            if (place - before) % 2 == 0 and ends.match(self.text, place + 1):
                self.at = place + 1
                return _ESCAPE.sub(_unescaped, self.text[start:place])
        raise _EndError


def _unescaped(found: re.Match[str]) -> str:
    code = found[1] or found[2]
    return chr(int(code, 16)) if code else _ESCAPED.get(found[3], found[3])


def scalar(text: str) -> Any:
    """What a word without quotes stands for: a number, true, false, nothing, or itself."""
    if len(text) > _MAX_SCALAR:
        return text
    folded = unicodedata.normalize("NFKC", text)
    if folded.casefold() in _LITERALS:
        return _LITERALS[folded.casefold()]
    if _NUMBER.fullmatch(folded):
        plain = folded.replace("_", "")
        try:
            return int(plain)
        except ValueError:
            return float(plain)
    return text
