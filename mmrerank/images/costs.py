"""How many bytes decoding an opened image takes at its peak, by what its header says. Decodes nothing."""

from __future__ import annotations

from PIL.ImageFile import ImageFile

from mmrerank.images.jpeg2000 import MEMORY as JPEG2000_BYTES
from mmrerank.images.jxl import MEMORY as JXL_BYTES
from mmrerank.images.tiff import Tiff
from mmrerank.images.webp import CANVAS_BYTES

_HELD = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
"""Bytes of a pixel in Pillow's memory; 4 for every other mode."""
_RESULT = 8
"""Bytes of a pixel of the RGB picture that is returned, and of a turned copy of it."""
_BY_READER = {"WEBP": CANVAS_BYTES, "AVIF": 12, "HEIF": 12, "JPEG2000": JPEG2000_BYTES, "JPEG": 12,
               "JXL": JXL_BYTES}  # fmt: skip
"""Bytes of a pixel that a decoder holds beside, at its peak."""


def expected(image: ImageFile) -> int:
    """Bytes at the peak: of the decoder, or of turning what it gave into RGB, whichever is more."""
    pixels = image.width * image.height
    if isinstance(image, Tiff) and image.deep is not None:
        return image.deep.memory
    held = _HELD.get(image.mode, 4)
    return pixels * max(held + _RESULT, _BY_READER.get(image.format or "", 0))
