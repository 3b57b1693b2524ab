"""Opens a file only where it is a regular one."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

_NO_WAIT = os.O_NONBLOCK if os.name != "nt" else 0


def open_plain(path: Path) -> BufferedReader:
    """Opens ``path`` to be read. Raises `OSError`, also for what is no regular file: a pipe or a device would
    be waited for, or read, for ever.
    """
    # without waiting for a pipe's other end, so that what is looked at is what was opened
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | _NO_WAIT))  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is not a regular file")
    return file
