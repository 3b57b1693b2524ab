"""open_clip's two tokenizers without torch, transformers or open_clip: the same ids, from data.

Ported from ``open_clip/tokenizer.py`` (3.3.0). Cleaning and splitting are open_clip's own steps; the merging
of a word's bytes is the `tokenizers` library's. Makes no tokenizer; `mmrerank.embed._text_tower_make` does.
"""

from __future__ import annotations

import html
import string
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Clean = Literal["lower", "whitespace", "canonicalize"]
CLEANS = ("lower", "whitespace", "canonicalize")
LONGEST = 1 << 16
"""Tokens of the longest context; a row of ids is no longer."""
MARKS = ("<start_of_text>", "<end_of_text>")
_WORDS = r"""|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What a tokenizer does besides its vocabulary. Rows have ``context`` ids; a longer text loses its end.

    ``clip`` is open_clip's own tokenizer: ``start`` and ``end`` stand around a text. ``hf`` is one of
    transformers, padded with ``pad`` on the ``padding`` side and cut on the ``truncation`` side; with
    ``clips`` its marks are ``start`` and ``end``, and ``last`` is the last id. ``strip`` is an id that
    becomes 0.
    """

    kind: Literal["clip", "hf", "clips"]
    clean: Clean
    context: int
    pad: int = 0
    pad_token: str = ""
    pad_type: int = 0
    padding: Literal["left", "right"] = "right"
    truncation: Literal["left", "right"] = "right"
    start: int = 0
    end: int = 0
    last: int = 0
    strip: int | None = None


class TextTokens:
    """A tokenizer by ``rules``; ``data`` is the ``tokenizer.json`` of its vocabulary.

    Raises `ValueError` for rules or a vocabulary that are none.
    """

    def __init__(self, rules: Rules, data: bytes) -> None:
        from tokenizers import Tokenizer

        sides = {rules.padding, rules.truncation} <= {"left", "right"}
        known = rules.kind in ("clip", "hf", "clips") and rules.clean in CLEANS and sides
        if not known or not 3 <= rules.context <= LONGEST:
            raise ValueError(f"these are no rules of a tokenizer: {rules}")
        self.rules = rules
        self.context_length = rules.context
        try:
            self._vocabulary: Any = Tokenizer.from_str(data.decode())
        except Exception as error:  # the library raises Exception itself
            raise ValueError(f"this is no tokenizer.json: {error}") from error
        self._vocabulary.no_truncation()
        self._vocabulary.no_padding()

    def __call__(self, texts: Sequence[str], length: int | None = None) -> Ids:
        """The ids ``(n, length)`` of ``texts``; ``length`` is the context's where it is not given."""
        size = length or self.rules.context
        cleaned = [clean(t, self.rules.clean) for t in texts]
        rows = {"clip": self._clip, "hf": self._hf, "clips": self._clips}[self.rules.kind](cleaned, size)
        return np.array(rows, dtype=np.int64).reshape(len(texts), size)

    def _clip(self, texts: Sequence[str], size: int) -> list[list[int]]:
        start, end = self.rules.start, self.rules.end
        rows = []
        for text in texts:
            row = [start]
            for word in _splitter().findall(text):
                if word in MARKS:
                    row.append((start, end)[MARKS.index(word)])
                    continue
                in_bytes = "".join(_letters()[b] for b in word.encode("utf-8"))
                row += self._vocabulary.encode(in_bytes, add_special_tokens=False).ids
            row = [*row[: size - 1], end]
            rows.append(row + [0] * (size - len(row)))
        return rows

    def _hf(self, texts: Sequence[str], size: int) -> list[list[int]]:
        rules, vocabulary = self.rules, self._vocabulary
        vocabulary.enable_truncation(size, direction=rules.truncation)
        vocabulary.enable_padding(
            direction=rules.padding, pad_id=rules.pad, pad_type_id=rules.pad_type,
            pad_token=rules.pad_token, length=size,
        )  # fmt: skip
        rows = [e.ids for e in vocabulary.encode_batch(list(texts))]
        return [[0 if i == rules.strip else i for i in row] for row in rows]

    def _clips(self, texts: Sequence[str], size: int) -> list[list[int]]:
        rules = self.rules
        rows = []
        for encoded in self._vocabulary.encode_batch(list(texts), add_special_tokens=False):
            row = [rules.start, *encoded.ids[: size - 3], rules.end]
            rows.append([*row, *[rules.pad] * (size - 1 - len(row)), rules.last])
        return rows


def clean(text: str, how: Clean) -> str:
    """``text`` as open_clip cleans it before it is split."""
    # nothing of this changes plain text, and importing ftfy takes longer than all else here
    if not (text.isascii() and text.isprintable() and "&" not in text):
        import ftfy

        text = ftfy.fix_text(text)
        text = html.unescape(html.unescape(text))
    text = text.strip()
    if how == "canonicalize":
        text = text.replace("_", " ").translate(_NO_PUNCTUATION).lower()
    text = " ".join(text.split())
    return text.lower() if how == "lower" else text


def counted(row: Sequence[int], filling: int) -> int:
    """How many ids of ``row`` stand before the ``filling`` at its end."""
    count = len(row)
    while count and row[count - 1] == filling:
        count -= 1
    return count


@cache
def _splitter() -> Any:
    import regex

    return regex.compile("|".join(MARKS) + _WORDS, regex.IGNORECASE)


@cache
def _letters() -> list[str]:
    """The character that stands for each byte, none of them white space."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    other = iter(range(256, 512))
    return [chr(b) if b in shown else chr(next(other)) for b in range(256)]


def rules_of(found: Any) -> Rules:
    """Rules from JSON. Raises `TypeError` or `ValueError` for what are none."""
    if not isinstance(found, dict):
        raise ValueError(f"the rules of a tokenizer are no object: {found!r}")
    for key, value in found.items():
        wanted = str if key in ("kind", "clean", "pad_token", "padding", "truncation") else int
        if key == "strip" and value is None:
            continue
        if type(value) is not wanted or (isinstance(value, int) and not 0 <= value < 1 << 31):
            raise ValueError(f"a tokenizer's {key} is {value!r}")
    return Rules(**cast(dict[str, Any], found))
