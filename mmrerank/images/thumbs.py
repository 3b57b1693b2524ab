"""Small JPEG copies for pages and reports, the data URIs that put them there, and pictures as files."""

from __future__ import annotations

import base64
import io

import PIL.Image
import PIL.ImageOps

from mmrerank.images.decode import DEFAULT_MAX_PIXELS, decode
from mmrerank.images.pixels import to_rgb
from mmrerank.types import Image

_PNG_MODES = ("1", "L", "LA", "I;16", "P", "RGB", "RGBA")


def thumbnail(
    source: Image | bytes | PIL.Image.Image,
    size: int = 256,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    allow_truncated: bool = False,
) -> bytes:
    """A JPEG that fits into a square of ``size`` pixels; never enlarged. Raises `ImageError`."""
    image = (
        source
        if isinstance(source, PIL.Image.Image)
        else decode(source, max_pixels=max_pixels, allow_truncated=allow_truncated)
    )
    # A copy is needed: the picture may be the caller's own, and `thumbnail` works in place.
    small = to_rgb(image) if image.mode != "RGB" or "icc_profile" in image.info else image.copy()
    small.thumbnail((size, size), PIL.Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    # The colour profile and EXIF stay behind: they can weigh more than the thumbnail and name places.
    small.info.clear()
    small.save(buffer, format="JPEG", quality=85, optimize=True)
    return buffer.getvalue()


def encoded(picture: PIL.Image.Image) -> Image:
    """A picture in memory as an `Image`: a PNG, upright as its EXIF says, which PNG would not keep."""
    shown = PIL.ImageOps.exif_transpose(picture)
    if shown.mode not in _PNG_MODES:
        shown = to_rgb(shown)
    buffer = io.BytesIO()
    shown.save(buffer, "PNG")
    return Image(data=buffer.getvalue(), width=shown.width, height=shown.height)


def data_uri(data: bytes, mime: str = "image/jpeg") -> str:
    """``data`` as a ``data:`` URI."""
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"
