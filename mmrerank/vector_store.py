"""The interface of vector stores; a part of `mmrerank.ports`, which stands here for its length."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


class Rows(Protocol):
    """Vectors ``(n, dim)``, float32, in several files: taken in pieces like an array, for whole they may not
    fit into memory. ``numpy.asarray(rows)`` copies them all.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n, dim)``."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice | NDArray[np.int64], /) -> Vectors:
        """A run of rows, mapped where it can be, or a copy of single ones."""
        ...

    def pieces(self, step: int) -> list[tuple[int, int]]:
        """First row and end of slices that make up all: as long as they can be without a copy, and of
        ``step`` rows where they are copies.
        """
        ...


@runtime_checkable
class VectorStore(Protocol):
    """Nearest neighbours by inner product over rows ``0..n-1``; a view that can be rebuilt at any time."""

    name: ClassVar[str]
    maps: ClassVar[bool] = False
    """Whether it takes `Rows`, which stay on the disk; others get one array, in memory."""
    exact: ClassVar[bool] = True
    """False where a search may miss some of the nearest rows. Scores and their order are right all the same.
    A view of such a store is made when the index is written, never by a search that finds none."""

    def build(self, vectors: Vectors | Rows) -> None:
        """Replaces the contents by ``vectors`` ``(n, dim)``."""
        ...

    def search(
        self, queries: Vectors, k: int, among: NDArray[np.int64] | None = None
    ) -> tuple[Vectors, NDArray[np.int64]]:
        """Scores and row numbers ``(q, min(k, n))``, best first; equal scores by row number.

        With ``among`` (row numbers, ascending, each once) only these rows are searched, and ``n`` is their
        number: a filter comes first, the search after it.
        """
        ...

    def save(self, folder: Path) -> None:
        """Leaves the view in ``folder`` (which may not exist yet); nothing by default. Raises `OSError`.

        ``folder`` is ``<index>/<name>``. Every file in it is hashed, and read again only where it has that
        hash. The names ``stamp`` and ``rows.npy`` belong to the index.
        """
        return

    def load(self, folder: Path, vectors: Vectors | Rows) -> bool:
        """Takes the view from ``folder`` if it is one of these ``vectors``; False has it built instead.

        An index may come from elsewhere, and its hashes too: a file that is forged may give wrong answers and
        nothing worse.
        """
        return False

    def discard(self, folder: Path) -> None:
        """Frees what the view in ``folder`` holds outside it, such as in a server; nothing by default."""
        return

    def update(self, vectors: Vectors | Rows, moved: NDArray[np.int64]) -> bool:
        """Follows a change; False has it built from nothing instead.

        ``vectors`` ``(n, dim)`` are all rows as they are now. ``moved[i]`` is the number now of the row that
        was ``i``, ascending, or -1 where it is gone. Rows that no ``moved`` names are new.
        """
        return False

    def facts(self) -> dict[str, Any]:
        """What it says about itself, ready for JSON: options, measured recall. Empty by default."""
        return {}


class StorePlugin(Protocol):
    """The file of a vector store."""

    def open(self) -> VectorStore:
        """An empty store. Raises `MissingExtraError` where its library is not installed."""
        ...
