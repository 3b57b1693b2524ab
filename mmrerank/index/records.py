"""``records.sqlite``: one record per image, and which vector row it has. The truth of an index.

Many records may share one row (files with the same bytes). Knows nothing about the vectors' values.
The schema is numbered by ``PRAGMA user_version``; each migration takes it one number up.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmrerank.errors import ImageIndexError, InputError
from mmrerank.index.kept import KEPT
from mmrerank.paths import database_reason, may_write, reason

FILE = "records.sqlite"
APPLICATION_ID = 0x6D6D7272  # "mmrr": tells our files from other SQLite databases
_PAGE = 10_000
_CHUNK = 500  # below SQLite's smallest limit on parameters


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is known about one image.

    ``path`` is below the source where possible, else absolute; ``offset`` and ``length`` (bytes) are a span
    of it; what begins with `mmrerank.index.kept.KEPT` is a copy in the index. ``size`` is the encoded
    image's, in bytes. ``row`` is its vector, None when ``error`` says why. ``ctime_ns`` tells a change
    that left size and time. ``away`` says why the last run could not look at an image whose vector stays.
    """

    id: str
    path: bytes | None = None
    offset: int | None = None
    length: int | None = None
    sha256: str | None = None
    size: int | None = None
    mtime_ns: int | None = None
    width: int | None = None
    height: int | None = None
    taken: str | None = None
    camera: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    row: int | None = None
    error: str | None = None
    ctime_ns: int | None = None
    away: str | None = None


_KEPT = f"substr(path, 1, {len(KEPT)}) = x'{KEPT.hex()}'"
_COLUMNS = tuple(Record.__dataclass_fields__)


def _first(db: sqlite3.Connection) -> None:
    db.execute("""
        CREATE TABLE vectors (
            row INTEGER PRIMARY KEY,   -- 0, 1, 2 ... without gaps: the position in vectors/
            sha256 TEXT                -- of the bytes it was made from
        )""")
    db.execute("""
        CREATE TABLE records (
            seq INTEGER PRIMARY KEY,   -- the order of insertion
            id TEXT NOT NULL UNIQUE,
            path BLOB, "offset" INTEGER, length INTEGER,
            sha256 TEXT, size INTEGER, mtime_ns INTEGER,
            width INTEGER, height INTEGER, taken TEXT, camera TEXT,
            metadata TEXT NOT NULL DEFAULT '{}',
            row INTEGER REFERENCES vectors (row),
            error TEXT,
            CHECK ((row IS NULL) = (error IS NOT NULL))
        )""")
    db.execute("CREATE INDEX vectors_by_hash ON vectors (sha256)")
    db.execute("CREATE INDEX records_by_row ON records (row)")


def _second(db: sqlite3.Connection) -> None:
    db.execute("ALTER TABLE records ADD COLUMN ctime_ns INTEGER")


def _third(db: sqlite3.Connection) -> None:
    db.execute("ALTER TABLE records ADD COLUMN away TEXT")


_OLDEST_READ = 1
MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (_first, _second, _third)
"""Migration ``i`` takes schema version ``i`` to ``i + 1``. Never edited, only added to."""


class Records:
    """The database in ``folder``. Safe to use from several threads."""

    def __init__(self, folder: Path, *, write: bool = False) -> None:
        self.path = folder / FILE
        self._write = write
        self._lock = threading.RLock()
        self._columns = _COLUMNS  # an index of an older version has fewer
        with self._guard():
            self._db = self._connect(write)
            try:
                self._check(write)
            except BaseException:
                self._db.close()
                raise
        weakref.finalize(self, self._db.close)

    def _connect(self, write: bool) -> sqlite3.Connection:
        if write:
            db = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None)
            db.execute("PRAGMA foreign_keys = ON")
            return db
        if not self.path.is_file():
            raise ImageIndexError(f"{self.path} is missing; index the source again with --rebuild")
        uri = self.path.absolute().as_uri()
        # Reading a WAL database takes write access to its folder, or a log that is there already.
        logged = self.path.with_name(f"{FILE}-wal").exists()
        mode = "mode=ro" if logged or may_write(self.path.parent) else "immutable=1"
        return sqlite3.connect(f"{uri}?{mode}", uri=True, check_same_thread=False, isolation_level=None)

    def _check(self, write: bool) -> None:
        version = int(self._one("PRAGMA user_version"))
        application = int(self._one("PRAGMA application_id"))
        if version == application == 0 and write and not self._one("SELECT count(*) FROM sqlite_schema"):
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        elif application != APPLICATION_ID:
            raise ImageIndexError(
                f"{self.path} is not a database of mmrerank; move it away, and index the source again"
            )
        if version > len(MIGRATIONS):
            raise ImageIndexError(
                f"{self.path} has schema {version}, and this mmrerank knows up to {len(MIGRATIONS)}; "
                "update mmrerank"
            )
        if not write and _OLDEST_READ <= version < len(MIGRATIONS):
            there = {r[1] for r in self._all("PRAGMA table_info(records)")}
            self._columns = tuple(c for c in _COLUMNS if c in there)
            return
        if version < len(MIGRATIONS) and not write:
            raise ImageIndexError(
                f"{self.path} has the old schema {version}; run mmrerank index again to bring it up to date"
            )
        for number in range(version, len(MIGRATIONS)):
            with self.transaction():
                MIGRATIONS[number](self._db)
                self._db.execute(f"PRAGMA user_version = {number + 1}")

    def close(self) -> None:
        """Folds the log into the database, where this is the last user, and closes it."""
        with self._lock:
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside happens, or nothing."""
        with self._guard():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                if self._db.in_transaction:  # some failures have ended it already
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    @contextmanager
    def _guard(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except sqlite3.OperationalError as error:
                why = database_reason(self.path, error, write=self._write)
                raise ImageIndexError(f"{self.path} cannot be used: {why}") from error
            except OSError as error:
                raise ImageIndexError(f"{self.path} cannot be used: {reason(error)}") from error
            except sqlite3.DatabaseError as error:
                raise ImageIndexError(
                    f"{self.path} is damaged ({error}); index the source again with --rebuild"
                ) from error

    # Reading

    def get(self, id_: str) -> Record | None:
        """The record with this id."""
        found = self._select("WHERE id = ?", [id_])
        return found[0][1] if found else None

    def ids(self) -> list[str]:
        """The ids of every image that has a vector, in the order of insertion."""
        return [r[0] for r in self._all("SELECT id FROM records WHERE row IS NOT NULL ORDER BY seq")]

    def all_ids(self) -> list[str]:
        """The ids of every record, failed ones too."""
        return [r[0] for r in self._all("SELECT id FROM records ORDER BY seq")]

    def states(self) -> Iterator[tuple[str, bool]]:
        """The id of every record and whether it has a vector, in the order of insertion."""
        last = -1
        sql = "SELECT seq, id, row IS NOT NULL FROM records WHERE seq > ? ORDER BY seq LIMIT ?"
        while page := self._all(sql, [last, _PAGE]):
            for last, id_, has_row in page:  # noqa: B007 - the last one is where the next page starts
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
        return found

    def everything(self) -> Iterator[Record]:
        """Every record, in the order of insertion; fetched in portions."""
        last = -1
        while page := self._select("WHERE seq > ?", [last], limit=_CHUNK):
            for last, record in page:  # noqa: B007 - the last one is where the next page starts
                yield record

    def rows_of(self, ids: Sequence[str]) -> list[int]:
        """The vector row of each id. Raises `InputError` for an id that has none."""
        found: dict[str, int] = {}
        wanted = list(dict.fromkeys(ids))
        for start in range(0, len(wanted), _CHUNK):
            part = wanted[start : start + _CHUNK]
            marks = ",".join("?" * len(part))
            sql = f"SELECT id, row FROM records WHERE row IS NOT NULL AND id IN ({marks})"
            found |= {r[0]: int(r[1]) for r in self._all(sql, part)}
        if lacking := [i for i in wanted if i not in found]:
            raise InputError(f"the index has no vector of {lacking[0]!r}")
        return [found[i] for i in ids]

    def rows(self) -> list[int]:
        """The rows in use, ascending."""
        sql = "SELECT DISTINCT row FROM records WHERE row IS NOT NULL ORDER BY row"
        return [r[0] for r in self._all(sql)]

    def row_of(self, sha256: str) -> int | None:
        """The lowest row made from these bytes."""
        found = self._all("SELECT min(row) FROM vectors WHERE sha256 = ?", [sha256])
        return None if found[0][0] is None else int(found[0][0])

    def kept(self, sha256: str) -> tuple[int, int] | None:
        """Offset and length of the copy of an image of these bytes in the index, if there is one."""
        sql = (
            f'SELECT "offset", length FROM records WHERE {_KEPT} AND "offset" IS NOT NULL '
            "AND row IN (SELECT row FROM vectors WHERE sha256 = ?) LIMIT 1"
        )
        found = self._all(sql, [sha256])
        return (int(found[0][0]), int(found[0][1])) if found else None

    def end_of_kept(self) -> int:
        """Where the last of the copies ends, in bytes."""
        return int(self._one(f'SELECT coalesce(max("offset" + length), 0) FROM records WHERE {_KEPT}'))

    @property
    def vectors(self) -> int:
        """How many rows there are, in use or not."""
        return int(self._one("SELECT count(*) FROM vectors"))

    def counts(self) -> tuple[int, int]:
        """How many records have a vector, and how many have an error."""
        good = int(self._one("SELECT count(*) FROM records WHERE row IS NOT NULL"))
        return good, int(self._one("SELECT count(*) FROM records WHERE row IS NULL"))

    def away(self) -> int:
        """How many images could not be looked at by the last run, and stay."""
        known = "away" in self._columns
        return int(self._one("SELECT count(*) FROM records WHERE away IS NOT NULL")) if known else 0

    def integrity(self) -> list[str]:
        """What SQLite itself finds wrong, and records whose vector is not announced."""
        lines = [r[0] for r in self._all("PRAGMA integrity_check") if r[0] != "ok"]
        orphans = self._all("PRAGMA foreign_key_check")
        if orphans:
            lines.append(f"{len(orphans)} records name a vector that there is not")
        return [f"{self.path}: {line}" for line in lines]

    # Writing, inside a `transaction`

    def add_vectors(self, first: int, hashes: Sequence[str | None]) -> None:
        """Announces rows ``first``, ``first + 1`` ... and what they were made from."""
        self._db.executemany("INSERT INTO vectors VALUES (?, ?)", enumerate(hashes, start=first))

    def put(self, record: Record) -> None:
        """Adds a record, or replaces the one with its id, which keeps its place."""
        values = [
            json.dumps(record.metadata, default=str) if c == "metadata" else vars(record)[c] for c in _COLUMNS
        ]
        names = ",".join(f'"{c}"' for c in _COLUMNS)
        changes = ",".join(f'"{c}" = excluded."{c}"' for c in _COLUMNS[1:])
        marks = ",".join("?" * len(_COLUMNS))
        self._db.execute(
            f"INSERT INTO records ({names}) VALUES ({marks}) ON CONFLICT (id) DO UPDATE SET {changes}", values
        )

    def mark(self, ids: Iterable[str], why: str) -> None:
        """Notes why images whose vectors stay could not be looked at."""
        for id_ in ids:
            record = self.get(id_)
            if record is not None and record.away != why:
                self.put(replace(record, away=why))

    def delete(self, ids: Iterable[str]) -> None:
        """Removes records; their rows stay, for the bytes may turn up again under another name."""
        self._db.executemany("DELETE FROM records WHERE id = ?", ((i,) for i in ids))

    def _all(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._guard():
            return self._db.execute(sql, values).fetchall()

    def _one(self, sql: str) -> Any:
        return self._all(sql)[0][0]

    def _select(self, where: str, values: Sequence[Any], limit: int = -1) -> list[tuple[int, Record]]:
        names = ",".join(f'"{c}"' for c in self._columns)
        sql = f"SELECT seq,{names} FROM records {where} ORDER BY seq LIMIT {limit}"
        found = []
        for seq, *rest in self._all(sql, values):
            fields = dict(zip(self._columns, rest, strict=True))
            try:
                fields["metadata"] = json.loads(fields["metadata"])
            except ValueError as error:
                raise ImageIndexError(
                    f"{self.path} is damaged: the metadata of {fields['id']!r} are no JSON"
                ) from error
            found.append((seq, Record(**fields)))
        return found
