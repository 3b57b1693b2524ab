"""Reads a PNG past everything that is not its picture: text, profiles and damaged chunks refuse no pixels.

Pillow is given a file that holds the pixels and what shows them, and nothing else. What the other chunks say
of colours and of the orientation is read here, each within its limits, and counts as absent where it is
damaged. The first frame of an animation is the picture that every PNG reader shows.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL.ImageFile import ImageFile
from PIL.PngImagePlugin import PngImageFile

from mmrerank.errors import ImageError
from mmrerank.images.profiles import from_code_points, from_gamma
from mmrerank.images.ranges import Samples, eight_bits, limits
from mmrerank.images.spans import Piece, size_of, spans
from mmrerank.images.strips import cut, strips

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_BYTES = ("LA;16B", "RGB;16B", "RGBA;16B")
"""Pillow's names of 16-bit pixels of which it keeps the upper bytes."""
_MOST = 16 * 1024 * 1024
"""Bytes of a profile, of EXIF or of a text that are worth reading."""
MOST_PARTS = 200_000
"""IDAT chunks; writers make them of 8 KB or more, and each costs memory of its own."""
_WANTED = {b"tRNS", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"cICP", b"sBIT", b"eXIf", b"zTXt", b"tEXt"}
_RAW_EXIF = {b"Raw profile type exif", b"Raw profile type APP1"}  # what ImageMagick writes


@dataclass(kw_only=True)
class _Chunks:
    """The chunks that count. ``pixels`` are (offset, length) of the contents of IDAT chunks."""

    header: bytes = b""
    palette: bytes = b""
    pixels: list[tuple[int, int]] = field(default_factory=list)
    others: dict[bytes, bytes] = field(default_factory=dict)
    exif: bytes = b""
    apple: bool = False


def open_png(file: IO[bytes]) -> ImageFile:
    """The lazily opened PNG at the start of ``file``. Raises what Pillow raises for a damaged header."""
    found = _walk(file)
    if found.apple:
        # its pixels are stored in another way, and PNG readers take them for damaged
        raise ImageError(
            "a PNG in Apple's own form (CgBI) is a kind that is not read; convert it to a plain PNG"
        )
    colour = found.header[17:18]
    pieces: list[Piece] = [_SIGNATURE, found.header, found.palette]
    if _keyed(found.others.get(b"tRNS", b""), colour):
        pieces.append(_chunk(b"tRNS", _widened(found.others[b"tRNS"], found.header)))
    for place in found.pixels:
        pieces += [
            struct.pack(">I4s", place[1], b"IDAT"),
            place,
            b"\0\0\0\0",
        ]  # the pixels have a sum of their own
    pieces.append(_chunk(b"IEND", b""))
    image = PngImageFile(spans(file, pieces), "")
    if found.exif:
        image.info["exif"] = found.exif
    if icc := _profile(found.others, grey=colour in (b"\0", b"\4")):
        image.info["icc_profile"] = icc
    if image.tile and isinstance(image.tile[0].args, str):
        image.info["rawmode"] = image.tile[0].args
    if (bits := found.others.get(b"sBIT")) and 0 < max(bits) < 16:
        image.info["significant_bits"] = max(bits)
    return image


def deepen(image: ImageFile, file: IO[bytes]) -> None:
    """Reads 16-bit colours again, whole, where the upper bytes that Pillow keeps show too little of them.

    So it is where 12 bits or less stand in 16: each byte of a pixel is then unpacked as a channel.
    """
    rawmode = image.info.get("rawmode")
    if rawmode not in _BYTES:
        return
    bits = image.info.get("significant_bits", 16)
    colours = 1 if rawmode == "LA;16B" else 3
    bands: Any = image.getextrema()
    if not 0 < max(high for _, high in bands[:colours]) < max(16, 2 ** (bits - 8) if bits < 16 else 0):
        return
    grey = rawmode == "LA;16B"
    lower = _unpacked_as(file, "RGBA" if grey else rawmode[:-1] + "L")

    def whole(box: tuple[int, int, int, int]) -> NDArray[Any]:
        low: NDArray[Any] = np.asarray(cut(lower, box))
        if grey:
            return low.view(">u2")
        found: NDArray[Any] = np.asarray(cut(image, box)).astype(np.uint16) << 8
        found |= low
        return found

    samples = Samples(kind="u", bits=16, white=2.0**bits - 1 if bits < 16 else None)
    cover = Samples(kind="u", bits=16)
    highest = [whole(box).reshape(-1, len(bands)).max(axis=0) for box in strips(image.size)]
    most = np.max(highest, axis=0)
    between = limits(most[:colours], samples)
    mode = {"LA;16B": "LA", "RGB;16B": "RGB", "RGBA;16B": "RGBA"}[rawmode]
    shown = PIL.Image.new(mode, image.size)
    for box in strips(image.size):
        values = whole(box)
        parts = [eight_bits(values[..., :colours], samples, between)]
        if values.shape[-1] > colours:
            parts.append(eight_bits(values[..., colours:], cover, limits(most[colours:], cover)))
        shown.paste(PIL.Image.fromarray(np.concatenate(parts, axis=-1)), box)
    image._mode, image.im = mode, shown.im


def _unpacked_as(file: IO[bytes], rawmode: str) -> PIL.Image.Image:
    file.seek(0)
    image = open_png(file)
    image.tile = [tile._replace(args=rawmode) for tile in image.tile]
    image.load()
    return image


def _walk(file: IO[bytes]) -> _Chunks:
    found = _Chunks()
    for name, at, length in _places(file):
        if name == b"IHDR" and not found.header:
            file.seek(at - 8)
            found.header = file.read(25)
        elif name == b"CgBI":
            found.apple = True
        elif name == b"PLTE":
            file.seek(at - 8)
            found.palette = file.read(min(length, 3 * 256) + 12)
        elif name == b"IDAT":
            found.pixels.append((at, length))
            if len(found.pixels) > MOST_PARTS:
                raise ImageError(f"the image is damaged (more than {MOST_PARTS:,} parts of pixels)")
        elif name in _WANTED and length <= _MOST:
            file.seek(at)
            body, check = file.read(length), file.read(4)
            if check == struct.pack(">I", zlib.crc32(name + body)):
                _take(found, name, body)
    return found


def _take(found: _Chunks, name: bytes, body: bytes) -> None:
    key, _, rest = body.partition(b"\0")
    if name == b"eXIf":
        found.exif = b"Exif\0\0" + body
    elif name in (b"zTXt", b"tEXt") and key in _RAW_EXIF and not found.exif:
        found.exif = _raw_exif(_unpacked(rest[1:]) if name == b"zTXt" else rest)
    elif not name.endswith(b"TXt"):
        found.others.setdefault(name, body)


def _places(file: IO[bytes]) -> Iterator[tuple[bytes, int, int]]:
    """Name, offset and length of the contents of each chunk, up to IEND or whatever is no chunk."""
    end, at, pixels = size_of(file), len(_SIGNATURE), False
    while at + 8 <= end:
        file.seek(at)
        length, name = struct.unpack(">I4s", file.read(8))
        fits = name.isalpha() and at + 12 + length <= end
        if not fits and name != b"IDAT":
            # a chunk with a wrong length: whatever it says, the pixels are where they are
            again = -1 if pixels or at == len(_SIGNATURE) else _search(file, at + 8)
            if again < 0:
                return
            at = again
            continue
        pixels = pixels or name == b"IDAT"
        yield name, at + 8, min(length, end - at - 8)
        if name == b"IEND":
            return
        at += 12 + length


def _search(file: IO[bytes], start: int) -> int:
    file.seek(start)
    found = file.read().find(b"IDAT")
    return start + found - 4 if found >= 4 else -1


def _widened(values: bytes, header: bytes) -> bytes:
    """A tRNS chunk in the numbers that Pillow gives to grey of 2 and 4 bits: those of 8."""
    scale = {(2, 0): 85, (4, 0): 17}.get((header[16], header[17]))
    return struct.pack(">H", int.from_bytes(values) * scale & 0xFFFF) if scale else values


def _keyed(values: bytes, colour: bytes) -> bool:
    """Whether a tRNS chunk says something for this type of colour."""
    return {b"\0": len(values) == 2, b"\2": len(values) == 6, b"\3": 0 < len(values) <= 256}.get(
        colour, False
    )


def _profile(others: dict[bytes, bytes], *, grey: bool) -> bytes | None:
    """The profile of the colours, in the order of precedence of PNG's third edition; None for sRGB."""
    if (named := others.get(b"cICP", b"")) and (icc := from_code_points(named, grey=grey)) is not None:
        return icc or None
    if packed := others.get(b"iCCP"):
        _name, _, rest = packed.partition(b"\0")
        if rest[:1] == b"\0" and (icc := _unpacked(rest[1:])):
            return icc
    if b"sRGB" in others or len(others.get(b"gAMA", b"")) != 4:
        return None
    (gamma,) = struct.unpack(">I", others[b"gAMA"])
    points = others.get(b"cHRM", b"")
    xy = [v / 100_000 for v in struct.unpack(">8I", points)] if len(points) == 32 else None
    return from_gamma(gamma / 100_000, xy, grey=grey)


def _unpacked(data: bytes) -> bytes:
    """What zlib made of it, within the limit; nothing where it is damaged."""
    try:
        stream = zlib.decompressobj()
        plain = stream.decompress(data, _MOST)
    except zlib.error:
        return b""
    return b"" if stream.unconsumed_tail else plain


def _raw_exif(text: bytes) -> bytes:
    """EXIF out of ImageMagick's text: a line for the kind, one for the length, the rest in hexadecimal."""
    try:
        data = bytes.fromhex("".join(text.decode("latin-1").split("\n", 3)[3].split()))
    except (ValueError, IndexError):
        return b""
    return data if data.startswith(b"Exif\0\0") else b"Exif\0\0" + data


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
