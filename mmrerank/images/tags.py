"""Whether the tags of a TIFF or of EXIF may be read: thousands of them can name the same bytes, each a copy.

Looks at the directories alone: how many entries there are and how many bytes their values take together.
"""

from __future__ import annotations

import io
import struct
from typing import IO

from mmrerank.images.spans import size_of

MOST_VALUES = 1_000_000
"""Values of one tag, such as the offsets of strips: a picture has no more rows than that."""
MOST_TAGS = 4_096
"""Tags of one directory; files of instruments have about a hundred."""
_DIRECTORIES = (0x8769, 0xA005, 0x8825)  # EXIF, interoperability, GPS
_DEEPEST = 3
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}


def modest(file: IO[bytes] | bytes) -> bool:
    """Whether the values of all its directories take no more bytes than ``file`` has. Keeps the position.

    True as well where it is no TIFF at all: then there is nothing to read.
    """
    if isinstance(file, bytes):
        file = io.BytesIO(file[6:] if file.startswith(b"Exif\0\0") else file)
    here = file.tell()
    try:
        return _modest(file)
    except struct.error:  # it ends within a directory
        return True
    finally:
        file.seek(here)


def _modest(file: IO[bytes]) -> bool:
    start, end = file.tell(), size_of(file)
    head = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None:
        return True
    big = head[2:4] in (b"+\0", b"\0+")
    # Pillow reads a directory of the plain kind in everything that is not BigTIFF
    offset = struct.unpack(f"{order}Q", head[8:16])[0] if big else struct.unpack(f"{order}I", head[4:8])[0]
    entry, number = (f"{order}HHQ8s", f"{order}Q") if big else (f"{order}HHI4s", f"{order}H")
    left = end - start
    waiting, seen = [(offset, 0)], set()
    while waiting:
        offset, depth = waiting.pop()
        if offset in seen or depth > _DEEPEST or offset >= end:
            continue
        seen.add(offset)
        file.seek(start + offset)
        count = struct.unpack(number, file.read(struct.calcsize(number)))[0]
        if count > MOST_TAGS:
            return False
        width, inline = struct.calcsize(entry), 8 if big else 4
        body = file.read(count * width)
        for tag, kind, values, place in struct.iter_unpack(entry, body[: len(body) // width * width]):
            size = _SIZES.get(kind, 0) * values
            if values > MOST_VALUES and kind not in (1, 2, 6, 7):
                return False
            if size > inline:
                left -= size
                if left < 0:
                    return False
            elif tag in _DIRECTORIES:
                waiting.append((struct.unpack(f"{order}I", place[:4])[0], depth + 1))
    return True
