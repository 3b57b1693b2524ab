"""Image vectors made elsewhere: a ``.npy`` file, and a JSONL file that names the image of each row.

Decodes no image and does not ask that the images be there. The vectors are neither changed nor normalised;
which model made them is for the user to say.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmrerank.corpus._names import id_of
from mmrerank.errors import InputError, UsageError
from mmrerank.ports import Corpus, Sample
from mmrerank.types import Image

_CHUNK_ROWS = 16_384

FORM = "DIR with --vectors V.npy and --ids IDS.jsonl"


@dataclass(frozen=True, kw_only=True, eq=False)
class EmbeddingsCorpus(Corpus):
    """Row ``i`` of ``vectors`` ``(n, d)`` (float16, 32 or 64; memory-mapped) belongs to ``rows[i]``.

    Made by `open`, which checks it. ``location`` is the folder of the images.
    """

    location: str
    vectors: NDArray[Any] = field(repr=False)
    rows: tuple[Sample, ...] = field(repr=False)

    def samples(self) -> Iterator[Sample]:
        """One sample a row, in row order; its metadata are the row's other JSON keys."""
        return iter(self.rows)


def accepts(location: str) -> bool:
    """False: a location alone does not say where the vectors are."""
    return False


def open(location: str, *, vectors: Path | str = "", ids: Path | str = "") -> EmbeddingsCorpus:
    """Images below the folder ``location`` with ``vectors`` (.npy) and ``ids`` (JSONL, key ``image``).

    Raises `InputError` naming the row or line when a file is unreadable, the counts differ, a line names no
    image or one named before, or a vector is zero or not finite; `UsageError` without one of the files.
    """
    if not vectors or not ids:
        raise UsageError("vectors made elsewhere need both files: vectors (.npy) and ids (.jsonl)")
    root = Path(os.path.abspath(location))  # noqa: PTH100 - `resolve` would rename a linked folder
    if not root.is_dir():
        raise InputError(f"there is no folder {location!r}")
    matrix, rows = _vectors(Path(vectors)), _rows(Path(ids), root)
    if len(matrix) != len(rows):
        raise InputError(
            f"{vectors} has {len(matrix)} rows and {ids} has {len(rows)} lines; each row needs its line"
        )
    _check_rows(matrix, str(vectors))
    return EmbeddingsCorpus(location=str(root), vectors=matrix, rows=rows)


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
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a damaged header can make numpy's parser raise almost anything
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


def _rows(path: Path, root: Path) -> tuple[Sample, ...]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: {error}") from error
    samples: list[Sample] = []
    lines: dict[str, int] = {}
    for number, line in enumerate(text.rstrip().split("\n") if text.strip() else [], start=1):
        sample = _row(line, f"{path}, line {number}", root)
        if sample.id in lines:
            raise InputError(
                f"{path}, line {number}: image {sample.id!r} was named in line {lines[sample.id]} already"
            )
        lines[sample.id] = number
        samples.append(sample)
    return tuple(samples)


def _row(line: str, where: str, root: Path) -> Sample:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not a JSON object: {error}") from error
    name = row.get("image") if isinstance(row, dict) else None
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise InputError(f'{where}: a JSON object with the key "image" (a path) is needed')
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise InputError(f"{where}: image {name!r} must be a path inside {root}")
    return Sample(
        id=id_of(root, str(path)),
        image=Image(path=root / path),
        metadata={key: value for key, value in row.items() if key != "image"},
    )
