"""Image vectors made elsewhere: a ``.npy`` file, and a JSONL file that names the image of each row; a
Parquet file with both; or a folder as clip-retrieval writes it.

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

from mmrerank.corpus._ids import IdFile
from mmrerank.corpus._table_ids import TableIds
from mmrerank.corpus._vectors import ParquetVectors, Stacked, npy, vector_column
from mmrerank.errors import InputError, UsageError
from mmrerank.paths import expanded, looked_at
from mmrerank.ports import Corpus, Sample

_CHUNK_ROWS = 2048  # compared at a time, a byte a number
FORM = "DIR with --vectors V.npy and --ids IDS.jsonl, --vectors V.parquet, or --vectors FOLDER"


@dataclass(frozen=True, kw_only=True, eq=False)
class EmbeddingsCorpus(Corpus):
    """Row ``i`` of ``vectors`` ``(n, d)`` (float16, 32 or 64; read by slices) is of row ``i`` of ``ids``.

    Made by `open`, which checks it. ``location`` is the folder of the images.
    """

    location: str
    vectors: Any = field(repr=False)
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


def open(
    location: str, *, vectors: Path | str = "", ids: Path | str = "", column: str = ""
) -> EmbeddingsCorpus:
    """Images below the folder ``location`` with ``vectors`` made elsewhere, in one of three forms:

    - a ``.npy`` file with ``ids`` (JSONL, key ``image``);
    - a Parquet file with a column of vectors and one that names images;
    - a folder with ``img_emb/img_emb_*.npy`` and ``metadata/*.parquet``, as clip-retrieval writes it.

    An id is the path of its image relative to ``location``, however the row writes it: absolute, with
    backslashes, with ``./``. ``column`` names the column of a table that names images, by default the
    likeliest. Raises `InputError` naming the row or line when a file is unreadable, the counts differ, a row
    names no image or one named before, or a vector is zero or not finite; `UsageError` without one of the
    files.
    """
    if not vectors:
        raise UsageError("vectors made elsewhere need the file or folder that holds them")
    root = Path(os.path.abspath(expanded(location)))  # noqa: PTH100 - `resolve` would rename a linked folder
    with looked_at(location, "the folder"):
        if not root.is_dir():
            raise InputError(f"there is no folder {location!r}")
    place = expanded(vectors)
    matrix: Any
    rows: IdFile
    if brings_ids(place):
        if ids:
            raise UsageError(f"{vectors} names its images itself: leave out {ids}")
        matrix, rows = _whole(place, root, column)
    elif not ids:
        raise UsageError("vectors made elsewhere need both files: vectors (.npy) and ids (.jsonl)")
    else:
        matrix, rows = npy(place), IdFile(expanded(ids), root)
    if len(matrix) != len(rows):
        where, what = (ids, "lines") if ids else ("its metadata", "rows")
        raise InputError(
            f"{vectors} has {len(matrix)} rows and {where} has {len(rows)} {what}; each row needs its line"
        )
    _check_rows(matrix, str(vectors))
    return EmbeddingsCorpus(location=str(root), vectors=matrix, ids=rows)


def brings_ids(vectors: Path) -> bool:
    """Whether ``vectors`` is of a form that names its images itself: Parquet, or a folder."""
    return vectors.suffix.lower() in (".parquet", ".pq") or vectors.is_dir()


def _whole(place: Path, root: Path, column: str) -> tuple[Any, IdFile]:
    """The vectors and the names of images of a Parquet file, or of a folder of both."""
    if not place.is_dir():
        vectors = vector_column(place)
        return ParquetVectors(place, vectors), TableIds([place], root, column=column, left_out=[vectors])
    arrays, tables = sorted(place.glob("img_emb/*.npy")), sorted(place.glob("metadata/*.parquet"))
    if not arrays or len(arrays) != len(tables):
        raise InputError(
            f"{place} has {len(arrays)} arrays img_emb/*.npy and {len(tables)} tables metadata/*.parquet; "
            "there must be one table for each array"
        )
    matrix, rows = Stacked(arrays), TableIds(tables, root, column=column)
    for array, length, table, count in zip(arrays, matrix.lengths, tables, rows.lengths, strict=True):
        if length != count:
            raise InputError(f"{array} has {length} rows, and {table} has {count}")
    return matrix, rows


def _check_rows(matrix: Any, name: str) -> None:
    for start in range(0, len(matrix), _CHUNK_ROWS):
        chunk = np.asarray(matrix[start : start + _CHUNK_ROWS])
        finite = np.isfinite(chunk).all(axis=1)
        if not finite.all():
            raise InputError(f"{name}: row {start + int(finite.argmin())} is not finite (rows from 0)")
        filled = chunk.any(axis=1)
        if not filled.all():
            raise InputError(f"{name}: row {start + int(filled.argmin())} is all zero (rows from 0)")
