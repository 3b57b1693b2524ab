"""Which vector rows a filter leaves: checked against the columns first, then asked of the database.

The condition is on the records as they are stored: `mmrerank.index.records` checks those that a search
returns, and `verify` all of them.
"""

from __future__ import annotations

import operator
import sqlite3
import threading

import numpy as np
from numpy.typing import NDArray

from mmrerank.errors import ImageIndexError
from mmrerank.filters.columns import RECORD, Fields
from mmrerank.filters.filter import Filter, Where
from mmrerank.filters.sql import Condition
from mmrerank.index.kept import KEPT
from mmrerank.index.record import Record, facts
from mmrerank.index.records import Records

_KEPT = f"substr(path, 1, {len(KEPT)}) = x'{KEPT.hex()}'"
COLUMNS = {name: name for name in RECORD} | {"path": f"CASE WHEN {_KEPT} THEN NULL ELSE path END"}
"""The expression of each column of a record."""
_REBUILD = "index the source again with --rebuild"


class Filtering:
    """Filters over ``records``. What the last one left is kept while nobody writes: the next query has it."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._lock = threading.Lock()
        self._known: tuple[Filter, int, NDArray[np.int64]] | None = None
        self._fields: tuple[int, Fields] | None = None

    def fields(self) -> Fields:
        """Every column that can be filtered."""
        with self._lock, self._records.snapshot() as db:
            return self._now(db)[1]

    def checked(self, where: Where) -> Filter:
        """The filter ``where``. Raises `UsageError`, with the place of the fault, for one that makes no sense
        here.
        """
        made = Filter.of(where)
        made.check(self.fields())
        return made

    def rows(self, where: Filter) -> NDArray[np.int64]:
        """The vector rows, ascending, of which a record satisfies it."""
        with self._lock, self._records.snapshot() as db:
            version, fields = self._now(db)
            if self._known is None or self._known[:2] != (where, version):
                where.check(fields)
                condition = Condition(where.node, fields, COLUMNS)
                self._known = (where, version, self._asked(db, condition))
            return self._known[2]

    def keeps(self, where: Filter, record: Record) -> bool:
        """Whether a record satisfies it: of several with the same bytes, some may."""
        return where.matches(facts(record))

    def _now(self, db: sqlite3.Connection) -> tuple[int, Fields]:
        version = int(db.execute("PRAGMA data_version").fetchone()[0])
        if self._fields is None or self._fields[0] != version:
            self._fields = (version, self._records.tally(self._records.state).fields())
        return self._fields

    def _asked(self, db: sqlite3.Connection, condition: Condition) -> NDArray[np.int64]:
        condition.register(db)
        sql = f"SELECT row FROM records WHERE row IS NOT NULL AND {condition.sql}"
        try:
            asked = db.execute(sql, condition.parameters)
            return np.unique(np.fromiter((operator.index(r[0]) for r in asked), dtype=np.int64))
        except TypeError as error:
            raise self._damaged("a row is no whole number") from error
        except sqlite3.OperationalError as error:
            # of JSON, and of our own functions: what no record of ours holds
            if "JSON" in str(error) or "user-defined function" in str(error):
                raise self._damaged(str(error)) from error
            raise

    def _damaged(self, why: str) -> ImageIndexError:
        return ImageIndexError(f"{self._records.path} is damaged ({why}); {_REBUILD}")
