"""Works on a large picture a strip at a time, so that no second copy of it in a wide kind is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import PIL.Image

_PIXELS = 1 << 22
"""Pixels of a strip: what it takes beside the picture stays small."""


def strips(size: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    """Boxes (left, upper, right, lower) of whole rows that make up a picture of ``size``, from above."""
    width, height = size
    rows = max(1, _PIXELS // max(width, 1))
    for y in range(0, height, rows):
        yield 0, y, width, min(y + rows, height)


def by_strips(
    image: PIL.Image.Image, mode: str, made: Callable[[PIL.Image.Image], PIL.Image.Image]
) -> PIL.Image.Image:
    """A new picture of ``mode`` of what ``made`` makes of each strip of ``image``, which may be the strip."""
    boxes = strips(image.size)
    first = next(boxes, (0, 0, *image.size))
    if first[2:] == image.size:
        return made(cut(image, first))
    whole = PIL.Image.new(mode, image.size)
    whole.paste(made(cut(image, first)), first)
    for box in boxes:
        whole.paste(made(cut(image, box)), box)
    return whole


def cut(image: PIL.Image.Image, box: tuple[int, int, int, int]) -> PIL.Image.Image:
    """That part of ``image``. Pillow's own `crop` asks a size limit that is a global of the process."""
    part: PIL.Image.Image = image._new(image.im.crop(box))
    return part
