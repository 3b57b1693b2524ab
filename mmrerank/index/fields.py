"""Which keys the metadata of an index have, and what is in them, counted in the database with each record.

A filter is checked against these without reading a record. Metadata may come from anybody, so that at most
`MOST` keys are remembered: of further ones only how often they occur.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from mmrerank.filters.columns import FLAGS, Field, Fields, is_plain, observed, read
from mmrerank.index.record import checksum, wrapped

MOST = 2_000
"""Keys that are remembered. While one is left out, no new one is: the counts of each are whole."""
_Keys = tuple[str, ...]
_LEFT_OUT: _Keys = ()
"""In the place of keys: counts the values of keys that are not remembered."""
_UNREADABLE: _Keys = ("",)
"""Counts the records whose metadata SQLite cannot read."""
_COUNTS = 1 + len(FLAGS)
_LONGEST = 20_000  # characters of a name: four keys as JSON have fewer
_SELECT = (
    f"SELECT n, substr(name, 1, {_LONGEST}), images, text, date, number, boolean, list, other, odd, checksum "
    "FROM fields"
)


class Tally:
    """The counts, changed record by record and then `save`d. With ``only``, no other key is remembered."""

    def __init__(self, only: Collection[_Keys] | None = None) -> None:
        self._rows: dict[_Keys, list[int]] = {}
        self._numbers: dict[_Keys, int] = {}
        self._last = 0
        self._sums: dict[_Keys, int] = {}
        self._changed: set[_Keys] = set()
        self._open: Counter[tuple[_Keys, int]] = Counter()  # not in the rows yet
        self._only = only

    @classmethod
    def load(cls, rows: Iterable[Sequence[object]], total: int) -> Tally:
        """What `select` finds. Raises `ValueError` where it is not as it was written, says ``total``."""
        made, sum_ = cls(), 0
        for number, name, *counts, check in rows:
            if (
                not isinstance(name, str)
                or not isinstance(number, int)
                or not isinstance(check, int)
                or checksum([number, name, *counts]) != check
            ):
                raise ValueError(f"the count of the column {str(name)[:60]!r} is not as it was written")
            whole = [c for c in counts if isinstance(c, int) and c >= 0]
            keys = _keys(name)
            if len(whole) != _COUNTS or keys in made._rows:
                raise ValueError(f"the count of the column {name[:60]!r} is {counts}")
            made._rows[keys], made._numbers[keys], made._sums[keys] = whole, number, check
            made._last = max(made._last, number)
            sum_ = wrapped(sum_ + check)
        if sum_ != total:
            raise ValueError("the counts of its columns are not as they were written")
        return made

    @property
    def total(self) -> int:
        """The checksums of what is saved, added up."""
        return wrapped(sum(self._sums.values()))

    @property
    def names(self) -> set[_Keys]:
        """The keys that are remembered."""
        return {n for n in self._rows if n not in (_LEFT_OUT, _UNREADABLE)}

    def add(self, metadata: str, by: int = 1) -> None:
        """Counts the metadata of a record, or takes them off again with ``by`` -1."""
        if metadata == "{}":
            return
        if not is_plain(metadata):
            self._count(_UNREADABLE, 0, by)
        for keys, flags in observed(read(metadata)):
            if keys in self._rows:
                self._open[keys, flags] += by
            elif self._admits(keys):
                self._count(keys, flags, by)
            else:
                self._count(_LEFT_OUT, 0, by)

    def _admits(self, keys: _Keys) -> bool:
        if self._only is not None:
            return keys in self._only
        return len(self._rows) < MOST and not self._rows.get(_LEFT_OUT, [0])[0]

    def _count(self, keys: _Keys, flags: int, by: int) -> None:
        row = self._rows.setdefault(keys, [0] * _COUNTS)
        row[0] += by
        for place, flag in enumerate(FLAGS, start=1):
            if flags & flag:
                row[place] += by
        self._changed.add(keys)

    def _fold(self) -> None:
        for (keys, flags), by in self._open.items():
            self._count(keys, flags, by)
        self._open.clear()

    def save(self, connection: sqlite3.Connection) -> None:
        """Writes what has changed."""
        self._fold()
        for keys in sorted(self._changed):
            row = self._rows[keys]
            if not any(row):
                if keys in self._numbers:
                    connection.execute("DELETE FROM fields WHERE n = ?", [self._numbers.pop(keys)])
                del self._rows[keys]
                self._sums.pop(keys, None)
                continue
            if keys not in self._numbers:
                self._last += 1
                self._numbers[keys] = self._last
            saved = [self._numbers[keys], json.dumps(keys), *row]
            self._sums[keys] = checksum(saved)
            marks = ",".join("?" * (_COUNTS + 3))
            connection.execute(f"INSERT OR REPLACE INTO fields VALUES ({marks})", [*saved, self._sums[keys]])
        self._changed.clear()

    def fields(self) -> Fields:
        """The columns, for a filter."""
        self._fold()
        metadata = {}
        for keys in self.names:
            row = self._rows[keys]
            flags = sum(flag for flag, count in zip(FLAGS, row[1:], strict=True) if count)
            metadata[keys] = Field(keys=keys, flags=flags, images=row[0])
        return Fields(metadata=metadata, full=_LEFT_OUT in self._rows, plain=_UNREADABLE not in self._rows)

    def same(self, other: Tally) -> bool:
        """Whether ``other`` counts the same."""
        for one in (self, other):
            one._fold()
        return {k: r for k, r in self._rows.items() if any(r)} == other._rows


def _keys(name: str) -> _Keys:
    """Raises `ValueError` for what is no JSON list of texts."""
    made = json.loads(name)
    if not isinstance(made, list) or not all(isinstance(k, str) for k in made):
        raise ValueError(f"a column is called {name[:60]!r}")
    return tuple(made)


def select(connection: sqlite3.Connection) -> list[Sequence[object]]:
    """The rows that `Tally.load` takes."""
    return connection.execute(f"{_SELECT} LIMIT {MOST + 3}").fetchall()
