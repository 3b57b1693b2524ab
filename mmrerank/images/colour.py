"""Applies colour profiles: pixels in whatever space a file describes become sRGB, as a screen shows them.

A profile that is broken, of another kind of pixels than the image, or of no use here counts as absent.
"""

from __future__ import annotations

import functools
import io
from typing import Any

import PIL.Image

_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK", "LAB": "Lab"}
"""Pillow's modes, and what a profile calls them."""
_MOST = 16 * 1024 * 1024
_SAME = 3
"""Levels of 255 that a profile of sRGB itself may differ by: rounding, and vendors' tables."""


def to_srgb(image: PIL.Image.Image, icc: Any) -> PIL.Image.Image | None:
    """``image`` (RGB, L or CMYK) as sRGB in mode RGB; None where the profile ``icc`` changes nothing."""
    if not isinstance(icc, bytes) or not 128 < len(icc) <= _MOST or image.mode not in _SPACES:
        return None
    transform = _transform(icc, image.mode)
    if transform is None:
        return None
    shown: PIL.Image.Image = transform.apply(image)
    return shown


@functools.lru_cache(maxsize=32)
def _transform(icc: bytes, mode: str) -> Any:
    """What turns pixels of ``mode`` into sRGB, or None. A transform may be used by several threads."""
    from PIL import ImageCms

    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        if profile.profile.xcolor_space.strip() != _SPACES[mode]:
            return None
        # Adobe's choice; without it the black of print is a dark grey on the screen
        made = ImageCms.buildTransform(
            profile,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        return None if _changes_nothing(made, mode) else made
    except Exception:  # a hostile profile makes the library raise almost anything, and profiles are optional
        return None


def _changes_nothing(transform: Any, mode: str) -> bool:
    """Whether it leaves a sample of colours where they are: then the file's own numbers are exact."""
    if mode not in ("RGB", "L"):
        return False
    levels = bytes(range(0, 256, 17))
    if mode == "L":
        sample = PIL.Image.frombytes("L", (16, 1), levels)
    else:
        cube = bytes(v for r in levels for g in levels for b in levels for v in (r, g, b))
        sample = PIL.Image.frombytes("RGB", (64, 64), cube)
    before, after = sample.convert("RGB").tobytes(), transform.apply(sample).tobytes()
    return all(abs(a - b) <= _SAME for a, b in zip(before, after, strict=True))
