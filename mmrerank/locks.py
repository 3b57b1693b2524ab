"""One writer at a time: a lock on an open file, which the system releases when the process ends."""

from __future__ import annotations

from io import FileIO


def lock(file: FileIO, *, wait: bool = False) -> bool:
    """Locks ``file`` until it is closed; False, at once, when another holds it and ``wait`` is not wanted.

    On Windows others cannot read the first byte meanwhile. Raises `OSError` where files cannot be locked.
    """
    from filelock import lock_descriptor

    return lock_descriptor(file.fileno(), blocking=wait)
