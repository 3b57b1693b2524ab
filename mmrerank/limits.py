"""How much work one caller may ask for: what stands here holds for the page, the command line and Python.

``MMRERANK_LIMITS=query_characters=20000,candidates=5000`` raises (or lowers) limits of a process; in Python
`within` does. They are the process's and not a thread's: rankings ask in threads of their own.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import cache
from numbers import Integral, Real
from typing import Annotated, Any

from mmrerank.errors import QueryError, UsageError

VARIABLE = "MMRERANK_LIMITS"
_NUMBER = 2**53
"""No number of a setting is larger: beyond it, floats skip whole numbers."""
MOST_WEIGHT = 1000
"""Of a term, beside the query's 1: beyond it, single precision hardly knows the query."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits in force, each with its reason.

    >>> Limits.parse("candidates=5000").candidates
    5000
    """

    query_characters: int = 8_000
    """Of all words of a query together: a model reads each of them again in every question."""
    query_parts: int = 64
    """Exclusions, turns and terms of a query: each is a line of every question."""
    query_images: int = 8
    """Reference images of a query: each is shown in every question."""
    results: int = 10_000
    """Hits of one search: each is a record that is read, checked on disk and printed."""
    candidates: int = 1_000
    """Candidates of one ranking: each costs a model at least one look."""
    questions: int = 20_000
    """Questions of one ranking: options and candidates multiply, up to the square."""
    caption_characters: int = 2_000
    """Of a candidate's text in a prompt; what is beyond is cut, and the result says so."""
    line_bytes: int = 16_777_216
    """Bytes of one line, of a recipe, and of words on stdin: 16 MB hold a request of 100,000 candidates."""
    file_bytes: int = 536_870_912
    """Bytes of a file that is read whole, after unpacking: as objects it takes several times as much."""
    url_bytes: int = 33_554_432
    """Bytes of a picture that is fetched: 32 MB hold the largest photographs."""
    option_factor: int = 1
    """Upper bounds of a method's options are multiplied by this."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 1 <= value <= _NUMBER:
                raise UsageError(
                    f"the limit {name} must be a whole number from 1 to {_NUMBER}, not {shown(value)}"
                )

    @staticmethod
    def parse(text: str) -> Limits:
        """``NAME=N,NAME=N`` over the defaults. Raises `UsageError`."""
        known = [f.name for f in fields(Limits)]
        values: dict[str, int] = {}
        for part in filter(str.strip, text.split(",")):
            name, _, number = (p.strip() for p in part.partition("="))
            try:
                value = int(number)
            except ValueError:
                name = ""
            if name not in known:
                raise UsageError(
                    f"limits are NAME=N with commas between, of {', '.join(known)}, not {text!r}"
                )
            values[name] = value
        return Limits(**values)


_parsed = cache(Limits.parse)
_set: Limits | None = None


def in_force() -> Limits:
    """The limits of this process. Raises `UsageError` for a wrong ``MMRERANK_LIMITS``."""
    return _set if _set is not None else _parsed(os.environ.get(VARIABLE, ""))


@contextmanager
def within(limits: Limits | None = None, **values: int) -> Iterator[Limits]:
    """Within it, ``limits`` (default: those in force) with ``values`` over them hold for the whole process.

    >>> with within(candidates=5):
    ...     in_force().candidates
    5
    """
    global _set
    before = _set
    _set = replace(limits or in_force(), **values)
    try:
        yield _set
    finally:
        _set = before


def way(name: str) -> str:
    """How the limit ``name`` is raised, for the end of an error."""
    return f"{VARIABLE}={name}=N or, in Python, mmrerank.limits.within({name}=N) raises that"


def check_count(name: str, value: int, what: str) -> None:
    """Raises `UsageError` for a ``value`` below 1 or above the limit ``name``; ``what`` names it."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise UsageError(f"{what} must be a whole number, not {shown(value)}")
    if value < 1:
        raise UsageError(f"{what} must be at least 1, not {value}")
    most: int = vars(in_force())[name]
    if value > most:
        raise UsageError(f"{what} must be at most {most:,}, not {shown(value)}; {way(name)}")


def check_words(words: Mapping[str, tuple[str, ...]], images: int) -> None:
    """Raises `QueryError` for words (by the name of their field) that are no text, or for too much."""
    for name, texts in words.items():
        for text in texts:
            if not isinstance(text, str):
                raise QueryError(f"a query's {name} must be text, not {type(text).__name__}")
            _check_text(name, text)
    limits = in_force()
    length = sum(len(t) for texts in words.values() for t in texts)
    parts = sum(len(words.get(name, ())) for name in ("exclude", "turns", "terms"))
    for what, count, name in (
        ("characters", length, "query_characters"),
        ("exclusions, turns and terms", parts, "query_parts"),
        ("reference images", images, "query_images"),
    ):
        most: int = vars(limits)[name]
        if count > most:
            raise QueryError(f"the query has {count:,} {what}; at most {most:,} are allowed; {way(name)}")


def term_weight(value: Any) -> float:
    """The weight of a term. Raises `QueryError` for 0, what is not finite, and what is no number."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise QueryError(f"a term's weight is a number, not {shown(value)}")
    weight = float(value) if abs(value) <= _NUMBER else math.inf  # type: ignore[operator] # numbers compare
    if not 0 < abs(weight) <= MOST_WEIGHT:  # not a number is refused too
        raise QueryError(
            f"a term's weight is from {-MOST_WEIGHT} to {MOST_WEIGHT} and not 0, not {shown(value)}"
        )
    return weight


def _check_text(name: str, text: str) -> None:
    if "\0" in text:
        raise QueryError(f"the query's {name} holds a NUL character; leave it out")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        raise QueryError(
            f"the query's {name} holds U+{code:04X}, half of a character, so it is no text; give it as UTF-8"
        ) from None


def shown(value: Any) -> str:
    """A value for a message, cut where it is endless (``str`` refuses whole numbers past 4,300 digits)."""
    if isinstance(value, int) and abs(value) >= 10**20:
        return "a number of more than 20 digits"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


# ---------------------------------------------------------------- numbers of options


@dataclass(frozen=True)
class Bounds:
    """What a number of an options dataclass may be: ``keep: Annotated[int, Bounds(1, 1000)] = 10``.

    >>> Bounds(1, 100).told
    '1 to 100'
    """

    low: float
    high: float

    @property
    def told(self) -> str:
        """Both ends in words."""
        return " to ".join(str(int(end)) if end == int(end) else str(end) for end in (self.low, self.high))

    def check(self, value: float, where: str) -> None:
        """Raises `UsageError` for a value outside; ``where`` names the option."""
        if self is ANY:
            if not self.low <= value <= self.high:
                raise UsageError(f"{where} must be a finite number of at most 15 digits, not {shown(value)}")
            return
        high = self.high * in_force().option_factor
        if not self.low <= value <= high:
            raise UsageError(
                f"{where} must be from {self.told}, not {shown(value)}"
                + (f"; {VARIABLE}=option_factor=N multiplies the upper end" if value > high else "")
            )


ANY = Bounds(-_NUMBER, _NUMBER)
"""Of a number without bounds of its own: finite, and exact as a float."""
ImageTokens = Annotated[int, Bounds(1, 16_384)]
"""Visual tokens per image: no model that is known takes more."""
Count = Annotated[int, Bounds(1, 1_000)]
"""How many of something that is at most as many as candidates: places, images of a question."""
UpTo = Annotated[int, Bounds(0, 1_000)]
"""As `Count`, where none is a choice."""
Rounds = Annotated[int, Bounds(0, 100)]
"""How often something is done that asks about new candidates."""
Repeats = Annotated[int, Bounds(1, 100)]
"""How often everything is asked again."""
Thoughts = Annotated[int, Bounds(0, 32_768)]
"""Tokens of thoughts before an answer."""
Seed = Annotated[int, Bounds(0, 2**32 - 1)]
"""Where chance begins."""
Share = Annotated[float, Bounds(0, 1)]
"""A part of one."""
Factor = Annotated[float, Bounds(0, 1_000)]
"""A weight that vectors are moved by."""
