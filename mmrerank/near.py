"""What a misspelt name probably meant: one rule for models, methods, stores and options.

Imports nothing until a name is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable

_LEAST = 3
"""Letters that must be there before the beginning of a name counts as the name."""


def near(word: str, known: Iterable[str], most: int = 3) -> list[str]:
    """The names of ``known`` that ``word`` may mean, the likeliest first.

    Case and signs do not count, the beginning of a name does, and so do a few wrong letters.

    >>> near("ClipB32", ["clip-b32", "clip-l14"])
    ['clip-b32', 'clip-l14']
    """
    import difflib

    wanted = _plain(word)
    if not wanted:
        return []
    names: dict[str, str] = {}
    for name in known:
        names.setdefault(_plain(name), name)
    found = [wanted] if wanted in names else []
    if len(wanted) >= _LEAST:
        found += sorted((p for p in names if p.startswith(wanted)), key=len)
    found += difflib.get_close_matches(wanted, list(names), n=most, cutoff=0.65)
    return [names[p] for p in dict.fromkeys(found)][:most]


def meant(word: str, known: Iterable[str], most: int = 3) -> str:
    """The end of an error, with a space in front; empty where nothing is near.

    >>> meant("cotr", ["cotrr", "judge"])
    " Did you mean 'cotrr'?"
    """
    found = [repr(name) for name in near(word, known, most)]
    if not found:
        return ""
    *first, last = found
    text = f"{', '.join(first)} or {last}" if first else last
    return f" Did you mean {text}?"


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())
