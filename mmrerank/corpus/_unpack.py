"""Shards that can be read forward only: compressed files, addresses, and commands that print a tar
(``pipe:``).

What is not a file is opened by the library webdataset. Each shard is unpacked into a temporary file, which is
gone with its reader: only so are links, joined archives and samples out of order read in them as in any other
shard, and under the same limits. At most one of them is on the disk at a time.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import importlib
import importlib.util
import lzma
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from mmrerank.errors import InputError

PIPE = "pipe:"
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_COMMANDS = {"s3": "aws s3 cp {} -"}
"""How addresses are read that the library opens by no program of its own."""
_ZSTD = b"\x28\xb5\x2f\xfd"
_READERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
_UNREAD = {
    b"\x04\x22\x4d\x18": "packed with lz4; unpack it first",
    b"\x1f\x9d": "packed with compress; unpack it first",
    b"PK\x03\x04": "a zip file, not a tar; unpack it, and index the folder",
    b"7z\xbc\xaf": "a 7z file, not a tar; unpack it, and index the folder",
    b"Rar!": "a rar file, not a tar; unpack it, and index the folder",
    b"version https://git-lfs": "a git-LFS pointer, not the shard itself; fetch it with: git lfs pull",
    b"<!DOCTYPE": "a web page, not a shard; download it again",
    b"<html": "a web page, not a shard; download it again",
}
_HEAD = 32
MOST_RATIO = 100
"""How many times larger a shard may become as it is unpacked: pictures hardly shrink, and texts tenfold."""
ALWAYS = 64 * 1024 * 1024
"""Bytes that any shard may unpack to, however small it is packed."""
_BROKEN = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError)


def is_address(place: str) -> bool:
    """Whether ``place`` is on another machine: http, https, s3, gs and the like."""
    return _ADDRESS.match(place) is not None


def is_file(place: str) -> bool:
    """Whether ``place`` is a path: neither a command nor an address."""
    return not place.startswith(PIPE) and not is_address(place)


def is_packed(head: bytes) -> bool:
    """Whether a file that begins with ``head`` is compressed. Raises `InputError` for what is no shard at
    all.
    """
    for magic, why in _UNREAD.items():
        if head.startswith(magic):
            raise InputError(f"the shard cannot be read: it is {why}")
    return head.startswith((_ZSTD, *_READERS))


def head_of(path: Path) -> bytes:
    """The first bytes of a file. Raises `OSError`."""
    with path.open("rb") as file:
        return file.read(_HEAD)


@contextmanager
def unpacked(place: str) -> Iterator[tuple[IO[bytes], int, str]]:
    """The shard at ``place``, a path, an address or ``pipe:COMMAND``, as a plain tar: the file, its size, and
    what went wrong.

    What could be unpacked before an error is there. Raises `InputError` when nothing was.
    """
    with tempfile.TemporaryFile() as whole:
        why = _fill(whole, place)
        size = whole.tell()
        whole.seek(0)
        head = whole.read(_HEAD)
        whole.seek(0)
        if not is_file(place) and size and is_packed(head):
            with tempfile.TemporaryFile() as inner:
                why = _spool(inner, _opened(whole, head), packed=size) or why
                yield inner, inner.tell(), why
            return
        if why and not size:
            raise InputError(why)
        yield whole, size, why


def _fill(whole: IO[bytes], place: str) -> str:
    if is_file(place):
        path = Path(place)
        with path.open("rb") as file:
            return _spool(whole, _opened(file, head_of(path)), packed=path.stat().st_size)
    # the shell command, or the address, of the person's own command line; an index is never asked for one
    gopen: Any = importlib.import_module("webdataset.gopen")
    scheme = place.partition(":")[0].lower()
    command = _COMMANDS.get(scheme)
    try:
        if scheme not in gopen.gopen_schemes and not command:
            raise InputError(
                f"addresses of the kind {scheme}:// are not read; let a command print the shard: pipe:COMMAND"
            )
        # the address is quoted: it is one word of the command, whatever it holds
        stream = gopen.gopen(PIPE + command.format(shlex.quote(place)) if command else place)
    except (OSError, ValueError, ImportError) as error:
        raise InputError(f"{_what(place)} cannot be opened: {error}") from error
    try:
        why = _spool(whole, stream.stream)
    finally:
        stream.stream.close()
    code = stream.proc.wait()
    return why or (f"{_what(place)} ended with exit code {code}{_meaning(place, code)}" if code else "")


def _what(place: str) -> str:
    return "the command" if place.startswith(PIPE) else f"the download of {place[:300]!r}"


def _meaning(place: str, code: int) -> str:
    """What an exit code of curl means, of those that people meet (`man curl`)."""
    known = {
        6: "there is no such host",
        7: "nobody answers there",
        22: "the server refused it",
        28: "it took too long",
    }
    return f" ({known[code]})" if code in known and place.startswith(("http:", "https:")) else ""


def _spool(whole: IO[bytes], stream: Any, packed: int | None = None) -> str:
    """Copies ``stream`` and says why it ended, if not at its end. ``packed``: its bytes before."""
    try:
        while block := stream.read1(1 << 20):  # `read` would lose what stands before an error
            whole.write(block)
            if packed is not None and whole.tell() > ALWAYS + MOST_RATIO * packed:
                return (
                    f"the shard cannot be unpacked on: it becomes more than {MOST_RATIO} times its size; "
                    "if that is meant, unpack it yourself and index the plain tar"
                )
    except _BROKEN as error:
        detail = error.strerror if isinstance(error, OSError) and error.strerror else error
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        way = f"; make room in {tempfile.gettempdir()}, or name another folder with TMPDIR" if full else ""
        return f"the shard cannot be unpacked on: {detail}{way}"
    finally:
        if isinstance(stream, _Program):
            stream.close()
    return stream.error if isinstance(stream, _Program) else ""


def _opened(file: IO[bytes], head: bytes) -> Any:
    if head.startswith(_ZSTD):
        return _zstd(file)
    reader = next(r for magic, r in _READERS.items() if head.startswith(magic))
    return reader(file)


def _zstd(file: IO[bytes]) -> Any:
    """By Python's own module, a package or the program, whichever is there."""
    if importlib.util.find_spec("compression") is not None:
        return importlib.import_module("compression.zstd").open(file)
    if importlib.util.find_spec("zstandard") is not None:
        return (
            importlib.import_module("zstandard")
            .ZstdDecompressor()
            .stream_reader(file, read_across_frames=True)
        )
    if shutil.which("zstd"):
        return _Program(["zstd", "-dcq"], file)
    raise InputError(
        "the shard cannot be read: it is packed with zstd; install the program zstd or `pip install "
        "zstandard`, "
        "or unpack it first"
    )


class _Program:
    """What a program prints, whose input is ``file``."""

    def __init__(self, command: list[str], file: IO[bytes]) -> None:
        os.lseek(file.fileno(), 0, os.SEEK_SET)  # what Python has read ahead, the program has not
        self._program = subprocess.Popen(command, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.error = ""

    def read1(self, size: int) -> bytes:
        """At most ``size`` bytes; none at the end."""
        assert self._program.stdout is not None
        return self._program.stdout.read(size)

    def close(self) -> None:
        """Ends the program, and notes what it complained about."""
        assert self._program.stdout is not None
        assert self._program.stderr is not None
        self._program.stdout.close()
        said = self._program.stderr.read().decode("utf-8", "replace").strip()
        self._program.stderr.close()
        if self._program.wait():
            self.error = f"the shard cannot be unpacked on: {' '.join(said.split())[:200] or 'zstd failed'}"
