"""Image vectors made elsewhere: a ``.npy`` file, and a JSONL file that names the image of each row.

Decodes no image and does not ask that the images be there. A file is found also where its name is written in
another way in the ids, and what was passed over is said. The vectors are neither changed nor normalised;
which model made them is for the user to say.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmrerank.corpus._match import UNICODE, Finder, explained, outside, relative
from mmrerank.corpus._names import id_of
from mmrerank.errors import InputError, UsageError
from mmrerank.paths import LFS_WAY, expanded, is_lfs_pointer, looked_at, reason, refused
from mmrerank.ports import Corpus, Sample
from mmrerank.types import Image

_CHUNK_ROWS = 16_384

_FORM = 'a line for each row of the vectors is needed, such as {"image": "a/b.jpg"}'
FORM = "DIR with --vectors V.npy and --ids IDS.jsonl"


@dataclass(frozen=True, kw_only=True, eq=False)
class EmbeddingsCorpus(Corpus):
    """Row ``i`` of ``vectors`` ``(n, d)`` (float16, 32 or 64; memory-mapped) belongs to ``rows[i]``.

    Made by `open`, which checks it. ``location`` is the folder of the images.
    """

    location: str
    vectors: NDArray[Any] = field(repr=False)
    rows: tuple[Sample, ...] = field(repr=False)
    said: tuple[str, ...] = ()

    def remarks(self) -> Sequence[str]:
        """Which differences between ids and file names were passed over, and why files are not found."""
        return self.said

    def samples(self) -> Iterator[Sample]:
        """One sample a row, in row order; its metadata are the row's other JSON keys."""
        return iter(self.rows)


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
    matrix, (rows, said) = _vectors(expanded(vectors)), _rows(expanded(ids), root)
    if len(matrix) != len(rows):
        raise InputError(
            f"{vectors} has {len(matrix)} rows and {ids} has {len(rows)} lines; each row needs its line"
        )
    _check_rows(matrix, str(vectors))
    return EmbeddingsCorpus(location=str(root), vectors=matrix, rows=rows, said=said)


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


def _rows(path: Path, root: Path) -> tuple[tuple[Sample, ...], tuple[str, ...]]:
    """A sample for each line, and remarks about them."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {reason(error)}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: {error}; {_FORM}") from error
    lines = _Lines(path, root)
    for number, line in enumerate(text.rstrip().split("\n") if text.strip() else [], start=1):
        lines.add(line, number)
    return lines.finish()


class _Lines:
    """The lines of a file of ids, turned into samples."""

    def __init__(self, path: Path, root: Path) -> None:
        self._path, self._root, self._finder = path, root, Finder(root)
        self._lines: dict[str, tuple[int, str, dict[str, Any]]] = {}  # by id: number, path, other keys
        self._rewritten: list[str] = []  # names that are not their ids

    def add(self, line: str, number: int) -> None:
        """Takes the next line. Raises `InputError` naming it."""
        where = f"{self._path}, line {number}"
        name, metadata = _read(line, where)
        inside = relative(name, self._root)
        if not inside:
            raise InputError(f"{where}: image {name!r} {outside(name, self._root, self._finder)}")
        id_ = id_of(self._root, inside)
        if id_ in self._lines:
            raise InputError(f"{where}: image {id_!r} was named in line {self._lines[id_][0]} already")
        self._lines[id_] = number, inside, metadata
        if inside != name:
            self._rewritten.append(f"{name!r} is {inside!r}")

    def finish(self) -> tuple[tuple[Sample, ...], tuple[str, ...]]:
        """A sample for each line, and what a person should know of the lines as a whole."""
        # whoever has a file's very name has the file; a difference is passed over for what is left only
        places = ((inside, number) for number, inside, _ in self._lines.values())
        lines = {inside: number for inside, number in places if os.path.lexists(self._root / inside)}
        taken = set(lines)
        passed: dict[str, list[str]] = {}
        gone: list[str] = []
        samples = []
        for id_, (number, inside, metadata) in self._lines.items():
            file = inside
            if inside not in taken:
                found = self._finder.find(inside)
                if found is not None and found[0] not in taken:
                    file, differs = found
                    taken.add(file)
                    passed.setdefault(differs, []).append(inside)
                elif found is not None and found[1] == UNICODE and found[0] in lines:
                    raise InputError(
                        f"{self._path}, line {number}: image {inside!r} is the file of line "
                        f"{lines[found[0]]}, in {UNICODE}"
                    )
                else:
                    gone.append(inside)
            lines[file] = number
            samples.append(Sample(id=id_, image=Image(path=self._root / file), metadata=metadata))
        said = [
            f"{len(names)} of {len(samples)} ids and the names of their files differ ({differs}), such as "
            f"{names[0]!r}; the files were taken, and the ids stay as they are"
            for differs, names in passed.items()
        ]
        if self._rewritten:
            said.insert(
                0,
                f"{len(self._rewritten)} of {len(samples)} ids are in the index as paths from SOURCE: "
                f"{self._rewritten[0]}",
            )
        why = explained(gone, self._finder) if gone else ""
        return tuple(samples), (*said, why) if why else tuple(said)


def _read(line: str, where: str) -> tuple[str, dict[str, Any]]:
    """The name of the image in a line, and the other keys."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not a JSON object: {error}; {_FORM}") from error
    name = row.get("image") if isinstance(row, dict) else None
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        keys = (
            f"; the line has {', '.join(map(repr, row))}"
            if isinstance(row, dict) and "image" not in row
            else ""
        )
        raise InputError(f'{where}: a JSON object with the key "image" (a path) is needed{keys}')
    return name, {key: value for key, value in row.items() if key != "image"}
