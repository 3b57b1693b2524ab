"""``records.sqlite``: one record per image, and which vector row it has. The truth of an index.

Many records may share one row (files with the same bytes). Knows nothing about the vectors' values, but
their checksums. Every record has a checksum, and ``state`` counts and adds them up, within each transaction:
what was changed, removed or put in by another hand is noticed.
"""

from __future__ import annotations

import operator
import sqlite3
import threading
import weakref
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmrerank.errors import ImageIndexError, InputError
from mmrerank.index import plain
from mmrerank.index.database import FILE as FILE
from mmrerank.index.database import LONGEST, Database
from mmrerank.index.fields import Tally, select
from mmrerank.index.kept import KEPT
from mmrerank.index.manifest import Seal
from mmrerank.index.paging import pages
from mmrerank.index.record import COLUMNS, METADATA, checksum, parse, values, wrapped
from mmrerank.index.record import Record as Record
from mmrerank.paths import database_reason, reason

_PAGE = 10_000
_CHUNK = 500  # below SQLite's smallest limit on parameters
_KEPT = f"substr(path, 1, {len(KEPT)}) = x'{KEPT.hex()}'"
_NAMES = ",".join(f'"{c}"' for c in COLUMNS)
_REBUILD = "index the source again with --rebuild"


@dataclass
class State:
    """What the database says about itself: ``generation`` counts the runs that have written, ``total`` adds
    up the records' checksums, and ``columns`` those of the `fields`.
    """

    generation: int = 0
    records: int = 0
    total: int = 0
    columns: int = 0


class Records:
    """The database in ``folder``. Safe to use from several threads."""

    def __init__(self, folder: Path, *, write: bool = False) -> None:
        self.path = folder / FILE
        self._write = write
        self._lock = threading.RLock()
        self._counted = False  # whether this run is in the generation
        self._state, self._last, self._touched = State(), 0, False
        self._tally: Tally | None = None
        plain.check(folder)
        with self._guard():
            self._database = Database(folder, write=write)
            self._db = self._database.connection
        weakref.finalize(self, self._database.close)

    def close(self) -> None:
        """Folds the log into the database, where this is the last user, and closes it."""
        with self._lock:
            self._database.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside happens, or nothing."""
        with self._guard():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._begin()
                yield
                self._end()
            except BaseException:
                self._tally = None
                if self._db.in_transaction:  # some failures have ended it already
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
            self._counted |= self._touched

    @contextmanager
    def _guard(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except sqlite3.DataError as error:
                raise ImageIndexError(
                    f"{self.path}: a record is longer than {LONGEST:,} bytes (LONGEST in "
                    f"mmrerank/index/database.py): {error}"
                ) from error
            except sqlite3.OperationalError as error:
                if "sqlite_errorname" not in vars(error):  # Python's own: text that is no UTF-8
                    raise self._damaged(error) from error
                why = database_reason(self.path, error, write=self._write)
                raise ImageIndexError(f"{self.path} cannot be used: {why}") from error
            except OSError as error:
                raise ImageIndexError(f"{self.path} cannot be used: {reason(error)}") from error
            except (sqlite3.DatabaseError, UnicodeError) as error:
                raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> ImageIndexError:
        return ImageIndexError(f"{self.path} is damaged ({error}); {_REBUILD}")

    def _begin(self) -> None:
        """Inside a transaction: what stands in the database now."""
        self._state = self.state
        self._last = int(self.ask_one("SELECT coalesce(max(seq), 0) FROM records"))
        self._touched = False
        if self._tally is None or self._tally.total != self._state.columns:
            self._tally = self.tally(self._state)

    def _end(self) -> None:
        """Before the transaction is committed: what it has changed, counted."""
        if not self._touched:
            return
        if not self._counted:
            self._state.generation += 1
        if self._tally is not None:
            self._tally.save(self._db)
            self._state.columns = self._tally.total
        now = vars(self._state).values()
        self._db.execute("DELETE FROM state")
        self._db.execute("INSERT INTO state VALUES (?, ?, ?, ?, ?)", [*now, checksum(list(now))])

    @property
    def state(self) -> State:
        """Raises `ImageIndexError` when it is not as it was written."""
        found = self.ask("SELECT generation, records, total, columns, checksum FROM state LIMIT 2")
        if not found:
            return State()  # a new database
        *now, sum_ = found[0]
        if len(found) > 1 or not all(isinstance(n, int) for n in now) or checksum(now) != sum_:
            raise ImageIndexError(
                f"{self.path} is damaged: its count of records is not as written; {_REBUILD}"
            )
        return State(*now)

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """Within it, whatever is read is of one moment. Not for use in a `transaction`."""
        with self._guard():
            self._db.execute("BEGIN")
            try:
                yield self._db
            finally:
                if self._db.in_transaction:
                    self._db.execute("COMMIT")

    def tally(self, state: State) -> Tally:
        """Which keys the metadata have. Raises `ImageIndexError` when it is not as ``state`` says."""
        try:
            return Tally.load(select(self._db), state.columns)
        except (ValueError, RecursionError) as error:
            raise self._damaged(error) from error

    # Reading

    def get(self, id_: str) -> Record | None:
        """The record with this id."""
        found = self._select("WHERE id = ?", [id_])
        return found[0][1] if found else None

    def ids(self) -> list[str]:
        """The ids of every image that has a vector, in the order of insertion."""
        return [r[0] for r in self.ask("SELECT id FROM records WHERE row IS NOT NULL ORDER BY seq")]

    def states(self) -> Iterator[tuple[str, bool]]:
        """The id of every record and whether it has a vector, in the order of insertion."""
        sql = "SELECT seq, id, row IS NOT NULL FROM records WHERE seq > ? ORDER BY seq LIMIT ?"
        for _, id_, has_row in pages(self.path, lambda last: self.ask(sql, [last, _PAGE])):
            yield id_, bool(has_row)

    def by_row(self, rows: Iterable[int]) -> dict[int, list[Record]]:
        """The records of each row, in the order of insertion."""
        wanted = sorted(set(rows))
        found: dict[int, list[Record]] = {}
        for start in range(0, len(wanted), _CHUNK):
            part = wanted[start : start + _CHUNK]
            marks = ",".join("?" * len(part))
            for _, record in self._select(f"WHERE row IN ({marks})", part):
                assert record.row is not None
                found.setdefault(record.row, []).append(record)
            sql = f"SELECT row, sha256 FROM vectors WHERE row IN ({marks})"
            for row, made_from in self.ask(sql, part):
                for record in found.get(row, ()):
                    if record.sha256 != made_from:
                        raise self._damaged(ValueError(f"{record.id!r} has the vector of another image"))
        return found

    def everything(self) -> Iterator[Record]:
        """Every record, in the order of insertion; fetched in portions."""
        for _, record in pages(self.path, lambda last: self._select("WHERE seq > ?", [last], limit=_CHUNK)):
            yield record

    def rows_of(self, ids: Sequence[str]) -> list[int]:
        """The vector row of each id. Raises `InputError` for an id that has none."""
        found = self.rows_among(list(dict.fromkeys(ids)))
        if lacking := [i for i in ids if i not in found]:
            raise InputError(f"the index has no vector of {lacking[0]!r}")
        return [found[i] for i in ids]

    def rows_among(self, ids: Sequence[str]) -> dict[str, int]:
        """The vector row of each of these ids that has one."""
        found: dict[str, int] = {}
        for start in range(0, len(ids), _CHUNK):
            part = ids[start : start + _CHUNK]
            marks = ",".join("?" * len(part))
            records = self._select(f"WHERE id IN ({marks})", part)
            found |= {record.id: record.row for _, record in records if record.row is not None}
        return found

    def rows(self) -> NDArray[np.int64]:
        """The rows in use, ascending. Raises `ImageIndexError` for what is none."""
        sql = "SELECT DISTINCT row FROM records WHERE row IS NOT NULL ORDER BY row"
        count = self.vectors
        with self._guard():
            try:
                found = np.fromiter((operator.index(r[0]) for r in self._db.execute(sql)), dtype=np.int64)
            except TypeError as error:
                raise self._damaged(ValueError("a row is no whole number")) from error
        if len(found) and not (found[0] >= 0 and found[-1] < count):
            raise self._damaged(ValueError(f"the rows {found[0]} to {found[-1]} are named, of {count}"))
        return found

    def checksums(self, rows: Sequence[int]) -> dict[int, int]:
        """The CRC-32 of the bytes of each of these vector rows."""
        found: dict[int, int] = {}
        for start in range(0, len(rows), _CHUNK):
            part = rows[start : start + _CHUNK]
            marks = ",".join("?" * len(part))
            found |= dict(self.ask(f"SELECT row, crc FROM vectors WHERE row IN ({marks})", part))
        return found

    def row_of(self, sha256: str) -> int | None:
        """The lowest row made from these bytes."""
        found = self.ask("SELECT min(row) FROM vectors WHERE sha256 = ?", [sha256])
        return None if found[0][0] is None else int(found[0][0])

    def kept(self, sha256: str) -> tuple[int, int] | None:
        """Offset and length of the copy of an image of these bytes in the index, if there is one."""
        sql = (
            f'SELECT "offset", length FROM records WHERE {_KEPT} AND "offset" IS NOT NULL '
            "AND row IN (SELECT row FROM vectors WHERE sha256 = ?) LIMIT 1"
        )
        found = self.ask(sql, [sha256])
        return (int(found[0][0]), int(found[0][1])) if found else None

    def end_of_kept(self) -> int:
        """Where the last of the copies ends, in bytes."""
        return int(self.ask_one(f'SELECT coalesce(max("offset" + length), 0) FROM records WHERE {_KEPT}'))

    @property
    def vectors(self) -> int:
        """How many rows there are, in use or not."""
        return int(self.ask_one("SELECT count(*) FROM vectors"))

    def counts(self) -> tuple[int, int]:
        """How many records have a vector, and how many have an error."""
        good = int(self.ask_one("SELECT count(*) FROM records WHERE row IS NOT NULL"))
        return good, int(self.ask_one("SELECT count(*) FROM records WHERE row IS NULL"))

    def away(self) -> int:
        """How many images could not be looked at by the last run, and stay."""
        return int(self.ask_one("SELECT count(*) FROM records WHERE away IS NOT NULL"))

    def seal(self, known: Seal) -> Seal:
        """The hash over the whole file, for the manifest; ``known`` is that of the last run.

        Where nothing was written since, it is ``known``: a hash of a damaged file would hide the damage.
        Empty when readers are in the way of folding the log into the file.
        """
        generation = self.state.generation
        if known.sha256 and known.generation == generation:
            return known
        busy = self.ask_one("PRAGMA wal_checkpoint(TRUNCATE)")
        with self._guard():
            size, digest = (0, "") if busy else self._database.sha256()
        return Seal(generation=generation, bytes=size, sha256=digest)

    def is_sealed(self, seal: Seal) -> bool:
        """Whether nobody has written since the file was sealed, so that its bytes must be the same."""
        return bool(seal.sha256) and self.state.generation == seal.generation

    def is_whole(self, seal: Seal) -> bool:
        """Whether the file's bytes are those that were sealed."""
        with self._guard():
            return self._database.sha256() == (seal.bytes, seal.sha256)

    # Writing, inside a `transaction`

    def add_vectors(self, first: int, hashes: Sequence[str | None], vectors: NDArray[Any]) -> None:
        """Announces ``vectors`` ``(n, d)`` as rows ``first``, ``first + 1`` ..., and what they are of."""
        rows = [(first + i, h, crc(v)) for i, (h, v) in enumerate(zip(hashes, vectors, strict=True))]
        self._touched |= bool(rows)
        self._db.executemany("INSERT INTO vectors VALUES (?, ?, ?)", rows)

    def put(self, record: Record) -> None:
        """Adds a record, or replaces the one with its id, which keeps its place."""
        seq = self._drop(record.id)
        if seq is None:
            seq = self._last = self._last + 1
        fields = values(record)
        sum_ = checksum([seq, *fields])
        self._tell(record.row, fields[METADATA], 1)
        marks = ",".join("?" * (len(fields) + 2))
        self._db.execute(
            f"INSERT INTO records (seq,{_NAMES},checksum) VALUES ({marks})", [seq, *fields, sum_]
        )
        self._count(1, sum_)

    def _drop(self, id_: str) -> int | None:
        """Removes a record; its place, None when there was none."""
        sql = "SELECT seq, checksum, row, metadata FROM records WHERE id = ?"
        found = self._db.execute(sql, [id_]).fetchone()
        if found is None:
            return None
        if not isinstance(found[1], int):
            raise ImageIndexError(f"{self.path} is damaged in the record of {id_!r}; {_REBUILD}")
        self._tell(found[2], found[3], -1)
        self._db.execute("DELETE FROM records WHERE seq = ?", [found[0]])
        self._count(-1, -found[1])
        return int(found[0])

    def _tell(self, row: int | None, metadata: str, by: int) -> None:
        """Counts the metadata of a record with a vector, or takes them off."""
        if row is None or self._tally is None:
            return
        try:
            self._tally.add(metadata, by)
        except (ValueError, TypeError, RecursionError) as error:
            raise self._damaged(error) from error

    def _count(self, more: int, sum_: int) -> None:
        self._state.records += more
        self._state.total = wrapped(self._state.total + sum_)
        self._touched = True

    def mark(self, ids: Iterable[str], why: str) -> None:
        """Notes why images whose vectors stay could not be looked at."""
        for id_ in ids:
            record = self.get(id_)
            if record is not None and record.away != why:
                self.put(replace(record, away=why))

    def delete(self, ids: Iterable[str]) -> None:
        """Removes records; their rows stay, for the bytes may turn up again under another name."""
        for id_ in ids:
            self._drop(id_)

    def ask(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """What the database answers."""
        with self._guard():
            return self._db.execute(sql, values).fetchall()

    def ask_one(self, sql: str) -> Any:
        """The first value that it answers."""
        return self.ask(sql)[0][0]

    def _select(self, where: str, with_: Sequence[Any], limit: int = -1) -> list[tuple[int, Record]]:
        return [(seq, self.checked(seq, f, sum_)) for seq, f, sum_ in self.raw(where, with_, limit)]

    def raw(self, where: str, with_: Sequence[Any], limit: int = -1) -> list[tuple[int, list[Any], int]]:
        """Place, columns and checksum of records, as they stand."""
        sql = f"SELECT seq,checksum,{_NAMES} FROM records {where} ORDER BY seq LIMIT {limit}"
        return [(seq, fields, sum_) for seq, sum_, *fields in self.ask(sql, with_)]

    def checked(self, seq: int, fields: list[Any], sum_: int) -> Record:
        """A record of `raw`. Raises `ImageIndexError` where it is not as it was written."""
        try:
            if checksum([seq, *fields]) != sum_:
                raise ValueError("it is not as it was written")
            return parse(fields)
        except ValueError as error:
            name = repr(fields[0])[:100]
            raise ImageIndexError(
                f"{self.path} is damaged in the record of {name}: {error}; {_REBUILD}"
            ) from error


def crc(vector: NDArray[Any]) -> int:
    """CRC-32 of a vector's bytes as they are on the disk: of float32 or float16, whichever it is."""
    return zlib.crc32(np.ascontiguousarray(vector, dtype=vector.dtype.newbyteorder("<")).tobytes())
