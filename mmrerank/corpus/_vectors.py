"""Rows of vectors in files, read a slice at a time: one ``.npy``, several behind each other, or Parquet."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmrerank.corpus._parquet import library, one_line
from mmrerank.errors import InputError
from mmrerank.paths import LFS_WAY, is_lfs_pointer, reason, refused

_BATCH = 2048
"""Rows of a Parquet file that are held at a time."""
NAMES = ("embedding", "embeddings", "vector", "image_embedding", "emb", "features", "clip")
"""Names of columns of vectors, the likeliest first."""


def npy(path: Path) -> NDArray[Any]:
    """The rows of a ``.npy`` file, mapped into memory. Raises `InputError` for what is none."""
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            reader = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = reader(file)
        if len(shape) != 2 or shape[1] == 0 or dtype.kind != "f" or dtype.itemsize not in (2, 4, 8):
            raise InputError(
                f"{path} holds {dtype} of shape {shape}; rows of float16, float32 or float64 are needed"
            )
        array: NDArray[Any] = np.load(
            path,
            mmap_mode="r" if shape[0] else None,  # an empty file cannot be mapped
            allow_pickle=False,
        )
        return array
    except InputError:
        raise
    except Exception as error:  # a damaged header can make numpy's parser raise almost anything
        if refused(error):
            raise InputError(f"{path} cannot be read: {reason(error)}") from error
        if is_lfs_pointer(path):
            raise InputError(f"{path} {LFS_WAY}") from error
        raise InputError(f"{path} is not a usable .npy file: {error}") from error


class Stacked:
    """The rows of several arrays, one behind the other: ``(n, d)``. Slices are copies."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._parts = [npy(path) for path in paths]
        widths = {part.shape[1] for part in self._parts}
        if len(widths) > 1:
            other = next(
                p for p, a in zip(paths, self._parts, strict=True) if a.shape[1] != self._parts[0].shape[1]
            )
            raise InputError(f"{other} has vectors of another width than {paths[0]}")
        self._starts = [0]
        for part in self._parts:
            self._starts.append(self._starts[-1] + len(part))
        self.shape = self._starts[-1], widths.pop()
        self.lengths = [len(part) for part in self._parts]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        start, stop, _ = rows.indices(len(self))
        found = []
        while start < stop:
            number = bisect_right(self._starts, start) - 1
            end = min(stop, self._starts[number + 1])
            found.append(self._parts[number][start - self._starts[number] : end - self._starts[number]])
            start = end
        return np.concatenate(found) if found else np.empty((0, self.shape[1]), np.float32)


class ParquetVectors:
    """The column ``column`` of a Parquet file as ``(n, d)`` float32 or float64. Fast from front to back only.

    Raises `InputError` naming the first row of another width, or without a vector, as it is read.
    """

    def __init__(self, path: Path, column: str) -> None:
        self._path, self._column = path, column
        with self._opened() as file:
            count = int(file.metadata.num_rows)
        first = next(self._batches(), np.empty((0, 0), np.float32))
        self.shape = count, first.shape[1]
        self._at, self._held = 0, np.empty((0, self.shape[1]), first.dtype)
        self._ahead = iter(())  # type: Iterator[NDArray[Any]]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        start, stop, _ = rows.indices(len(self))
        if start < self._at or not len(self._held):
            self._ahead, self._at, self._held = self._batches(), 0, self._held[:0]
        while self._at + len(self._held) < stop:
            batch = next(self._ahead, None)
            if batch is None:
                raise InputError(f"{self._path} has changed while it was read; try again")
            skipped = min(max(0, start - self._at), len(self._held))
            self._held, self._at = np.concatenate([self._held[skipped:], batch]), self._at + skipped
        return self._held[start - self._at : stop - self._at]

    def _batches(self) -> Iterator[NDArray[Any]]:
        import pyarrow

        row, width = 0, 0
        try:
            with self._opened() as file:
                for batch in file.iter_batches(batch_size=_BATCH, columns=[self._column], use_threads=False):
                    column = batch.column(0)
                    lengths = np.asarray(column.value_lengths().fill_null(0))
                    width = width or int(lengths[0])
                    bad = np.flatnonzero(lengths != width)
                    if len(bad) or not width:
                        at = row + int(bad[0] if len(bad) else 0)
                        raise InputError(
                            f"{self._path}, row {at} (from 0): {self._column!r} has not {width} numbers"
                        )
                    values = column.flatten().to_numpy(zero_copy_only=False)
                    yield values.reshape(len(column), width)
                    row += len(column)
        except (OSError, ValueError, pyarrow.ArrowException) as error:
            raise InputError(f"{self._path} cannot be read on at row {row}: {one_line(error)}") from error

    def _opened(self) -> Any:
        return library().ParquetFile(self._path, pre_buffer=False)


def vector_column(path: Path) -> str:
    """The column of ``path`` that holds vectors. Raises `InputError` naming those that are there."""
    parquet = library()
    import pyarrow

    try:
        with parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
    except (OSError, pyarrow.ArrowException) as error:
        if is_lfs_pointer(path):
            raise InputError(f"{path} {LFS_WAY}") from error
        raise InputError(f"{path} cannot be read as Parquet: {one_line(error)}") from error
    types = pyarrow.types
    fitting = [
        f.name
        for f in schema
        if (types.is_list(f.type) or types.is_large_list(f.type) or types.is_fixed_size_list(f.type))
        and types.is_floating(f.type.value_type)
    ]
    named = [n for wanted in NAMES for n in fitting if n.casefold() == wanted]
    if named or len(fitting) == 1:
        return str((named or fitting)[0])
    there = ", ".join(f"{f.name!r} ({f.type})" for f in list(schema)[:40])
    which = f"several columns of vectors, none called {NAMES[0]!r}" if fitting else "no column of vectors"
    raise InputError(f"{path} has {which}; its columns are {there}")
