"""The SQLite file below the records: its schema, how it is opened, and the hash over its bytes.

It may come from elsewhere: nothing in it is run (no trigger, no view), and its schema is exactly ours.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
from pathlib import Path
from typing import IO, ClassVar

from mmrerank.errors import ImageIndexError
from mmrerank.paths import may_write

FILE = "records.sqlite"
APPLICATION_ID = 0x6D6D7272  # "mmrr": tells our files from other SQLite databases
SCHEMA = 5
LONGEST = 1 << 24
"""Bytes of the longest value and of the longest record. Metadata are far shorter; a foreign database could
claim values of a gigabyte. Raise it here where yours are longer."""

_REBUILD = "index the source again with --rebuild"
_BLOCK = 1 << 22  # bytes that are hashed at a time
_TABLES = {
    # row: 0, 1, 2 ... without gaps, the position in vectors/; sha256: of the bytes it was made from;
    # crc: CRC-32 of the row's own bytes
    "vectors": "(row INTEGER PRIMARY KEY, sha256 TEXT, crc INTEGER NOT NULL)",
    # seq: the order of insertion; checksum: over all other columns
    "records": """(
        seq INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        path BLOB, "offset" INTEGER, length INTEGER,
        sha256 TEXT, size INTEGER, mtime_ns INTEGER,
        width INTEGER, height INTEGER, taken TEXT, camera TEXT,
        metadata TEXT NOT NULL DEFAULT '{}',
        row INTEGER REFERENCES vectors (row),
        error TEXT, ctime_ns INTEGER, away TEXT,
        checksum INTEGER NOT NULL,
        CHECK ((row IS NULL) = (error IS NOT NULL))
    )""",
    # one row: how many runs have written, how many records there are, and the sums of the checksums of
    # records and of fields
    "state": "(generation INTEGER NOT NULL, records INTEGER NOT NULL, total INTEGER NOT NULL, "
    "columns INTEGER NOT NULL, checksum INTEGER NOT NULL)",
    # name: the keys on the way into the metadata, a JSON list; images: of those with a vector, how many have
    # a value there; then how many have one of each kind
    "fields": """(
        n INTEGER PRIMARY KEY, name TEXT NOT NULL, images INTEGER NOT NULL,
        text INTEGER NOT NULL, date INTEGER NOT NULL, number INTEGER NOT NULL, boolean INTEGER NOT NULL,
        list INTEGER NOT NULL, other INTEGER NOT NULL, odd INTEGER NOT NULL,
        checksum INTEGER NOT NULL
    )""",
}
_INDEXES = {
    "vectors_by_hash": "vectors (sha256)",
    "records_by_row": "records (row)",
    "records_by_taken": "records (taken, row)",
    "records_by_camera": "records (camera, row)",
}


def _schema() -> list[tuple[str, str, str, str | None]]:
    """Type, name and table of everything in it, with the statement that makes it, as SQLite keeps them."""
    return [
        *(("table", name, name, f"CREATE TABLE {name} {columns}") for name, columns in _TABLES.items()),
        *(("index", name, on.split()[0], f"CREATE INDEX {name} ON {on}") for name, on in _INDEXES.items()),
        ("index", "sqlite_autoindex_records_1", "records", None),  # of UNIQUE
    ]


class Database:
    """An open connection to the file in ``folder``, made there when ``write`` finds none.

    Raises `ImageIndexError` for a file that is not ours, and what `sqlite3` raises.
    """

    def __init__(self, folder: Path, *, write: bool) -> None:
        self.path = folder / FILE
        self.connection = _connect(self.path, write)
        self._closed = False
        try:
            self._check(write)
            self._bytes = _Bytes.of(self.path)
        except BaseException:
            self.connection.close()
            raise

    def close(self) -> None:
        """Folds the log into the file, where this is the last user, and closes it."""
        self.connection.close()
        if not self._closed:
            self._closed = True
            self._bytes.let_go()

    def sha256(self) -> tuple[int, str]:
        """Size and SHA-256 of the file, without the log. Raises `OSError`, or `ImageIndexError` where
        another file is in its place.
        """
        return self._bytes.sha256()

    def _one(self, sql: str) -> int:
        return int(self.connection.execute(sql).fetchone()[0])

    def _check(self, write: bool) -> None:
        version, application = self._one("PRAGMA user_version"), self._one("PRAGMA application_id")
        if version == application == 0 and write and not self._one("SELECT count(*) FROM sqlite_schema"):
            self._make()
            return
        if application != APPLICATION_ID:
            raise ImageIndexError(
                f"{self.path} is not a database of mmrerank; move it away, and index the source again"
            )
        if version > SCHEMA:
            raise ImageIndexError(
                f"{self.path} has schema {version}, and this mmrerank knows up to {SCHEMA}; update mmrerank"
            )
        if version < SCHEMA:
            raise ImageIndexError(f"{self.path} has the old schema {version}; {_REBUILD}")
        found = self.connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema LIMIT 19")
        if set(found.fetchall()) != set(_schema()):
            raise ImageIndexError(f"{self.path} is damaged or foreign: its tables are others; {_REBUILD}")

    def _make(self) -> None:
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("BEGIN IMMEDIATE")
        for *_, statement in _schema():
            if statement:
                self.connection.execute(statement)
        self.connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        self.connection.execute(f"PRAGMA user_version = {SCHEMA}")
        self.connection.execute("COMMIT")


def _connect(path: Path, write: bool) -> sqlite3.Connection:
    if not write and not path.is_file():
        raise ImageIndexError(f"{path} is missing; {_REBUILD}")
    journal = path.with_name(f"{FILE}-journal")
    if journal.exists():  # ours is a log; a journal from elsewhere can name files to be deleted
        raise ImageIndexError(f"{journal} is no file of an index; delete it, then {_REBUILD}")
    mode = "mode=rwc"
    if not write:
        # Reading a WAL database takes write access to its folder, or a log that is there already.
        logged = path.with_name(f"{FILE}-wal").exists()
        mode = "mode=ro" if logged or may_write(path.parent) else "immutable=1"
    uri = f"{path.absolute().as_uri()}?{mode}"
    db = sqlite3.connect(uri, uri=True, check_same_thread=False, isolation_level=None)
    try:
        db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
        for setting in ("trusted_schema = OFF", "cell_size_check = ON", "foreign_keys = ON"):
            db.execute(f"PRAGMA {setting}")
    except BaseException:
        db.close()
        raise
    return db


class _Bytes:
    """A file's bytes beside SQLite's own use of it. Closed when the last `Database` of this process is.

    To close any handle of a file lets go of all locks that the process has on it, SQLite's too
    (https://www.sqlite.org/howtocorrupt.html, section 2.2).
    """

    _known: ClassVar[dict[tuple[int, int], _Bytes]] = {}
    _lock = threading.RLock()

    def __init__(self, path: Path, key: tuple[int, int]) -> None:
        self._path, self._key = path, key
        self._users = 0
        self._file: IO[bytes] | None = None

    @classmethod
    def of(cls, path: Path) -> _Bytes:
        """The one for this file; `let_go` ends its use."""
        key = _key(path.stat())
        with cls._lock:
            one = cls._known.setdefault(key, cls(path, key))
            one._users += 1
            return one

    def let_go(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                del self._known[self._key]
                if self._file is not None:
                    self._file.close()

    def sha256(self) -> tuple[int, str]:
        digest, size = hashlib.sha256(), 0
        with self._lock:
            if self._file is None:
                self._file = self._path.open("rb", buffering=0)
            if _key(os.fstat(self._file.fileno())) != self._key:
                raise ImageIndexError(f"{self._path} was replaced by another index; open it again")
            self._file.seek(0)
            while block := self._file.read(_BLOCK):
                digest.update(block)
                size += len(block)
        return size, digest.hexdigest()


def _key(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def identity(folder: Path) -> tuple[int, int] | None:
    """Device and inode of the file, which tell one index in ``folder`` from the next."""
    try:
        return _key((folder / FILE).stat())
    except OSError:
        return None
