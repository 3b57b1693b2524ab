"""One writer at a time: an advisory lock on a file in the index's folder. Readers take none."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmrerank.errors import ImageIndexError

FILE = "lock"


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Holds the lock of ``folder``, which must exist.

    Raises `ImageIndexError` at once when somebody holds it. The system lets go of it when the process ends,
    however it ends; the file stays.
    """
    handle = os.open(folder / FILE, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(handle, 32).decode("ascii", "replace").strip() or "(unknown)"
            raise ImageIndexError(
                f"{folder} is being written by process {holder}; wait until it has ended"
            ) from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)
