"""Paths as people type them, and what the system refuses about one, in words. Opens nothing for good."""

from __future__ import annotations

import errno
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmrerank.errors import InputError, MmrerankError, ModelError, UsageError

SHOWN = 100
"""Characters of a path in an error: one that is too long to be looked at is often no path at all."""

_POINTER = b"version https://git-lfs.github.com/spec/"
_RIGHTS = "this user has no right to it: change its rights, or run as its owner"
_WAYS = {
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EROFS: "name a place that can be written",
    errno.ENOSPC: "make room on that disk, then run the same command again",
    errno.EDQUOT: "make room below the quota, then run the same command again",
    errno.EISDIR: "a file is needed here",
    errno.ENOTDIR: "a part of its path is a file, not a folder",
    errno.EMFILE: "this process may open no more files; raise the limit with `ulimit -n`",
    errno.EIO: "the disk itself reports the error; look at the disk before anything else",
    errno.ESTALE: "the network drive has lost it; mount the drive again",
    errno.ENOTCONN: "the drive is not connected; mount it again",
}


def expanded(path: str | Path) -> Path:
    """``path`` with a ``~`` or ``~user`` at its beginning replaced; an unknown user's stays as it is.

    >>> expanded("photos/~x").as_posix()
    'photos/~x'
    """
    if not isinstance(path, str | os.PathLike):
        raise UsageError(f"a path is text or a pathlib.Path, not {type(path).__name__}")
    return Path(os.path.expanduser(path))  # noqa: PTH111 - `Path.expanduser` raises for an unknown user


def shown(path: str | Path) -> str:
    """``path`` for a message, cut where it is endless."""
    text = str(path)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def looks_like_path(text: str) -> bool:
    """Whether ``text`` has the form of a path: with a separator, ``~``, a dot or a drive in front.

    >>> [looks_like_path(t) for t in ("openai", "~/x", "./x", "a/b", r"C:\\models")]
    [False, True, True, True, True]
    """
    return (
        text.startswith(("~", ".")) or os.sep in text or "/" in text or "\\" in text or is_windows_path(text)
    )


def is_windows_path(text: str) -> bool:
    r"""Whether ``text`` begins with a drive, such as ``C:\`` or ``C:/``, or is a share (``\\host``)."""
    return text.startswith("\\\\") or bool(re.match(r"[A-Za-z]:[\\/]", text))


_IN_SPEC = re.compile(
    r"(?P<before>(?:[^:]*:)+?)"
    r"(?P<path>(?:~|\.{1,2}[\\/]|/(?!/)|[A-Za-z]:[\\/]|\\\\).*?)"
    r"(?P<after>@\d+)?",
    re.DOTALL,
)


def model_path(spec: str) -> Path | None:
    """The path that the spec of a model holds, None where it holds none in the form of one.

    >>> model_path("qwen3_vl:/models/q@256").as_posix(), model_path("open_clip:ViT-B-32:openai")
    ('/models/q', None)
    """
    found = _IN_SPEC.fullmatch(spec)
    return None if found is None else expanded(found["path"])


def absolute_spec(spec: str) -> str:
    """``spec`` with its path absolute, so that it means the same in another folder."""
    found = _IN_SPEC.fullmatch(spec)
    if found is not None and not is_windows_path(found["path"]):
        return f"{found['before']}{os.path.abspath(expanded(found['path']))}{found['after'] or ''}"  # noqa: PTH100
    before, colon, rest = spec.rpartition(":")
    if colon and os.sep in rest and os.path.exists(rest):  # noqa: PTH110 - no right to look is no path
        return f"{before}:{os.path.abspath(rest)}"  # noqa: PTH100
    return spec


def reason(error: BaseException) -> str:
    """Why the system refused, and the way on: for the end of a message that names the path.

    >>> reason(OSError(errno.EISDIR, "Is a directory"))
    'Is a directory; a file is needed here'
    """
    if not isinstance(error, OSError) or error.errno is None:
        return " ".join(str(error).split()) or type(error).__name__
    why = error.strerror or os.strerror(error.errno)
    way = _WAYS.get(error.errno, "")
    return f"{why}; {way}" if way else why


def refused(error: BaseException) -> bool:
    """Whether the system said no, so that nothing is known about what the file holds."""
    return isinstance(error, OSError) and error.errno is not None


def may_write(folder: Path) -> bool:
    """Whether this process may make files in ``folder``."""
    # as whom it runs, not who has started it
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)


def database_reason(path: Path, error: sqlite3.Error, *, write: bool = True) -> str:
    """Why SQLite could not use the file at ``path``: its own words name no right and no disk."""
    code = str(vars(error).get("sqlite_errorname", ""))  # an error that Python made has none
    try:
        with path.open("r+b" if write and path.exists() else "rb"):
            pass
    except FileNotFoundError:
        try:
            os.scandir(path.parent).close()
        except OSError as denied:
            return f"{path.parent}: {reason(denied)}"
    except OSError as denied:
        return reason(denied)
    if "FULL" in code:
        return reason(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    if ("READONLY" in code or "CANTOPEN" in code) and not may_write(path.parent):
        why = reason(PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
        return f"its folder {path.parent} cannot be written: {why}"
    if "IOERR" in code:
        return f"{error}; look at the disk before anything else"
    return str(error)


@contextmanager
def looked_at(path: str | Path, what: str, kind: type[MmrerankError] = InputError) -> Iterator[None]:
    """Within it, what the system refuses about ``path`` is an error of ``kind`` that begins with ``what``."""
    try:
        yield
    except OSError as error:
        raise kind(f"{what} {shown(path)!r} cannot be looked at: {reason(error)}") from error


def is_lfs_pointer(path: Path) -> bool:
    """Whether ``path`` holds the note that git keeps in a large file's place until ``git lfs pull``."""
    try:
        with path.open("rb") as file:
            return file.read(len(_POINTER)) == _POINTER
    except OSError:
        return False


LFS_WAY = "is a git-LFS pointer, not the file itself; fetch it with: git lfs pull"


def check_readable(path: Path) -> None:
    """Raises `ModelError` for a model's file that nobody lets us read, that git has not fetched, or that is
    none: a pipe would never end.
    """
    try:
        if path.exists() and not path.is_file():
            raise ModelError(f"{path} is no plain file")
        with path.open("rb"):
            pass
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {reason(error)}") from error
    if is_lfs_pointer(path):
        raise ModelError(f"{path} {LFS_WAY}")
