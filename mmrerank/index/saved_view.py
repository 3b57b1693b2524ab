"""The folder in which a store has left its view: which rows it is of, and whether it is as it was left.

``stamp`` hashes the rows and the vectors that the view is of, and the names and bytes of its files. That
finds accidents. An index from elsewhere has right hashes whatever it holds: stores read their files as data.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmrerank.errors import ImageIndexError
from mmrerank.index import arrays
from mmrerank.index.manifest import Shard, replace
from mmrerank.paths import reason

_STAMP = "stamp"
_ROWS = "rows"
_FACTS = "facts.json"
_OURS = (_STAMP, f".{_STAMP}.tmp")  # the second is left by a run that is killed
_MOST_FACTS = 1 << 16  # bytes


class Saved:
    """What is in ``place``, of vectors in ``shards``, or as they were ``before`` the run that goes on."""

    def __init__(self, place: Path, shards: Sequence[Shard], before: Sequence[Shard] = ()) -> None:
        self.place, self._shards, self._before = place, shards, before

    def stamp(self) -> bytes:
        """The stamp that is there; empty where there is none."""
        try:
            return (self.place / _STAMP).read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            told = f"{self.place} cannot be read ({reason(error)}). It is made anew each time"
            warnings.warn(told, stacklevel=2)
            return b""

    def of(self, rows: NDArray[np.int64], most: int) -> tuple[bytes, NDArray[np.int64] | None]:
        """The stamp, and the rows that the view is of: ``rows``, or others below ``most``. None where it is
        not as it was saved, or of other vectors.
        """
        stamp = self.stamp()
        if not stamp:
            return stamp, None
        try:
            files = self._files()
            if stamp == _stamped(self._shards, rows, files):
                return stamp, rows
            old = self._rows(most)
        except (OSError, ValueError, ImageIndexError):
            return stamp, None
        good = any(stamp == _stamped(shards, old, files) for shards in (self._shards, self._before))
        return stamp, old if good else None

    def is_of(self, rows: NDArray[np.int64]) -> bool:
        """Whether a view of these very rows is there, as it was saved."""
        stamp = self.stamp()
        try:
            return bool(stamp) and stamp == _stamped(self._shards, rows, self._files())
        except OSError:
            return False

    def state(self, rows: NDArray[np.int64]) -> tuple[bool, bool]:
        """Whether there is a view, and whether it is of ``rows`` and as it was saved. Raises `OSError`."""
        if self.place.is_dir():
            os.scandir(self.place).close()
        try:
            stamp = (self.place / _STAMP).read_bytes()
        except FileNotFoundError:
            return False, False
        return True, stamp == _stamped(self._shards, rows, self._files())

    def write(self, rows: NDArray[np.int64], facts: dict[str, Any]) -> None:
        """Declares what a store has left in the folder to be the view of ``rows``. Raises `OSError`."""
        arrays.write(self.place, _ROWS, rows)
        (self.place / _FACTS).write_text(json.dumps(facts), encoding="utf-8")
        replace(self.place / _STAMP, _stamped(self._shards, rows, self._files()))

    def facts(self) -> dict[str, Any]:
        """What the store said of itself when it was saved; empty where that cannot be read."""
        try:
            with (self.place / _FACTS).open("rb") as file:
                found = json.loads(file.read(_MOST_FACTS))
        except (OSError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def _rows(self, most: int) -> NDArray[np.int64]:
        rows = arrays.read(self.place, _ROWS, np.int64, (None,), most=most)
        arrays.check_range(rows, 0, most)
        if (np.diff(rows) <= 0).any():
            raise ValueError("its rows do not ascend")
        return rows

    def _files(self) -> str:
        total = hashlib.sha256()
        every = (p for p in self.place.rglob("*") if p.name not in _OURS and not p.is_dir())
        for path in sorted(every):
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            total.update(f"{path.relative_to(self.place).as_posix()} {digest}\n".encode())
        return total.hexdigest()


def _stamped(shards: Sequence[Shard], rows: NDArray[np.int64], files: str) -> bytes:
    of = hashlib.sha256(f"{[s.sha256 for s in shards]}".encode() + rows.tobytes()).hexdigest()
    return f"{of}\n{files}".encode()
