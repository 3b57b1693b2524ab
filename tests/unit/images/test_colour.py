"""Colour profiles are applied: what a file's numbers mean is what is seen (photoprism/photoprism#1798)."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import PIL.Image
import pytest
from image_files import (
    COLOURS,
    GREYS,
    LINEAR_GREY,
    P3,
    centres,
    far,
    grey_quarters,
    press,
    profile,
    quarters,
    stored_in,
)
from pictures import chunk, encode
from PIL import ImageCms

from mmrerank.images import decode, profiles, thumbnail
from mmrerank.images.thumbs import encoded

WIDE = stored_in(quarters(), P3)
LIGHT = ((grey_quarters() / 255.0) ** 2.2 * 255).round().astype(np.uint8)


def behind_header(png: bytes, *chunks: bytes) -> bytes:
    return png[:33] + b"".join(chunks) + png[33:]


def icc_chunk(data: bytes, method: int = 0) -> bytes:
    return chunk(b"iCCP", b"name\0" + bytes([method]) + zlib.compress(data))


def test_the_fixture_is_of_other_numbers() -> None:
    assert far(WIDE, COLOURS) > 20


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
def test_a_profile_is_applied(format: str) -> None:
    exact = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}, "AVIF": {"quality": 98}}
    data = encode(WIDE, format, icc_profile=P3, **exact.get(format, {}))
    assert far(decode(data), COLOURS) <= 10
    assert "icc_profile" not in decode(data).info


def test_palettes_and_transparency_have_profiles_too() -> None:
    assert far(decode(encode(WIDE.quantize(8), "PNG", icc_profile=P3)), COLOURS) <= 6
    clear = WIDE.convert("RGBA")
    clear.paste((0, 0, 0, 0), (24, 0, 48, 16))
    shown = decode(encode(clear, "PNG", icc_profile=P3))
    assert far(shown, [COLOURS[0], (255, 255, 255), *COLOURS[2:]]) <= 4


def test_grey_profiles() -> None:
    grey = PIL.Image.fromarray(LIGHT)
    cover = PIL.Image.merge("LA", (grey, PIL.Image.new("L", grey.size, 255)))
    deep = PIL.Image.fromarray(LIGHT.astype(np.uint16) * 257)
    for image in (grey, cover, deep):
        assert far(decode(encode(image, "PNG", icc_profile=LINEAR_GREY)), GREYS) <= 6
    assert far(decode(encode(grey, "JPEG", quality=95, icc_profile=LINEAR_GREY)), GREYS) <= 8


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_profiles_of_print(format: str) -> None:
    # Adobe's JPEG holds the inks inverted; the profile is meant for what they are
    inks = PIL.Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    violet = press((255, 128, 128), (128, 148, 108))  # L* 50.2, a* 20, b* -20
    options = {"quality": 95} if format == "JPEG" else {}
    shown = decode(encode(inks, format, icc_profile=violet, **options)).getpixel((4, 4))
    assert isinstance(shown, tuple)
    assert np.abs(np.array(shown) - (141, 108, 154)).max() <= 4
    paper = PIL.Image.new("CMYK", (8, 8), (0, 0, 0, 0))
    assert min(decode(encode(paper, format, icc_profile=violet, **options)).getpixel((4, 4))) > 250  # type: ignore[type-var, arg-type]
    without = decode(encode(inks, format, **options)).getpixel((4, 4))
    assert without != shown


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"short",
        bytes(3000),
        b"\xff" * 3000,
        P3[:200],
        P3[:400],
        LINEAR_GREY,  # on an image in colour
        press((255, 128, 128), (180, 60, 190)),
    ],
)
def test_a_profile_that_is_broken_or_of_another_kind_is_ignored(data: bytes) -> None:
    plain = quarters()
    for format in ("PNG", "TIFF"):
        found = np.asarray(decode(encode(PIL.Image.fromarray(plain), format, icc_profile=data)))
        assert (found == plain).all()


def test_a_profile_in_colour_on_a_grey_image_is_ignored() -> None:
    plain = grey_quarters()
    data = encode(PIL.Image.fromarray(plain), "PNG", icc_profile=P3)
    assert (np.asarray(decode(data))[..., 0] == plain).all()


def test_srgb_itself_changes_no_number() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    data = encode(PIL.Image.fromarray(noise), "PNG", icc_profile=srgb)
    assert (np.asarray(decode(data)) == noise).all()


def test_colours_that_png_names_by_numbers() -> None:
    linear = np.where(
        quarters() / 255 <= 0.04045, quarters() / 255 / 12.92, ((quarters() / 255 + 0.055) / 1.055) ** 2.4
    )
    light = encode(PIL.Image.fromarray((linear * 255).round().astype(np.uint8)), "PNG")
    usual = encode(PIL.Image.fromarray(quarters()), "PNG")

    def gamma(n: int) -> bytes:
        return chunk(b"gAMA", struct.pack(">I", n))

    def points(*values: int) -> bytes:
        return chunk(b"cHRM", struct.pack(">8I", *values))

    assert far(decode(behind_header(light, gamma(100_000))), COLOURS) <= 8
    usual_points = points(31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
    for same in (
        [gamma(45455)], [gamma(45455), usual_points], [gamma(0)], [gamma(45455), points(*[0] * 8)],
        [chunk(b"sRGB", b"\0"), gamma(100_000)], [usual_points], [chunk(b"cICP", bytes([1, 13, 0, 1]))],
    ):  # fmt: skip
        assert (np.asarray(decode(behind_header(usual, *same))) == quarters()).all()
    p3 = encode(WIDE, "PNG")
    assert far(decode(behind_header(p3, chunk(b"cICP", bytes([12, 13, 0, 1])))), COLOURS) <= 14
    p3_points = points(31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
    assert far(decode(behind_header(p3, gamma(45455), p3_points)), COLOURS) <= 14
    # a profile counts more than numbers, unless it is broken
    assert far(decode(behind_header(p3, gamma(100_000), icc_chunk(P3))), COLOURS) <= 4
    assert (np.asarray(decode(behind_header(usual, icc_chunk(P3, method=7)))) == quarters()).all()


def test_cameras_name_adobe_rgb_in_exif() -> None:
    adobe = profiles.adobe_rgb()
    exif = PIL.Image.Exif()
    exif[0x8769] = {0xA001: 65535, 0xA005: {1: "R03"}}
    data = encode(stored_in(quarters(), adobe), "JPEG", exif=exif, quality=95, subsampling=0)
    assert far(decode(data), COLOURS) <= 6


def test_thumbnails_and_pictures_in_memory_keep_their_colours() -> None:
    data = encode(WIDE, "JPEG", icc_profile=P3, quality=95, subsampling=0)
    assert far(decode(thumbnail(data)), COLOURS) <= 10
    loaded = PIL.Image.open(io.BytesIO(data))
    assert far(decode(thumbnail(loaded)), COLOURS) <= 10
    assert far(decode(encoded(loaded)), COLOURS) <= 6


def test_profiles_name_the_primaries_of_their_standards() -> None:
    def shown(icc: bytes | None, colour: tuple[int, int, int]) -> list[int]:
        assert icc is not None
        data = encode(PIL.Image.new("RGB", (4, 4), colour), "PNG", icc_profile=icc)
        return np.asarray(decode(data))[0, 0].tolist()  # type: ignore[no-any-return]

    # known pairs: Adobe RGB (1998) and Display P3 against sRGB
    assert np.abs(np.array(shown(profiles.adobe_rgb(), (200, 100, 50))) - (227, 100, 42)).max() <= 2
    p3 = profiles.from_code_points(bytes([12, 13, 0, 1]), grey=False)
    assert np.abs(np.array(shown(p3, (200, 100, 50))) - (215, 93, 31)).max() <= 2
    assert centres(PIL.Image.new("RGB", (4, 4), (1, 2, 3)))[0] == (1, 2, 3)
    assert profile((), 2.2, b"GRAY") != LINEAR_GREY
