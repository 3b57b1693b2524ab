"""Files of unusual but sound images, written byte by byte: colour profiles, TIFF of any samples."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL import ImageCms

COLOURS = [(220, 30, 30), (30, 180, 40), (40, 60, 210), (240, 240, 240)]
GREYS = [87, 119, 71, 240]


def quarters(size: tuple[int, int] = (48, 32)) -> NDArray[np.uint8]:
    """Red, green, blue and white quarters, none of them at the end of its range, ``(h, w, 3)``."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    h, w = size[1] // 2, size[0] // 2
    pixels[:h, :w], pixels[:h, w:], pixels[h:, :w], pixels[h:, w:] = COLOURS
    return pixels


def grey_quarters() -> NDArray[np.uint8]:
    pixels = np.zeros((32, 48), np.uint8)
    pixels[:16, :24], pixels[:16, 24:], pixels[16:, :24], pixels[16:, 24:] = GREYS
    return pixels


def centres(image: PIL.Image.Image) -> list[Any]:
    """The middle pixel of each quarter."""
    w, h = image.size
    return [image.getpixel((x, y)) for y in (h // 4, 3 * h // 4) for x in (w // 4, 3 * w // 4)]


def far(image: PIL.Image.Image, wanted: Sequence[Any]) -> int:
    """How many levels the quarters are off at most; ``wanted`` are colours or greys."""
    expected = np.array([(v,) * 3 if isinstance(v, int) else v for v in wanted])
    return int(np.abs(np.array(centres(image)) - expected).max())


def profile(columns: Sequence[Sequence[float]], gamma: float, kind: bytes = b"RGB ") -> bytes:
    """A small ICC profile, version 2: D50 XYZ of red, green and blue, or grey without any."""

    def numbers(values: Sequence[float]) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(v * 65536)) for v in values)

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    tags = [*zip((b"rXYZ", b"gXYZ", b"bXYZ"), map(numbers, columns), strict=False)]
    tags += [(t, curve) for t in ((b"rTRC", b"gTRC", b"bTRC") if columns else (b"kTRC",))]
    return icc(kind, b"mntr", tags)


def icc(kind: bytes, use: bytes, tags: Sequence[tuple[bytes, bytes]]) -> bytes:
    white = b"".join(struct.pack(">i", round(v * 65536)) for v in (0.9642, 1.0, 0.8249))
    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(78)
    every = [(b"desc", text), (b"cprt", b"text\0\0\0\0none\0"), (b"wtpt", b"XYZ \0\0\0\0" + white), *tags]
    table, body, start = b"", b"", 132 + 12 * len(every)
    space = b"Lab " if use == b"prtr" else b"XYZ "
    for tag, data in every:
        table += tag + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4sI4s4s4s6H4s", start + len(body), b"none", 0x02400000, use, kind, space,
                       2026, 1, 1, 0, 0, 0, b"acsp")  # fmt: skip
    head = (head.ljust(68, b"\0") + white).ljust(128, b"\0")
    return head + struct.pack(">I", len(every)) + table + body


P3 = profile(((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)), 2.2)
LINEAR_GREY = profile((), 1.0, b"GRAY")


def press(paper: tuple[int, int, int], ink: tuple[int, int, int]) -> bytes:
    """A profile of CMYK: any ink gives the L*a*b* ``ink`` (8 bits a number), none gives ``paper``."""
    ramp = bytes(range(256))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0])
    table += b"".join(struct.pack(">i", 65536 * (n in (0, 4, 8))) for n in range(9))
    table += ramp * 4 + bytes(paper) + bytes(ink) * 15 + ramp * 3
    return icc(b"CMYK", b"prtr", [(b"A2B0", table)])


def stored_in(pixels: NDArray[np.uint8], profile: bytes) -> PIL.Image.Image:
    """The numbers that show ``pixels`` (sRGB) when they are read through ``profile``."""
    there = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    image = PIL.Image.fromarray(pixels)
    found = ImageCms.profileToProfile(
        image, ImageCms.createProfile("sRGB"), there, ImageCms.Intent.RELATIVE_COLORIMETRIC
    )
    assert found is not None
    return found


def tiff(
    pixels: NDArray[Any],
    photometric: int,
    bits: int,
    tags: Mapping[int, tuple[int, Sequence[int] | bytes]] | None = None,
    *,
    raw: bytes = b"",
    order: str = "<",
) -> bytes:
    """A TIFF of one strip, uncompressed unless ``raw`` and the tags say otherwise."""
    h, w = pixels.shape[:2]
    samples = pixels.shape[2] if pixels.ndim == 3 else 1
    body = raw or np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder(order))).tobytes()
    form = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    entries: dict[int, tuple[int, Sequence[int] | bytes]] = {
        256: (4, [w]), 257: (4, [h]), 258: (3, [bits] * samples), 259: (3, [1]), 262: (3, [photometric]),
        273: (4, [0]), 277: (3, [samples]), 278: (4, [h]), 279: (4, [len(body)]), 339: (3, [form] * samples),
        **(tags or {}),
    }  # fmt: skip
    sizes = {2: "s", 3: "H", 4: "I"}
    packed = {
        t: (k, len(v), v if isinstance(v, bytes) else struct.pack(f"{order}{len(v)}{sizes[k]}", *v))
        for t, (k, v) in sorted(entries.items())
    }
    start = 8 + 2 + 12 * len(packed) + 4
    total = sum(len(p[2]) for p in packed.values() if len(p[2]) > 4)
    table, extra = b"", b""
    for tag, (kind, count, data) in packed.items():
        value = struct.pack(f"{order}I", start + total) if tag == 273 else data
        if len(value) > 4:
            table += struct.pack(f"{order}HHII", tag, kind, count, start + len(extra))
            extra += value
        else:
            table += struct.pack(f"{order}HHI", tag, kind, count) + value.ljust(4, b"\0")
    head = b"II*\0" if order == "<" else b"MM\0*"
    return head + struct.pack(f"{order}IH", 8, len(packed)) + table + bytes(4) + extra + body


def with_segments(jpeg: bytes, *segments: tuple[int, bytes]) -> bytes:
    """``jpeg`` with segments (marker, contents) behind its beginning."""
    made = b"".join(struct.pack(">BBH", 0xFF, m, len(b) + 2) + b for m, b in segments)
    return jpeg[:2] + made + jpeg[2:]


def deep_png(values: NDArray[Any], colour: int) -> bytes:
    """A PNG of 16 bits a sample."""
    from pictures import chunk, png

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    h, w = values.shape[:2]
    return png(w, h, chunk(b"IDAT", zlib.compress(rows)), depth=16, colour=colour)
