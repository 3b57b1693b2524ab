"""Looks at the header of a JPEG 2000 before its decoder does: tables of tiles, precincts and blocks grow from
a few bytes of it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import IO

from mmrerank.errors import ImageError
from mmrerank.images.limits import check_bytes, check_size
from mmrerank.images.spans import size_of

MEMORY = 16
"""Bytes of a pixel of three components that the decoder takes: four for each of them, and the picture."""
_BLOCK_BYTES, _PRECINCT_BYTES, _TILE_BYTES = 160, 400, 12_000
_MOST_COMPONENTS = 4
_SIZ, _COD, _COC, _SOT, _SOD = 0xFF51, 0xFF52, 0xFF53, 0xFF90, 0xFF93
_WINDOW = 1 << 20
"""Bytes in which the codestream of a JP2 must begin: colour profiles and other boxes stand before it."""
_MOST_PARTS = 100_000


def check_jpeg2000(file: IO[bytes], max_pixels: int) -> None:
    """Raises `ImageError` for a header whose tables or pixels take more than allowed. Keeps the position."""
    file.seek(0)
    start = file.read(_WINDOW).find(b"\xff\x4f\xff\x51")
    if start < 0:
        file.seek(0)
        return
    end, tables, whole, left, tile_pixels = size_of(file), 0, 0.0, 0, 0
    components = 1
    for marker, body in _segments(file, start + 2, end):
        if marker == _SIZ and len(body) >= 36:
            right, bottom, x, y, wide, tall, tile_x, tile_y, components = struct.unpack(">8IH", body[2:36])
            check_size(right - x, bottom - y, max_pixels)
            if components > _MOST_COMPONENTS:
                raise ImageError(f"a JPEG 2000 of {components} components is a kind that is not read")
            if not wide or not tall:
                raise ImageError("the image is damaged (a tile without pixels)")
            tiles = math.ceil((right - tile_x) / wide) * math.ceil((bottom - tile_y) / tall)
            tile_pixels = min(wide, right - x) * min(tall, bottom - y)
            whole = (right - x) * (bottom - y) * (5 + 4.5 * components)
            tables = max(1, tiles) * _TILE_BYTES
            check_bytes(whole + tables, max_pixels)
        elif marker in (_COD, _COC):
            left = max(left, _tables(body[5:] if marker == _COD else body[2:], tile_pixels))
            check_bytes(whole + tables + components * left, max_pixels)
    file.seek(0)


def _tables(style: bytes, pixels: int) -> int:
    """Bytes of the tables of one component of a tile, by its coding style (levels, blocks, precincts)."""
    if len(style) < 3:
        return 0
    levels, block = min(style[0], 32), 1 << ((style[1] & 15) + (style[2] & 15) + 4)
    precincts = style[5 : 6 + levels] or b"\xff"
    total = 0.0
    for up, size in enumerate(reversed(precincts)):
        area = 1 << ((size & 15) + (size >> 4))
        here = pixels / 4**up + 1
        total += here / area * _PRECINCT_BYTES + here / min(block, max(area, 1)) * _BLOCK_BYTES
    return int(total)


def _segments(file: IO[bytes], at: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Marker and contents of each segment of the main header and of the headers of all tile parts."""
    part = 0
    for _ in range(_MOST_PARTS):
        file.seek(at)
        head = file.read(4)
        if len(head) < 4:
            return
        marker, length = struct.unpack(">HH", head)
        if marker == _SOD:
            if part <= at or part >= end:
                return
            at, part = part, 0
            continue
        body = file.read(max(0, length - 2))
        if marker == _SOT and len(body) >= 8:
            part = at + struct.unpack(">I", body[2:6])[0]
        yield marker, body
        at += 2 + max(2, length)
