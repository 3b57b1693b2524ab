"""Bytes that mean harm: whatever comes in, an image or an `ImageError` comes out."""

from __future__ import annotations

import contextlib

import numpy as np
import PIL.Image
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import encode, flag

from mmrerank.errors import ImageError
from mmrerank.images import decode, probe

SEEDS = [
    encode(flag(), "JPEG"),
    encode(flag(), "PNG"),
    encode(flag().quantize(4), "GIF"),
    encode(flag(), "TIFF"),
    encode(flag(), "TIFF", compression="tiff_lzw"),
    encode(flag(), "WEBP"),
    encode(flag(), "BMP"),
    encode(flag(), "JPEG2000"),
    encode(flag(), "PPM"),
    encode(flag(), "AVIF"),
    encode(PIL.Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"),
]
MAGIC = [seed[:12] for seed in SEEDS] + [b"qoif", b"\0\0\0\x18ftypheic", b"P6 9 9 ", b"Pf\n2 2\n-1\n"]


def _only_image_errors(data: bytes) -> None:
    for allow in (False, True):
        with contextlib.suppress(ImageError):
            image = decode(data, max_pixels=1_000_000, allow_truncated=allow)
            assert image.mode == "RGB"
            info = probe(data)
            assert image.size == (info.width, info.height)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.sampled_from([b"", *MAGIC]), st.binary(max_size=200))
def test_any_bytes_give_an_image_or_an_image_error(magic: bytes, tail: bytes) -> None:
    _only_image_errors(magic + tail)


@settings(max_examples=250, deadline=None, derandomize=True)
@given(st.sampled_from(SEEDS), st.data())
def test_any_damage_gives_an_image_or_an_image_error(seed: bytes, data: st.DataObject) -> None:
    damaged = bytearray(seed)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(seed) - 1))] = data.draw(st.integers(0, 255))
    _only_image_errors(bytes(damaged[: data.draw(st.integers(1, len(seed)))]))
