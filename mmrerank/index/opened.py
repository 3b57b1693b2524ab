"""What an open index searches with: the rows in use, and the view of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmrerank.index.guard import Guard
from mmrerank.index.manifest import Manifest
from mmrerank.index.records import Records
from mmrerank.index.saved_view import Saved
from mmrerank.index.vectors import MappedRows, VectorFiles
from mmrerank.index.view import View, open_view, usable


def rows_in_use(
    facts: Manifest, records: Records, files: VectorFiles
) -> tuple[NDArray[np.int64], MappedRows]:
    """The rows that records name, ascending, and all vectors, mapped.

    Where nobody has written since the manifest, and it says that every row is in use, no record is read.
    Raises `ImageIndexError` for damage.
    """
    if facts.vectors and facts.used == facts.vectors and records.is_sealed(facts.database):
        # mapped first: a manifest may claim any number, and the files have so many
        vectors = files.load(facts.vectors)
        return np.arange(facts.vectors, dtype=np.int64), vectors
    # Records first: whatever row they name is on the disk already, even while somebody writes.
    rows = records.rows()
    return rows, files.load(int(rows[-1]) + 1 if len(rows) else 0)


def view_of(folder: Path, facts: Manifest, records: Records, files: VectorFiles, named: str | None) -> View:
    """The view of the index in ``folder``, by the store ``named`` or the one that it was made for."""
    rows, vectors = rows_in_use(facts, records, files)
    name = usable(named or facts.store, len(rows), facts.dim, files.dtype.itemsize).name
    # a store that the caller names is made now, whatever it takes
    make, guard = named is not None, Guard(files, records)
    return open_view(folder, name, vectors, rows, facts.shards, make=make, guard=guard)


def store_facts(folder: Path, facts: Manifest) -> dict[str, Any]:
    """Which store searches the index on this machine, why, and what it said of itself when it was made."""
    chosen = usable(facts.store, facts.used, facts.dim, 2 if facts.dtype == "float16" else 4)
    said = Saved(folder / chosen.name, facts.shards).facts()
    told = {"store_facts": {k: v for k, v in said.items() if k != "why"}} if said else {}
    return {"store": chosen.name, "store_reason": chosen.why, **told}
