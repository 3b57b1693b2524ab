"""Text of others for a terminal or a table: what could drive it, or show it in another order, is escaped."""

from __future__ import annotations

import unicodedata

BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Marks that change the direction of text: with them ``gpj.exe`` is shown as ``exe.jpg`` (CVE-2021-42574)."""
_UNSAFE = ("Cc", "Cs", "Zl", "Zp")


def visible(text: str) -> str:
    r"""``text`` with control characters, direction marks and undecodable bytes escaped; line breaks stay.

    >>> visible("a\x1b[2Jb\u202ec")
    'a\\x1b[2Jb\\u202ec'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        ascii(c)[1:-1] if c != "\n" and (c in BIDI or unicodedata.category(c) in _UNSAFE) else c for c in text
    )


def one_line(text: str) -> str:
    """`visible`, with line breaks escaped as well: for names and cells."""
    return visible(text).replace("\n", "\\n")
