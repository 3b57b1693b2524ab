"""Turns whatever kind of pixels a decoder gave into 8-bit RGB, and turned pictures upright.

Scales deep values instead of clipping them and lays transparency over white. Reads no file.
"""

from __future__ import annotations

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL.Image import Transpose

# What EXIF orientation says was done to the picture, undone.
_TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}


def upright(image: PIL.Image.Image, orientation: int) -> PIL.Image.Image:
    """``image`` with EXIF ``orientation`` (1 to 8) undone."""
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """A plain RGB copy of a loaded image, without tags or profile."""
    if image.mode.startswith(("I", "F")):
        rgb = PIL.Image.fromarray(_eight_bits(image)).convert("RGB")
    elif image.has_transparency_data:
        rgba = image.convert("RGBA")
        rgb = PIL.Image.new("RGB", rgba.size, "white")
        rgb.paste(rgba, mask=rgba.getchannel("A"))
    else:
        rgb = image.convert("RGB")
    rgb.info = {}
    return rgb


def _eight_bits(image: PIL.Image.Image) -> NDArray[np.uint8]:
    """Grey values of 16-bit, 32-bit and float images as 8 bits, ``(height, width)``.

    16 bits are divided by 257, so that black and white stay black and white. 32-bit integers that fit into
    16 (or, in formats that say no depth, 8) bits are taken as such; floats within 0..1 as fractions and
    within 0..255 as they are. Anything else is stretched between its extremes. Not-a-number is black.
    """
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        grey = (values.astype(np.uint32) + 128) // 257
    else:
        with np.errstate(invalid="ignore"):
            numbers = values.astype(np.float64)
        numbers[np.isnan(numbers)] = 0.0
        finite = numbers[np.isfinite(numbers)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
        low, high = _range(low, high, image)
        grey = np.rint((np.clip(numbers, low, high) - low) * (255.0 / (high - low)))
    result: NDArray[np.uint8] = grey.astype(np.uint8)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        # PNG names one grey value as transparent; over white, that is white.
        result[values == clear] = 255
    return result


def _range(low: float, high: float, image: PIL.Image.Image) -> tuple[float, float]:
    """The values that become black and white, given the least and the greatest that occur."""
    if low >= 0:
        if image.mode == "F" and high <= 1:
            return 0.0, 1.0
        # PNG and PGM reach mode I by 16 bits only; there a dark picture is dark, not 8-bit.
        if high <= 255 and image.format not in ("PNG", "PPM"):
            return 0.0, 255.0
        if image.mode == "I" and high <= 65535:
            return 0.0, 65535.0
    return (low, high) if high > low else (low, low + 1.0)
