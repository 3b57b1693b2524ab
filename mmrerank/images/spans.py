"""A file made of pieces of another one and of bytes of our own, read in place: nothing is copied."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Sequence
from typing import IO

Piece = bytes | tuple[int, int]
"""Bytes, or (offset, length) in the file."""


class _Raw(io.RawIOBase):
    def __init__(self, file: IO[bytes], pieces: Sequence[Piece]) -> None:
        self._file = file
        self._pieces = [p for p in pieces if (len(p) if isinstance(p, bytes) else p[1])]
        self._starts = [0]
        for piece in self._pieces:
            length = len(piece) if isinstance(piece, bytes) else piece[1]
            self._starts.append(self._starts[-1] + length)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._starts[-1]}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        number = bisect_right(self._starts, self._at) - 1
        if number >= len(self._pieces):
            return 0
        piece, inside = self._pieces[number], self._at - self._starts[number]
        wanted = min(len(buffer), self._starts[number + 1] - self._at)
        if isinstance(piece, bytes):
            found = piece[inside : inside + wanted]
        else:
            self._file.seek(piece[0] + inside)
            found = self._file.read(wanted)
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)


def spans(file: IO[bytes], pieces: Sequence[Piece]) -> IO[bytes]:
    """A readable file of ``pieces``, one after the other; it ends where ``file`` lacks one of them.

    ``file`` must stay open, and be read by nobody else meanwhile.
    """
    return io.BufferedReader(_Raw(file, pieces))


def size_of(file: IO[bytes]) -> int:
    """The length of ``file`` in bytes; its position is kept."""
    here = file.tell()
    end = file.seek(0, io.SEEK_END)
    file.seek(here)
    return end
