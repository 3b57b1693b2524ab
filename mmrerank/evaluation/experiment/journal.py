"""What an evaluation has finished, query by query: a file that is only added to and survives a kill.

The first line says what the work is, every other line is one query's result as plain data. Queries that were
judged together are added together; after a kill or a full disk in the middle of that, none of them is there.
Knows nothing of methods, models or metrics.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any

from mmrerank import writing
from mmrerank.errors import InputError, UsageError
from mmrerank.index.manifest import sync_folder
from mmrerank.locks import lock

FORMAT = 1
_START = b'{"journal": '


class Journal:
    """An open journal; `opened` makes it. ``results`` are the finished ones by query id."""

    def __init__(
        self, path: Path, file: FileIO | None, results: Mapping[str, Mapping[str, Any]], end: int
    ) -> None:
        self.path = path
        self._file, self._end = file, end
        self._results = dict(results)

    @property
    def results(self) -> Mapping[str, Mapping[str, Any]]:
        """Every finished query's result, as a reader of the file sees it."""
        return self._results

    def add(self, results: Mapping[str, Mapping[str, Any]]) -> None:
        """Adds results by query id, all or none, and returns when they are on the disk.

        Those of a journal that is only looked at stay in memory.
        A query that is there already gets the new result. Raises `InputError` when the file cannot be
        written; what was there before then still is.
        """
        if not results:
            return
        plain = json.loads(json.dumps(results, allow_nan=False))
        if self._file is None:
            self._results.update(plain)
            return
        lines = [
            json.dumps({"query": query, "more": len(results) - n, "result": result}, allow_nan=False)
            for n, (query, result) in enumerate(results.items(), start=1)
        ]
        self._end = _append(self._file, self._end, [*lines], self.path)
        self._results.update(plain)


def looked_at(path: Path, work: Mapping[str, Any]) -> tuple[Journal, list[str]]:
    """The journal at ``path`` to be read alone: nothing is made, locked or written, whatever is added.

    Empty where there is none, or where it is of other work; the second value says how that differs. Raises
    `InputError` when it cannot be read or is damaged.
    """
    try:
        data = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    first, newline, rest = data.partition(b"\n")
    if not newline:
        return Journal(path, None, {}, 0), []
    if changes := differences(_work(path, first), json.loads(json.dumps(work))):
        return Journal(path, None, {}, 0), changes
    return Journal(path, None, _results(path, rest)[0], 0), []


@contextmanager
def opened(path: Path, work: Mapping[str, Any], *, fresh: bool = False) -> Iterator[Journal]:
    """The journal at ``path`` for ``work``, begun if need be, or begun anew when ``fresh``.

    ``work`` is plain data that says everything that decides the results. What a kill left half written is
    cut off. Raises `UsageError` naming the differences when the journal is of other work, and
    `InputError` when somebody else is writing it, it is damaged or no journal, or cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=writing.PRIVATE)
        file = path.open("r+b", buffering=0)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error
    with file:  # closing it releases the lock, as the end of the process does
        try:
            free = lock(file)
        except OSError as error:
            raise InputError(f"{path} cannot be locked: {error.strerror or error}") from error
        if not free:
            raise InputError(f"{path} is being written by another process; wait until it has ended")
        yield _begun(path, file, json.loads(json.dumps(work)), fresh)


def _begun(path: Path, file: FileIO, work: Mapping[str, Any], fresh: bool) -> Journal:
    data = b"" if fresh else file.readall()
    first, newline, rest = data.partition(b"\n")
    if not newline and not _START.startswith(first[: len(_START)]):
        raise InputError(f"{path} is not a journal; move it away, or start over with --fresh")
    if not newline:  # nothing, or a first line that a kill cut short
        end = _append(file, 0, [json.dumps({"journal": FORMAT, "work": work})], path)
        sync_folder(path.parent)
        return Journal(path, file, {}, end)
    before = _work(path, first)
    if changes := differences(before, work):
        raise UsageError(
            f"{path} is of other work ({'; '.join(changes)}); start over with --fresh, or give another folder"
        )
    results, length = _results(path, rest)
    end = len(first) + 1 + length
    if end < len(data):
        file.truncate(end)
        os.fsync(file.fileno())
    return Journal(path, file, results, end)


def _work(path: Path, line: bytes) -> dict[str, Any]:
    body = _parsed(line)
    if body is None or not isinstance(body.get("work"), dict) or body.get("journal") != FORMAT:
        raise InputError(
            f"{path} is not a journal of format {FORMAT}; move it away, or start over with --fresh"
        )
    work: dict[str, Any] = body["work"]
    return work


def _results(path: Path, data: bytes) -> tuple[dict[str, Any], int]:
    """The whole results in ``data``, and how many bytes they take from its start."""
    results: dict[str, Any] = {}
    together: dict[str, Any] = {}
    place = end = 0
    lines = data.split(b"\n")[:-1]  # what stands behind the last line break was cut short
    for number, line in enumerate(lines):
        entry = _parsed(line)
        if entry is None or not {"query", "more", "result"} <= entry.keys():
            if any(_parsed(later) for later in lines[number + 1 :]):
                raise InputError(
                    f"{path}, line {number + 2} is damaged; take that line out, or start over with --fresh"
                )
            break
        place += len(line) + 1
        together[entry["query"]] = entry["result"]
        if entry["more"] == 0:
            results.update(together)
            together, end = {}, place
    return results, end


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        body = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def _append(file: FileIO, end: int, lines: list[str], path: Path) -> int:
    """Writes ``lines`` at ``end`` and returns the new end; on failure leaves the file as it was."""
    data = "".join(f"{line}\n" for line in lines).encode("ascii")
    try:
        file.truncate(end)
        file.seek(end)
        written = 0
        while written < len(data):
            written += file.write(data[written:])
        os.fsync(file.fileno())
    except OSError as error:
        with suppress(OSError):
            file.truncate(end)
        raise InputError(
            f"{path} cannot be written: {error.strerror or error}; what it held is kept, "
            "and the same command goes on from there"
        ) from error
    return end + len(data)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two nested mappings, one text a leaf, such as ``seed was 3 and is 4``."""
    one, two = _leaves(before), _leaves(now)
    return [
        f"{name} was {_short(one.get(name))} and is {_short(two.get(name))}"
        for name in {**one, **two}
        if one.get(name) != two.get(name)
    ]


def _leaves(body: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in body.items():
        if isinstance(value, Mapping):
            found.update(_leaves(value, f"{prefix}{name}."))
        else:
            found[prefix + name] = value
    return found


def _short(value: Any) -> str:
    text = "absent" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."
