"""Which column of a table holds the images and which the ids; a row becomes a sample.

A cell is a path below the table's folder, an address, encoded bytes, ``{bytes, path}`` as Hugging Face has
it, or base64. Paths that lead out of the folder are refused, through links too: a table may be a stranger's.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import decimal
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmrerank.corpus._group import MOST_METADATA
from mmrerank.corpus._match import relative
from mmrerank.corpus._names import decodable, id_of
from mmrerank.corpus._rows import Column, Row
from mmrerank.errors import InputError, one_line
from mmrerank.images.urls import is_url
from mmrerank.ports import Sample
from mmrerank.types import Image

IMAGES = (
    "image", "images", "img", "image_path", "img_path", "file_name", "filename", "file_path", "filepath",
    "file", "path", "photo", "picture", "jpg", "jpeg", "png", "bytes", "image_bytes", "base64",
    "image_base64", "b64", "url", "image_url", "img_url", "photo_url", "link",
)  # fmt: skip
"""Names of columns that hold images, the likeliest first. Case does not matter."""
IDS = ("id", "image_id")
_BASE64 = ("base64", "image_base64", "b64")
_STARTS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"II*\0", b"MM\0*", b"\0\0\0\x0cJXL")
"""How images begin that base64 is known by. Two bytes would not do: ``/work`` is base64 as well."""
_SHORTEST = 64
"""Characters of base64: an image has more, and the names of files mostly less."""
MOST_BYTES = 256 * 1024 * 1024
"""Bytes of an image in a cell: it is held in memory."""
_LONGEST_ID = 4_000
_FOLDERS = 10_000
"""Folders whose links are remembered."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The column of the images, that of the ids (empty: none), and what was assumed in choosing them."""

    image: str
    id: str = ""
    remark: str = ""


def layout(table: str, columns: Sequence[Column], *, image: str = "", id_: str = "") -> Layout:
    """The layout of ``table``, by the names that a person gave or else by those of the columns.

    Raises `InputError` naming the columns that are there where one is not.
    """
    known = ", ".join(map(str, columns[:40])) + (" ..." if len(columns) > 40 else "")
    names = {c.name for c in columns}
    for given, flag in ((image, "--image-column"), (id_, "--id-column")):
        if given and given not in names:
            raise InputError(f"{table} has no column {given!r} ({flag}); its columns are {known}")
    fitting = [n for wanted in IMAGES for n in sorted(names) if n.casefold() == wanted]
    if not image and not fitting:
        raise InputError(
            f"{table} has no column of images: none is called {', '.join(IMAGES[:6])} or the like. Its "
            f"columns are {known}; name the one that is meant with --image-column"
        )
    chosen = image or fitting[0]
    ids = [n for wanted in IDS for n in sorted(names) if n.casefold() == wanted and n != chosen]
    remark = ""
    if not image and len(fitting) > 1:
        others = ", ".join(map(repr, fitting[1:4]))
        remark = (
            f"the images of {table} are taken from its column {chosen!r}, not from {others}; --image-column "
            "names another"
        )
    return Layout(image=chosen, id=id_ or (ids[0] if ids else ""), remark=remark)


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Makes samples of rows. ``root`` holds the files that rows name; ``origin`` is the table itself.

    An address becomes a sample without an image, whose `address` is to be fetched, where ``urls`` are
    allowed.
    """

    layout: Layout
    root: Path
    origin: Path | None = None
    urls: bool = False
    _folders: dict[str, bool] = field(default_factory=dict, compare=False, repr=False)

    def sample(self, row: Row) -> tuple[Sample, str]:
        """The sample of a row, and the address that its image is still to be fetched from (else empty)."""
        fallback = f"row-{row.number}"
        if row.error:
            return Sample(id=fallback, error=f"{row.where}: {row.error}"), ""
        values = row.values
        id_ = _id(values.get(self.layout.id)) if self.layout.id else ""
        if self.layout.id and not id_:
            why = f"{row.where}: the column {self.layout.id!r} holds no id"
            return Sample(id=fallback, error=why, final=True), ""
        try:
            image, named, address = self._image(values.get(self.layout.image))
        except InputError as error:
            return Sample(id=id_ or fallback, error=f"{row.where}: {error}", final=True), ""
        extra = {self.layout.image: address} if address else {}
        sample = Sample(
            id=id_ or named or str(row.number),
            image=image,
            metadata=plain({k: v for k, v in values.items() if k not in self._used} | extra, row.where),
            origin=self.origin if image is None or image.path is None else None,
        )
        return sample, address

    @property
    def _used(self) -> tuple[str, str]:
        return self.layout.image, self.layout.id

    def _image(self, cell: Any) -> tuple[Image | None, str, str]:
        """The image in a cell, its name if it has one, and its address if it is elsewhere."""
        if isinstance(cell, Mapping):
            data, path = cell.get("bytes"), cell.get("path")
            if data is None:
                return self._image(path)
            name = path.rpartition("/")[2] if isinstance(path, str) and decodable(path) else ""
            return self._bytes(data), name, ""
        if isinstance(cell, str) and cell.strip():
            return self._text(cell)
        if cell is None or cell == "":
            raise InputError(f"the column {self.layout.image!r} is empty")
        return self._bytes(cell), "", ""

    def _text(self, cell: str) -> tuple[Image | None, str, str]:
        if is_url(cell):
            if not self.urls:
                raise InputError(f"{one_line(cell, 200)!r} is an address, which --allow-urls fetches")
            return None, cell.strip(), cell.strip()
        packed = _packed(cell, self.layout.image)
        if packed is not None:
            return self._bytes(packed), "", ""
        name = cell.strip()
        inside = "" if "\0" in name or len(name) > _LONGEST_ID else relative(name, self.root)
        if not inside:
            raise InputError(
                f"{one_line(name, 200)!r} is no path below {str(self.root)!r}; --image-root names another"
            )
        if "://" in inside:
            raise InputError(f"{one_line(name, 200)!r} is an address of a kind that is not fetched")
        path = f"{self.root}/{inside}"
        if not self._within(path):
            raise InputError(f"{one_line(name, 200)!r} leads out of {str(self.root)!r} through a link")
        return Image(path=Path(path)), id_of(self.root, inside), ""

    def _within(self, path: str) -> bool:
        """Whether the file is below the root when links are followed. Folders are followed once."""
        folder = os.path.dirname(path)  # noqa: PTH120 - a row each
        if self._folders.get(folder) is None:
            if len(self._folders) >= _FOLDERS:
                self._folders.clear()
            root = os.path.realpath(self.root)
            self._folders[folder] = f"{os.path.realpath(folder)}/".startswith(f"{root.rstrip('/')}/")
        if not os.path.islink(path):  # noqa: PTH114 - a row each
            return self._folders[folder]
        return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(self.root))

    def _bytes(self, data: Any) -> Image:
        if not isinstance(data, bytes):
            raise InputError(
                f"the column {self.layout.image!r} holds {type(data).__name__}, which is no image"
            )
        if len(data) > MOST_BYTES:
            raise InputError(
                f"the image has {len(data):,} bytes; at most {MOST_BYTES:,} are read from a table"
            )
        return Image(data=data)


def _packed(text: str, column: str) -> bytes | None:
    """The bytes that are written as base64 in ``text``; None where it is no base64."""
    body = text.strip()
    if body[:5].casefold() == "data:":
        head, comma, body = body.partition(",")
        if not comma or not head.casefold().endswith(";base64"):
            raise InputError("a data: address must hold base64, such as data:image/png;base64,...")
    elif column.casefold() not in _BASE64:
        if len(body) < _SHORTEST or "." in body[:_SHORTEST]:
            return None
        try:
            start = base64.b64decode(body[:16], validate=True)
        except (binascii.Error, ValueError):
            return None
        if not start.startswith(_STARTS) and start[4:8] != b"ftyp":
            return None
    if len(body) > MOST_BYTES * 4 // 3:
        raise InputError(f"the image has more than {MOST_BYTES:,} bytes")
    try:
        return base64.b64decode("".join(body.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"the base64 is damaged: {error}") from error


def _id(value: Any) -> str:
    """An id as text; empty where it cannot be one."""
    if isinstance(value, bool) or not isinstance(value, str | int | float | decimal.Decimal):
        return ""
    if isinstance(value, float):
        if not math.isfinite(value):
            return ""
        value = int(value) if value.is_integer() else value
    text = str(value).strip()
    return text if decodable(text) and "\0" not in text and len(text) <= _LONGEST_ID else ""


def plain(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What the other columns say: nothing that is empty, dates as ISO 8601; too much of it is left out."""
    found = {k: plain for k, v in values.items() if decodable(k) and (plain := _plain(v)) is not None}
    if sum(len(v) if isinstance(v, str) else 32 for v in found.values()) > MOST_METADATA or (
        any(isinstance(v, list | dict) for v in found.values()) and len(json.dumps(found)) > MOST_METADATA
    ):
        return {
            "note": f"{where}: its other columns are left out: they are more than {MOST_METADATA:,} bytes"
        }
    return found


def _plain(value: Any) -> Any:
    """``value`` as JSON can hold it; None for what is left out."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return value if decodable(value) else value.encode("utf-8", "replace").decode()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, decimal.Decimal):
        return (
            _plain(int(value) if value == value.to_integral_value() else float(value))
            if value.is_finite()
            else None
        )
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, Mapping):
        inner = {str(k): _plain(v) for k, v in value.items()}
        return {k: v for k, v in inner.items() if v is not None}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None  # bytes and other kinds say nothing that can be shown
