"""Samples of every depth are shown right, or named as a kind that is not read, and never as damage."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import COLOURS, GREYS, deep_png, far, grey_quarters, quarters, tiff
from numpy.typing import NDArray
from pictures import chunk, encode

from mmrerank.errors import ImageError, TruncatedImageError
from mmrerank.images import decode, probe
from mmrerank.images.ranges import Samples, eight_bits

GREY, RGB = grey_quarters(), quarters()
DEEP = GREY.astype(np.uint16)
FULL = np.full_like(GREY, 255)


def scaled(values: NDArray[Any], factor: float, kind: str) -> NDArray[Any]:
    return (values.astype(np.float64) * factor).astype(kind)


def text(words: str) -> tuple[int, bytes]:
    return 2, words.encode() + b"\0"


# darktable-org/darktable#18815; InsightSoftwareConsortium/ITK#6636; python-pillow/Pillow#1888
GREY_KINDS: dict[str, tuple[NDArray[Any], int, int, Any]] = {
    "white is zero, 8": (255 - GREY, 0, 8, {}),
    "white is zero, 16": (65535 - DEEP * 257, 0, 16, {}),
    "white is zero, 32": ((2**32 - 1 - GREY.astype(np.uint64) * 16843009).astype(np.uint32), 0, 32, {}),
    "white is zero, float": ((1 - GREY / 255).astype(np.float32), 0, 32, {}),
    "white is zero, 12 in 16": (4095 - DEEP * 16, 0, 16, {281: (3, [4095])}),
    "12 in 16, said": (DEEP * 16, 1, 16, {281: (3, [4095])}),
    "12 in 16, said otherwise": (DEEP * 16, 1, 16, {341: (3, [4095])}),
    "12 in 16, by a microscope": (DEEP * 16, 1, 16, {270: text('<OME><Pixels SignificantBits="12"/></OME>')}),
    "12 in 16, by ImageJ": (DEEP * 16, 1, 16, {270: text("ImageJ=1.54\nmin=0.0\nmax=4095.0\n")}),
    "12 in 16, unsaid": (DEEP * 16, 1, 16, {}),
    "14 in 16, said": (DEEP * 64, 1, 16, {281: (3, [16383])}),
    "10 in 16": (DEEP * 4, 1, 16, {}),
    "8 in 16": (DEEP, 1, 16, {}),
    "16": (DEEP * 257, 1, 16, {}),
    "16 with its greatest value": (DEEP * 257, 1, 16, {281: (3, [240 * 257])}),
    "32": (scaled(GREY, 16843009, "u4"), 1, 32, {}),
    "16 in 32": (scaled(GREY, 257, "u4"), 1, 32, {}),
    "half float": (scaled(GREY, 1 / 255, "f2"), 1, 16, {}),
    "float": (scaled(GREY, 1 / 255, "f4"), 1, 32, {}),
    "double": (scaled(GREY, 1 / 255, "f8"), 1, 64, {}),
    "float to 255": (scaled(GREY, 1, "f4"), 1, 32, {}),
    "float to 65535": (scaled(GREY, 257, "f4"), 1, 32, {}),
    "float about zero": ((GREY / 127.5 - 1).astype(np.float32), 1, 32, {}),
    "signed 8": ((GREY.astype(np.int16) - 128).astype(np.int8), 1, 8, {}),
    "signed 16": (GREY.astype(np.int16) * 128, 1, 16, {}),
    "signed 16 about zero": ((GREY.astype(np.int32) * 257 - 32768).astype(np.int16), 1, 16, {}),
    "signed 32": (GREY.astype(np.int32), 1, 32, {}),
    "with cover, 8": (np.dstack([GREY, FULL]), 1, 8, {338: (3, [2])}),
    "with cover, 16": (np.dstack([DEEP, FULL]).astype(np.uint16) * 257, 1, 16, {338: (3, [2])}),
    "with cover in it, 16": (np.dstack([DEEP, FULL]).astype(np.uint16) * 257, 1, 16, {338: (3, [1])}),
    "with something else, 8": (np.dstack([GREY, GREY]), 1, 8, {}),
}
COLOUR_KINDS: dict[str, tuple[NDArray[Any], int, int, Any]] = {
    "16": (RGB.astype(np.uint16) * 257, 2, 16, {}),
    "12 in 16": (RGB.astype(np.uint16) * 16, 2, 16, {}),
    "12 in 16, said": (RGB.astype(np.uint16) * 16, 2, 16, {281: (3, [4095] * 3)}),
    "32": (scaled(RGB, 16843009, "u4"), 2, 32, {}),
    "half float": (scaled(RGB, 1 / 255, "f2"), 2, 16, {}),
    "float": (scaled(RGB, 1 / 255, "f4"), 2, 32, {}),
    "double": (scaled(RGB, 1 / 255, "f8"), 2, 64, {}),
    "float to 255": (RGB.astype(np.float32), 2, 32, {}),
    "signed 16": (RGB.astype(np.int16) * 128, 2, 16, {}),
    "with cover, 16": (np.dstack([RGB, FULL]).astype(np.uint16) * 257, 2, 16, {338: (3, [2])}),
    "with cover, float": (
        np.dstack([RGB / 255, np.ones_like(GREY)]).astype(np.float32),
        2,
        32,
        {338: (3, [2])},
    ),
    "print, 16": (np.dstack([255 - RGB, FULL * 0]).astype(np.uint16) * 257, 5, 16, {}),
}


@pytest.mark.parametrize("name", GREY_KINDS)
@pytest.mark.parametrize("order", ["<", ">"])
def test_grey(name: str, order: str) -> None:
    values, photometric, bits, tags = GREY_KINDS[name]
    assert far(decode(tiff(values, photometric, bits, tags, order=order)), GREYS) <= 2


@pytest.mark.parametrize("name", COLOUR_KINDS)
@pytest.mark.parametrize("order", ["<", ">"])
def test_colour(name: str, order: str) -> None:
    values, photometric, bits, tags = COLOUR_KINDS[name]
    assert far(decode(tiff(values, photometric, bits, tags, order=order)), COLOURS) <= 2


def test_overshoot_and_what_is_no_number() -> None:
    values = (GREY / 255).astype(np.float32)
    values[0, :5] = 1.3, -0.05, np.nan, np.inf, -3.4e38
    shown = decode(tiff(values, 1, 32))
    assert far(shown, GREYS) <= 1
    assert np.asarray(shown)[0, :5, 0].tolist() == [255, 0, 0, 255, 0]
    holes = GREY.astype(np.float32)
    holes[:, :3] = -9999
    assert far(decode(tiff(holes, 1, 32, {42113: text("-9999")})), GREYS) <= 1  # type: ignore[dict-item]


@pytest.mark.parametrize("order", ["<", ">"])
def test_twelve_bits_packed(order: str) -> None:
    def packed(values: NDArray[Any]) -> bytes:
        twelve = (values.astype(np.uint16) * 16).astype(">u2")
        places = np.unpackbits(twelve.view(np.uint8).reshape(*values.shape, 2), axis=-1)[..., 4:]
        return np.packbits(places.reshape(32, -1), axis=1).tobytes()

    assert far(decode(tiff(GREY, 1, 12, raw=packed(GREY), order=order)), GREYS) <= 1
    assert far(decode(tiff(GREY, 0, 12, raw=packed(255 - GREY), order=order)), GREYS) <= 15
    assert far(decode(tiff(RGB, 2, 12, raw=packed(RGB), order=order)), COLOURS) <= 1


def test_palettes_of_any_depth() -> None:
    numbers = np.zeros((32, 48), np.uint8)
    numbers[:16, 24:], numbers[16:, :24], numbers[16:, 24:] = 1, 2, 3
    for bits in (8, 16):
        table = np.zeros((3, 2**bits), int)
        table[:, :4] = np.array(COLOURS).T
        for entries in (table, table * 257):  # some writers put 8-bit entries into the 16-bit table
            data = tiff(numbers.astype(f"u{bits // 8}"), 3, bits, {320: (3, entries.ravel().tolist())})
            assert far(decode(data), COLOURS) == 0


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "lzma", "zstd"])
def test_compressions_predictors_and_strips(compression: str) -> None:
    for image in (PIL.Image.fromarray(DEEP * 257), PIL.Image.fromarray((GREY / 255).astype(np.float32))):
        for tags in ({}, {278: 7}, {317: 2}):
            if 317 in tags and compression == "packbits":
                continue  # TIFF defines no predictor for it
            data = encode(image, "TIFF", compression=compression, tiffinfo=tags)
            assert far(decode(data), GREYS) <= 1


def test_the_predictor_of_floats() -> None:
    values = (RGB / 255).astype(np.float32)
    planes = (
        np.ascontiguousarray(values.astype(">f4")).view(np.uint8).reshape(32, 48 * 3, 4).transpose(0, 2, 1)
    )
    rows = planes.reshape(32, -1, 3).astype(np.int16)
    rows[:, 1:] -= planes.reshape(32, -1, 3)[:, :-1]
    raw = zlib.compress((rows & 255).astype(np.uint8).tobytes())
    tags = {259: (3, [8]), 317: (3, [3]), 279: (4, [len(raw)])}
    assert far(decode(tiff(values, 2, 32, tags, raw=raw)), COLOURS) <= 1


def test_tiles_and_planes() -> None:
    values = RGB.astype(np.uint16) * 257
    tiled = b"".join(
        np.ascontiguousarray(values[y : y + 16, x : x + 16]).tobytes() for y in (0, 16) for x in (0, 16, 32)
    )
    whole = tiff(values, 2, 16)
    start = len(whole) - values.nbytes
    for _ in range(2):  # the tags' own length moves the pixels: found in two steps
        tags = {
            322: (3, [16]), 323: (3, [16]),
            324: (4, [start + 1536 * n for n in range(6)]), 325: (4, [1536] * 6),
        }  # fmt: skip
        data = tiff(values, 2, 16, tags, raw=tiled)
        start = len(data) - len(tiled)
    assert far(decode(data), COLOURS) <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_samples_are_turned_like_others(orientation: int) -> None:
    tags = {274: (3, [orientation])}
    deep, usual = tiff(DEEP * 257, 1, 16, tags), tiff(GREY, 1, 8, tags)
    assert (np.asarray(decode(deep)) == np.asarray(decode(usual))).all()
    assert (
        decode(deep).size
        == (probe(deep).width, probe(deep).height)
        == (probe(usual).width, probe(usual).height)
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (tiff(np.dstack([DEEP] * 5), 1, 16), "5 unsigned samples of 16 bits"),
        (tiff(GREY.astype(np.float32), 1, 32, {339: (3, [6])}), "complex sample of 32 bits"),
        (tiff(GREY, 32803, 8), "a sensor's mosaic"),
        (tiff(RGB.astype(np.uint16), 8, 16), r"L\*a\*b\*"),
        (tiff(GREY, 1, 8, {259: (3, [33003])}), "compression 33003"),
        (b"\xff\xd8\xff\xc1\0\x0b\x0c\0\x10\0\x10\1\1\x11\0\xff\xda\0\2", "a JPEG of 12 bits a sample"),
        (b"\xff\xd8\xff\xc3\0\x0b\x08\0\x10\0\x10\1\1\x11\0\xff\xda\0\2", "a lossless JPEG"),
    ],
)
def test_a_kind_that_is_not_read_is_named(data: bytes, words: str) -> None:
    with pytest.raises(ImageError, match=f"{words}.* is a kind that is not read; convert it") as caught:
        decode(data)
    assert "damaged" not in str(caught.value)


def test_a_deep_file_that_is_cut_off_is_so() -> None:
    for data in (
        tiff(DEEP * 257, 1, 16),
        tiff(RGB, 2, 8),
        encode(PIL.Image.fromarray(DEEP), "TIFF", compression="tiff_lzw"),
    ):
        with pytest.raises(ImageError, match="cut off|damaged"):
            decode(data[:-9] if data[4:8] == b"\x08\0\0\0" else data[:20])
    with pytest.raises(TruncatedImageError, match="9 bytes of a strip or tile are missing"):
        decode(tiff(DEEP * 257, 1, 16)[:-9])


def test_ycbcr_without_jpeg() -> None:
    pixels = np.asarray(PIL.Image.fromarray(RGB).convert("YCbCr"))
    for tags in ({}, {530: (3, [1, 1])}):
        assert far(decode(tiff(pixels, 6, 8, tags)), COLOURS) <= 4
    with pytest.raises(ImageError, match="YCbCr.* is a kind that is not read"):
        decode(tiff(pixels, 6, 8, {530: (3, [2, 2])}))


def test_what_is_there_of_a_tiff() -> None:
    for data in (tiff(RGB, 2, 8), tiff(RGB.astype(np.uint16) * 257, 2, 16)):
        found = decode(data[: -len(data) // 4], allow_truncated=True)
        assert far(found.crop((0, 0, 48, 16)).resize((48, 32)), [*COLOURS[:2]] * 2) <= 1
        assert found.getpixel((47, 31)) == (0, 0, 0)


def test_png_of_sixteen_bits() -> None:
    for factor in (257, 16, 4, 1):
        assert far(decode(deep_png(DEEP * factor, 0)), GREYS) <= 1
    said = deep_png(DEEP * 64, 0)
    assert far(decode(said[:33] + chunk(b"sBIT", b"\x0e") + said[33:]), GREYS) <= 1
    over = deep_png(DEEP * 257, 0)
    assert far(decode(over[:33] + chunk(b"sBIT", b"\x0c") + over[33:]), GREYS) <= 1
    assert far(decode(deep_png(np.dstack([DEEP, FULL]).astype(np.uint16) * 257, 4)), GREYS) <= 1
    assert far(decode(deep_png(RGB.astype(np.uint16) * 257, 2)), COLOURS) <= 1
    assert far(decode(deep_png(RGB.astype(np.uint16) * 16, 2)), COLOURS) <= 1
    assert far(decode(deep_png(np.dstack([RGB, FULL]).astype(np.uint16) * 16, 6)), COLOURS) <= 1
    assert far(decode(deep_png(np.dstack([DEEP, FULL]).astype(np.uint16) * 16, 4)), GREYS) <= 1
    said = deep_png(RGB.astype(np.uint16) * 64, 2)
    assert far(decode(said[:33] + chunk(b"sBIT", b"\x0e" * 3) + said[33:]), COLOURS) <= 1
    assert far(decode(deep_png(np.dstack([RGB, FULL]).astype(np.uint16) * 257, 6)), COLOURS) <= 1


def test_pnm_says_its_white() -> None:
    for white, factor in ((4095, 16), (65535, 257)):
        body = (DEEP * factor).astype(">u2").tobytes()
        assert far(decode(b"P5 48 32 %d\n" % white + body), GREYS) <= 1
    dark = b"P5 48 32 65535\n" + DEEP.astype(">u2").tobytes()
    assert np.asarray(decode(dark)).max() == 1


@given(st.lists(st.floats(allow_nan=True, width=32), min_size=1, max_size=30), st.sampled_from(["f4", "f8"]))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_any_floats_give_levels_in_their_order(values: list[float], kind: str) -> None:
    numbers = np.array(values, kind)
    found = eight_bits(numbers, Samples(kind="f", bits=32))
    told = [(v, f) for v, f in zip(values, found.tolist(), strict=True) if abs(v) <= 1e30]
    assert [f for _, f in sorted(told)] == sorted(f for _, f in told)


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=30))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_any_integers_give_levels_in_their_order(values: list[int]) -> None:
    found = eight_bits(np.array(values, np.uint32), Samples(kind="u", bits=32)).tolist()
    pairs = sorted(zip(values, found, strict=True))
    assert [f for _, f in pairs] == sorted(found)
