"""Reads what EXIF says about orientation, time and camera; from headers, tolerating damaged tags.

A broken tag never makes an image unusable: it counts as absent. Location tags are not read.
"""

from __future__ import annotations

import contextlib
import io
import struct
from datetime import datetime
from typing import IO

import PIL.Image
from PIL.ExifTags import IFD, Base
from PIL.ImageFile import ImageFile

_MAX_EXIF_BYTES = 16 * 1024 * 1024
_PNG_SIGNATURE_BYTES = 8


def exif_of(image: ImageFile, file: IO[bytes]) -> PIL.Image.Exif:
    """The image's EXIF tags; empty where there are none or they are beyond reading. Decodes no pixel."""
    try:
        if image.format == "PNG" and "exif" not in image.info:
            # Pillow would decode the whole picture in search of a late chunk.
            exif = PIL.Image.Exif()
            if data := _png_exif(file):
                exif.load(data)
            elif any(key.lower().startswith("raw profile type exif") for key in _names(image)):
                exif = PIL.Image.Image.getexif(image)
            return exif
        return image.getexif()
    except Exception:  # readers raise anything on hostile tags, and tags are optional
        return PIL.Image.Exif()


def orientation_of(image: ImageFile, file: IO[bytes]) -> int:
    """EXIF orientation, 1 to 8; 1 where it is absent or nonsense."""
    value = exif_of(image, file).get(Base.Orientation, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


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


def _names(image: ImageFile) -> list[str]:
    return [key for key in image.info if isinstance(key, str)]


def _png_exif(file: IO[bytes]) -> bytes:
    """The contents of the ``eXIf`` chunk, wherever it stands, found without decoding; else nothing."""
    here = file.tell()
    try:
        file.seek(_PNG_SIGNATURE_BYTES)
        while len(head := file.read(8)) == 8:
            length, name = struct.unpack(">I4s", head)
            if name == b"eXIf":
                return b"Exif\0\0" + file.read(min(length, _MAX_EXIF_BYTES))
            file.seek(length + 4, io.SEEK_CUR)
        return b""
    finally:
        file.seek(here)
