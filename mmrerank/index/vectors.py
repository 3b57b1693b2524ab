"""The vectors on disk: float32 rows in ``vectors/00000.npy`` and so on, memory-mapped for reading.

Rows are only ever added. A row counts once the records know it; what a killed run left behind them is cut off
by the next one. Which rows are in use, the records say.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np

from mmrerank.errors import ImageIndexError
from mmrerank.index.manifest import Shard, sync_folder
from mmrerank.paths import reason, refused
from mmrerank.ports import Vectors

SHARD_ROWS = 262_144
_HASH_BLOCK = 1 << 22  # bytes


def _header(rows: int, dim: int) -> bytes:
    """The .npy header; NumPy pads it so that its length does not depend on ``rows``."""
    buffer = BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"shape": (rows, dim), "fortran_order": False, "descr": "<f4"}
    )
    return buffer.getvalue()


class VectorFiles:
    """The shards in ``folder``, of width ``dim``. One writer at a time; the index's lock sees to that."""

    def __init__(self, folder: Path, dim: int, shard_rows: int = SHARD_ROWS) -> None:
        self.folder = folder
        self.dim = dim
        self._shard_rows = shard_rows

    def path(self, number: int) -> Path:
        """The file of a shard."""
        return self.folder / f"{number:05d}.npy"

    def truncate(self, rows: int) -> None:
        """Drops every row from ``rows`` on. Raises `ImageIndexError` when there are fewer."""
        self.folder.mkdir(exist_ok=True)
        full, rest = divmod(rows, self._shard_rows)
        for number in range(full + bool(rest)):
            wanted = rest if number == full else self._shard_rows
            if self._rows(number) < wanted:
                raise ImageIndexError(
                    f"{self.path(number)} has lost vectors; index the source again with --rebuild"
                )
            if number == full:
                self._resize(number, rest)
        number = full + bool(rest)
        while self.path(number).exists():
            self.path(number).unlink()
            number += 1

    def append(self, vectors: Vectors, at: int) -> None:
        """Writes rows ``at``, ``at + 1`` ... and returns when they are on the disk.

        ``at`` must be the number of rows there are.
        """
        done = 0
        while done < len(vectors):
            number, start = divmod(at + done, self._shard_rows)
            part = vectors[done : done + self._shard_rows - start]
            path = self.path(number)
            new = not path.exists()
            head = _header(start, self.dim)
            with path.open("w+b" if new else "r+b") as file:
                if new:
                    file.write(head)
                file.seek(len(head) + start * self.dim * 4)
                file.write(np.ascontiguousarray(part, dtype="<f4").tobytes())
                file.flush()
                os.fsync(file.fileno())
                # The header last: until it is written, the file is the old, shorter one.
                file.seek(0)
                file.write(_header(start + len(part), self.dim))
                file.flush()
                os.fsync(file.fileno())
            if new:
                sync_folder(self.folder)
            done += len(part)

    def load(self, rows: int) -> Vectors:
        """The first ``rows`` rows ``(rows, dim)``: memory-mapped from one shard, copied from several.

        Raises `ImageIndexError` when a shard is missing, cut off or foreign.
        """
        parts = []
        for number in range(-(-rows // self._shard_rows)):
            wanted = min(self._shard_rows, rows - number * self._shard_rows)
            parts.append(self._map(number, wanted)[:wanted])
        if not parts:
            return np.zeros((0, self.dim), dtype=np.float32)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def take(self, rows: Sequence[int]) -> Vectors:
        """Copies of these rows ``(n, dim)``; reads nothing else. Raises `ImageIndexError` as `load` does."""
        numbers, at = np.divmod(np.asarray(rows, dtype=np.int64), self._shard_rows)
        taken = np.empty((len(at), self.dim), dtype=np.float32)
        for number in np.unique(numbers):
            here = numbers == number
            taken[here] = self._map(int(number), int(at[here].max()) + 1)[at[here]]
        return taken

    def shards(self, rows: int, known: tuple[Shard, ...] = ()) -> tuple[Shard, ...]:
        """Every shard with its hash, as the manifest lists them.

        Shards that are as long as in ``known`` keep the hash they have there: rows never change, and a hash
        of damaged ones would hide the damage.
        """
        lengths = {s.file: s for s in known}
        listed = []
        for number in range(-(-rows // self._shard_rows)):
            count = min(self._shard_rows, rows - number * self._shard_rows)
            name = self.path(number).name
            old = lengths.get(name)
            same = old is not None and old.rows == count
            digest = old.sha256 if old and same else self.sha256(number, count)
            listed.append(Shard(file=name, rows=count, sha256=digest))
        return tuple(listed)

    def sha256(self, number: int, rows: int) -> str:
        """SHA-256 over the first ``rows`` rows of a shard."""
        digest = hashlib.sha256()
        with self.path(number).open("rb") as file:
            file.seek(len(_header(rows, self.dim)))
            left = rows * self.dim * 4
            while left and (block := file.read(min(left, _HASH_BLOCK))):
                digest.update(block)
                left -= len(block)
        return digest.hexdigest()

    def _map(self, number: int, wanted: int) -> Vectors:
        path = self.path(number)
        repair = "index the source again with --rebuild"
        try:
            array: Vectors = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError as error:
            raise ImageIndexError(f"{path} is missing; {repair}") from error
        except (OSError, ValueError, EOFError) as error:
            if refused(error):
                raise ImageIndexError(f"{path} cannot be read: {reason(error)}") from error
            raise ImageIndexError(f"{path} is damaged ({error}); {repair}") from error
        if array.ndim != 2 or array.dtype != np.float32 or array.shape[1] != self.dim:
            raise ImageIndexError(
                f"{path} holds {array.dtype} of shape {array.shape}, not float32 of width "
                f"{self.dim}; {repair}"
            )
        if len(array) < wanted:
            raise ImageIndexError(f"{path} has {len(array)} rows of {wanted}; {repair}")
        return array

    def _rows(self, number: int) -> int:
        return len(self._map(number, 0))

    def _resize(self, number: int, rows: int) -> None:
        head = _header(rows, self.dim)
        size = len(head) + rows * self.dim * 4
        path = self.path(number)
        if path.stat().st_size == size and self._rows(number) == rows:
            return
        with path.open("r+b") as file:
            file.write(head)
            file.truncate(size)
            file.flush()
            os.fsync(file.fileno())
