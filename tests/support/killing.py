"""Kills a piece of work at its n-th change of the disk, or after a time, as ``kill -9`` would: in a child."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from mmrerank.index import folders

_CHANGES = ("rename", "replace", "unlink", "rmdir", "mkdir", "fsync")


def killed_at(work: Callable[[], Any], step: int) -> bool:
    """Does ``work`` and kills it before its change number ``step`` (from 1); False when it has fewer."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _count(step)
            work()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def begun(work: Callable[[], Any]) -> int:
    """The process id of a child that does ``work``; `ended` waits for it."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)
    return child


def ended(child: int) -> bool:
    """Waits for the child; False when it was killed. What else goes wrong in it fails the test."""
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0
    return True


def killed_after(work: Callable[[], Any], seconds: float) -> bool:
    """Does ``work`` and kills it after so many seconds; False when it is done before."""
    child = begun(work)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return not ended(child)


def _count(step: int) -> None:
    left = step

    def counting(function: Any) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return wrapped

    for name in _CHANGES:
        setattr(os, name, counting(vars(os)[name]))
    folders.exchange = counting(folders.exchange)
