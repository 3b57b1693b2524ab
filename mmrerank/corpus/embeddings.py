"""Image vectors made elsewhere: a ``.npy`` file, and a JSONL file that names the image of each row.

Decodes no image and does not ask that the images be there. A file is found also where its name is written in
another way in the ids, and what was passed over is said. The vectors are neither changed nor normalised;
which model made them is for the user to say.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmrerank.corpus._ids import IdFile
from mmrerank.errors import InputError, UsageError
from mmrerank.paths import LFS_WAY, expanded, is_lfs_pointer, looked_at, reason, refused
from mmrerank.ports import Corpus, Sample

_CHUNK_ROWS = 2048  # compared at a time, a byte a number
FORM = "DIR with --vectors V.npy and --ids IDS.jsonl"


@dataclass(frozen=True, kw_only=True, eq=False)
class EmbeddingsCorpus(Corpus):
    """Row ``i`` of ``vectors`` ``(n, d)`` (float16, 32 or 64; memory-mapped) is of line ``i`` of ``ids``.

    Made by `open`, which checks it. ``location`` is the folder of the images.
    """

    location: str
    vectors: NDArray[Any] = field(repr=False)
    ids: IdFile = field(repr=False)

    def remarks(self) -> Sequence[str]:
        """Which differences between ids and file names were passed over, and why files are not found."""
        return self.ids.remarks

    def samples(self) -> Iterator[Sample]:
        """One sample a row, in row order; its metadata are the row's other JSON keys.

        Reads the file of ids again. Raises `InputError` where it has changed.
        """
        return self.ids.samples()


def accepts(location: str) -> bool:
    """False: a location alone does not say where the vectors are."""
    return False


def open(location: str, *, vectors: Path | str = "", ids: Path | str = "") -> EmbeddingsCorpus:
    """Images below the folder ``location`` with ``vectors`` (.npy) and ``ids`` (JSONL, key ``image``).

    An id is the path of its image relative to ``location``, however the line writes it: absolute, with
    backslashes, with ``./``. Raises `InputError` naming the row or line when a file is unreadable, the counts
    differ, a line names no image or one named before, or a vector is zero or not finite; `UsageError` without
    one of the files.
    """
    if not vectors or not ids:
        raise UsageError("vectors made elsewhere need both files: vectors (.npy) and ids (.jsonl)")
    root = Path(os.path.abspath(expanded(location)))  # noqa: PTH100 - `resolve` would rename a linked folder
    with looked_at(location, "the folder"):
        if not root.is_dir():
            raise InputError(f"there is no folder {location!r}")
    matrix, rows = _vectors(expanded(vectors)), IdFile(expanded(ids), root)
    if len(matrix) != len(rows):
        raise InputError(
            f"{vectors} has {len(matrix)} rows and {ids} has {len(rows)} lines; each row needs its line"
        )
    _check_rows(matrix, str(vectors))
    return EmbeddingsCorpus(location=str(root), vectors=matrix, ids=rows)


def _vectors(path: Path) -> NDArray[Any]:
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


def _check_rows(matrix: NDArray[Any], name: str) -> None:
    for start in range(0, len(matrix), _CHUNK_ROWS):
        chunk = np.asarray(matrix[start : start + _CHUNK_ROWS])
        finite = np.isfinite(chunk).all(axis=1)
        if not finite.all():
            raise InputError(f"{name}: row {start + int(finite.argmin())} is not finite (rows from 0)")
        filled = chunk.any(axis=1)
        if not filled.all():
            raise InputError(f"{name}: row {start + int(filled.argmin())} is all zero (rows from 0)")
