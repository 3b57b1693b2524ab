"""The store that searches an index's vectors, with the way from its positions back to vector rows.

A view can be made from the vectors at any time. One that was saved is taken only if it is of these very rows.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmrerank import registry
from mmrerank.errors import ImageIndexError, MissingExtraError, UsageError
from mmrerank.index.guard import Guard
from mmrerank.index.manifest import Shard, replace
from mmrerank.index.vectors import MappedRows
from mmrerank.paths import reason
from mmrerank.ports import Rows, Vectors, VectorStore

_STAMP = "stamp"
_OURS = (_STAMP, f".{_STAMP}.tmp")  # the second is left by a run that is killed


def default_store() -> str:
    """``faiss`` where it is installed, else ``exact``; both give the same answers."""
    return "faiss" if importlib.util.find_spec("faiss") else "exact"


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """A store over the vectors in use. ``rows[i]`` is the vector row of the store's row ``i``."""

    store: Any
    rows: NDArray[np.int64]
    guard: Guard | None = None

    def search(
        self, queries: Vectors, k: int, among: NDArray[np.int64] | None = None
    ) -> tuple[Vectors, NDArray[np.int64]]:
        """Scores and vector rows ``(q, min(k, n))``, best first; equal scores by row.

        ``among`` are the vector rows (ascending, each once) that are searched; those not in use are left out.
        """
        if self.guard:
            self.guard.before()
        if among is None:
            scores, at = self.store.search(queries, k)
        else:
            places = np.searchsorted(self.rows, among)
            places = places[self.rows[np.minimum(places, len(self.rows) - 1)] == among]
            scores, at = self.store.search(queries, k, places)
        rows = self.rows[at]
        if self.guard:
            self.guard.after(scores, rows)
        return scores, rows


def open_view(
    folder: Path,
    name: str,
    vectors: MappedRows,
    rows: NDArray[np.int64],
    shards: Sequence[Shard],
    *,
    save: bool,
    guard: Guard | None = None,
) -> View:
    """The view by store ``name`` of those ``rows`` of ``vectors``; with ``save`` it is left on disk."""
    store: VectorStore = registry.load("store", name).open()
    mapped = vectors.only(rows)
    chosen: Vectors | Rows = mapped if store.maps else np.array(mapped[:])
    place = folder / name
    # Read after it was hashed, for a library may fail badly on a damaged file; and the stamp is asked for
    # again, for a writer may have replaced the file in between.
    stamp = _stamp(place)
    sound = stamp and stamp == _expected(place, rows, shards)
    if not (sound and store.load(place, chosen) and _stamp(place) == stamp):
        store.build(chosen)
        if save:
            store.discard(place)
            shutil.rmtree(place, ignore_errors=True)
            store.save(place)
            if place.is_dir():
                replace(place / _STAMP, _expected(place, rows, shards))
    return View(store=store, rows=rows, guard=guard)


def save_view(
    folder: Path, name: str, vectors: MappedRows, rows: NDArray[np.int64], shards: Sequence[Shard]
) -> None:
    """Leaves the view by store ``name`` on disk, and no other. An index is whole without it, so that it only
    warns.
    """
    name = usable(name)
    for other in registry.names("store"):
        if other != name and (folder / other).is_dir():
            with suppress(MissingExtraError, UsageError):
                registry.load("store", other).open().discard(folder / other)
            shutil.rmtree(folder / other, ignore_errors=True)
    try:
        open_view(folder, name, vectors, rows, shards, save=True)
    except OSError as error:
        why = f"{folder / name} cannot be written ({reason(error)})"
        warnings.warn(f"{why}. Every search will make it anew", stacklevel=2)


def problems(folder: Path, name: str, rows: NDArray[np.int64], shards: Sequence[Shard]) -> Iterator[str]:
    """What is wrong with the saved view of store ``name`` of a finished index."""
    place = folder / name
    try:
        if place.is_dir():
            os.scandir(place).close()
        stamp = (place / _STAMP).read_bytes()
        sound = stamp == _expected(place, rows, shards)
    except FileNotFoundError:
        return  # there is none
    except OSError as error:
        yield f"{place} cannot be read: {reason(error)}"
        return
    if not sound:
        yield f"{place} is not as it was saved; delete that folder, and the next search makes it anew"


def _stamp(place: Path) -> bytes:
    """What `_expected` was when the view was saved; empty where there is none."""
    try:
        return (place / _STAMP).read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        warnings.warn(f"{place} cannot be read ({reason(error)}). It is made anew each time", stacklevel=2)
        return b""


def _expected(place: Path, rows: NDArray[np.int64], shards: Sequence[Shard]) -> bytes:
    """Which rows of which vectors the view is of, and the names and bytes of its files, hashed."""
    of = hashlib.sha256(f"{[s.sha256 for s in shards]}".encode() + rows.tobytes()).hexdigest()
    total = hashlib.sha256()
    files = (p for p in place.rglob("*") if p.name not in _OURS and not p.is_dir())
    for path in sorted(files):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{path.relative_to(place).as_posix()} {digest}\n".encode())
    return f"{of}\n{total.hexdigest()}".encode()


def usable(name: str) -> str:
    """``name``, or ``exact`` when what that store needs is not installed here: the answers are the same.

    Raises `ImageIndexError` for the name of none.
    """
    try:
        registry.load("store", name).open()
    except MissingExtraError:
        return "exact"
    except UsageError as error:
        raise ImageIndexError(f"the index was made for another store: {error}") from error
    return name
