"""A cache of replies in one SQLite file, shared by any number of processes and never wrong.

The key is the digest of the question (its words, the bytes of its images, schema and sampling) with the
fingerprint of the model; the rest of a row is covered by a checksum. A file that is damaged is an error,
never an answer. Kept is what answers its question: neither a failed reply nor one that no reader understands,
such as an apology with a good status. The file must not lie on a network drive, where SQLite's locks
do not hold.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sqlite3
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmrerank import writing
from mmrerank.answering import Numbered
from mmrerank.chat.around import Around
from mmrerank.chat.around.identity import fingerprint
from mmrerank.chat.around.replies import UNREADABLE, from_plain, packed, to_plain
from mmrerank.errors import InputError
from mmrerank.messages import Ask, Message, Part, Reply
from mmrerank.paths import database_reason, reason
from mmrerank.ports import Chat
from mmrerank.types import Image, Usage

APPLICATION = 0x6D6D7272
"""SQLite's application id of these files."""
FORMAT = 1
BUSY = 30.0
"""Seconds to wait for another process that writes."""
_TABLE = """CREATE TABLE IF NOT EXISTS replies (
    key BLOB PRIMARY KEY, made INTEGER NOT NULL, model TEXT NOT NULL,
    body BLOB NOT NULL, states BLOB, checksum BLOB NOT NULL) WITHOUT ROWID"""
_MOST = 500  # keys in one look-up; SQLite takes 999 at least


@dataclass(frozen=True, kw_only=True)
class Info:
    """What a cache holds: replies in all and by model, bytes on disk, times (seconds since 1970)."""

    path: str
    replies: int
    bytes: int
    oldest: int | None
    newest: int | None
    models: dict[str, int]


class ReplyStore:
    """The file. Safe for several threads and processes, also after a fork. Raises `InputError`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._process = -1
        self._connection: sqlite3.Connection | None = None
        with self._open():
            pass  # a file that is no cache is reported before anything is paid for

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Reply]:
        """The replies that are there, by key."""
        rows: list[tuple[bytes, bytes, bytes | None, bytes]] = []
        with self._open() as db:
            for start in range(0, len(keys), _MOST):
                part = keys[start : start + _MOST]
                marks = ",".join("?" * len(part))
                rows += db.execute(
                    f"SELECT key, body, states, checksum FROM replies WHERE key IN ({marks})", part
                ).fetchall()
        return {row[0]: self._read(*row) for row in rows}

    def _read(self, key: bytes, body: bytes, states: bytes | None, checksum: bytes) -> Reply:
        try:
            if checksum == _checksum(key, body, states):
                return from_plain(json.loads(body), states)
        except UNREADABLE:
            pass
        raise self._damaged("a reply in it is not what was written")

    def put(self, rows: Sequence[tuple[bytes, Reply]], model: str, *, over: bool = False) -> None:
        """Keeps replies by key; one that is there already stays, or goes where ``over`` is given."""
        now = int(time.time())
        made = []
        for key, reply in rows:
            body, states = json.dumps(to_plain(reply)).encode(), packed(reply)
            made.append((key, now, model, body, states, _checksum(key, body, states)))
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                how = "REPLACE" if over else "IGNORE"
                db.executemany(f"INSERT OR {how} INTO replies VALUES (?, ?, ?, ?, ?, ?)", made)
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    def info(self) -> Info:
        """Counts and sizes."""
        with self._open() as db:
            count, oldest, newest = db.execute(
                "SELECT count(*), min(made), max(made) FROM replies"
            ).fetchone()
            models = db.execute(
                "SELECT model, count(*) FROM replies GROUP BY model ORDER BY 2 DESC, 1"
            ).fetchall()
            size = _size(self.path, db)
        return Info(
            path=str(self.path), replies=count, bytes=size, oldest=oldest, newest=newest,
            models=dict(models),
        )  # fmt: skip

    def check(self) -> None:
        """Reads everything. Raises `InputError` when any of it is damaged."""
        with self._open() as db:
            found = db.execute("PRAGMA integrity_check").fetchone()[0]
            if found != "ok":
                raise self._damaged(found)
            for row in db.execute("SELECT key, body, states, checksum FROM replies"):
                self._read(*row)

    def prune(self, *, older_than: float | None = None, largest: int | None = None) -> int:
        """Drops replies older than so many seconds, then the oldest until the file is at most ``largest``
        bytes. Returns how many were dropped.
        """
        dropped = 0
        with self._open() as db:
            if older_than is not None:
                limit = int(max(0.0, time.time() - older_than))  # SQLite takes 64 bits
                dropped += db.execute("DELETE FROM replies WHERE made < ?", (limit,)).rowcount
                db.execute("VACUUM")
            while largest is not None and (size := _size(self.path, db)) > largest:
                count = db.execute("SELECT count(*) FROM replies").fetchone()[0]
                if not count:
                    break
                # in proportion, and a little more, so that few rounds are needed
                part = max(1, min(count, int(count * (1 - largest / size) * 1.05) + 1))
                dropped += db.execute(
                    "DELETE FROM replies WHERE key IN "
                    "(SELECT key FROM replies ORDER BY made, key LIMIT ?)", (part,),
                ).rowcount  # fmt: skip
                db.execute("VACUUM")
        return dropped

    def close(self) -> None:
        """Ends the connection; the next use opens another."""
        with self._lock:
            if self._connection is not None and self._process == os.getpid():
                self._connection.close()
            self._connection = None

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                if self._connection is None or self._process != os.getpid():
                    self._connection, self._process = self._connected(), os.getpid()
                yield self._connection
            except sqlite3.OperationalError as error:
                why = database_reason(self.path, error)
                raise InputError(f"the cache {self.path} cannot be used: {why}") from error
            except sqlite3.DatabaseError as error:
                raise self._damaged(str(error)) from error

    def _connected(self) -> sqlite3.Connection:
        try:
            os.close(writing.private_file(self.path))  # SQLite gives its other files the same rights
        except OSError as error:
            raise InputError(f"the cache {self.path} cannot be made: {reason(error)}") from error
        end = time.monotonic() + BUSY
        while True:
            db = sqlite3.connect(self.path, timeout=BUSY, isolation_level=None, check_same_thread=False)
            try:
                self._prepare(db)
                return db
            except sqlite3.OperationalError as error:
                # two that make the file at once: changing the journal's kind does not wait
                db.close()
                if "locked" not in str(error) or time.monotonic() > end:
                    raise
                time.sleep(0.02)
            except BaseException:
                db.close()
                raise

    def _prepare(self, db: sqlite3.Connection) -> None:
        if _application(db) != APPLICATION:
            # looked at again where nobody else writes: two may make the file at once
            db.execute("BEGIN IMMEDIATE")
            tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if _application(db) == 0 and tables == 0:
                db.execute(_TABLE)
                db.execute(f"PRAGMA user_version={FORMAT}")
                db.execute(f"PRAGMA application_id={APPLICATION}")
            db.execute("COMMIT")
            if _application(db) != APPLICATION:
                raise InputError(f"{self.path} is a SQLite file, but no cache; give --cache another file")
        if db.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            db.execute("PRAGMA journal_mode=WAL")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version != FORMAT:
            raise InputError(
                f"{self.path} is a cache of format {version}, and this is {FORMAT}; "
                f"`{self._clearing}` deletes it"
            )
        db.execute("PRAGMA synchronous=NORMAL")  # with a write-ahead log: a crash loses, never damages

    def _damaged(self, why: str) -> InputError:
        return InputError(f"the cache {self.path} is damaged ({why}); `{self._clearing}` deletes it")

    @property
    def _clearing(self) -> str:
        return f"mmrerank cache clear --cache {shlex.quote(str(self.path))}"


def clear(path: Path) -> bool:
    """Deletes a cache and what SQLite keeps beside it; whether it was there. Refuses what is no such file."""
    try:
        there = path.is_file()
        foreign = there and path.stat().st_size > 0 and not _ours(path)
    except OSError as error:
        raise InputError(f"the cache {path} cannot be read: {reason(error)}") from error
    if foreign:
        # a damaged head may be ours, but so may anybody's file be that was named by mistake
        raise InputError(f"{path} does not begin like a cache; delete it by hand if it is one")
    for suffix in ("", "-wal", "-shm"):
        try:
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"{path} cannot be deleted: {reason(error)}") from error
    return there


class Cached(Around):
    """Answers what was asked before out of the file at ``path``, and keeps what it has to ask."""

    def __init__(self, inner: Chat, path: Path) -> None:
        super().__init__(inner)
        self.store = ReplyStore(path)
        self._model = fingerprint(inner)
        self._content: dict[tuple[Any, ...], str] = {}
        self._told = False

    def passed(self, asks: Sequence[Ask], ask: Callable[[Sequence[Ask]], Numbered]) -> Numbered:
        """Kept replies at no cost, and the inner chat's for the rest; equal questions are asked once.

        A kept reply that does not answer its question, as older versions kept some, is asked for again.
        Whatever came is kept, also where the rest is given up.
        """
        start = time.perf_counter()
        keys, found, useless = self._found(asks)
        took = Usage(seconds=(time.perf_counter() - start) / max(len(asks), 1))
        missing: dict[bytes | int, list[int]] = {}  # places of equal questions
        for place, key in enumerate(keys):
            if key is not None and key in found:
                yield place, replace(found[key], usage=took)
            else:
                missing.setdefault(place if key is None else key, []).append(place)
        if not missing:
            return
        groups = list(missing.values())
        fresh: list[tuple[bytes | None, Reply]] = []
        try:
            with closing(ask([asks[places[0]] for places in groups])) as replies:
                for n, reply in replies:
                    first, *equal = groups[n]
                    if _answers(asks[first], reply):
                        fresh.append((keys[first], reply))
                    yield first, reply
                    for place in equal:
                        yield place, replace(reply, usage=Usage())
        finally:
            self._keep([row for row in fresh if row[0] not in useless])
            self._keep([row for row in fresh if row[0] in useless], over=True)

    def known(self, asks: Sequence[Ask]) -> list[Reply | None]:
        """The kept replies, None where there is none."""
        keys, found, _ = self._found(asks)
        hits = [None if k is None else found.get(k) for k in keys]
        return [None if r is None else replace(r, usage=Usage()) for r in hits]

    def _found(self, asks: Sequence[Ask]) -> tuple[list[bytes | None], dict[bytes, Reply], set[bytes]]:
        """The key of each question, the kept replies that answer, and the keys of those that do not."""
        keys = [self.key(a) for a in asks]
        found = self.store.get(list({k for k in keys if k}))
        useless = {k for a, k in zip(asks, keys, strict=True) if k in found and not _answers(a, found[k])}
        return keys, {k: r for k, r in found.items() if k not in useless}, useless

    def _keep(self, rows: Sequence[tuple[bytes | None, Reply]], *, over: bool = False) -> None:
        good = [(k, r) for k, r in rows if k is not None]
        if not good:
            return
        try:
            self.store.put(good, self.spec, over=over)
        except InputError as error:
            if "damaged" in str(error):
                raise
            # a full disk or a busy file: the answers are here and paid for
            if not self._told:
                warnings.warn(f"{error}; replies are not kept", stacklevel=2)
            self._told = True

    def key(self, ask: Ask) -> bytes | None:
        """The key of ``ask`` for this model; None when an image of it cannot be read."""
        try:
            honest = tuple(
                Message(role=m.role, parts=tuple(self._honest(p) for p in m.parts)) for m in ask.messages
            )
        except OSError:
            return None
        digest = replace(ask.stripped(), messages=honest).digest()
        return hashlib.sha256(f"{self._model}\0{digest}".encode()).digest()

    def _honest(self, part: Part) -> Part:
        """``part`` with its image's digest from the bytes as they are now, not as an index knew them."""
        image = part.image
        if image is None:
            return part
        if image.path is None:
            return Part(image=replace(image, sha256=None))
        now = image.path.stat()
        place = (image.path, image.offset, image.length, now.st_size, now.st_mtime_ns, now.st_ino)
        if place not in self._content:
            if len(self._content) > 100_000:
                self._content.clear()
            self._content[place] = hashlib.sha256(image.read()).hexdigest()
        return Part(image=Image(path=image.path, sha256=self._content[place]))


def _answers(ask: Ask, reply: Reply) -> bool:
    """Whether ``reply`` is worth keeping as the answer to ``ask``."""
    return reply.error is None and (ask.useful is None or ask.useful(reply))


def _ours(path: Path) -> bool:
    """Whether a file begins like a cache, and what can be read of it is nothing else, such as an index."""
    with path.open("rb") as file:
        head = file.read(72)
    if not head.startswith(b"SQLite format 3") or int.from_bytes(head[68:], "big") != APPLICATION:
        return False
    try:
        # as it lies there: no lock is waited for, and nothing written
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)) as db:
            tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
    except sqlite3.DatabaseError:
        return True
    return not tables or "replies" in tables


def _application(db: sqlite3.Connection) -> int:
    found: int = db.execute("PRAGMA application_id").fetchone()[0]
    return found


def _checksum(key: bytes, body: bytes, states: bytes | None) -> bytes:
    return hashlib.blake2b(b"\0".join((key, body, states or b"")), digest_size=16).digest()


def _size(path: Path, db: sqlite3.Connection) -> int:
    # what waits in the log belongs to the file; where others are reading, it stays and is counted
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    files = (path, path.with_name(path.name + "-wal"))
    return sum(f.stat().st_size for f in files if f.exists())
