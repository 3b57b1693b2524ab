"""Small pictures and hand-made PNG files for the tests of decoding."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import PIL.Image

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encode(image: PIL.Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def flag() -> PIL.Image.Image:
    """48x32; red top left, green top right, blue bottom left, white bottom right."""
    image = PIL.Image.new("RGB", (48, 32), WHITE)
    image.paste(RED, (0, 0, 24, 16))
    image.paste(GREEN, (24, 0, 48, 16))
    image.paste(BLUE, (0, 16, 24, 32))
    return image


def noise(size: tuple[int, int] = (256, 256)) -> PIL.Image.Image:
    values = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return PIL.Image.fromarray(values)


def corners(image: PIL.Image.Image) -> list[str]:
    names = {"red": RED, "green": GREEN, "blue": BLUE, "white": WHITE}
    w, h = image.size
    found = []
    for at in ((4, 4), (w - 5, 4), (4, h - 5), (w - 5, h - 5)):
        pixel = image.getpixel(at)
        assert isinstance(pixel, tuple)
        near = min(names, key=lambda n: sum(abs(a - b) for a, b in zip(pixel, names[n], strict=True)))
        found.append(near)
    return found


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 0) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")
