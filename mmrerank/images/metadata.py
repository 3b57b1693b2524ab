"""Reads what EXIF says about orientation, time and camera; from headers, tolerating damaged tags.

A broken tag never makes an image unusable: it counts as absent. Location tags are not read.
"""

from __future__ import annotations

import contextlib
from datetime import datetime

import PIL.Image
from PIL.ExifTags import IFD, Base
from PIL.ImageFile import ImageFile

from mmrerank.images.tags import modest


def exif_of(image: ImageFile) -> PIL.Image.Exif:
    """The image's EXIF tags; empty where there are none, or too many to read (`modest`). Decodes no pixel."""
    packed = image.info.get("exif")
    if isinstance(packed, bytes) and not modest(packed):
        return PIL.Image.Exif()
    try:
        if image.format == "PNG":
            # Pillow's own reader would decode the whole picture in search of a late chunk.
            return PIL.Image.Image.getexif(image)
        return image.getexif()
    except Exception:  # readers raise anything on hostile tags, and tags are optional
        return PIL.Image.Exif()


def orientation_of(exif: PIL.Image.Exif) -> int:
    """EXIF orientation, 1 to 8; 1 where it is absent or nonsense."""
    value = exif.get(Base.Orientation, 1)
    if isinstance(value, bytes) and len(value) == 1:  # some writers use a byte for it
        value = value[0]
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def in_adobe_rgb(exif: PIL.Image.Exif) -> bool:
    """Whether a camera says that its colours are Adobe RGB, as DCF has it: it embeds no profile then."""
    try:
        return _text(exif.get_ifd(IFD.Interop).get(1)) == "R03"
    except Exception:  # as in `exif_of`
        return False


def taken(exif: PIL.Image.Exif) -> str | None:
    """When the picture was taken, as ``YYYY-MM-DDTHH:MM:SS``, or None."""
    details = _details(exif)
    for value in (
        details.get(Base.DateTimeOriginal),
        details.get(Base.DateTimeDigitized),
        exif.get(Base.DateTime),
    ):
        with contextlib.suppress(ValueError):  # such as the 0000:00:00 of a clock that was never set
            return datetime.strptime(_text(value)[:19], "%Y:%m:%d %H:%M:%S").isoformat()
    return None


def camera(exif: PIL.Image.Exif) -> str | None:
    """Maker and model in one line, the maker not said twice, or None."""
    make, model = _text(exif.get(Base.Make)), _text(exif.get(Base.Model))
    if model.lower().startswith(make.lower()):
        make = ""
    return " ".join(part for part in (make, model) if part) or None


def _details(exif: PIL.Image.Exif) -> dict[int, object]:
    try:
        return dict(exif.get_ifd(IFD.Exif))
    except Exception:  # as in `exif_of`
        return {}


def _text(value: object) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        return ""
    cleaned = "".join(c if c.isprintable() else " " for c in value.split("\0")[0])
    return " ".join(cleaned.split())[:100]
