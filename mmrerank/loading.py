"""Loading and running models in one process: whoever loads weights is alone, whoever runs a model is not.

While they load, libraries change the whole process: torch's default dtype, the functions that initialise
layers, modules that are imported on demand. A second load, or a model that runs beside it, would see that.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

_PATIENCE = 1.0  # seconds for which who wants to run lets somebody load who is waiting
_changed = threading.Condition()
_running: Counter[int] = Counter()  # how deep each thread is in `running`
_loader, _depth, _waiting = 0, 0, 0


@contextmanager
def loading() -> Iterator[None]:
    """Within it, no other thread loads a model and none runs one. A thread may enter it again."""
    global _loader, _depth, _waiting
    me = threading.get_ident()
    with _changed:
        _waiting += 1
        try:
            # who runs a model and loads another in the midst of it cannot wait for those that wait for it
            _changed.wait_for(lambda: _loader == me or (not _loader and (me in _running or not _running)))
        finally:
            _waiting -= 1
            _changed.notify_all()
        _loader, _depth = me, _depth + 1
    try:
        yield
    finally:
        with _changed:
            _depth -= 1
            _loader = me if _depth else 0
            _changed.notify_all()


@contextmanager
def running() -> Iterator[None]:
    """Within it, no other thread loads a model. A thread may enter it again, also while it loads."""
    me = threading.get_ident()
    with _changed:
        if _loader != me and me not in _running:
            _changed.wait_for(lambda: not (_loader or _waiting), timeout=_PATIENCE)
            _changed.wait_for(lambda: not _loader)
        _running[me] += 1
    try:
        yield
    finally:
        with _changed:
            _running[me] -= 1
            if not _running[me]:
                del _running[me]
            _changed.notify_all()


class ModelLock:
    """One model's lock: threads take turns, and nobody loads meanwhile. A thread may take it again.

    >>> lock = ModelLock()
    >>> with lock, lock:
    ...     pass
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._own = threading.local()

    def __enter__(self) -> None:
        inside = running()
        inside.__enter__()
        self._lock.acquire()
        self._own.stack = [*vars(self._own).get("stack", ()), inside]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        *rest, inside = self._own.stack
        self._own.stack = rest
        self._lock.release()
        inside.__exit__(kind, error, trace)
