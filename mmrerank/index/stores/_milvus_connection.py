"""Connections to Milvus: to a server by its URI, or to Milvus Lite, which runs in this process over a folder.

They end for certain, also where nobody closes them: with their threads, their locks and their temporary
folders. Neither a URI nor a token is written anywhere.
"""

from __future__ import annotations

import atexit
import logging
import queue
import shutil
import threading
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmrerank.errors import ImageIndexError
from mmrerank.locks import lock

_LOUD = ("milvus_lite", "pymilvus", "grpc")
"""Loggers that print what is raised anyway, with tracebacks and addresses."""


class InUse(ImageIndexError):
    """A Milvus Lite file that this process cannot open, because another one has it, or it is read-only."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """Where a cluster is. ``secrets`` are the words that no message may hold."""

    uri: str
    token: str = ""

    @property
    def secrets(self) -> tuple[str, ...]:
        """The URI, its host and the token."""
        host = self.uri.partition("://")[2].rstrip("/")
        return tuple(s for s in (self.uri, self.token, host, host.rpartition("@")[2]) if s)


@dataclass(frozen=True, kw_only=True)
class Lite:
    """The folder ``NAME.db`` of Milvus Lite. The folder ``temporary`` is removed with the connection."""

    path: Path
    temporary: str = ""


class Connection:
    """An open ``client`` of ``place``. `close` ends it; so does its last reference, a moment later.

    Raises what pymilvus raises, and `ImageIndexError` where another process has the Milvus Lite file open.
    """

    def __init__(self, place: Server | Lite) -> None:
        self.client = _opened(place)
        key = id(self.client)
        _alive[key] = (self.client, place)
        # the last reference may go in the middle of anything, also of a lock: another thread closes
        self._end = weakref.finalize(self, _ended.put, key)
        self._end.atexit = False

    def close(self) -> None:
        """Closes the connection. The last one of a Milvus Lite file ends its server."""
        if self._end.detach():
            _close(id(self.client))


_alive: dict[int, tuple[Any, Server | Lite]] = {}
_ended: queue.SimpleQueue[int] = queue.SimpleQueue()
_users: Counter[str] = Counter()
_lock = threading.RLock()
_closer: list[threading.Thread] = []


def _opened(place: Server | Lite) -> Any:
    from pymilvus import MilvusClient

    with _lock:
        if not _closer:
            _closer.append(threading.Thread(target=_close_all, name="milvus-closer", daemon=True))
            _closer[0].start()
            atexit.register(_close_alive)
        if isinstance(place, Server):
            return MilvusClient(place.uri, token=place.token, timeout=30)
        path = str(place.path)
        if not _users[path]:
            _check_free(place.path)
        client = MilvusClient(path)
        _users[path] += 1
        return client


def _close_alive() -> None:
    for key in list(_alive):
        _close(key)


def _close_all() -> None:
    while True:
        key = _ended.get()
        try:
            _close(key)
        except Exception:  # the next one must be closed all the same, and nobody is there to be told
            logging.getLogger(__name__).debug("a connection was not closed", exc_info=True)


def _close(key: int) -> None:
    with _lock:
        client, place = _alive.pop(key)
        client.close()
        if isinstance(place, Server):
            return
        from milvus_lite.server_manager import server_manager_instance

        path = str(place.path)
        _users[path] -= 1
        if _users[path] <= 0:
            del _users[path]
            server_manager_instance.release_server(path)
        if place.temporary:
            shutil.rmtree(place.temporary, ignore_errors=True)


def _check_free(path: Path) -> None:
    """Raises `InUse` when another process has the Milvus Lite file ``path`` open."""
    try:
        with (path / "LOCK").open("r+b", buffering=0) as file:
            free = lock(file)
    except FileNotFoundError:
        return
    except OSError as error:
        raise InUse(
            f"{path} cannot be opened for writing ({error.strerror}), and Milvus Lite reads in no other way"
        ) from error
    if not free:
        raise InUse(
            f"{path} is open in another process, and Milvus Lite lets in one at a time (a Milvus server, "
            "named in MMRERANK_MILVUS, takes many)"
        )


_quiet_lock = threading.RLock()


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps the libraries from printing what they raise as well."""
    loggers = [logging.getLogger(name) for name in _LOUD]
    with _quiet_lock:
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
