"""Sound pixels in odd containers, and kinds that are named: restarts, Apple's PNG, BigTIFF, unused alpha."""

from __future__ import annotations

import re
import struct
import zlib

import numpy as np
import PIL.Image
import pytest
from image_files import COLOURS, GREYS, P3, far, grey_quarters, quarters, stored_in, tiff, with_segments
from pictures import chunk, encode, noise

from mmrerank.errors import ImageError, TruncatedImageError
from mmrerank.images import decode

PICTURE = PIL.Image.fromarray(quarters((96, 64)))
PNG = encode(PICTURE, "PNG")
JPEG = encode(PICTURE, "JPEG", quality=95, subsampling=0)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_cut_off_between_two_restarts(progressive: bool) -> None:
    data = encode(noise((160, 96)), "JPEG", quality=90, restart_marker_rows=1, progressive=progressive)
    assert decode(data[:-2]).tobytes() == decode(data).tobytes()
    restart = [m.start() for m in re.finditer(rb"\xff[\xd0-\xd7]", data)][-1]
    for cut in range(restart - 1, restart + 4):
        with pytest.raises(TruncatedImageError, match="cut off"):
            decode(data[:cut])


def test_the_first_of_two_pictures_without_its_end_marker() -> None:
    assert far(decode(JPEG[:-2] + encode(PIL.Image.new("RGB", (32, 32), "blue"), "JPEG")), COLOURS) <= 6


def test_a_height_behind_the_pixels_is_named() -> None:
    frame = JPEG.find(b"\xff\xc0")
    with pytest.raises(ImageError, match="height stands behind its pixels is a kind that is not read"):
        decode(JPEG[: frame + 5] + b"\0\0" + JPEG[frame + 7 :])


def test_apples_png_is_named() -> None:
    with pytest.raises(ImageError, match=r"CgBI.* is a kind that is not read"):
        decode(PNG[:8] + chunk(b"CgBI", b"\x50\0\x20\2") + PNG[8:])


def test_a_big_endian_bigtiff_is_named() -> None:
    with pytest.raises(ImageError, match="big-endian BigTIFF is a kind that is not read"):
        decode(b"MM\0+\0\x08\0\0" + bytes(40))


@pytest.mark.parametrize("blank", [b"\n", b"\r\n\r\n", b"\xef\xbb\xbf", b"  \t"])
def test_blanks_before_the_picture(blank: bytes) -> None:
    # what a script prints before the picture that it sends
    assert far(decode(blank + PNG), COLOURS) == 0
    assert far(decode(blank + JPEG), COLOURS) <= 6
    assert far(decode(blank + JPEG[:-2]), COLOURS) <= 6
    with pytest.raises(ImageError, match="no image format"):
        decode(blank + b"words")


@pytest.mark.parametrize(("bits", "scale"), [(2, 85), (4, 17)])
def test_the_transparent_grey_of_few_bits(bits: int, scale: int) -> None:
    values = np.rint(grey_quarters() / 255 * (2**bits - 1)).astype(np.uint8)
    levels = [int(v) for v in (values[8, 12], values[8, 36], values[24, 12], values[24, 36])]
    rows = np.unpackbits(values[..., None], axis=2)[..., 8 - bits :].reshape(len(values), -1)
    packed = b"".join(b"\0" + row.tobytes() for row in np.packbits(rows, axis=1))
    png = (
        PNG[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", 48, 32, bits, 0, 0, 0, 0))
        + chunk(b"tRNS", struct.pack(">H", levels[0])) + chunk(b"IDAT", zlib.compress(packed))
        + chunk(b"IEND", b"")
    )  # fmt: skip
    assert far(decode(png), [255 if v == levels[0] else scale * v for v in levels]) == 0


@pytest.mark.parametrize("cover", [0, 255])
def test_a_bmp_whose_alpha_is_unused(cover: int) -> None:
    pixels = np.dstack([quarters()[::-1, :, ::-1], np.full((32, 48), cover, np.uint8)]).tobytes()
    head = struct.pack("<IiiHHIIiiII", 124, 48, 32, 1, 32, 3, len(pixels), 2835, 2835, 0, 0)
    head = (head + struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs").ljust(124, b"\0")
    data = b"BM" + struct.pack("<IHHI", 14 + len(head) + len(pixels), 0, 0, 14 + len(head)) + head + pixels
    assert far(decode(data), COLOURS) == 0


def test_a_tiff_with_no_lengths_of_its_strips() -> None:
    assert far(decode(tiff(grey_quarters().astype(np.uint16) * 257, 1, 16, {279: (4, [0])})), GREYS) == 0


def test_an_orientation_in_a_byte() -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIII", 274, 1, 1, 3, 0)
    turned = encode(PICTURE.rotate(180), "JPEG", quality=95, subsampling=0)
    assert far(decode(with_segments(turned, (0xE1, exif))), COLOURS) <= 6


@pytest.mark.parametrize("size", [0, 0x7FFFFFFF])
def test_a_webp_of_wrong_size_keeps_its_colours_and_its_orientation(size: int) -> None:
    exif = PIL.Image.Exif()
    exif[274] = 3
    turned = stored_in(quarters((96, 64)), P3).rotate(180)
    data = encode(turned, "WEBP", lossless=True, icc_profile=P3, exif=exif.tobytes())
    assert far(decode(data), COLOURS) <= 14
    assert far(decode(data[:4] + struct.pack("<I", size) + data[8:]), COLOURS) <= 14
