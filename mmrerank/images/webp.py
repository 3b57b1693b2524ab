"""Reads a WebP whose container is at fault and whose picture is not: wrong sizes, damaged EXIF or profile."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import IO

from PIL.ImageFile import ImageFile
from PIL.WebPImagePlugin import WebPImageFile

from mmrerank.errors import ImageError
from mmrerank.images.limits import check_bytes, check_size

_PICTURE = {b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"}
_TOLD = {b"ICCP": "icc_profile", b"EXIF": "exif"}
_HEAD = 4096
CANVAS_BYTES = 16
"""Bytes for each pixel that its reader takes: two canvases, a copy of one, and the picture."""
_METADATA_BITS = 0x20 | 0x08 | 0x04  # ICC, EXIF, XMP


def open_webp(file: IO[bytes], max_pixels: int) -> ImageFile:
    """The opened WebP at the start of ``file``, without those of its metadata that are damaged.

    Its reader takes memory for the whole canvas as it opens, so the size is looked at before. Raises
    `ImageError` for more than ``max_pixels`` or where bytes of the picture are missing, and what Pillow
    raises for a damaged one.
    """
    for width, height in _announced(file.read(_HEAD)):
        check_size(width, height, max_pixels)
        check_bytes(width * height * CANVAS_BYTES, max_pixels)
    file.seek(0)
    try:
        return WebPImageFile(file, "")
    except Exception as error:  # decoders raise anything
        file.seek(0)
        data = file.read()
        pieces, missing = _pieces(data)
        body = b"".join(pieces)
        if missing:
            raise ImageError(f"the image is damaged ({missing} bytes at its end are missing)") from error
        whole = b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body
        if not pieces or whole == data:
            raise
        image = WebPImageFile(io.BytesIO(whole), "")
        image.info.update(_told(data))
        return image


def _announced(head: bytes) -> Iterator[tuple[int, int]]:
    """The width and height of the canvas and of the picture that stand in the first bytes."""
    at = 12
    while at + 18 <= len(head):
        name, length = struct.unpack("<4sI", head[at : at + 8])
        body = head[at + 8 : at + 18]
        if name == b"VP8X":
            yield int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
        elif name == b"VP8L" and body[0] == 0x2F:
            bits = int.from_bytes(body[1:5], "little")
            yield (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        elif name == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
            width, height = struct.unpack("<HH", body[6:10])
            yield width & 0x3FFF, height & 0x3FFF
        at += 8 + length + length % 2


def _told(data: bytes) -> dict[str, bytes]:
    """The colour profile and the EXIF, where they are whole."""
    found: dict[str, bytes] = {}
    at = 12
    while at + 8 <= len(data):
        name, length = struct.unpack("<4sI", data[at : at + 8])
        body = data[at + 8 : at + 8 + length]
        if name in _TOLD and len(body) == length:
            found.setdefault(_TOLD[name], body)
        at += 8 + length + length % 2
    return found


def _pieces(data: bytes) -> tuple[list[bytes], int]:
    """The chunks that make the picture, and how many bytes the last of them lacks."""
    found: list[bytes] = []
    first, seen, at = b"ANMF", False, 12
    while at + 8 <= len(data):
        name, length = struct.unpack("<4sI", data[at : at + 8])
        body = data[at + 8 : at + 8 + length]
        if name in _PICTURE and len(body) < length:
            # of an animation the first frame is enough
            return (found, 0) if name == first and seen else (found, length - len(body))
        seen = seen or name == first
        if name == b"VP8X" and length == 10 and len(body) == 10:
            body = bytes([body[0] & ~_METADATA_BITS]) + body[1:]
        if name in _PICTURE or name == b"VP8X":
            found.append(struct.pack("<4sI", name, length) + body + b"\0" * (length % 2))
        if name in (b"VP8 ", b"VP8L"):
            break  # what follows is metadata
        at += 8 + length + length % 2
    return found, 0
