"""Reads a GIF past the comments before its picture, which its own reader joins bit by bit."""

from __future__ import annotations

from typing import IO

from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile

from mmrerank.errors import ImageError
from mmrerank.images.spans import Piece, size_of, spans

MOST_BEFORE = 4 * 1024 * 1024
"""Bytes that may stand before the first picture; profiles and texts of programs take some thousands."""
_EXTENSION, _CONTROL = 0x21, 0xF9


def open_gif(file: IO[bytes]) -> ImageFile:
    """The lazily opened GIF at the start of ``file``. Raises what Pillow raises for a damaged header."""
    head = file.read(13 + 3 * 256 + MOST_BEFORE)
    start = at = 13 + (3 << (head[10] & 7) + 1 if len(head) > 10 and head[10] & 0x80 else 0)
    control = b""
    while at + 2 < len(head) and head[at] == _EXTENSION:
        begin, kind, at = at, head[at + 1], at + 2
        while at < len(head) and head[at]:
            at += head[at] + 1
        at += 1
        if kind == _CONTROL:
            control = head[begin:at]
    if at + 2 >= len(head) and size_of(file) > len(head):
        raise ImageError(f"more than {MOST_BEFORE:,} bytes of comments stand before the picture")
    pieces: list[Piece] = [head[:start], control, (at, max(0, size_of(file) - at))]
    return GifImageFile(spans(file, pieces), "")
