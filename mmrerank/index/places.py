"""Where indexes are, by the names that people give them. Opens none."""

from __future__ import annotations

import os
from pathlib import Path

from mmrerank.errors import ImageIndexError, UsageError
from mmrerank.index.folders import is_index
from mmrerank.paths import expanded, looked_at

INDEXES = Path("indexes")


def index_path(name: str | Path) -> Path:
    """Where an index is: a bare name is ``./indexes/NAME``; a path, or a text with a slash, is itself.

    A ``~`` at the beginning is the home folder. An empty name is the only index below ``./indexes``. Raises
    `UsageError` where there is none, or several.
    """
    if isinstance(name, Path):
        return expanded(name)
    if not isinstance(name, str):
        raise UsageError(f"an index is a name, a path in text, or a pathlib.Path, not {type(name).__name__}")
    if not name:
        return _only_index()
    if not name.strip() or "\0" in name:
        raise UsageError("the name of an index is empty or no file name")
    place = expanded(name)
    bare = os.sep not in name and str(place) == name and name not in (".", "..")
    return INDEXES / name if bare else place


def _only_index() -> Path:
    found = _names()
    if len(found) == 1:
        return INDEXES / found[0]
    there = f"there are {', '.join(found)}" if found else "there is none: mmrerank index FOLDER"
    raise UsageError(f"name the index with --index; below ./{INDEXES} {there}")


def _names() -> list[str]:
    with looked_at(INDEXES, "the folder of indexes", ImageIndexError):
        return sorted(p.name for p in INDEXES.iterdir() if is_index(p)) if INDEXES.is_dir() else []


def missing(place: Path) -> str:
    """That there is no index at ``place``, and what there is."""
    found = _names()
    there = f"in ./{INDEXES} there are: {', '.join(found)}" if found else f"./{INDEXES} has none"
    name = place.name if place.parent == INDEXES else str(place)
    return f"there is no index {place}; {there}. Make one with: mmrerank index SOURCE --index {name}"
