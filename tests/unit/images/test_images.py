"""The decoder sees what a person would see, or says in one sentence why not."""

from __future__ import annotations

import base64
import io
import struct
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import BLUE, GREEN, RED, WHITE, chunk, corners, encode, flag, noise, png
from PIL import ImageFile

from mmrerank.errors import ImageError
from mmrerank.images import IMAGE_SUFFIXES, data_uri, decode, fit, probe, thumbnail
from mmrerank.types import Image

# How a camera held in each way would have stored the upright flag.
STORED: dict[int, PIL.Image.Transpose] = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_90,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_comes_out_upright(orientation: int, format: str) -> None:
    turn = STORED.get(orientation)
    stored = flag() if turn is None else flag().transpose(turn)
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    data = encode(stored, format, exif=exif)
    image, info = decode(data), probe(data)
    assert image.size == (info.width, info.height) == (48, 32)
    assert corners(image) == ["red", "green", "blue", "white"]
    assert info.format == format
    assert "exif" not in image.info


def test_nonsense_orientation_and_broken_exif_do_no_harm() -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 9
    assert corners(decode(encode(flag(), "JPEG", exif=exif)))[0] == "red"
    for blob in (b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0" + b"\xff" * 50):
        data = encode(flag(), "JPEG", exif=blob)
        assert decode(data).size == (48, 32)
        assert probe(data).orientation == 1


def test_png_orientation_after_the_pixels_counts_and_probe_decodes_nothing() -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    data = encode(flag().transpose(STORED[6]), "PNG")
    late = data[:-12] + chunk(b"eXIf", exif.tobytes()[6:]) + data[-12:]
    assert (probe(late).width, probe(late).height) == decode(late).size == (48, 32)
    assert corners(decode(late)) == ["red", "green", "blue", "white"]


def test_probe_reads_time_and_camera() -> None:
    exif = PIL.Image.Exif()
    exif[0x010F], exif[0x0110] = "Canon\0", "Canon EOS 5D"
    exif.get_ifd(0x8769)[0x9003] = "2021:05:06 07:08:09"
    info = probe(encode(flag(), "JPEG", exif=exif))
    assert (info.taken, info.camera) == ("2021-05-06T07:08:09", "Canon EOS 5D")
    exif = PIL.Image.Exif()
    exif[0x0132], exif[0x010F] = "0000:00:00 00:00:00", ""
    info = probe(encode(flag(), "JPEG", exif=exif))
    assert (info.taken, info.camera) == (None, None)


def test_cmyk_and_ycck() -> None:
    for format in ("JPEG", "TIFF"):
        assert corners(decode(encode(flag().convert("CMYK"), format))) == ["red", "green", "blue", "white"]
    # Adobe's marker with transform 2 makes four components YCCK.
    plain = encode(flag().convert("CMYK"), "JPEG")
    at = plain.index(b"Adobe")
    ycck = bytearray(plain)
    ycck[at + 11] = 2
    assert decode(bytes(ycck)).mode == "RGB"


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_not_clipped(format: str) -> None:
    values = np.array([[0, 257, 128 * 257, 65535]], dtype=np.uint16)
    pixels = np.asarray(decode(encode(PIL.Image.fromarray(values), format)))
    assert pixels[0, :, 0].tolist() == [0, 1, 128, 255]


def test_deep_and_float_greys() -> None:
    def grey(values: Any, dtype: Any) -> list[int]:
        data = encode(PIL.Image.fromarray(np.array([values], dtype=dtype)), "TIFF")
        return np.asarray(decode(data))[0, :, 0].tolist()  # type: ignore[no-any-return]

    assert grey([0.0, 0.5, 1.0], np.float32) == [0, 128, 255]
    assert grey([0, 100, 255], np.float32) == [0, 100, 255]
    assert grey([-1000, 0, 1000], np.float32) == [0, 128, 255]
    assert grey([np.nan, np.inf, 1.0], np.float32) == [0, 255, 255]
    assert grey([0, 100, 255], np.int32) == [0, 100, 255]
    assert grey([0, 65535], np.int32) == [0, 255]
    assert grey([0, 1 << 20], np.int32) == [0, 255]
    assert grey([7e8, 7e8], np.int32) == [0, 0]


def test_sixteen_bit_transparent_grey_is_white() -> None:
    rows = zlib.compress(b"\0" + struct.pack(">HH", 1000, 65535 // 2))
    data = png(2, 1, chunk(b"tRNS", struct.pack(">H", 1000)), chunk(b"IDAT", rows), depth=16)
    assert np.asarray(decode(data))[0, :, 0].tolist() == [255, 127]


def test_transparency_lies_over_white() -> None:
    rgba = flag().convert("RGBA")
    rgba.paste((0, 0, 0, 0), (0, 0, 24, 16))
    rgba.paste((0, 0, 0, 128), (24, 0, 48, 16))
    for format in ("PNG", "WEBP", "TIFF"):
        image = decode(encode(rgba, format, **({"lossless": True} if format == "WEBP" else {})))
        assert image.getpixel((4, 4)) == WHITE
        assert image.getpixel((40, 4)) == (127, 127, 127)
    grey = PIL.Image.new("LA", (4, 4), (0, 0))
    assert decode(encode(grey, "PNG")).getpixel((0, 0)) == WHITE
    keyed = encode(flag(), "PNG", transparency=RED)
    assert corners(decode(keyed)) == ["white", "green", "blue", "white"]


def test_palette_with_transparency_and_one_bit() -> None:
    palette = flag().quantize(4)
    index = palette.getpixel((4, 4))
    for format in ("PNG", "GIF"):
        assert corners(decode(encode(palette, format))) == ["red", "green", "blue", "white"]
        data = encode(palette, format, transparency=index)
        assert corners(decode(data)) == ["white", "green", "blue", "white"]
    alphas = bytes(0 if i == index else 255 for i in range(4))
    assert corners(decode(encode(palette, "PNG", transparency=alphas)))[0] == "white"
    bits = decode(encode(PIL.Image.new("1", (9, 9), 1), "PNG"))
    assert (bits.mode, bits.getpixel((8, 8))) == ("RGB", WHITE)


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_first_frame_of_animations(format: str) -> None:
    frames = [PIL.Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE, GREEN)]
    data = encode(frames[0], format, save_all=True, append_images=frames[1:])
    pixel = decode(data).getpixel((4, 4))
    assert isinstance(pixel, tuple)
    assert pixel[0] > 240
    assert max(pixel[1:]) < 20


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "JPEG2000", "PPM"])
def test_one_pixel_and_misleading_names(tmp_path: Path, format: str) -> None:
    path = tmp_path / "picture.xyz.jpg"
    path.write_bytes(encode(PIL.Image.new("RGB", (1, 1), WHITE), format))
    source = Image(path=path)
    assert decode(source).getpixel((0, 0)) == WHITE
    assert (probe(source).width, probe(source).format) == (1, format)


def test_a_span_of_a_file(tmp_path: Path) -> None:
    data = encode(flag(), "PNG")
    path = tmp_path / "shard.tar"
    path.write_bytes(b"x" * 700 + data + b"y" * 99)
    source = Image(path=path, offset=700, length=len(data))
    assert corners(decode(source))[0] == "red"
    assert probe(source).width == 48


def test_bomb_is_refused_on_its_header() -> None:
    expected = (
        r"^20000x20000 = 400 megapixels is over the limit of 50; raise it with --max-pixels, "
        r"or for every command with MMRERANK_MAX_PIXELS$"
    )
    with pytest.raises(ImageError, match=expected):
        decode(png(20000, 20000, chunk(b"IDAT", b"")))
    compressor = zlib.compressobj(9)
    rows = b"".join(compressor.compress(bytes(20001)) for _ in range(20000)) + compressor.flush()
    bomb = png(20000, 20000, chunk(b"IDAT", rows))
    assert len(bomb) < 500_000
    with pytest.raises(ImageError, match=expected):
        decode(bomb)
    assert probe(bomb).width == 20000


def test_pillows_own_limit_neither_interferes_nor_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 100)
    for format in ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"):
        assert decode(encode(flag(), format)).size == (48, 32)
    assert PIL.Image.MAX_IMAGE_PIXELS == 100
    with pytest.raises(ImageError, match="1536"):
        decode(encode(flag(), "PNG"), max_pixels=1535)
    assert decode(encode(flag(), "PNG"), max_pixels=1536).size == (48, 32)


@pytest.mark.parametrize(
    ("format", "options"),
    [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("GIF", {}), ("BMP", {})],
)
def test_truncated_is_refused_unless_allowed(format: str, options: dict[str, Any]) -> None:
    whole = encode(noise(), format, **options)
    cut = whole[: len(whole) * 2 // 3]
    with pytest.raises(ImageError, match=r"^the image is cut off|damaged"):
        decode(cut)
    image = np.asarray(decode(cut, allow_truncated=True)).astype(int)
    full = np.asarray(decode(whole)).astype(int)
    assert image.shape == full.shape
    if not options:  # progressive files lose detail instead of rows
        assert (image == full).all(axis=2).mean() > 0.4
    assert image.std() > 10
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_truncated_where_nothing_can_be_saved() -> None:
    for format in ("WEBP", "AVIF", "TIFF"):
        whole = encode(noise(), format, **({"compression": "tiff_lzw"} if format == "TIFF" else {}))
        for allow in (False, True):
            with pytest.raises(ImageError):
                decode(whole[: len(whole) // 2], allow_truncated=allow)


def test_strict_threads_stay_strict_beside_lenient_ones() -> None:
    cut = encode(noise(), "JPEG")[:-2000]
    start = threading.Barrier(4)

    def lenient() -> int:
        start.wait()
        return sum(decode(cut, allow_truncated=True).width == 256 for _ in range(20))

    def strict() -> int:
        start.wait()
        refused = 0
        for _ in range(20):
            with pytest.raises(ImageError):
                decode(cut)
            refused += 1
        return refused

    before = list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(task) for task in (lenient, strict, lenient, strict)]
        assert [job.result() for job in jobs] == [20] * 4
    assert list(warnings.filters) == before


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"hello, I am a text file", "no image format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "no image format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no image format"),
        (b"\xff\x0a" + bytes(30), "JPEG XL|damaged"),
        (b"\x89PNG\r\n\x1a\n", "damaged|cut off"),
        (b"\xff\xd8\xff\xe0" + b"\0" * 30, "damaged|cut off"),
        (b"GIF89a\0\0\0\0\0\0\0;", "damaged|shows nothing|cut off"),
    ],
)
def test_what_is_no_image_is_said(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        decode(data)


def test_heic_is_read_or_the_extra_is_named() -> None:
    header = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    try:
        import pillow_heif
    except ImportError:
        with pytest.raises(ImageError, match=r"mmrerank\[formats\]"):
            decode(header)
        return
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    stored = flag().transpose(PIL.Image.Transpose.ROTATE_90).resize((64, 96))
    pillow_heif.from_pillow(stored).save(buffer, exif=exif.tobytes(), quality=95)
    data = buffer.getvalue()
    assert decode(data).size == (probe(data).width, probe(data).height) == (96, 64)
    assert corners(decode(data)) == ["red", "green", "blue", "white"]
    assert "HEIF" not in PIL.Image.OPEN
    with pytest.raises(ImageError):
        decode(header)


def test_unreadable_paths(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="No such file"):
        decode(Image(path=tmp_path / "none.jpg"))
    with pytest.raises(ImageError, match="not a regular file"):
        decode(Image(path=tmp_path))
    with pytest.raises(ImageError):
        probe(Image(path=tmp_path / "nul\0.jpg"))
    with pytest.raises(ImageError, match="No such file"):
        thumbnail(Image(path=tmp_path / "none.tar", offset=3, length=4))


def test_pillow_warnings_stay_inside(recwarn: pytest.WarningsRecorder) -> None:
    # An animation chunk that makes Pillow warn, before perfectly good pixels.
    whole = encode(flag(), "PNG")
    odd = whole[:33] + chunk(b"acTL", struct.pack(">II", 0, 0)) + whole[33:]
    assert decode(odd).size == (probe(odd).width, probe(odd).height) == (48, 32)
    assert not recwarn.list


def test_thumbnail_and_data_uri() -> None:
    data = thumbnail(encode(noise((400, 100)), "PNG"), 64)
    small = decode(data)
    assert (probe(data).format, small.size) == ("JPEG", (64, 16))
    assert decode(thumbnail(encode(flag(), "PNG"), 256)).size == (48, 32)
    assert decode(thumbnail(noise((300, 2)), 32)).size == (32, 1)
    uri = data_uri(data, "image/jpeg")
    assert base64.b64decode(uri.removeprefix("data:image/jpeg;base64,")) == data


@given(st.integers(1, 900), st.integers(1, 900), st.integers(1, 300))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_fit_keeps_the_budget_and_never_enlarges(width: int, height: int, tokens: int) -> None:
    image = PIL.Image.new("RGB", (width, height))
    small = fit(image, max_tokens=tokens)
    w, h = small.size
    assert 1 <= w <= width
    assert 1 <= h <= height
    assert w * h <= tokens * 784
    if width * height <= tokens * 784:
        assert small is image
    else:
        assert (w + 1) * (h + 1) > tokens * 784 * 0.9


def test_fit_strips_and_nonsense() -> None:
    assert fit(PIL.Image.new("L", (100_000, 1)), max_tokens=1).size == (784, 1)
    assert fit(PIL.Image.new("L", (1, 100_000)), max_tokens=1).size == (1, 784)
    with pytest.raises(ValueError, match="at least 1"):
        fit(PIL.Image.new("L", (2, 2)), max_tokens=0)


def test_suffixes_are_lower_case() -> None:
    assert {".jpg", ".heic", ".avif", ".webp", ".tiff", ".bmp", ".gif"} <= IMAGE_SUFFIXES
    assert all(suffix == suffix.lower() and suffix[0] == "." for suffix in IMAGE_SUFFIXES)
