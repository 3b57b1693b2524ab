"""Turns whatever kind of pixels a decoder gave into 8-bit sRGB, and turned pictures upright.

Scales deep values instead of clipping them, applies colour profiles, and lays transparency over white. Reads
no file.
"""

from __future__ import annotations

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL.Image import Transpose

from mmrerank.images.colour import to_srgb
from mmrerank.images.ranges import Samples, eight_bits

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
    """A plain sRGB copy of a loaded image in mode RGB, without tags; its colour profile is applied."""
    icc = image.info.get("icc_profile")
    if image.mode.startswith(("I", "F")):
        grey = PIL.Image.fromarray(_eight_bits(image))
        rgb = to_srgb(grey, icc) or grey.convert("RGB")
    elif image.has_transparency_data:
        rgba = image.convert("RGBA")
        if image.format == "BMP" and rgba.getchannel("A").getextrema() == (0, 0):
            rgba.putalpha(255)  # as everywhere: most writers leave these bytes unused
        rgb = PIL.Image.new("RGB", rgba.size, "white")
        rgb.paste((icc and to_srgb(_without_cover(image, rgba), icc)) or rgba, mask=rgba.getchannel("A"))
    else:
        plain = image.convert("RGB") if image.mode in ("P", "YCbCr", "HSV") else image
        rgb = to_srgb(plain, icc) or plain.convert("RGB")
    rgb.info = {}
    return rgb


def _without_cover(image: PIL.Image.Image, rgba: PIL.Image.Image) -> PIL.Image.Image:
    """The colours below the transparency, in the kind of pixels that a profile of the file describes."""
    if image.mode == "LA":
        return image.getchannel("L")
    return image if image.mode == "L" else rgba.convert("RGB")


def _eight_bits(image: PIL.Image.Image) -> NDArray[np.uint8]:
    """Grey values of 16-bit, 32-bit and float images as 8 bits, ``(height, width)``."""
    values = np.asarray(image)
    result = eight_bits(values, _samples(image))
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        # PNG names one grey value as transparent; over white, that is white.
        result[values == clear] = 255
    return result


def _samples(image: PIL.Image.Image) -> Samples:
    if image.mode == "F":
        return Samples(kind="f", bits=32)
    if image.mode.startswith("I;16") or image.format in ("PNG", "PPM"):
        # PNM names its white, and its reader has scaled to it; PNG may say how many bits count.
        bits = image.info.get("significant_bits")
        white = 2.0**bits - 1 if isinstance(bits, int) else None
        return Samples(kind="u", bits=16, white=white, exact=image.format == "PPM")
    return Samples(kind="i", bits=32)
