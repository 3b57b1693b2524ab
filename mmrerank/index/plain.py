"""An index holds plain files and folders, and nothing else: no links, no pipes, no devices.

A link would have the next writer change a file elsewhere, and opening a pipe waits for ever.
"""

from __future__ import annotations

import stat
from contextlib import suppress
from pathlib import Path

from mmrerank.errors import ImageIndexError
from mmrerank.paths import reason

_WAY = (
    "an index holds plain files only, which nothing outside it can change. To keep it on another disk, "
    "move its whole folder and link that; else index the source again with --rebuild"
)


def check(folder: Path) -> None:
    """Raises `ImageIndexError` for anything in ``folder`` and its folders that is no plain file or folder."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise ImageIndexError(f"{folder} cannot be read: {reason(error)}") from error
    for entry in entries:
        check_file(entry)
        # what may not be listed may not be used either, and whoever needs it says so
        with suppress(OSError):
            for inner in entry.iterdir() if entry.is_dir() else ():
                check_file(inner)


def check_file(path: Path) -> None:
    """Raises `ImageIndexError` when ``path`` is there, and is neither a plain file nor a folder."""
    if what := oddity(path):
        raise ImageIndexError(f"{path} is {what}; {_WAY}")


def oddity(path: Path) -> str:
    """What ``path`` is, where it is neither a plain file nor a folder; else empty."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return ""  # not there, or gone again; whoever opens it says why
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return ""
    return "a link" if stat.S_ISLNK(mode) else "a pipe or a device"
