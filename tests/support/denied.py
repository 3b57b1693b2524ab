"""Files that nobody may open, for a superuser too: the rights are taken away for a moment."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_VERSION = 0x20080522
_OVERRIDES = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH


@contextmanager
def denied(path: Path, mode: int = 0) -> Iterator[None]:
    """Within it, ``path`` has the rights ``mode``, and they hold for this thread whoever runs it."""
    before = path.stat().st_mode & 0o777
    path.chmod(mode)
    try:
        with _ordinary():
            if os.access(path, os.W_OK if mode & 0o400 else os.R_OK, effective_ids=True):
                pytest.skip("rights cannot be taken away here")
            yield
    finally:
        path.chmod(before)


@contextmanager
def _ordinary() -> Iterator[None]:
    """Takes from a superuser's thread, on Linux, what passes over the rights of files."""
    if os.geteuid() != 0 or sys.platform != "linux":
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    head = (ctypes.c_uint32 * 2)(_VERSION, 0)
    data = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice
    libc.capget(head, data)
    had = data[0]
    data[0] = had & ~_OVERRIDES
    libc.capset(head, data)
    try:
        yield
    finally:
        data[0] = had
        libc.capset(head, data)
