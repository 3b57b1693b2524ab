"""Reads a JPEG past everything that is not its picture, and tells a missing end marker from missing pixels.

Pillow is given the segments that decoding takes and no other: broken EXIF, comments, application data or
lists of further pictures refuse no pixels. Of a file of several pictures the first is seen.
"""

from __future__ import annotations

import hashlib
import io
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from mmrerank.errors import ImageError
from mmrerank.images.spans import Piece, size_of, spans
from mmrerank.images.strips import cut, strips

_EXIF, _XMP, _ICC = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0"
_MOST = 16 * 1024 * 1024
_FRAMES = {0xC0 + n for n in range(16)} - {0xC4, 0xC8, 0xCC}
_KEPT = _FRAMES | {0xC4, 0xCC, 0xDB, 0xDD}
_BARE = {0x01, *range(0xD0, 0xD9)}
"""Markers without a length."""
_LOSSLESS = {0xC3, 0xC7, 0xCB, 0xCF}
_HIERARCHICAL = {0xC5, 0xC6, 0xCD, 0xCE}
_FILLINGS = (b"\0", b"\x55", b"\xaa", b"\x6d\x31\x5e\x03\x70\x2b")
_FILL = 8192
_RESTARTS = tuple(
    b"".join(bytes([0xFF, 0xD0 + n]) + pattern * 512 for n in range(8)) for pattern in (b"\x55", b"\x6d\x31")
)
"""A decoder that waits for a restart passes over everything up to it, so a filling has them all."""
MOST_STEPS = 500_000
"""Segments before a scan, and bytes between them that are none: each is looked at by itself."""
_END = b"\xff\xd9"
_NOTHING = bytes(16)
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


@dataclass(kw_only=True)
class _Segments:
    """What a JPEG holds. ``frame`` is the contents of its frame header, ``kind`` the marker of it."""

    pieces: list[Piece] = field(default_factory=list)
    scans: bool = False
    kind: int = 0
    frame: bytes = b""
    exif: bytes = b""
    xmp: bytes = b""
    icc: dict[int, bytes] = field(default_factory=dict)


def open_jpeg(file: IO[bytes]) -> ImageFile:
    """The lazily opened JPEG at the start of ``file``.

    Raises `ImageError` for a kind that is not read, and what Pillow raises for a damaged header.
    """
    found = _walk(file)
    _check_kind(found)
    if not found.scans:
        raise OSError("truncated: it ends before its first scan")
    image = JpegImageFile(spans(file, found.pieces), "")
    if found.exif:
        image.info["exif"] = found.exif
    if found.xmp:
        image.info["xmp"] = found.xmp
    if found.icc:
        image.info["icc_profile"] = b"".join(found.icc[n] for n in sorted(found.icc))
    return image


def ended(image: ImageFile, file: IO[bytes]) -> ImageFile | None:
    """The decoded image where only its end marker is missing; None where pixels are.

    Two things are asked. Do the scans cover every coefficient of every component? And does what stands
    behind the last of them make no difference? A decoder that still waits for pixels takes it for some.
    """
    vars(image)["_im"] = None  # what was decoded so far makes room for the trials
    file.seek(0)
    data = spans(file, _walk(file).pieces).read()
    # what follows may be the next picture of the same file
    data = data[:2] + data[2:].partition(b"\xff\xd8\xff")[0]
    if not data.endswith(_NOTHING):
        return _whole(data.rstrip(b"\xff"), image)
    data = data.rstrip(b"\0")
    # the pixels themselves may end in a zero
    for zeros in range(2):
        if (found := _whole(data + bytes(zeros), image)) is not None:
            return found
    return None


def _whole(data: bytes, image: ImageFile) -> ImageFile | None:
    if not _covered(data):
        return None
    looks = set()
    whole = None
    for filling in (b"", *_FILLINGS, *_RESTARTS):
        rest = (filling * (_FILL // len(filling) + 1))[:_FILL] if filling else b""
        trial = JpegImageFile(io.BytesIO(data + rest + _END), "")
        try:
            trial.load()
        except Exception:  # as any decoder's: then something is missing
            return None
        looks.add(_look(trial))
        if len(looks) > 1:
            return None
        whole = whole or trial
    if whole is not None:
        whole.info = image.info
    return whole


def _look(image: ImageFile) -> bytes:
    """What tells pictures from each other, without a copy of the whole."""
    look = hashlib.sha256()
    for part in strips(image.size):
        look.update(cut(image, part).tobytes())
    return look.digest()


def scans(file: IO[bytes]) -> int:
    """How many scans the first picture of ``file`` has: how often a decoder passes over the whole of it."""
    file.seek(0)
    data = spans(file, _walk(file).pieces).read()
    found, at = 0, 2
    while following := _MARKER.search(data, at):
        marker, at = data[following.start() + 1], following.end()
        if marker == 0xD9:
            break
        found += marker == 0xDA
        if marker not in _BARE and (length := int.from_bytes(data[at : at + 2])) >= 2:
            at += length
    return found


def prepared(file: IO[bytes]) -> bool:
    """Whether the file ends in zeros and no end marker stands before them.

    A full disk and a broken download leave such files: zeros in place of pixels, which decoders take for
    some.
    """
    file.seek(max(0, size_of(file) - len(_NOTHING)))
    if file.read() != _NOTHING:
        return False
    file.seek(0)
    return not file.read().rstrip(b"\0").endswith(_END)


def salvaged(image: ImageFile, file: IO[bytes]) -> ImageFile:
    """The image with whatever its decoder makes of a file that ends too early."""
    file.seek(0)
    data = spans(file, _walk(file).pieces).read()
    # progressive files show nothing until their end is seen, so they are given one
    found = JpegImageFile(io.BytesIO(data + _END), "")
    found.info = image.info
    return found


def _walk(file: IO[bytes]) -> _Segments:
    found = _Segments(pieces=[b"\xff\xd8"])
    end = size_of(file)
    for marker, at, length in _places(file, 2, end):
        if marker == 0xDA:
            found.pieces.append((at - 4, end - at + 4))
            found.scans = True
            return found
        file.seek(at)
        body = file.read(min(length, 20)) if marker not in (0xE1, 0xE2) else file.read(length)
        if marker in _KEPT:
            found.pieces.append((at - 4, length + 4))
            if marker in _FRAMES:
                found.kind, found.frame = marker, body
        elif (marker == 0xE0 and body.startswith(b"JFIF\0") and length >= 14) or (
            marker == 0xEE and body.startswith(b"Adobe") and length >= 12
        ):
            # these two decide how the components become colours
            body = body[: 14 if marker == 0xE0 else 12]
            if marker == 0xE0:
                body = body[:12] + b"\0\0"  # no thumbnail follows
            found.pieces.append(struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body)
        elif marker == 0xE1 and body.startswith(_EXIF) and len(found.exif) + len(body) <= _MOST:
            found.exif += body[6:] if found.exif else body
        elif marker == 0xE1 and body.startswith(_XMP):
            found.xmp = found.xmp or body[len(_XMP) :]
        elif marker == 0xE2 and body.startswith(_ICC) and len(body) > 14:
            found.icc.setdefault(body[12], body[14:])
    return found


def _places(file: IO[bytes], at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Marker, offset and length of the contents of each segment, up to the first scan or the end."""
    for _ in range(MOST_STEPS):
        if at + 2 > end:
            return
        file.seek(at)
        head = file.read(4)
        if (
            head[0] != 0xFF or head[1] == 0xFF or (head[1] < 0xC0 and head[1] not in _BARE)
        ):  # junk between segments, and bytes that fill
            at += 1
            continue
        marker = head[1]
        if marker in _BARE:
            at += 2
            continue
        if marker == 0xD9 or len(head) < 4:
            return
        length = struct.unpack(">H", head[2:])[0]
        ancillary = marker >= 0xE0
        if ancillary and (length < 2 or at + 2 + length > end):
            at += 2  # a wrong length: what decoding takes comes behind it all the same
            continue
        yield marker, at + 4, max(0, min(length - 2, end - at - 4))
        if marker == 0xDA:
            return
        at += 2 + max(2, length)
    raise ImageError(f"the image is damaged (more than {MOST_STEPS:,} segments or bytes of junk)")


def _check_kind(found: _Segments) -> None:
    if len(found.frame) < 6:
        return
    bits, components = found.frame[0], found.frame[5]
    what = ""
    if bits != 8:
        what = f"a JPEG of {bits} bits a sample"
    elif found.kind in _LOSSLESS:
        what = "a lossless JPEG"
    elif found.kind in _HIERARCHICAL:
        what = "a hierarchical JPEG"
    elif found.frame[1:3] == b"\0\0":
        what = "a JPEG whose height stands behind its pixels"
    elif components not in (1, 3, 4):
        what = f"a JPEG of {components} components"
    if what:
        raise ImageError(f"{what} is a kind that is not read; convert it to an 8-bit JPEG or a PNG")


def _covered(data: bytes) -> bool:
    """Whether the scans of ``data`` hold every coefficient of every component, to its last bit."""
    missing: dict[int, list[bool]] = {}
    file = io.BytesIO(data)
    at = 2
    while True:
        before = at
        for marker, start, length in _places(file, at, len(data)):
            body = data[start : start + length]
            if marker in _FRAMES and len(body) >= 6:
                ids = body[6 : 6 + 3 * body[5] : 3]
                missing = {component: [True] * 64 for component in ids}
            elif marker == 0xDA and body and len(body) >= 4 + 2 * body[0]:
                first, last, bits = body[1 + 2 * body[0] : 4 + 2 * body[0]]
                for component in body[1 : 1 + 2 * body[0] : 2]:
                    for number in range(first, min(last, 63) + 1):
                        missing.setdefault(component, [True] * 64)[number] = (bits & 15) != 0
                following = _MARKER.search(data, start + length)
                at = following.start() if following else len(data)
        if at == before:
            return bool(missing) and not any(map(any, missing.values()))
