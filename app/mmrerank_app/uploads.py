"""Reference images that visitors upload: a folder for each session, names that nobody can guess.

No path reaches the browser, and none comes from it. A visitor gets the name of an upload, which is good in
the same session only. Files are private to this user, and are deleted after a while and at the end.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import re
import secrets
import shutil
import stat
import tempfile
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mmrerank.errors import InputError, UsageError
from mmrerank_app.limits import PageLimits

REFUSED = "the reference image is not one that was uploaded in this session; choose it again"
"""The one answer to every other file, there or not: it tells nothing about this machine."""
_SUFFIXES = frozenset({".avif", ".bmp", ".gif", ".heic", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
_REFERENCE = re.compile(r"[0-9a-f]{32}/[A-Za-z0-9_-]{22}(?:\.[a-z]{3,4})?", re.ASCII)
_CHUNK = 1 << 20
_LEAST = 4096
"""Bytes that any file takes on a disk: empty ones are not without number."""


def new_session() -> str:
    """A fresh session, as the cookie holds it."""
    return secrets.token_urlsafe(24)


def owner_of(session: str) -> str:
    """The folder name of a session: who lists the folder does not learn the cookie."""
    return hashlib.sha256(session.encode("utf-8", "replace")).hexdigest()[:32]


def reference(owner: str, name: str) -> str:
    """What stands for an upload on the way to the form: only the server can put the session in."""
    return f"{owner}/{name}"


@dataclass(frozen=True)
class _Kept:
    size: int
    until: float


class Uploads:
    """Uploads of all sessions, within `PageLimits`. Safe for several threads."""

    def __init__(self, limits: PageLimits | None = None) -> None:
        self.limits = limits or PageLimits()
        self._root: Path | None = None
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def most(self) -> int:
        """Bytes of one upload at most."""
        return int(self.limits.upload_mb * 1e6)

    def too_large(self, size: int) -> UsageError:
        """That an upload has more bytes than allowed."""
        return UsageError(
            f"the reference image has {size / 1e6:.1f} MB and may have {self.limits.upload_mb:g}; "
            f"{self.limits.raised('upload_mb')}"
        )

    def save(self, owner: str, file: BinaryIO, file_name: str) -> str:
        """Keeps what ``file`` holds for a session; returns the name of the upload. Raises `UsageError`.

        Of ``file_name`` only a known ending is used, so that a browser shows the image.
        """
        suffix = Path(file_name).suffix.lower()
        name = secrets.token_urlsafe(16) + (suffix if suffix in _SUFFIXES else "")
        folder = self._folder() / owner
        folder.mkdir(mode=0o700, exist_ok=True)
        size = 0
        target = folder / name
        opened = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(opened, "wb") as kept:
                while chunk := file.read(_CHUNK):
                    size += len(chunk)
                    if size > self.most:
                        raise self.too_large(size)
                    kept.write(chunk)
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        with self._lock:
            self._kept[reference(owner, name)] = _Kept(
                max(size, _LEAST), time.monotonic() + 60 * self.limits.upload_minutes
            )
        self.expire()
        return name

    def expire(self) -> None:
        """Deletes what was kept long enough, and the oldest where all together are too large."""
        now, most = time.monotonic(), self.limits.uploads_mb * 1e6
        with self._lock:
            total = sum(k.size for k in self._kept.values())
            while self._kept:
                name, oldest = next(iter(self._kept.items()))
                if oldest.until > now and (total <= most or len(self._kept) == 1):
                    return
                del self._kept[name]
                total -= oldest.size
                assert self._root is not None
                file = self._root / name
                file.unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # the session has others
                    file.parent.rmdir()

    def find(self, name: str) -> Path:
        """The file of the upload that is meant by a `reference`. Raises `InputError` with the one text for
        anything else.
        """
        if self._root is None or not _REFERENCE.fullmatch(name):
            raise InputError(REFUSED)
        self.expire()
        file = self._root / name
        try:
            lies_there = Path(os.path.realpath(file)) == file and stat.S_ISREG(file.lstat().st_mode)
        except OSError:
            lies_there = False
        if not lies_there:
            raise InputError(REFUSED)
        return file

    def read(self, name: str) -> bytes:
        """The bytes of the upload that is meant by a `reference`. Raises `InputError` as `find`."""
        try:
            with self.find(name).open("rb") as opened:
                return opened.read(self.most)
        except OSError as error:
            raise InputError(REFUSED) from error

    def close(self) -> None:
        """Deletes all of them."""
        with self._lock:
            self._kept.clear()
            if self._root is not None:
                shutil.rmtree(self._root, ignore_errors=True)
                self._root = None

    def _folder(self) -> Path:
        with self._lock:
            if self._root is None:
                # readable by this user only; resolved, since a temporary folder is often a link itself
                self._root = Path(tempfile.mkdtemp(prefix="mmrerank-uploads-")).resolve()
                atexit.register(shutil.rmtree, self._root, ignore_errors=True)
            return self._root
