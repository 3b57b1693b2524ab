"""JPEG XL: the header that is read here against the library, limits before decoding, and hostile files."""

from __future__ import annotations

import importlib
import io
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrerank.errors import ImageError
from mmrerank.images import decode, jxl, probe
from mmrerank.images.jxl import _Bits, _size

SIDES = [
    (1, 1),
    (8, 8),
    (13, 21),
    (256, 256),
    (320, 200),
    (300, 250),
    (400, 300),
    (1600, 900),
    (2, 700),
    (1, 9000),
]


@pytest.fixture(scope="module", autouse=True)
def library() -> Any:
    return pytest.importorskip("pillow_jxl")


def noise(width: int, height: int, seed: int = 0) -> PIL.Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return PIL.Image.fromarray(small).resize((width, height), PIL.Image.Resampling.NEAREST)


def packed(image: PIL.Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JXL", **{"lossless": True, "effort": 1, **options})
    return buffer.getvalue()


@pytest.mark.parametrize("size", SIDES)
def test_sizes_are_those_of_the_library(size: tuple[int, int]) -> None:
    for way in (size, size[::-1]):
        data = packed(PIL.Image.new("RGB", way))
        assert (probe(data).width, probe(data).height) == way
        assert decode(data).size == way


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("options", [{}, {"use_container": True}, {"lossless": False, "quality": 95}])
def test_pixels_are_those_that_were_stored(mode: str, options: dict[str, Any]) -> None:
    image = noise(40, 24).convert(mode)
    data = packed(image, **options)
    expected = np.asarray(decode(_png(image)), int)
    found = np.asarray(decode(data), int)
    assert np.median(np.abs(found - expected)) <= (0 if "lossless" not in options else 4)


def test_deep_samples_are_scaled() -> None:
    ramp = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(1, 64).repeat(8, 0)
    found = np.asarray(decode(packed(PIL.Image.fromarray(ramp))))[0, :, 0].astype(int)
    assert (found[0], found[-1]) == (0, 255)
    assert np.all(np.diff(found) >= 0)


def test_a_packed_jpeg_is_upright_once(tmp_path: Path) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    image = PIL.Image.new("RGB", (48, 32), "red")
    image.paste("blue", (24, 0, 48, 32))
    image.save(tmp_path / "a.jpg", quality=95, exif=exif.tobytes())
    with PIL.Image.open(tmp_path / "a.jpg") as stored:
        data = packed(stored, lossless_jpeg=True, lossless=False, exif=exif.tobytes())
    assert (probe(data).width, probe(data).height) == decode(data).size == (32, 48)
    top = decode(data).getpixel((16, 4))
    assert isinstance(top, tuple)
    assert top[0] > 200


def test_the_size_is_refused_before_anything_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = packed(PIL.Image.new("RGB", (900, 900)))
    monkeypatch.setattr(jxl, "_library", lambda: None)
    with pytest.raises(ImageError, match="over the limit"):
        decode(data, max_pixels=800_000)
    assert probe(data).width == 900
    giant = b"\xff\x0a" + _of([(1, 0), (2, 3), (30, 99_999), (3, 1), (1, 1)])
    assert (probe(giant).width, probe(giant).height) == (100_000, 100_000)
    with pytest.raises(ImageError, match="over the limit"):
        decode(giant)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ([(1, 1), (5, 0), (3, 1), (1, 0), (1, 1), (3, 0), (1, 0), (1, 0), (1, 1)], "a moving JPEG XL"),
        (
            [(1, 1), (5, 0), (3, 1), (1, 0), (1, 0), (1, 0), (2, 0), (1, 1), (2, 2), (4, 5)],
            "7 channels beside",
        ),
    ],
)
def test_kinds_that_are_not_read(fields: list[tuple[int, int]], says: str) -> None:
    with pytest.raises(ImageError, match=says):
        probe(b"\xff\x0a" + _of(fields) + bytes(40))


def test_headers_with_a_preview_and_a_size_of_their_own() -> None:
    fields = [(1, 1), (5, 3), (3, 0), (5, 1), (1, 0), (1, 1), (3, 5)]  # 16x32, turned
    fields += [(1, 1), (1, 1), (5, 0), (3, 1), (1, 1), (1, 1), (2, 2), (5, 0), (3, 0), (2, 1), (1, 0)]
    assert _size(_Bits(_of([*fields, (1, 1), (2, 0), (4, 0), (1, 0), (2, 1)]) + bytes(8))) == (32, 16)


def test_boxes() -> None:
    image = noise(16, 8)
    stream = packed(image)
    assert stream.startswith(b"\xff\x0a")
    exif = PIL.Image.Exif()
    exif[0x010F] = "Acme"
    inside = struct.pack(">I", 0) + exif.tobytes().removeprefix(b"Exif\0\0")
    parts = [_box(b"jxlp", b"\0\0\0\0" + stream[:3]), _box(b"jbrd", b"junk"), _box(b"Exif", inside)]
    parts += [_box(b"jxlp", b"\x80\0\0\1" + stream[3:], length=0)]
    data = jxl.MAGIC[1] + b"".join(parts)
    assert decode(data).tobytes() == image.tobytes()
    assert probe(data).camera == "Acme"
    for bad in (_box(b"jxlc", stream, length=4), b"", _box(b"free", b"") * 2000):
        with pytest.raises(ImageError):
            probe(jxl.MAGIC[1] + bad)


def test_without_the_package_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    data = packed(noise(8, 8))
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    with pytest.raises(ImageError, match=r"pip install 'mmrerank\[formats\]'"):
        decode(data)
    importlib.invalidate_caches()


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_damage_is_an_image_error(data: st.DataObject) -> None:
    whole = bytearray(packed(noise(24, 16), use_container=data.draw(st.booleans())))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    for some in (cut, bytes(whole)):
        try:
            assert decode(some, max_pixels=100_000, allow_truncated=data.draw(st.booleans())).size
        except ImageError:
            continue


def _of(fields: list[tuple[int, int]]) -> bytes:
    """The bytes of (bits, value), the lowest bits first."""
    number, at = 0, 0
    for bits, value in fields:
        number |= value << at
        at += bits
    return number.to_bytes((at + 7) // 8, "little")


def _box(name: bytes, data: bytes, length: int | None = None) -> bytes:
    return struct.pack(">I", 8 + len(data) if length is None else length) + name + data


def _png(image: PIL.Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
