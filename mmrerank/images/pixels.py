"""Turns whatever kind of pixels a decoder gave into 8-bit sRGB, and turned pictures upright.

Scales deep values instead of clipping them, applies colour profiles, and lays transparency over white. Reads
no file.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import PIL.Image
from PIL.Image import Transpose

from mmrerank.images.colour import to_srgb
from mmrerank.images.ranges import Samples, eight_bits, limits
from mmrerank.images.strips import by_strips

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
        rgb = _of_deep(image, icc)
    elif image.has_transparency_data:
        # as everywhere: most writers of BMP leave these bytes unused
        unused = image.format == "BMP" and image.mode == "RGBA" and not image.im.getband(3).getbbox()
        rgb = by_strips(image, "RGB", lambda part: _over_white(part, icc, unused=unused))
    else:
        rgb = by_strips(image, "RGB", lambda part: _plain(part, icc))
    rgb.info = {}
    return rgb


def _plain(part: PIL.Image.Image, icc: Any) -> PIL.Image.Image:
    plain = part.convert("RGB") if part.mode in ("P", "YCbCr", "HSV") else part
    return to_srgb(plain, icc) or (plain if plain.mode == "RGB" else plain.convert("RGB"))


def _over_white(part: PIL.Image.Image, icc: Any, *, unused: bool) -> PIL.Image.Image:
    rgba = part.convert("RGBA")
    if unused:
        rgba.putalpha(255)
    rgb = PIL.Image.new("RGB", rgba.size, "white")
    rgb.paste((icc and to_srgb(_without_cover(part, rgba), icc)) or rgba, mask=rgba.getchannel("A"))
    return rgb


def _of_deep(image: PIL.Image.Image, icc: Any) -> PIL.Image.Image:
    """Grey of 16 bits, 32 bits and floats; PNG names one value as transparent, which over white is white."""
    samples = _samples(image)
    between = limits(np.asarray(image), samples)
    clear = image.info.get("transparency")

    def shown(part: PIL.Image.Image) -> PIL.Image.Image:
        values = np.asarray(part)
        found = eight_bits(values, samples, between)
        if isinstance(clear, int):
            found[values == clear] = 255
        grey = PIL.Image.fromarray(found)
        return to_srgb(grey, icc) or grey.convert("RGB")

    return by_strips(image, "RGB", shown)


def _without_cover(image: PIL.Image.Image, rgba: PIL.Image.Image) -> PIL.Image.Image:
    """The colours below the transparency, in the kind of pixels that a profile of the file describes."""
    if image.mode == "LA":
        return image.getchannel("L")
    return image if image.mode == "L" else rgba.convert("RGB")


def _samples(image: PIL.Image.Image) -> Samples:
    if image.mode == "F":
        return Samples(kind="f", bits=32)
    if image.mode.startswith("I;16") or image.format in ("PNG", "PPM"):
        # PNM names its white, and its reader has scaled to it; PNG may say how many bits count.
        bits = image.info.get("significant_bits")
        white = 2.0**bits - 1 if isinstance(bits, int) else None
        return Samples(kind="u", bits=16, white=white, exact=image.format == "PPM")
    return Samples(kind="i", bits=32)
