"""The vectors on disk: rows in ``vectors/00000.npy`` and so on, memory-mapped for reading.

They are float32, or float16 where the index was made so: half the size, and read as float32 piece by piece.

Rows are only ever added. A row counts once the records know it; what a killed run left behind them is cut off
by the next one. Which rows are in use, the records say.

A file is measured before it is mapped: to touch mapped pages behind the end of a file ends the process.
"""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mmrerank.errors import ImageIndexError
from mmrerank.index import hashing
from mmrerank.index.manifest import Shard, sync_folder
from mmrerank.paths import reason
from mmrerank.ports import Vectors

SHARD_ROWS = 262_144
_REBUILD = "index the source again with --rebuild"


_TYPES: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}


def _header(rows: int, dim: int, dtype: np.dtype[Any]) -> bytes:
    """The .npy header; NumPy pads it so that its length does not depend on ``rows``."""
    buffer = BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"shape": (rows, dim), "fortran_order": False, "descr": dtype.str}
    )
    return buffer.getvalue()


class MappedRows:
    """Rows of files that are mapped one by one: ``used`` of them (ascending), or all. See `ports.Rows`.

    A slice that lies in one file of float32 without gaps is the file's own memory. Anything else is a copy.
    """

    def __init__(
        self, parts: Sequence[NDArray[Any]], part_rows: int, dim: int, used: NDArray[np.int64] | None = None
    ) -> None:
        self._parts, self._part_rows, self._used = parts, part_rows, used
        self.shape = (sum(map(len, parts)) if used is None else len(used), dim)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> Vectors:
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step == 1 and (whole := self._run(start, stop)) is not None:
                return whole
            rows = np.arange(start, stop, step, dtype=np.int64)
        numbers, at = np.divmod(rows if self._used is None else self._used[rows], self._part_rows)
        taken = np.empty((len(at), self.shape[1]), dtype=np.float32)
        for number in np.unique(numbers):
            here = numbers == number
            taken[here] = self._parts[number][at[here]]
        return taken

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("rows of several files cannot be one array without a copy")
        return np.array(self[np.arange(len(self), dtype=np.int64)], dtype=dtype)

    def _run(self, start: int, stop: int) -> Vectors | None:
        """These rows where they lie in one file without gaps."""
        if start >= stop:
            return np.zeros((0, self.shape[1]), dtype=np.float32)
        if self._used is not None:
            first, last = int(self._used[start]), int(self._used[stop - 1])
            if last - first != stop - 1 - start:
                return None
            start, stop = first, last + 1
        number, at = divmod(start, self._part_rows)
        if stop > (number + 1) * self._part_rows:
            return None
        return np.asarray(self._parts[number][at : at + stop - start], dtype=np.float32)

    def pieces(self, step: int) -> list[tuple[int, int]]:
        """First row and end of slices that make up all; see `ports.Rows`."""
        if not len(self) or self._parts[0].dtype != np.float32:
            return [(s, min(len(self), s + step)) for s in range(0, len(self), step)]
        ends = np.arange(self._part_rows, len(self), self._part_rows, dtype=np.int64)
        if self._used is not None:
            gaps = np.diff(self._used) != 1
            gaps |= np.diff(self._used // self._part_rows) != 0
            ends = np.flatnonzero(gaps) + 1
        bounds = np.concatenate([[0], ends, [len(self)]])
        found: list[tuple[int, int]] = []
        behind = 0  # of the last long run: shorter ones are copied together
        for long in np.flatnonzero(np.diff(bounds) >= max(1, step // 4)):
            start, stop = int(bounds[long]), int(bounds[long + 1])
            found += [(s, min(start, s + step)) for s in range(behind, start, step)]
            found.append((start, stop))
            behind = stop
        return found + [(s, min(len(self), s + step)) for s in range(behind, len(self), step)]

    def only(self, used: NDArray[np.int64]) -> MappedRows:
        """These rows (ascending) of all; nothing is copied."""
        whole = len(used) == 0 or int(used[-1]) == len(used) - 1
        if whole and len(used) == len(self):
            return self
        return MappedRows(self._parts, self._part_rows, self.shape[1], used)


class VectorFiles:
    """The shards in ``folder``, of width ``dim`` and type ``dtype``. One writer at a time; the index's lock
    sees to that.
    """

    def __init__(
        self, folder: Path, dim: int, shard_rows: int = SHARD_ROWS, *, dtype: str = "float32"
    ) -> None:
        self.folder = folder
        self.dim = dim
        self.dtype = _TYPES[dtype]
        self._shard_rows = shard_rows
        self._mapped: list[tuple[Path, mmap.mmap]] = []

    def path(self, number: int) -> Path:
        """The file of a shard."""
        return self.folder / f"{number:05d}.npy"

    def stored(self, vectors: Vectors) -> NDArray[Any]:
        """``vectors`` as they are on the disk."""
        return np.ascontiguousarray(vectors, dtype=self.dtype)

    def truncate(self, rows: int) -> None:
        """Drops every row from ``rows`` on. Raises `ImageIndexError` when there are fewer."""
        self.folder.mkdir(exist_ok=True)
        full, rest = divmod(rows, self._shard_rows)
        for number in range(full + bool(rest)):
            wanted = rest if number == full else self._shard_rows
            if self._rows(number) < wanted:
                raise ImageIndexError(f"{self.path(number)} has lost vectors; {_REBUILD}")
            if number == full:
                self._resize(number, rest)
        number = full + bool(rest)
        while self.path(number).exists():
            self.path(number).unlink()
            number += 1

    def append(self, vectors: NDArray[Any], at: int) -> None:
        """Writes rows ``at``, ``at + 1`` ... and returns when they are on the disk.

        ``at`` must be the number of rows there are.
        """
        done = 0
        while done < len(vectors):
            number, start = divmod(at + done, self._shard_rows)
            part = vectors[done : done + self._shard_rows - start]
            path = self.path(number)
            new = not path.exists()
            head = self._head(start)
            with path.open("w+b" if new else "r+b") as file:
                if new:
                    file.write(head)
                file.seek(len(head) + start * self._row)
                file.write(self.stored(part).data)
                file.flush()
                os.fsync(file.fileno())
                # The header last: until it is written, the file is the old, shorter one.
                file.seek(0)
                file.write(self._head(start + len(part)))
                file.flush()
                os.fsync(file.fileno())
            if new:
                sync_folder(self.folder)
            done += len(part)

    def load(self, rows: int) -> MappedRows:
        """The first ``rows`` rows ``(rows, dim)``, each file memory-mapped.

        Raises `ImageIndexError` when a shard is missing, cut off or foreign. Call `check` before each use.
        """
        numbers = range(-(-rows // self._shard_rows))
        wanted = [min(self._shard_rows, rows - n * self._shard_rows) for n in numbers]
        return MappedRows(
            [self._map(n, w) for n, w in zip(numbers, wanted, strict=True)], self._shard_rows, self.dim
        )

    def check(self) -> None:
        """Raises `ImageIndexError` when a file has become shorter than what `load` has mapped of it."""
        for path, mapped in self._mapped:
            if mapped.size() < len(mapped):
                raise ImageIndexError(
                    f"{path} has become shorter since it was opened: {mapped.size()} bytes of {len(mapped)}; "
                    f"{_REBUILD}"
                )

    def take(self, rows: Sequence[int]) -> NDArray[Any]:
        """Copies of these rows ``(n, dim)``, as they are on the disk; reads nothing else.

        Raises `ImageIndexError` as `load` does.
        """
        numbers, at = np.divmod(np.asarray(rows, dtype=np.int64), self._shard_rows)
        taken = np.empty((len(at), self.dim), dtype=self.dtype)
        for number in np.unique(numbers):
            here = np.flatnonzero(numbers == number)
            with self._opened(int(number), int(at[here].max()) + 1) as file:
                head = file.tell()
                for place in here[np.argsort(at[here])]:
                    file.seek(head + int(at[place]) * self._row)
                    taken[place] = np.frombuffer(file.read(self._row), dtype=self.dtype)
        return taken

    def shards(self, rows: int, known: tuple[Shard, ...] = ()) -> tuple[Shard, ...]:
        """Every shard with its hash, as the manifest lists them.

        Shards that are as long as in ``known`` keep the hash they have there: rows never change, and a hash
        of damaged ones would hide the damage. Raises `ImageIndexError` for a longer one whose old rows are
        damaged.
        """
        lengths = {s.file: s for s in known}
        listed = []
        for number in range(-(-rows // self._shard_rows)):
            count = min(self._shard_rows, rows - number * self._shard_rows)
            name = self.path(number).name
            old = lengths.get(name)
            if old is None or old.rows != count:
                old = Shard(file=name, rows=count, sha256=self.sha256(number, count, old))
            listed.append(old)
        return tuple(listed)

    def sha256(self, number: int, rows: int, known: Shard | None = None) -> str:
        """SHA-256 over the first ``rows`` rows of a shard; ``known`` is one with fewer, as in `hashing`."""
        row, head = self._row, len(self._head(0))
        shorter = (known.rows * row, known.sha256) if known and known.rows < rows else None
        return hashing.sha256(self.path(number), head, rows * row, shorter)

    @property
    def _row(self) -> int:
        """Bytes of a row."""
        return self.dim * self.dtype.itemsize

    def _head(self, rows: int) -> bytes:
        return _header(rows, self.dim, self.dtype)

    def _map(self, number: int, wanted: int) -> NDArray[Any]:
        with self._opened(number, wanted) as file:
            head = file.tell()
            mapped = mmap.mmap(file.fileno(), head + wanted * self._row, access=mmap.ACCESS_READ)
        self._mapped.append((self.path(number), mapped))
        return np.frombuffer(mapped, dtype=self.dtype, offset=head).reshape(wanted, self.dim)

    @contextmanager
    def _opened(self, number: int, wanted: int) -> Iterator[IO[bytes]]:
        """A shard, open at its first row and with at least ``wanted`` rows. Raises `ImageIndexError`."""
        path = self.path(number)
        try:
            with path.open("rb") as file:
                rows = self._announced(path, file)
                if rows < wanted:
                    raise ImageIndexError(f"{path} has {rows} rows of {wanted}; {_REBUILD}")
                yield file
        except FileNotFoundError as error:
            raise ImageIndexError(f"{path} is missing; {_REBUILD}") from error
        except OSError as error:
            raise ImageIndexError(f"{path} cannot be read: {reason(error)}") from error

    def _announced(self, path: Path, file: IO[bytes]) -> int:
        """How many rows the header says there are, which is then read, and which the file has."""
        head = file.read(len(self._head(0)))
        found = re.search(rb"'shape': \((\d{1,18}), ", head)
        rows = int(found[1]) if found else 0
        if head != self._head(rows):
            raise ImageIndexError(
                f"{path} is damaged or foreign: its header is {head[10:80].decode('latin-1').strip()!r}, and "
                f"{self.dtype.name} ({self.dtype.str}) of width {self.dim} is needed; {_REBUILD}"
            )
        size, needed = os.fstat(file.fileno()).st_size, len(head) + rows * self._row
        if size < needed:
            raise ImageIndexError(f"{path} is damaged: it has {size} bytes of {needed}; {_REBUILD}")
        return rows

    def measure(self, number: int, rows: int) -> None:
        """Raises `ImageIndexError` as `load` does, and maps nothing."""
        with self._opened(number, rows):
            pass

    def _rows(self, number: int) -> int:
        with self._opened(number, 0) as file:
            file.seek(0)
            return self._announced(self.path(number), file)

    def _resize(self, number: int, rows: int) -> None:
        head = self._head(rows)
        size = len(head) + rows * self._row
        path = self.path(number)
        if path.stat().st_size == size and self._rows(number) == rows:
            return
        with path.open("r+b") as file:
            file.write(head)
            file.truncate(size)
            file.flush()
            os.fsync(file.fileno())
