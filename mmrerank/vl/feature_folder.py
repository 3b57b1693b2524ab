"""Features of images on disk, for the next process: a bounded folder of files that anything may vanish from.

It is a cache. An image whose file is damaged or gone is looked at again, and a disk that is full ends the
writing with one warning, never a ranking. Several processes may share a folder.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

BYTES = 32 << 30
"""Disk for features by default: about 16,000 images of 256 tokens for a 7B Qwen2.5-VL."""
_OURS = re.compile(r"[0-9a-f]{64}\.(safetensors|\d+\.\d+)")  # whole, and being written
_TIDY = 0.9  # of the limit is left after a clearing, so that not every file clears


class FeatureFolder:
    """One file an image, the least recently used deleted first once all are larger than ``limit`` bytes.

    ``owner`` names the model, so that another model's files are not read. Files that are not of this class
    are neither counted nor touched. Safe in threads and processes.
    """

    def __init__(self, folder: Path, *, owner: str = "", limit: int = BYTES) -> None:
        self.owner = owner
        self._folder, self._limit = folder, limit
        self._size: int | None = None  # of all files, as far as this process knows
        self._closed = False
        self._lock = threading.Lock()

    def get(self, key: str) -> dict[str, Any] | None:
        """The tensors kept under ``key``, or None."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self._path(key)
        try:
            found: dict[str, Any] = load_file(path)
            _used_now(path)
        except (OSError, SafetensorError):  # absent or damaged: looked at again
            return None
        return found

    def put(self, key: str, tensors: dict[str, Any]) -> None:
        """Keeps ``tensors``, unless they alone are larger than the limit or nothing can be written."""
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        path = self._path(key)
        part = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}")
        if self._closed:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            save_file(tensors, part)
            _used_now(part)
            size = part.stat().st_size
            if size > self._limit:
                part.unlink()
                return
            part.replace(path)
            self._count(size)
        except (OSError, SafetensorError) as error:
            with suppress(OSError):
                part.unlink()
            self._closed = True
            warnings.warn(f"{self._folder}: {error}; no more features are kept there", stacklevel=2)

    def _count(self, size: int) -> None:
        with self._lock:
            if self._size is None:
                self._size = sum(n for _, n, _ in self._files())
            else:
                self._size += size
            if self._size > self._limit:
                self._clear()

    def _path(self, key: str) -> Path:
        named = hashlib.sha256(f"{self.owner}\0{key}".encode()).hexdigest()
        return self._folder / f"{named}.safetensors"

    def _files(self) -> list[tuple[int, int, str]]:
        """When each file was last used, its bytes and its path; what vanishes meanwhile is left out."""
        found = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if not _OURS.fullmatch(entry.name):
                    continue
                try:
                    known = entry.stat()
                except FileNotFoundError:
                    continue
                found.append((known.st_mtime_ns, known.st_size, entry.path))
        return found

    def _clear(self) -> None:
        files = sorted(self._files())  # others may have written and deleted too
        total = sum(size for _, size, _ in files)
        for _, size, path in files:
            if total <= _TIDY * self._limit:
                break
            Path(path).unlink(missing_ok=True)
            total -= size
        self._size = total


def _used_now(path: Path) -> None:
    """By the fine clock: the file system's own stands still for milliseconds, and would order nothing."""
    now = time.time_ns()
    os.utime(path, ns=(now, now))
