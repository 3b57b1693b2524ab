"""The store that searches an index's vectors, with the way from its positions back to vector rows.

A view can be made from the vectors at any time. One that was saved is taken only if it is of these very rows.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmrerank import registry
from mmrerank.errors import MissingExtraError
from mmrerank.index.manifest import Shard, replace
from mmrerank.paths import reason
from mmrerank.ports import Vectors

_STAMP = "stamp"


def default_store() -> str:
    """``faiss`` where it is installed, else ``exact``; both give the same answers."""
    return "faiss" if importlib.util.find_spec("faiss") else "exact"


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """A store over the vectors in use. ``rows[i]`` is the vector row of the store's row ``i``."""

    store: Any
    rows: NDArray[np.int64]

    def search(self, queries: Vectors, k: int) -> tuple[Vectors, NDArray[np.int64]]:
        """Scores and vector rows ``(q, min(k, n))``, best first; equal scores by row."""
        scores, at = self.store.search(queries, k)
        return scores, self.rows[at]


def open_view(
    folder: Path, name: str, vectors: Vectors, rows: Sequence[int], shards: Sequence[Shard], *, save: bool
) -> View:
    """The view by store ``name`` of those ``rows`` of ``vectors``; with ``save`` it is left on disk."""
    used = np.asarray(rows, dtype=np.int64)
    # In an index from which nothing was ever taken out, the memory-mapped file itself will do.
    whole = len(used) == 0 or int(used[-1]) == len(used) - 1
    chosen = vectors[: len(used)] if whole else vectors[used]
    store = registry.load("store", name).open()
    place = folder / name
    stamp = hashlib.sha256(f"{[s.sha256 for s in shards]}".encode() + used.tobytes()).hexdigest()
    # Asked again after loading: a writer may have replaced the file in between.
    if not (_stamped(place, stamp) and store.load(place, chosen) and _stamped(place, stamp)):
        store.build(chosen)
        if save:
            (place / _STAMP).unlink(missing_ok=True)
            store.save(place)
            if place.is_dir():
                replace(place / _STAMP, f"{stamp}\n{_digest(place)}".encode())
    return View(store=store, rows=used)


def save_view(
    folder: Path, name: str, vectors: Vectors, rows: Sequence[int], shards: Sequence[Shard]
) -> None:
    """Leaves the view by store ``name`` on disk. An index is whole without it, so that it only warns."""
    try:
        open_view(folder, usable(name), vectors, rows, shards, save=True)
    except OSError as error:
        why = f"{folder / name} cannot be written ({reason(error)})"
        warnings.warn(f"{why}. Every search will make it anew", stacklevel=2)


def problems(folder: Path, name: str) -> Iterator[str]:
    """What is wrong with the saved view of store ``name``: opening checks its stamp, not all its bytes."""
    place = folder / name
    try:
        if place.is_dir():
            os.scandir(place).close()
        sound = not (stamp := _stamp(place)) or stamp[1:] == [_digest(place)]
    except OSError as error:
        yield f"{place} cannot be read: {reason(error)}"
        return
    if not sound:
        yield f"{place} is not as it was saved; delete that folder, and the next search makes it anew"


def _stamped(place: Path, stamp: str) -> bool:
    return _stamp(place)[:1] == [stamp]


def _stamp(place: Path) -> list[str]:
    try:
        return (place / _STAMP).read_text(encoding="ascii").split("\n")
    except (FileNotFoundError, ValueError):
        return []
    except OSError as error:
        warnings.warn(f"{place} cannot be read ({reason(error)}). It is made anew each time", stacklevel=2)
        return []


def _digest(place: Path) -> str:
    """SHA-256 over the saved files' names and contents."""
    total = hashlib.sha256()
    for path in sorted(p for p in place.iterdir() if p.name != _STAMP):
        with path.open("rb") as file:
            total.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def usable(name: str) -> str:
    """``name``, or ``exact`` when what that store needs is not installed here: the answers are the same."""
    try:
        registry.load("store", name).open()
    except MissingExtraError:
        return "exact"
    return name
