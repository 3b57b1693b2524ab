"""Names of files on the command line: what is refused before anything is looked for.

An empty name would be the working directory, an address would lose one of its slashes, and ``-`` would be a
file of that name.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import typer

from mmrerank.cli.console import say
from mmrerank.errors import InputError, UsageError
from mmrerank.reading import all_of

STDIN = Path("-")
"""What ``-`` becomes; a file of that name is given as ``./-``."""
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/{1,3}\S")
_DATA = re.compile(r"data:[^,]*,", re.I)
_SHOWN = 60


def filled(text: str) -> str:
    """``text``, unless it is blank. Raises `typer.BadParameter`."""
    if not text.strip():
        raise typer.BadParameter("it is empty")
    return text


def read_from(text: str) -> Path:
    """The file ``text`` to read. Raises `typer.BadParameter` for what is no file name."""
    if text == "-":
        raise typer.BadParameter("- (stdin) is not read here; name a file")
    return read_or_piped(text)


def read_or_piped(text: str) -> Path:
    """As `read_from`, but ``-`` is `STDIN`."""
    if text == "-":
        return STDIN
    if problem := no_file_name(filled(text)):
        raise typer.BadParameter(problem)
    return _path(text)


def write_to(text: str) -> Path:
    """The file ``text`` to write. Raises `typer.BadParameter` for what is no file name."""
    if text == "-":
        raise typer.BadParameter("- (stdout) is where the results go; name a file")
    if _ADDRESS.match(filled(text)):
        raise typer.BadParameter(f"{text} is an address; files are written to local paths only")
    return _path(text)


def kept_in(text: str) -> str:
    """The file ``text`` to keep replies in, or ``off``. Raises `typer.BadParameter` for what is neither."""
    return text if text == "off" else str(write_to(text))


def no_file_name(text: str) -> str:
    """Why ``text`` is no name of a local file, and what to do; empty where it may be one."""
    if _DATA.match(text):
        return f"{text[:_SHOWN]}... is a data: URI; write what it holds to a file and name that"
    if not _ADDRESS.match(text) or os.path.exists(text):  # noqa: PTH110 - a Path would change it
        return ""
    parts = urlsplit(text)
    if parts.scheme.lower() == "file":
        return f"{text} is a URI; give the path alone: {unquote(parts.path)}"
    return (
        f"{text} is an address, and files are read from here only; fetch it first: curl -L -o FILE '{text}'"
    )


def piped_text(what: str) -> str:
    """What stdin holds, as one line. Raises `InputError` for what is no text, `UsageError` for nothing."""
    try:
        text = piped_bytes(what, most="line_bytes").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{what}: stdin is not UTF-8: {error}") from error
    if "\0" in text:
        raise InputError(f"{what}: stdin holds a NUL character, so it is no text")
    if not visible(text):
        raise UsageError(f"{what}: stdin is empty")
    return " ".join(text.split())


def visible(text: str) -> bool:
    """Whether ``text`` holds anything that can be seen: no spaces, no marks of no width."""
    return any(c.isprintable() and not c.isspace() for c in text)


def piped_bytes(what: str, *, most: str = "file_bytes") -> bytes:
    """What stdin holds. Raises `UsageError` where that is nothing."""
    if sys.stdin.isatty():
        say(f"{what}: reading stdin; Ctrl-D ends it")
    data = all_of(sys.stdin.buffer, "stdin", most=most)
    if not data:
        raise UsageError(f"{what}: stdin is empty")
    return data


def _path(text: str) -> Path:
    path = Path(text)
    return Path(os.path.abspath(text)) if path == STDIN else path  # noqa: PTH100 - `resolve` follows links
