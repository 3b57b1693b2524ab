"""Copies of images that are in no file of their own that could be read again: ``kept.bin``, one behind
the other.

Bytes are only ever added. They count once a record names them; what a killed run left behind them is cut
off by the next one.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import IO

FILE = "kept.bin"
KEPT = b"\0kept"
"""How the path of a record begins whose image is in `FILE`; the file that it came from may follow."""


def is_kept(path: bytes | None) -> bool:
    """Whether a record with this path has its image in `FILE`."""
    return path is not None and path.startswith(KEPT)


class Kept:
    """The file in ``folder``, whose first ``end`` bytes records name. Made when the first image comes.
    Thread-safe.
    """

    def __init__(self, folder: Path, end: int) -> None:
        self._path = folder / FILE
        self._end = end
        self._lock = threading.Lock()
        self._file: IO[bytes] | None = None
        self.images = 0
        """How many have been added in this run, and in `bytes` how large they are together."""
        self.bytes = 0

    def add(self, data: bytes) -> int:
        """Appends ``data`` and returns where it begins."""
        with self._lock:
            if self._file is None:
                self._file = self._path.open("r+b" if self._path.exists() else "w+b")
                self._file.truncate(self._end)
                self._file.seek(self._end)
            at = self._end
            self._file.write(data)
            self._end += len(data)
            self.images += 1
            self.bytes += len(data)
            return at

    def sync(self) -> None:
        """Returns when everything that was added is on the disk."""
        with self._lock:
            if self._file is not None:
                self._file.flush()
                os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            if self._file is not None:
                self._file.close()
