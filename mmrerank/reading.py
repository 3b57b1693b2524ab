"""Files of strangers as bytes: no more of them is held than `mmrerank.limits` allows, packed or not.

Counting what is really read also bounds what has no size: a device, a pipe, a few packed kilobytes.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from mmrerank.errors import InputError
from mmrerank.limits import in_force, way

_PIECE = 1 << 20


class Readable(Protocol):
    """An open file, packed or not."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end."""
        ...


def whole(path: Path, *, most: str = "file_bytes", packed: bool = False) -> bytes:
    """All of a file, unpacked where it is ``packed`` by gzip; at most the limit named ``most``.

    Raises `InputError` for more, `OSError`, `EOFError` and `zlib.error` as the file gives them.
    """
    with gzip.open(path, "rb") if packed else path.open("rb") as file:
        return all_of(file, str(path), most=most)


def all_of(file: Readable, name: str, *, most: str = "file_bytes") -> bytes:
    """What an open file still holds. Raises `InputError` for more than the limit named ``most``."""
    limit: int = vars(in_force())[most]
    data = bytearray()
    # in pieces: asked for all at once, room is taken for as much as is allowed
    while piece := file.read(_PIECE >> 4):
        data += piece
        if len(data) > limit:
            raise InputError(
                f"{name} holds more than {limit:,} bytes, too much to be read whole; {way(most)}"
            )
    return bytes(data)


def blocks(file: Readable, name: str, size: int = _PIECE) -> Iterator[list[bytes]]:
    """The lines of an open file in lists, without their breaks. Raises `InputError` for an endless line."""
    limit = in_force().line_bytes
    rest, number = b"", 1
    while data := file.read(size):
        lines = data.split(b"\n")
        lines[0] = rest + lines[0]
        for place in (0, -1):
            if len(lines[place]) > limit:
                at = number if place == 0 else number + len(lines) - 1
                raise InputError(f"{name}, line {at} has more than {limit:,} bytes; {way('line_bytes')}")
        rest = lines.pop()
        number += len(lines)
        if lines:
            yield lines
    if rest:
        yield [rest]
