"""The error about a filter: what is wrong, and the very place of it."""

from __future__ import annotations

import unicodedata

from mmrerank.errors import UsageError

_AROUND = 60  # characters that are shown on either side


def fault(text: str, at: int, what: str, hint: str = "") -> UsageError:
    """The error that ``text`` is wrong from character ``at`` (from 0) on: a caret stands under it.

    >>> print(fault("widht > 3", 0, "there is no column 'widht'"))
    the filter is wrong at character 1: there is no column 'widht'
      widht > 3
      ^
    """
    at = min(at, len(text))
    start, end = max(0, at - _AROUND), at + _AROUND
    before, after = _shown(text[start:at]), _shown(text[at:end])
    left, right = "..." if start else "", "..." if end < len(text) else ""
    room = " " * (len(left) + sum(map(_width, before)))
    lines = [
        f"the filter is wrong at character {at + 1}: {what}",
        f"  {left}{before}{after}{right}",
        f"  {room}^",
    ]
    return UsageError("\n".join([*lines, hint] if hint else lines))


def _shown(text: str) -> str:
    """``text`` on one line, each character in its place."""
    return "".join(
        c if c.isprintable() or c == " " else "\N{REPLACEMENT CHARACTER}" if not c.isspace() else " "
        for c in text
    )


def _width(character: str) -> int:
    """The places of a terminal that a character takes."""
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
