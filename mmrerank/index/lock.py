"""One writer at a time: an advisory lock on a file in the index's folder. Readers take none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmrerank.errors import ImageIndexError
from mmrerank.index import plain
from mmrerank.locks import lock

FILE = "lock"


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Holds the lock of ``folder``, which must exist.

    Raises `ImageIndexError` at once when somebody holds it. The system lets go of it when the process ends,
    however it ends; the file stays.
    """
    if what := plain.oddity(folder / FILE):
        raise ImageIndexError(f"{folder / FILE} is {what}, and was not made by mmrerank; delete it")
    with (folder / FILE).open("a+b", buffering=0) as file:
        if not lock(file):
            file.seek(1)  # the first byte cannot be read everywhere
            holder = file.read(32).decode("ascii", "replace").strip() or "(unknown)"
            raise ImageIndexError(f"{folder} is being written by process {holder}; wait until it has ended")
        if not _names(folder / FILE, file.fileno()):
            raise ImageIndexError(f"{folder} was replaced by another process just now; try again")
        file.truncate(0)
        file.write(f" {os.getpid()}\n".encode())
        try:
            yield
        finally:
            file.truncate(0)  # a file that says nothing cannot be damaged


def _names(path: Path, handle: int) -> bool:
    """Whether ``path`` is still the open file: its folder may have been replaced before it was locked."""
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except OSError:
        return False
