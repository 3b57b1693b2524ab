"""Keeps Pillow's warnings about odd files off the screen while such a file is read.

Not `warnings.catch_warnings`: that swaps the filters of the whole process and is not safe with threads.
Here one filter entry, which concerns warnings issued by Pillow's own modules only, stands in the list
while at least one file is being read.
"""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_ENTRY: Any = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
_lock = threading.Lock()
_readers = 0


@contextmanager
def pillow_quiet() -> Iterator[None]:
    """Within it, warnings raised inside Pillow are ignored; may be entered by any number of threads."""
    global _readers
    with _lock:
        _readers += 1
        _insert()
    try:
        yield
    finally:
        with _lock:
            _readers -= 1
            if not _readers:
                _remove()


def _insert() -> None:
    # Someone may have swapped the list since another thread entered, so look rather than count.
    filters: Any = warnings.filters
    if not (filters and filters[0] is _ENTRY):
        filters.insert(0, _ENTRY)


def _remove() -> None:
    filters: Any = warnings.filters
    filters[:] = [entry for entry in filters if entry is not _ENTRY]
