"""The store that searches an index's vectors, with the way from its positions back to vector rows.

A view can be made from the vectors at any time. One that was saved is taken only if it is of these very rows,
or of others of the same index, from which the store finds its way to these.
"""

from __future__ import annotations

import json
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
from mmrerank.index import choice
from mmrerank.index.choice import Choice
from mmrerank.index.guard import Guard
from mmrerank.index.manifest import Shard
from mmrerank.index.saved_view import Saved
from mmrerank.index.vectors import MappedRows
from mmrerank.paths import reason
from mmrerank.ports import Rows, Vectors, VectorStore


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
            moved = _moved(among, self.rows)
            scores, at = self.store.search(queries, k, moved[moved >= 0])
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
    make: bool = True,
    guard: Guard | None = None,
) -> View:
    """The view by store ``name`` of those ``rows`` of ``vectors``, as it was saved or made now.

    Making one of a store that is not exact takes minutes: without ``make`` every vector is compared instead,
    with a warning, where none is saved.
    """
    store: VectorStore = registry.load("store", name).open()
    chosen = _given(store, vectors, rows)
    saved = Saved(folder / name, shards)
    if _taken(store, saved, vectors, rows, chosen):
        return View(store=store, rows=rows, guard=guard)
    if not store.exact and not make:
        dim = vectors.shape[1]
        other = "faiss" if len(rows) * dim > choice.SMALL and choice.faiss_is_there() else "exact"
        warnings.warn(
            f"{folder / name} holds no view of these vectors, so that {other} compares them all. Index the "
            "source again: that makes the view",
            stacklevel=2,
        )
        store = registry.load("store", other).open()
        chosen = vectors.only(rows)
    store.build(chosen)
    return View(store=store, rows=rows, guard=guard)


def _given(store: VectorStore, vectors: MappedRows, rows: NDArray[np.int64]) -> Vectors | Rows:
    mapped = vectors.only(rows)
    return mapped if store.maps else np.array(mapped[:])


def _taken(
    store: VectorStore, saved: Saved, vectors: MappedRows, rows: NDArray[np.int64], chosen: Vectors | Rows
) -> bool:
    """Whether the store has the saved view, brought up to these rows."""
    # Read after it was hashed; and the stamp is asked for again, for a writer may have replaced the files in
    # between.
    stamp, old = saved.of(rows, len(vectors))
    if old is None:
        return False
    if np.array_equal(old, rows):
        return store.load(saved.place, chosen) and saved.stamp() == stamp
    if not store.load(saved.place, _given(store, vectors, old)) or saved.stamp() != stamp:
        return False
    return store.update(chosen, _moved(old, rows))


def _moved(old: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each of the rows ``old`` stands among ``rows``, both ascending; -1 where it does not."""
    if not len(rows):
        return np.full(len(old), -1, dtype=np.int64)
    at = np.minimum(np.searchsorted(rows, old), len(rows) - 1)
    return np.where(rows[at] == old, at, -1)


def save_view(
    folder: Path,
    name: str,
    vectors: MappedRows,
    rows: NDArray[np.int64],
    shards: Sequence[Shard],
    before: Sequence[Shard] = (),
    itemsize: int = 4,
) -> Choice:
    """Leaves the view by store ``name`` on disk, and no other; what that store is, and why.

    ``before`` are the shards as the last run has left them: a view of those is brought up to date. An index
    is whole without its view, so that it only warns.
    """
    chosen = usable(name, len(rows), vectors.shape[1], itemsize)
    for other in registry.names("store"):
        if other != chosen.name:
            if (folder / other).is_dir():
                with suppress(MissingExtraError, UsageError):
                    registry.load("store", other).open().discard(folder / other)
            shutil.rmtree(folder / other, ignore_errors=True)
    store: VectorStore = registry.load("store", chosen.name).open()
    given = _given(store, vectors, rows)
    saved = Saved(folder / chosen.name, shards, before)
    try:
        same = saved.is_of(rows)
        taken = _taken(store, saved, vectors, rows, given)
        if same and taken:
            return _described(chosen, store)
        if not taken:
            store.build(given)
        store.discard(saved.place)
        shutil.rmtree(saved.place, ignore_errors=True)
        store.save(saved.place)
        if saved.place.is_dir():
            saved.write(rows, {"why": chosen.why, **store.facts()})
    except OSError as error:
        why = f"{saved.place} cannot be written ({reason(error)})"
        warnings.warn(f"{why}. Every search will make it anew", stacklevel=2)
    return _described(chosen, store)


def _described(chosen: Choice, store: VectorStore) -> Choice:
    """The choice, and where the store is not exact, how much it finds."""
    if store.exact:
        return chosen
    recall = {k: v for k, v in store.facts().items() if k.startswith("recall")}
    measured = json.dumps(recall) if recall else "not measured"
    return Choice(
        name=chosen.name,
        why=f"{chosen.why}. It is approximate; the share of the nearest that it finds, as measured when it "
        f"was made: {measured}",
    )


def problems(folder: Path, name: str, rows: NDArray[np.int64], shards: Sequence[Shard]) -> Iterator[str]:
    """What is wrong with the saved view of store ``name`` of a finished index."""
    saved = Saved(folder / name, shards)
    try:
        there, sound = saved.state(rows)
    except OSError as error:
        yield f"{saved.place} cannot be read: {reason(error)}"
        return
    if there and not sound:
        yield f"{saved.place} is not as it was saved; delete that folder, and the next search makes it anew"


def usable(name: str, rows: int, dim: int, itemsize: int = 4) -> Choice:
    """The store that an index's ``name`` means on this machine; where its own cannot be opened, an exact one.

    Raises `ImageIndexError` for the name of none.
    """
    try:
        return choice.resolve(name, rows, dim, itemsize=itemsize)
    except UsageError as error:
        raise ImageIndexError(f"the index was made for another store: {error}") from error
