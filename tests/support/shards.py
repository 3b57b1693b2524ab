"""Small tar files for the tests of shards."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import PIL.Image

LINK, SYMLINK = tarfile.LNKTYPE, tarfile.SYMTYPE


def png(colour: int = 0) -> bytes:
    """A PNG of 4x3 pixels, whose red is ``colour``."""
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (4, 3), (colour, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def packed(members: Iterable[tuple[str, bytes | tuple[bytes, str]]], **options: int) -> bytes:
    """A tar of (name, bytes) and, for links, (name, (kind, target))."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **options) as tar:  # type: ignore[call-overload]
        for name, data in members:
            info = tarfile.TarInfo(name)
            if isinstance(data, tuple):
                info.type, info.linkname = data
                tar.addfile(info)
            else:
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def write(path: Path, members: Iterable[tuple[str, bytes | tuple[bytes, str]]]) -> Path:
    """Writes such a tar."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(packed(members))
    return path
