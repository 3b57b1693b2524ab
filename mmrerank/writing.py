"""Files that are there whole or not at all, and files that only their owner may read.

A new file is written beside its place, under a name that nobody can guess, and moved there in one step: a
full disk or a killed process leaves what was there before. Private ones hold what was asked and answered;
keys of servers are in none.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

PRIVATE = 0o600
_EVERYBODYS = 0o666  # less the umask


@contextmanager
def replaced(path: Path, *, private: bool = False) -> Iterator[BinaryIO]:
    """A file to write that takes the place of ``path`` when the block ends well. Makes its folder.

    An old file keeps its rights, unless ``private``. Devices and pipes are written directly; a link stays
    one, and what it points to is replaced. Raises `OSError`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    target = Path(os.path.realpath(path))
    before = _status(target)
    if before is not None and stat.S_ISDIR(before.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if before is not None and not stat.S_ISREG(before.st_mode):
        with target.open("wb") as special:
            yield special
        return
    part = target.with_name(f".{secrets.token_hex(6)}.part")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE if private else _EVERYBODYS)
    try:
        with open(handle, "wb") as file:  # noqa: PTH123 - of a handle
            if before is not None and not private:
                with suppress(OSError):  # of a file system that knows no rights
                    part.chmod(stat.S_IMODE(before.st_mode))
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write(path: Path, data: bytes, *, private: bool = False) -> None:
    """Writes ``data`` as `replaced` does. Raises `OSError`."""
    with replaced(path, private=private) as file:
        file.write(data)


def private_file(path: Path) -> int:
    """A handle on ``path`` to add to and to read, made with its folder if need be.

    Nobody but its owner may read it from now on. Devices and pipes keep their rights. Raises `OSError`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, PRIVATE)
    except OSError as error:
        if error.errno not in (errno.ENXIO, errno.ESPIPE):
            raise
        handle = os.open(path, os.O_WRONLY | os.O_APPEND)  # a pipe is not read as well
    close_to_others(handle)
    return handle


def close_to_others(file: int | Path) -> None:
    """Takes all rights on a plain file from everybody but its owner, where this user may do so."""
    with suppress(OSError):
        mode = os.stat(file).st_mode  # noqa: PTH116 - of a handle, too
        if stat.S_ISREG(mode) and stat.S_IMODE(mode) & 0o077:
            os.chmod(file, stat.S_IMODE(mode) & 0o700)  # noqa: PTH101


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None
