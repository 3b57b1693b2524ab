"""Sound pixels are shown whatever stands beside them, and pixels that are missing are missed.

Such files: python-pillow/Pillow#8363 and #4414, libjpeg-turbo/libjpeg-turbo#163.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import Any

import numpy as np
import PIL.Image
import pytest
from image_files import COLOURS, P3, far, quarters, tiff, with_segments
from pictures import chunk, encode, noise

from mmrerank.errors import ImageError, TruncatedImageError
from mmrerank.images import decode, probe

PICTURE = PIL.Image.fromarray(quarters((96, 64)))
PNG = encode(PICTURE, "PNG")
JPEG = encode(PICTURE, "JPEG", quality=95)
LONG = zlib.compress(b"x" * 3_000_000)


def damaged(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body) ^ 1)


def behind_header(*chunks: bytes) -> bytes:
    return PNG[:33] + b"".join(chunks) + PNG[33:]


def shown(data: bytes) -> bool:
    return far(decode(data), COLOURS) <= 6 and probe(data).width == 96


_NAMES = ("tEXt", "zTXt", "iTXt", "iCCP", "eXIf", "gAMA", "cHRM", "sRGB", "cICP", "sBIT", "pHYs", "tRNS",
          "bKGD", "acTL", "fcTL", "caBX")  # fmt: skip
CHUNKS = [n.encode() for n in _NAMES]


@pytest.mark.parametrize("name", CHUNKS)
def test_ancillary_chunks_refuse_no_pixels(name: bytes) -> None:
    for body in (b"", b"\1\2\3", b"workflow\0\0" + LONG, b"workflow\0\1\0\0\0" + LONG):
        assert shown(behind_header(chunk(name, body)))
        assert shown(behind_header(damaged(name, body)))
    assert shown(PNG[:-12] + damaged(name, b"late") + PNG[-12:])


def test_many_large_texts() -> None:
    assert shown(behind_header(*[chunk(b"tEXt", b"k\0" + bytes(1_200_000))] * 70))


def test_a_chunk_with_a_wrong_length() -> None:
    for length in (0x7FFFFFF0, 3, 0):
        assert shown(behind_header(struct.pack(">I4s", length, b"tEXt") + b"a text longer than it says"))


@pytest.mark.parametrize("cut", [1, 5, 12, 14])
def test_a_png_without_its_end(cut: int) -> None:
    assert shown(PNG[:-cut])
    assert shown(PNG + b"junk" * cut)


def test_png_in_pieces_and_with_bad_sums() -> None:
    body = PNG[41:-16]
    pieces = b"".join(chunk(b"IDAT", body[i : i + 7]) for i in range(0, len(body), 7))
    assert shown(PNG[:33] + pieces + chunk(b"tEXt", b"k\0v") + PNG[-12:])
    assert shown(PNG[:-16] + bytes(4) + PNG[-12:])
    with pytest.raises(ImageError, match="damaged"):
        decode(PNG[:29] + bytes(4) + PNG[33:])


def test_a_png_cut_in_its_last_row() -> None:
    whole = encode(noise((96, 64)), "PNG")
    assert (np.asarray(decode(whole[:-20])) == np.asarray(decode(whole))).all()  # only a sum is missing
    with pytest.raises(TruncatedImageError):
        decode(whole[:-40])


def test_orientation_in_png_wherever_it_stands() -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    body = exif.tobytes()
    turned = encode(PICTURE.transpose(PIL.Image.Transpose.ROTATE_90), "PNG")
    text = b"\nexif\n%8d\n%s\n" % (len(body), body.hex().encode())
    for extra in (
        chunk(b"eXIf", body[6:]),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text)),
        chunk(b"zTXt", b"Raw profile type APP1\0\0" + zlib.compress(text)),
        chunk(b"tEXt", b"Raw profile type exif\0" + text),
    ):
        assert shown(turned[:33] + extra + turned[33:])
        assert shown(turned[:-12] + extra + turned[-12:])
    broken = turned[:33] + damaged(b"eXIf", body[6:]) + turned[33:]
    assert (probe(broken).width, probe(broken).orientation) == (64, 1)


BOMB = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"".join(
    struct.pack("<HHII", n, 7, 0x7FFFFFFF, 8) for n in range(5000)
)
SEGMENTS: dict[str, tuple[int, bytes]] = {
    "short JFIF": (0xE0, b"JFIF"),
    "short Adobe": (0xEE, b"Adobe\0"),
    "empty EXIF": (0xE1, b"Exif\0\0"),
    "EXIF that points away": (0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff"),
    "EXIF of zeros": (0xE1, b"Exif\0\0" + bytes(60_000)),
    "EXIF that claims much": (0xE1, BOMB),
    "Photoshop, cut": (0xED, b"Photoshop 3.0\0" + b"8BIM\4\4"),
    "Photoshop, cut later": (0xED, b"Photoshop 3.0\0" + b"8BIM\4\4\xff"),
    "no profile": (0xE2, b"ICC_PROFILE\0\1\1" + b"x" * 500),
    "a third of a profile": (0xE2, b"ICC_PROFILE\0\1\3" + P3[:300]),
    "a broken list of pictures": (0xE2, b"MPF\0II*\0\xff\xff"),
    "a list of pictures that lies": (0xE2, b"MPF\0MM\0*\0\0\0\x08\0\1\xb0\1\0\4\0\0\0\1\0\0\0\5\0\0\0\0"),
    "a comment": (0xFE, b"x" * 60_000),
    "XMP": (0xE1, b"http://ns.adobe.com/xap/1.0/\0<x" + b"\xff" * 99),
    "provenance": (0xEB, b"JP\0\1" + bytes(60_000)),
}


@pytest.mark.parametrize("name", SEGMENTS)
def test_segments_beside_the_picture_refuse_no_pixels(name: str) -> None:
    assert shown(with_segments(JPEG, SEGMENTS[name]))
    assert shown(JPEG[:20] + with_segments(JPEG, SEGMENTS[name])[2 : -len(JPEG) + 2] + JPEG[20:])


@pytest.mark.parametrize(
    "junk", [b"\xff" * 9, b"\0\0junk", b"\xff\xe1\0\0", b"\xff\xe1\0\1", b"\xff\xe1\xff\xff" + bytes(40)]
)
def test_junk_between_segments(junk: bytes) -> None:
    assert shown(JPEG[:20] + junk + JPEG[20:])


def test_files_of_several_pictures_with_a_wrong_count() -> None:
    other = PIL.Image.new("RGB", (32, 32), "blue")
    whole = encode(PICTURE, "MPO", save_all=True, append_images=[other], quality=95)
    at = whole.index(struct.pack("<HHI", 0xB001, 4, 1)) + 8
    for count in (0, 1, 2, 3, 200, 2**31):
        assert shown(whole[:at] + struct.pack("<I", count) + whole[at + 4 :])
    first = whole[: whole.index(b"\xff\xd9") + 2]
    assert shown(first)
    assert shown(first[:-2])
    assert shown(whole + b"junk" * 100)
    assert probe(whole).format == "JPEG"


KINDS: list[dict[str, Any]] = [
    {}, {"progressive": True}, {"subsampling": 0}, {"optimize": True}, {"restart_marker_blocks": 5},
]  # fmt: skip


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_a_jpeg_without_its_end_marker_is_whole(options: dict[str, Any]) -> None:
    for picture in (PICTURE, noise((96, 64))):
        whole = encode(picture, "JPEG", quality=90, **options)
        expected = np.asarray(decode(whole))
        for end in (b"", b"\xff", b"\xff\xff\xff", bytes(9000)):
            assert (np.asarray(decode(whole[:-2] + end)) == expected).all()
        assert (np.asarray(decode(whole + b"junk\xff\xd8\xff")) == expected).all()
        assert (np.asarray(decode(whole + bytes(9000))) == expected).all()


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_a_jpeg_without_pixels_is_cut_off(options: dict[str, Any]) -> None:
    whole = encode(noise((96, 64)), "JPEG", quality=90, **options)
    for cut in (4, 6, 20, 100, len(whole) // 2, len(whole) * 4 // 5):
        with pytest.raises(TruncatedImageError):
            decode(whole[:-cut])
    for cut in (100, 2000):
        with pytest.raises(TruncatedImageError):
            decode(whole[:-cut] + bytes(9000))


def test_a_progressive_jpeg_without_its_last_scans_is_cut_off() -> None:
    whole = encode(PICTURE, "JPEG", progressive=True)
    scans = [m.start() for m in re.finditer(rb"\xff\xda", whole)]
    assert len(scans) > 5
    for at in scans[1:]:
        with pytest.raises(TruncatedImageError):
            decode(whole[:at])
        assert decode(whole[:at], allow_truncated=True).size == (96, 64)


def test_grey_and_print_without_their_end_marker() -> None:
    for mode in ("L", "CMYK"):
        whole = encode(PICTURE.convert(mode), "JPEG")
        assert (np.asarray(decode(whole[:-2])) == np.asarray(decode(whole))).all()


def test_tags_of_a_tiff_that_lead_nowhere() -> None:
    plain = quarters((96, 64))
    for place in (99_999_999, 8):
        data = tiff(plain, 2, 8, {34665: (4, [place])})
        assert shown(data)
    data = tiff(plain, 2, 8)
    after = 10 + 12 * struct.unpack("<H", data[8:10])[0]
    for place in (99_999_999, 8):
        assert shown(data[:after] + struct.pack("<I", place) + data[after + 4 :])


@pytest.mark.parametrize("format", ["GIF", "WEBP", "AVIF", "BMP", "TIFF", "JPEG2000", "PPM"])
def test_what_follows_the_picture(format: str) -> None:
    picture = PICTURE.quantize(8) if format == "GIF" else PICTURE
    options = {"WEBP": {"lossless": True}, "AVIF": {"quality": 95}}.get(format, {})
    assert far(decode(encode(picture, format, **options) + b"junk" * 500), COLOURS) <= 10


def test_a_webp_whose_container_is_at_fault() -> None:
    for options in ({"lossless": True}, {"quality": 95}):
        whole = encode(PICTURE, "WEBP", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0", **options)
        for size in (len(whole) + 1000, len(whole) - 12, 0):
            assert far(decode(whole[:4] + struct.pack("<I", size) + whole[8:]), COLOURS) <= 6
        at = whole.index(b"EXIF") + 4
        assert far(decode(whole[:at] + struct.pack("<I", 0x7FFFFFF0) + whole[at + 4 :]), COLOURS) <= 6
        assert far(decode(whole[: at + 10]), COLOURS) <= 6
        with pytest.raises(ImageError, match="bytes at its end are missing"):
            decode(encode(PICTURE, "WEBP", **options)[:-20])
    frames = encode(PICTURE, "WEBP", save_all=True, append_images=[noise((96, 64))], lossless=True)
    assert far(decode(frames[:-30]), COLOURS) <= 6
