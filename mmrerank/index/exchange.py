"""Two folders trade their names in one step, where the system can: no moment has none of either name."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from pathlib import Path

_HERE = -100  # AT_FDCWD: paths count from the working folder
_EXCHANGE = 2  # RENAME_EXCHANGE of Linux, RENAME_SWAP of macOS
_CANNOT = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM, errno.EXDEV}


def exchange(one: Path, other: Path) -> bool:
    """Trades the names of two folders; False where this system or its disk cannot. Raises `OSError`."""
    libc = ctypes.CDLL(None, use_errno=True) if os.name == "posix" else None
    names = os.fsencode(one), os.fsencode(other)
    try:
        if libc is not None and sys.platform == "linux":
            failed = libc.renameat2(_HERE, names[0], _HERE, names[1], _EXCHANGE)
        elif libc is not None and sys.platform == "darwin":
            failed = libc.renamex_np(names[0], names[1], _EXCHANGE)
        else:
            return False
    except AttributeError:  # an older C library
        return False
    if not failed:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT:
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))
