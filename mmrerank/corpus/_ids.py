"""The file that names the image of each vector: a JSON object a line. Read as often as needed, never held.

Of each line only a hash of its name is kept, and whether the file is there: nine bytes.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from mmrerank.corpus._match import UNICODE, Finder, explained, outside, relative
from mmrerank.corpus._names import id_of
from mmrerank.errors import InputError
from mmrerank.paths import reason
from mmrerank.source import Sample
from mmrerank.types import Image

_FORM = 'a line for each row of the vectors is needed, such as {"image": "a/b.jpg"}'
_THERE, _AWAY, _ELSEWHERE = range(3)
"""Of a name's file: it is there; it is not; it is there under a name that is written in another way."""


class IdFile:
    """The lines of ``path``, whose images are below ``root``.

    Raises `InputError` naming the line that is wrong, or names an image that a line before it named.
    """

    def __init__(self, path: Path, root: Path) -> None:
        self._path, self._root, self._finder = path, root, Finder(root)
        self._source = self._again()
        self._state: tuple[int, int] | None = None
        self._hashes = array("q")  # of the names, by row; Python's are of 64 bits, and nobody can aim at one
        self._places = bytearray()
        self._rewritten: list[str] = []  # the first name that is not its id
        self._count = 0
        try:
            for inside, _, name in self._lines():
                self._hashes.append(hash(inside))
                self._places.append(_THERE if os.path.lexists(f"{root}/{inside}") else _AWAY)
                if inside != name:
                    self._count += 1
                    self._rewritten = self._rewritten or [f"{name!r} is {inside!r}"]
        except InputError:
            self._check_once()  # whatever is wrong in a line before
            raise
        self._check_once()
        self.remarks = self._remarks()

    def __len__(self) -> int:
        return len(self._hashes)

    def samples(self) -> Iterator[Sample]:
        """A sample for each line; its metadata are the line's other keys. Raises `InputError`."""
        for row, (inside, metadata, _) in enumerate(self._lines()):
            file = inside
            if self._places[row] == _ELSEWHERE and (found := self._finder.find(inside)) is not None:
                file = found[0]
            yield Sample(id=id_of(self._root, inside), image=Image(path=self._root / file), metadata=metadata)

    def _where(self, row: int) -> str:
        """The place of a row in words."""
        return f"{self._path}, {self._short(row)}"

    def _short(self, row: int) -> str:
        """The place of a row beside one whose file is named."""
        return f"line {row + 1}"

    def _lines(self) -> Iterator[tuple[str, dict[str, Any], str]]:
        """The name below the root, the other keys, and the name as it is written."""
        blank = 0
        with self._opened() as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    blank = blank or number  # wrong, unless nothing but such lines follows
                    continue
                if blank:
                    _read("", f"{self._path}, line {blank}")
                where = f"{self._path}, line {number}"
                name, metadata = _read(line.rstrip(), where)
                inside = relative(name, self._root)
                if not inside:
                    raise InputError(f"{where}: image {name!r} {outside(name, self._root, self._finder)}")
                yield inside, metadata, name

    @contextmanager
    def _opened(self) -> Iterator[IO[str]]:
        try:
            with self._source.open(encoding="utf-8-sig") as file:
                found = os.fstat(file.fileno())
                state = found.st_size, found.st_mtime_ns
                if self._state not in (None, state):
                    raise InputError(f"{self._path} has changed while it was read; try again")
                self._state = state
                yield file
        except UnicodeDecodeError as error:
            raise InputError(f"{self._path} is not UTF-8: {error}; {_FORM}") from error
        except OSError as error:
            raise InputError(f"{self._path} cannot be read: {reason(error)}") from error

    def _again(self) -> Path:
        """A file that can be read more than once: what comes out of a pipe is copied into one."""
        try:
            if stat.S_ISREG(self._path.stat().st_mode) or not self._path.exists():
                return self._path
            with self._path.open("rb") as pipe:
                self._copy = tempfile.NamedTemporaryFile(suffix=".jsonl")  # noqa: SIM115 - lives as long as this
                shutil.copyfileobj(pipe, self._copy)
                self._copy.flush()
        except OSError as error:
            raise InputError(f"{self._path} cannot be read: {reason(error)}") from error
        return Path(self._copy.name)

    def _check_once(self) -> None:
        """Raises `InputError` for the first line that names an image again."""
        hashes = np.frombuffer(self._hashes, dtype=np.int64)
        ordered = np.sort(hashes)
        twice = ordered[1:][ordered[1:] == ordered[:-1]]
        if not len(twice):
            return
        suspects = np.flatnonzero(np.isin(hashes, twice))
        named: dict[str, int] = {}
        wanted = set(suspects.tolist())
        for row, (inside, _, _) in enumerate(self._lines()):
            if row in wanted and named.setdefault(inside, row) != row:
                raise InputError(
                    f"{self._where(row)}: image {id_of(self._root, inside)!r} was named in "
                    f"{self._short(named[inside])} already"
                )
            if row >= suspects[-1]:
                return

    def _remarks(self) -> tuple[str, ...]:
        """Finds files whose names are written in another way; what a person should know of all lines."""
        total = len(self)
        passed: dict[str, tuple[int, str]] = {}
        gone = _Gone()
        if _AWAY in self._places:
            taken = _Taken(self._hashes, self._places)
            for row, (inside, _, _) in enumerate(self._lines()):
                if self._places[row] != _AWAY:
                    continue
                # whoever has a file's very name has the file; a difference is passed over for the rest only
                found = self._finder.find(inside)
                by = None if found is None else taken.by(found[0])
                if found is not None and by is None:
                    taken.add(found[0], row)
                    self._places[row] = _ELSEWHERE
                    count, first = passed.get(found[1], (0, inside))
                    passed[found[1]] = count + 1, first
                elif found is not None and by is not None and found[1] == UNICODE:
                    raise InputError(
                        f"{self._where(row)}: image {inside!r} is the file of {self._short(by)}, in {UNICODE}"
                    )
                else:
                    gone.add(inside)
        told = [
            f"{count} of {total} ids and the names of their files differ ({differs}), such as "
            f"{first!r}; the files were taken, and the ids stay as they are"
            for differs, (count, first) in passed.items()
        ]
        if self._rewritten:
            told.insert(
                0, f"{self._count} of {total} ids are in the index as paths from SOURCE: {self._rewritten[0]}"
            )
        why = explained(gone.ends, self._finder) if gone.ends else ""
        return (*told, why) if why else tuple(told)


class _Taken:
    """Which row has a file."""

    def __init__(self, hashes: array[int], places: bytearray) -> None:
        every = np.frombuffer(hashes, dtype=np.int64)
        rows = np.flatnonzero(np.frombuffer(places, dtype=np.uint8) == _THERE)
        order = np.argsort(every[rows])
        self._rows = rows[order]
        self._hashes = every[self._rows]
        self._more: dict[int, int] = {}

    def by(self, file: str) -> int | None:
        """The row that has ``file``, None where nobody has."""
        key = hash(file)
        at = int(np.searchsorted(self._hashes, key))
        if at < len(self._hashes) and self._hashes[at] == key:
            return int(self._rows[at])
        return self._more.get(key)

    def add(self, file: str, row: int) -> None:
        """Gives ``file`` to a row."""
        self._more[hash(file)] = row


class _Gone:
    """Names without a file: the first, and those whose folders are the first and the last in order. What all
    begin with, these tell.
    """

    def __init__(self) -> None:
        self.ends: list[str] = []

    def add(self, name: str) -> None:
        """Takes another name."""
        first, low, high = self.ends or [name] * 3
        self.ends = [first, min(low, name, key=_folder), max(high, name, key=_folder)]


def _folder(name: str) -> list[str]:
    return name.split("/")[:-1]


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
