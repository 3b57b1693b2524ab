"""Turns the strips and tiles of a TIFF into a picture of 8 bits a channel, by the layout in its tags.

The compressions are Pillow's and zlib's; what is done here is to undo predictors, unpack odd depths and
measure the numbers. TIFF 6.0, and Adobe's Technical Note 3 for the predictor of floats.
"""

from __future__ import annotations

import dataclasses
import io
import math
import struct
import zlib
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from mmrerank.images.ranges import eight_bits
from mmrerank.images.strips import strips
from mmrerank.images.tiff_layout import BYTEWISE, Layout

_REVERSED = bytes(int(f"{n:08b}"[::-1], 2) for n in range(256))
_PART = 1 << 20
"""Numbers that are unpacked at once: odd depths take many bytes for each."""
MOST_CHUNKS = 200_000
"""Strips and tiles of a picture; each costs work of its own, whatever it holds."""
_NUMBERS = {name: number for number, name in BYTEWISE.items()}


def picture(file: IO[bytes], found: Layout, *, lenient: bool = False) -> PIL.Image.Image:
    """The picture in mode L, LA, RGB, RGBA or CMYK, as stored (not turned).

    Raises `OSError` where bytes are missing, and what decoders raise; zeros stand there if ``lenient``.
    """
    values = _values(file, found, lenient=lenient)
    if found.palette:
        colours = np.array(found.palette[: 3 * 2**found.samples.bits], np.int64).reshape(3, -1)
        # some writers put 8-bit entries into the 16-bit table
        levels = (colours if colours.max() < 256 else (colours + 128) // 257).astype(np.uint8)
        return _image(levels[:, values[..., 0]].transpose(1, 2, 0), "RGB")
    # the numbers are let go before the picture is made of what is shown of them
    shown = eight_bits(values[..., : found.colours], found.samples)
    cover = _cover(values, found) if found.alpha and found.colours < 4 else None
    del values
    if found.photometric == 0:
        shown = 255 - shown
    if found.photometric == 6:
        return _image(shown, "YCbCr").convert("RGB")
    mode = {1: "L", 3: "RGB", 4: "CMYK"}[found.colours]
    if cover is None:
        return _image(shown, mode)
    if found.alpha == "multiplied":
        whole = np.concatenate([np.broadcast_to(shown, (*shown.shape[:2], 3)), cover], axis=-1)
        # a colour above its own cover is out of range, and Pillow would let it overflow
        whole[..., :3] = np.minimum(whole[..., :3], cover)
        return PIL.Image.frombytes("RGBa", (found.width, found.height), whole.tobytes()).convert("RGBA")
    return _image(np.concatenate([shown, cover], axis=-1), {"L": "LA", "RGB": "RGBA"}[mode])


def _cover(values: NDArray[Any], found: Layout) -> NDArray[np.uint8]:
    samples = dataclasses.replace(found.samples, black=None, white=None)
    return eight_bits(values[..., found.colours :][..., :1], samples)


def make_room(image: ImageFile) -> None:
    """Gives a TIFF its memory, which its reader would otherwise do after asking Pillow's global limit.

    The caller has checked the size against a limit of its own.
    """
    size = vars(image).get("_tile_size")
    if image.format == "TIFF" and image.tile and size is not None and vars(image).get("_im") is None:
        image.im = PIL.Image.new(image.mode, size).im


def _image(values: NDArray[np.uint8], mode: str) -> PIL.Image.Image:
    height, width = values.shape[:2]
    whole = PIL.Image.new(mode, (width, height))
    for box in strips(whole.size):
        part = np.ascontiguousarray(values[box[1] : box[3]])
        whole.paste(PIL.Image.frombytes(mode, (width, len(part)), part.tobytes()), box)
    return whole


def _values(file: IO[bytes], found: Layout, *, lenient: bool) -> NDArray[Any]:
    """The numbers ``(height, width, samples)``."""
    rows, columns = found.chunk
    across, down = math.ceil(found.width / columns), math.ceil(found.height / rows)
    per = 1 if found.planar else found.count
    everything = np.zeros((found.height, found.width, found.count), _dtype(found))
    if across * down * (found.count if found.planar else 1) > MOST_CHUNKS:
        raise OSError(f"more than {MOST_CHUNKS:,} strips or tiles")
    number = 0
    for plane in range(found.count if found.planar else 1):
        for y in range(0, down * rows, rows):
            for x in range(0, across * columns, columns):
                tall = rows if found.tiled else min(rows, found.height - y)
                place = slice(plane, plane + 1) if found.planar else slice(None)
                for above, part in _chunk(file, found, number, tall, per, lenient):
                    top = y + above
                    part = part[: max(0, found.height - top), : found.width - x]
                    everything[top : top + len(part), x : x + columns, place] = part
                number += 1
    return everything


def _chunk(
    file: IO[bytes], found: Layout, number: int, rows: int, per: int, lenient: bool
) -> Iterator[tuple[int, NDArray[Any]]]:
    """The numbers ``(rows, columns, per)`` of a strip or tile, some rows at a time, with the first's."""
    columns = found.chunk[1]
    wide = (columns * per * found.samples.bits + 7) // 8
    try:
        data = _bytes(file, found, number, wide, rows)
        if len(data) < rows * wide and not lenient:
            raise OSError(f"truncated: {rows * wide - len(data)} bytes of a strip or tile are missing")
    except Exception:  # decoders raise anything
        if not lenient:
            raise
        data = b""
    some = max(1, _PART // (columns * per))
    for row in range(0, rows, some):
        tall = min(some, rows - row)
        part = data[row * wide : (row + tall) * wide].ljust(tall * wide, b"\0")
        yield row, _numbers(np.frombuffer(part, np.uint8).reshape(tall, wide), found, columns, per)


def _bytes(file: IO[bytes], found: Layout, number: int, wide: int, rows: int) -> bytes:
    """The unpacked bytes of a strip or tile, or as many as there are."""
    if number >= len(found.offsets):
        raise OSError("truncated: it has fewer strips or tiles than rows")
    file.seek(found.offsets[number])
    count = found.counts[number] if number < len(found.counts) else rows * wide
    if not count:  # writers that stopped halfway leave zeros
        count = rows * wide if found.compression == "raw" else -1
    packed = file.read(count)
    if len(packed) < count and found.compression not in ("raw", "deflate"):
        raise OSError(f"truncated: {count - len(packed)} bytes of a strip or tile are missing")
    if found.reversed_bits:
        packed = packed.translate(_REVERSED)
    return _unpacked(packed, found.compression, wide, rows)


def _unpacked(data: bytes, compression: str, wide: int, rows: int) -> bytes:
    if compression == "raw":
        return data
    if compression == "deflate":
        try:
            return zlib.decompressobj().decompress(data, wide * rows)
        except zlib.error as error:
            raise OSError(f"a strip or tile cannot be unpacked: {error}") from error
    # to these compressions bytes are bytes: Pillow unpacks them as a grey picture of as many
    tags = [(256, 4, wide), (257, 4, rows), (258, 3, 8), (259, 3, _NUMBERS[compression]), (262, 3, 1),
            (273, 4, 122), (277, 3, 1), (278, 4, rows), (279, 4, len(data))]  # fmt: skip
    head = b"II*\0" + struct.pack("<IH", 8, len(tags))
    body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    image = TiffImageFile(io.BytesIO(head + body + bytes(4) + data), "")
    make_room(image)
    image.load()
    return image.tobytes()


def _numbers(data: NDArray[np.uint8], found: Layout, columns: int, per: int) -> NDArray[Any]:
    """The bytes ``(rows, bytes of a row)`` as numbers ``(rows, columns, per)``, the predictor undone."""
    rows, bits = len(data), found.samples.bits
    size = bits // 8
    if found.predictor == 3:
        differences = data.reshape(rows, columns * size, per)
        data = np.cumsum(differences, axis=1, dtype=np.uint8).reshape(rows, size, columns * per)
        data = np.ascontiguousarray(data.transpose(0, 2, 1))
        return data.reshape(rows, -1).view(f">f{size}").reshape(rows, columns, per).astype(_dtype(found))
    if bits not in (8, 16, 32, 64):
        places = np.unpackbits(data, axis=1)[:, : columns * per * bits].reshape(rows, columns, per, bits)
        weights = (1 << np.arange(bits - 1, -1, -1)).astype(np.uint16)
        return (places @ weights).astype(_dtype(found))
    whole = data.view(f"{found.order}u{size}").reshape(rows, columns, per).astype(f"u{size}")
    if found.predictor == 2:
        whole = np.cumsum(whole, axis=1, dtype=whole.dtype)
    return whole.view(_dtype(found))


def _dtype(found: Layout) -> np.dtype[Any]:
    return np.dtype(f"{found.samples.kind}{found.size}")
