"""What all verbs share: results on stdout, everything else on stderr, errors as exit codes.

Holds no verb and knows no model. JSON is ASCII, so that any name survives any terminal and pipe.
"""

from __future__ import annotations

import errno
import functools
import json
import logging
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import typer

from mmrerank.durations import lasting
from mmrerank.errors import InputError, MmrerankError
from mmrerank.paths import reason, refused, shown
from mmrerank.terminal import one_line as one_line
from mmrerank.terminal import visible

if TYPE_CHECKING:
    from rich.console import Console

P = ParamSpec("P")
T = TypeVar("T")
DEBUG = "MMRERANK_DEBUG"
_PLAIN_WIDTH = 120
_SPARSE_SECONDS = 10.0


class Output(StrEnum):
    """How results are printed."""

    text = "text"
    json = "json"


def say(text: str) -> None:
    """One line for the person, on stderr."""
    typer.echo(visible(text), err=True)


def emit(body: Any) -> None:
    """One JSON document, on one line of stdout."""
    typer.echo(json.dumps(body, ensure_ascii=True, allow_nan=False))


def debugging() -> bool:
    """Whether tracebacks and library messages are wanted."""
    return os.environ.get(DEBUG, "").lower() not in ("", "0", "false", "no")


def guarded(verb: Callable[P, T]) -> Callable[P, T]:
    """``verb`` with its errors as one message on stderr and the exit code of their class.

    While it runs, what libraries print goes to stderr: stdout is for `emit` and typer's echo through
    `results` only.
    """

    @functools.wraps(verb)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            value = verb(*args, **kwargs)
            sys.stdout.flush()
            return value
        except (typer.Exit, typer.Abort):
            sys.stdout.flush()
            raise
        except MmrerankError as error:
            _report(f"error: {error}")
            raise typer.Exit(error.exit_code) from error
        except BrokenPipeError:
            _to_nowhere()
            raise typer.Exit(0) from None
        except Exception as error:  # the last net: a fault of ours is one line, and a traceback on request
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EIO):
                try:
                    sys.stdout.flush()
                except OSError:
                    _to_nowhere()
                _report(f"error: {_place(error)} cannot be used: {reason(error)}")
                raise typer.Exit(InputError.exit_code) from error
            if isinstance(error, OSError) and refused(error) and error.filename is not None:
                # what the system refuses about a file is no fault of ours
                how = "looked at" if error.errno == errno.ENAMETOOLONG else "used"
                _report(f"error: {_place(error)} cannot be {how}: {reason(error)}")
                raise typer.Exit(InputError.exit_code) from error
            _report(
                f"internal error: {type(error).__name__}: {error}\n"
                f"This is a fault of mmrerank; {DEBUG}=1 shows where it happened."
            )
            raise typer.Exit(1) from error

    return run


def _place(error: OSError) -> str:
    return repr(shown(os.fsdecode(error.filename))) if error.filename else "stdout or a file"


def _to_nowhere() -> None:
    """What is left in stdout's buffer, and what comes, must not fail at exit either."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def unheard() -> Iterator[None]:
    """Within it, a reader of stdout that has all it wants stops the printing and not the verb."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        _to_nowhere()


def _report(message: str) -> None:
    if debugging():
        typer.echo(traceback.format_exc(), err=True)
    say(message)


@contextmanager
def working() -> Iterator[None]:
    """Within it, stdout is stderr: whatever a library prints cannot mix with results."""
    with redirect_stdout(sys.stderr):
        yield


def quiet_libraries() -> None:
    """Keeps third parties' warnings, log lines and progress bars away; for the process, before they load.

    With ``MMRERANK_DEBUG`` everything may speak.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if debugging():
        logging.basicConfig(stream=sys.stderr, level=logging.INFO)
        return
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # a handler on the root keeps `logging.warning` of libraries from making its own
    logging.basicConfig(stream=sys.stderr, level=logging.ERROR, format="%(name)s: %(message)s")
    logging.getLogger("mmrerank").setLevel(logging.WARNING)
    warnings.simplefilter("ignore")
    warnings.filterwarnings("default", module=r"mmrerank\b")
    warnings.showwarning = lambda message, *_, **__: say(f"warning: {message}")


def table_console() -> Console:
    """A console on stdout; wide where it is no terminal, so that tables in files keep their cells."""
    from rich.console import Console

    class Plain(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # for `guarded`; rich would end the process with code 1

    return Plain(width=None if sys.stdout.isatty() else _PLAIN_WIDTH, highlight=False)


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """A function to be called with (done, of how many): a bar on a terminal, else a line now and then."""
    if not sys.stderr.isatty():
        yield _sparse(what)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"), console=Console(stderr=True), transient=True,
    ) as bar:  # fmt: skip
        task = bar.add_task(what, total=None, left="")
        pace = _Pace()

        def tell(done: int, total: int | None) -> None:
            left = pace.left(done, total)
            bar.update(task, completed=done, total=total, left=left and f"{left} left")

        yield tell


class _Pace:
    """How long the rest takes at the pace since the work began, which another total or less done begins."""

    def __init__(self) -> None:
        self._start, self._first, self._done = 0.0, 0, 0
        self._total: int | None = None

    def left(self, done: int, total: int | None) -> str:
        """Such as ``4 min``; empty while nothing can be said."""
        now = time.monotonic()
        if total != self._total or done < self._done:
            self._start, self._first, self._total = now, done, total
        self._done = done
        if not total or not self._first < done < total:
            return ""
        return lasting((now - self._start) * (total - done) / (done - self._first))


def _sparse(what: str) -> Callable[[int, int | None], None]:
    last = time.monotonic()
    pace = _Pace()

    def tell(done: int, total: int | None) -> None:
        nonlocal last
        left = pace.left(done, total)
        if time.monotonic() - last >= _SPARSE_SECONDS:
            last = time.monotonic()
            say(f"{what}: {done}" + (f" of {total}" if total else "") + (left and f", {left} left"))

    return tell
