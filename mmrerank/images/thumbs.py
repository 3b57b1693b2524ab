"""Small JPEG copies for pages and reports, the data URIs that put them there, and pictures as files."""

from __future__ import annotations

import base64
import io

import PIL.Image
from PIL.ImageFile import ImageFile

from mmrerank.errors import ImageError
from mmrerank.images.decode import decode
from mmrerank.images.limits import allowed_pixels, check_size
from mmrerank.images.metadata import exif_of, orientation_of
from mmrerank.images.pixels import to_rgb, upright
from mmrerank.types import Image

_PNG_MODES = ("1", "L", "LA", "I;16", "P", "RGB", "RGBA")


def thumbnail(
    source: Image | bytes | PIL.Image.Image,
    size: int = 256,
    *,
    max_pixels: int | None = None,
    allow_truncated: bool = False,
) -> bytes:
    """A JPEG that fits into a square of ``size`` pixels; never enlarged. Raises `ImageError`."""
    if isinstance(source, PIL.Image.Image):
        image = _loaded(source, max_pixels)
    else:
        image = decode(source, max_pixels=max_pixels, allow_truncated=allow_truncated)
    # A copy is needed: the picture may be the caller's own, and `thumbnail` works in place.
    small = to_rgb(image) if image.mode != "RGB" or "icc_profile" in image.info else image.copy()
    small.thumbnail((size, size), PIL.Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    # The colour profile and EXIF stay behind: they can weigh more than the thumbnail and name places.
    small.info.clear()
    small.save(buffer, format="JPEG", quality=85, optimize=True)
    return buffer.getvalue()


def encoded(picture: PIL.Image.Image) -> Image:
    """A picture in memory as an `Image`: a PNG, upright as its EXIF says, which PNG would not keep.

    Raises `ImageError` for one that is beyond the limits, or was opened and cannot be loaded.
    """
    tags = exif_of(picture) if isinstance(picture, ImageFile) else picture.getexif()
    shown = upright(_loaded(picture, None), orientation_of(tags))
    if shown.mode not in _PNG_MODES:
        shown = to_rgb(shown)
    buffer = io.BytesIO()
    shown.save(buffer, "PNG")
    return Image(data=buffer.getvalue(), width=shown.width, height=shown.height)


def _loaded(picture: PIL.Image.Image, max_pixels: int | None) -> PIL.Image.Image:
    """``picture`` with its pixels: Pillow opens files and decodes them when they are looked at."""
    check_size(*picture.size, allowed_pixels(max_pixels))
    try:
        picture.load()
    except Exception as error:  # decoders raise anything
        raise ImageError(f"the image is damaged ({' '.join(str(error).split())[:200]})") from error
    return picture


def data_uri(data: bytes, mime: str = "image/jpeg") -> str:
    """``data`` as a ``data:`` URI."""
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"
