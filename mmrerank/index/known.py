"""What earlier runs knew of images, fetched in portions: compared as the columns stand, parsed if need be.

Of a collection that has not changed nothing is parsed: what is compared is checked against its checksum.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmrerank.index.record import COLUMNS, checksum
from mmrerank.index.records import Record, Records
from mmrerank.ports import Sample

PORTION = 500
"""Records that one statement fetches; SQLite allows 999 parameters at least."""
_AT = {column: number for number, column in enumerate(COLUMNS)}
_PATH, _OFFSET, _LENGTH = _AT["path"], _AT["offset"], _AT["length"]
_SIZE, _MTIME, _CTIME = _AT["size"], _AT["mtime_ns"], _AT["ctime_ns"]
_ROW, _AWAY, _METADATA = _AT["row"], _AT["away"], _AT["metadata"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A record as its columns hold it."""

    seq: int
    fields: list[Any]
    checksum: int


class Known:
    """The records of the index whose sources lie below ``root``. Safe to use from several threads."""

    def __init__(self, records: Records, root: Path) -> None:
        self._records = records
        self._root = os.path.join(os.path.abspath(root), "")  # noqa: PTH100, PTH118 - millions of times

    def fetch(self, ids: Sequence[str]) -> dict[str, Row]:
        """The records that there are of at most ``PORTION`` ids. Raises `ImageIndexError` for damage."""
        marks = ",".join("?" * len(ids))
        found = {}
        for seq, fields, sum_ in self._records.raw(f"WHERE id IN ({marks})", ids):
            if checksum([seq, *fields]) != sum_:
                self._records.checked(seq, fields, sum_)  # says what is damaged
            found[str(fields[0])] = Row(seq=seq, fields=fields, checksum=sum_)
        return found

    def record(self, row: Row | None) -> Record | None:
        """``row`` as a record. Raises `ImageIndexError` for what cannot be one."""
        return None if row is None else self._records.checked(row.seq, row.fields, row.checksum)

    def is_same(self, sample: Sample, row: Row | None) -> bool:
        """Whether the index has the image of ``sample`` just as it is, by its place, size and times.

        False also where it takes a closer look to tell.
        """
        image = sample.image
        if row is None or image is None or image.path is None:
            return False
        old = row.fields
        if old[_ROW] is None or old[_AWAY] is not None or not _same_text(old[_METADATA], sample.metadata):
            return False
        path = os.fspath(image.path)
        try:
            now = os.stat(path)  # noqa: PTH116
        except (OSError, ValueError):
            return False
        version = (now.st_mtime_ns, now.st_size)
        if not stat.S_ISREG(now.st_mode) or sample.version not in (None, version):
            return False
        size = now.st_size if image.length is None else image.length
        return bool(
            (old[_SIZE], old[_MTIME], old[_CTIME]) == (size, now.st_mtime_ns, now.st_ctime_ns)
            and (old[_OFFSET], old[_LENGTH]) == (image.offset, image.length)
            and old[_PATH] == self._path(path)
        )

    def _path(self, path: str) -> bytes:
        """As `mmrerank.index.intake.place` has it, where ``root`` is above it."""
        text = os.path.abspath(path)  # noqa: PTH100
        return os.fsencode(text.removeprefix(self._root))


def _same_text(text: object, metadata: Any) -> bool:
    return text == ("{}" if not metadata else json.dumps(metadata, default=str))
