"""Reads JPEG XL: size, turn and channels from the codestream's header, the pixels with pillow-jxl-plugin.

The header is read here (ISO/IEC 18181-1, image header), because the library decodes as it opens. Of the file
only the codestream reaches the library, so that no box can make it do more. Moving pictures, and more than
one channel beside the colours, are not read. A frame inside of the codestream may be larger than the picture:
that is seen by libjxl alone.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import IO, Any

from PIL.ImageFile import ImageFile

from mmrerank.errors import ImageError
from mmrerank.images.spans import size_of

MAGIC = (b"\xff\x0a", b"\x00\x00\x00\x0cJXL \r\n\x87\n")
MEMORY = 16
"""Bytes of a pixel at the peak of decoding; 7 to 9 were measured with libjxl of pillow-jxl-plugin 1.3."""
_HEAD = 4096
"""Bytes in which the header ends, wherever it is split."""
_MOST_BOXES = 1000
_MOST_EXIF = 1 << 20
_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}
_SIDES = ((9, 1), (13, 1), (18, 1), (30, 1))
_MODES = {"L", "LA", "RGB", "RGBA", "I;16", "F"}


class Jxl(ImageFile):
    """A JPEG XL, upright after `load`, as its reader hands it out. Opening raises `ImageError` for a kind
    that is not read, and for a missing package.
    """

    format = "JXL"
    format_description = "JPEG XL"

    def _open(self) -> None:
        assert self.fp is not None
        _library()
        self._stream = _codestream(self.fp)
        head = b"".join(_read(self.fp, self._stream, _HEAD))
        self._size = _size(_Bits(head[2:]))
        self._mode = "RGB"
        self.tile = []
        if exif := _exif(self.fp):
            self.info["exif"] = exif

    def load(self) -> Any:
        """Decodes the pixels. Raises `OSError` for what is damaged or cut off."""
        if self._im is None:
            assert self.fp is not None
            data = b"".join(_read(self.fp, self._stream, size_of(self.fp)))
            try:
                _, found, pixels, icc, _ = _library().Decoder(num_threads=0)(data)
            except RuntimeError as error:
                raise OSError("the codestream is damaged or cut off") from error
            if (found.width, found.height) != self._size or found.mode not in _MODES:
                raise OSError(f"the decoder gives {found.mode} of {found.width}x{found.height}")
            import PIL.Image

            image = PIL.Image.frombytes(found.mode, self._size, pixels)
            self._mode, self.im = image.mode, image.im
            if icc:
                self.info["icc_profile"] = bytes(icc)
        return super().load()


def _library() -> Any:
    try:
        # importing it lets other users of Pillow read JPEG XL too, and changes nothing else for them
        return importlib.import_module("pillow_jxl")
    except ImportError as error:
        raise ImageError(
            "JPEG XL images need an optional package: pip install 'mmrerank[formats]'"
        ) from error


def _boxes(file: IO[bytes]) -> Iterator[tuple[bytes, int, int]]:
    """Name, offset and length of the contents of each box. Raises `OSError` for a damaged one."""
    at, end = 0, size_of(file)
    for _ in range(_MOST_BOXES):
        if at + 8 > end:
            return
        file.seek(at)
        head = file.read(16)
        length, name, start = int.from_bytes(head[:4], "big"), head[4:8], at + 8
        if length == 1:
            length, start = int.from_bytes(head[8:16], "big"), at + 16
        if length == 0:
            length = end - at
        if at + length < start:
            raise OSError("a box of the file is shorter than its own head")
        yield name, start, min(at + length, end) - start
        at += length
    raise OSError(f"the file has more than {_MOST_BOXES} boxes")


def _codestream(file: IO[bytes]) -> list[tuple[int, int]]:
    """Where the codestream is, (offset, length) of its parts."""
    file.seek(0)
    if file.read(2) == MAGIC[0]:
        return [(0, size_of(file))]
    parts = [(at + 4 * (name == b"jxlp"), size - 4 * (name == b"jxlp"))
             for name, at, size in _boxes(file) if name in (b"jxlc", b"jxlp")]  # fmt: skip
    if not parts:
        raise OSError("the file holds no codestream")
    return [(at, max(size, 0)) for at, size in parts]


def _read(file: IO[bytes], parts: list[tuple[int, int]], most: int) -> Iterator[bytes]:
    for at, size in parts:
        file.seek(at)
        data = file.read(min(size, most))
        most -= len(data)
        yield data
        if most <= 0:
            return


def _exif(file: IO[bytes]) -> bytes:
    """The EXIF that stands in a box of its own, uncompressed; empty where there is none."""
    file.seek(0)
    if file.read(2) == MAGIC[0]:
        return b""
    for name, at, size in _boxes(file):
        if name == b"Exif" and 4 < size <= _MOST_EXIF:
            file.seek(at)
            data = file.read(size)
            # the offset of the TIFF in it stands in front
            return b"Exif\0\0" + data[4 + int.from_bytes(data[:4], "big") :]
    return b""


class _Bits:
    """Numbers of a codestream: the lowest bits come first. What is not there counts as damage."""

    def __init__(self, data: bytes) -> None:
        self._number, self._left = int.from_bytes(data, "little"), 8 * len(data)

    def u(self, bits: int) -> int:
        if bits > self._left:
            raise OSError("truncated: its header is not whole")
        found = self._number & ((1 << bits) - 1)
        self._number >>= bits
        self._left -= bits
        return found

    def choice(self, *ways: tuple[int, int]) -> int:
        """One of four ways, each (bits, what is added to them); (0, n) is n itself."""
        bits, offset = ways[self.u(2)]
        return self.u(bits) + offset


def _size(bits: _Bits) -> tuple[int, int]:
    """Width and height as seen. Raises `ImageError` for a kind that is not read."""
    width, height = _sides(bits)
    if bits.u(1):  # everything else is as usual
        return width, height
    turned = False
    if bits.u(1):
        turned = bits.u(3) >= 4
        if bits.u(1):
            _sides(bits)
        if bits.u(1):
            _preview(bits)
        if bits.u(1):
            raise ImageError(
                "a moving JPEG XL is a kind that is not read; save one of its frames as an image"
            )
    if bits.u(1):  # floats
        bits.choice((0, 32), (0, 16), (0, 24), (6, 1))
        bits.u(4)
    else:
        bits.choice((0, 8), (0, 10), (0, 12), (6, 1))
    bits.u(1)
    extra = bits.choice((0, 0), (0, 1), (4, 2), (12, 1))
    if extra > 1:
        raise ImageError(f"a JPEG XL with {extra} channels beside its colours is a kind that is not read")
    return (height, width) if turned else (width, height)


def _sides(bits: _Bits) -> tuple[int, int]:
    small = bits.u(1)
    height = 8 * (bits.u(5) + 1) if small else bits.choice(*_SIDES)
    ratio = bits.u(3)
    if ratio:
        of, to = _RATIOS[ratio]
        return height * of // to, height
    return 8 * (bits.u(5) + 1) if small else bits.choice(*_SIDES), height


def _preview(bits: _Bits) -> None:
    eighths = bits.u(1)
    ways = ((0, 16), (0, 32), (5, 1), (9, 33)) if eighths else ((6, 1), (8, 65), (10, 321), (12, 1345))
    bits.choice(*ways)
    if not bits.u(3):
        bits.choice(*ways)
