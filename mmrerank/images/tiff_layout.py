"""What the tags of a TIFF say of its pixels: sizes, samples, and where the bytes are. Reads no pixel."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import Any, Literal

from mmrerank.images.ranges import Samples

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL = 256, 257, 258, 259, 262, 266
_DESCRIPTION, _OFFSETS, _SAMPLES, _ROWS, _COUNTS, _MAX = 270, 273, 277, 278, 279, 281
_PLANES, _PREDICTOR, _COLOURS, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_COUNTS = (
    284,
    317,
    320,
    322,
    323,
    324,
    325,
)
_EXTRA, _FORMAT, _SMIN, _SMAX, _SUBSAMPLING, _NODATA = 338, 339, 340, 341, 530, 42113

BYTEWISE = {
    1: "raw",
    5: "lzw",
    8: "deflate",
    32946: "deflate",
    32773: "packbits",
    34925: "lzma",
    50000: "zstd",
}
"""Compressions that know bytes and no pixels."""
_LARGE_TILE = 1 << 22
"""Pixels of a tile that may exceed its image; more is no tile but an attack."""
_COLOURS_OF = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3}
_NAMES = {0: "grey, white is zero", 1: "grey", 2: "RGB", 3: "a palette", 5: "CMYK", 6: "YCbCr", 8: "L*a*b*",
          32803: "a sensor's mosaic", 32844: "logarithmic light", 32845: "logarithmic light",
          34892: "a sensor's light"}  # fmt: skip
_FORMATS: dict[int, Literal["u", "i", "f"]] = {1: "u", 2: "i", 3: "f", 4: "u"}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the pixels lie. ``chunk`` is (rows, columns) of a strip or tile; ``counts`` are bytes.

    ``colours`` of ``count`` samples make the colour; ``alpha`` is "" where none follows, else ``straight`` or
    ``multiplied``. ``order`` is ``<`` or ``>``.
    """

    width: int
    height: int
    samples: Samples
    count: int
    colours: int
    alpha: str
    photometric: int
    compression: str
    predictor: int
    planar: bool
    reversed_bits: bool
    order: str
    chunk: tuple[int, int]
    tiled: bool
    offsets: tuple[int, ...]
    counts: tuple[int, ...]
    palette: tuple[int, ...] = ()

    @property
    def memory(self) -> int:
        """Bytes that showing it takes at its peak: the numbers, an unpacked strip or tile, the picture."""
        pixels, per = self.width * self.height, 1 if self.planar else self.count
        numbers = pixels * self.count * self.size
        # the unpacked bytes, and Pillow's picture of them where it unpacks
        chunk = 2 * self.chunk[0] * ((self.chunk[1] * per * self.samples.bits + 7) // 8)
        # colours beside a cover are copied to stand together
        together = pixels * self.colours * self.size if self.count > self.colours else 0
        return max(numbers + chunk, numbers + together + pixels * self.colours, pixels * 16)

    @property
    def size(self) -> int:
        """Bytes of a number in memory."""
        bits = self.samples.bits
        return bits // 8 if bits in (8, 16, 32, 64) else 1 if bits < 8 else 2


def layout(tags: Any) -> Layout | None:
    """The layout where it is one that is read here, None for others. ``tags`` are Pillow's ``tag_v2``."""
    compression = BYTEWISE.get(_one(tags, _COMPRESSION, 1))
    photometric = _one(tags, _PHOTOMETRIC, 0)
    bits, kinds = _many(tags, _BITS, (1,)), _many(tags, _FORMAT, (1,))
    count = _one(tags, _SAMPLES, 1)
    colours = _COLOURS_OF.get(photometric, 0)
    size = _one(tags, _WIDTH, 0), _one(tags, _HEIGHT, 0)
    if not compression or not colours or min(size) < 1 or not colours <= count <= colours + 2:
        return None
    if len(set(bits)) != 1 or len(set(kinds)) != 1 or kinds[0] not in _FORMATS:
        return None
    samples = _samples(tags, _FORMATS[kinds[0]], bits[0])
    predictor = _one(tags, _PREDICTOR, 1) if compression not in ("raw", "packbits") else 1
    if samples is None or predictor not in (1, 2, 3) or (predictor == 3) > (samples.kind == "f"):
        return None
    if predictor == 2 and bits[0] not in (8, 16, 32, 64):
        return None
    palette = _many(tags, _COLOURS, ()) if photometric == 3 else ()
    if photometric == 3 and (bits[0] > 16 or samples.kind != "u" or len(palette) < 3 * 2 ** bits[0]):
        return None
    if photometric == 6 and (bits[0] != 8 or samples.kind != "u" or not _full_chroma(tags, size)):
        return None
    tiled = _TILE_OFFSETS in tags
    chunk = (
        (_one(tags, _TILE_HEIGHT, 0), _one(tags, _TILE_WIDTH, 0))
        if tiled
        else (min(_one(tags, _ROWS, size[1]) or size[1], size[1]), size[0])
    )
    if min(chunk) < 1 or chunk[0] * chunk[1] > 4 * size[0] * size[1] + _LARGE_TILE:
        return None
    extra = _many(tags, _EXTRA, ())
    alpha = {1: "multiplied", 2: "straight"}.get(extra[0], "") if count > colours and extra else ""
    return Layout(
        width=size[0],
        height=size[1],
        samples=samples,
        count=count,
        colours=colours,
        alpha=alpha,
        photometric=photometric,
        compression=compression,
        predictor=predictor,
        planar=_one(tags, _PLANES, 1) == 2 and count > 1,
        reversed_bits=_one(tags, _FILL, 1) == 2,
        order=">" if tags.prefix == b"MM" else "<",
        chunk=chunk,
        tiled=tiled,
        offsets=_many(tags, _TILE_OFFSETS if tiled else _OFFSETS, ()),
        counts=_many(tags, _TILE_COUNTS if tiled else _COUNTS, ()),
        palette=palette,
    )


def needed(found: Layout) -> bool:
    """Whether Pillow would show it wrongly or not at all.

    It clips or misreads samples of other depths than 8 bits, leaves 16 bits and floats of white-is-zero as
    they are, shows a palette of 8-bit entries in black, and takes plain YCbCr for another kind.
    """
    simple = found.samples.bits <= 8 and found.samples.kind == "u"
    return not simple or found.photometric == 6 or (bool(found.palette) and 0 < max(found.palette) < 256)


def misread(tags: Any) -> bool:
    """Whether Pillow would take it for another kind, with nothing here that reads it instead."""
    return _one(tags, _PHOTOMETRIC, 0) == 6 and _one(tags, _COMPRESSION, 1) in BYTEWISE


def described(tags: Any) -> str:
    """The kind of TIFF in words, for a message that it is not read."""
    bits, kinds = _many(tags, _BITS, (1,)), _many(tags, _FORMAT, (1,))
    names = {1: "unsigned", 2: "signed", 3: "float", 4: "unsigned", 5: "complex", 6: "complex"}
    count = max(_one(tags, _SAMPLES, 1), len(bits))
    kind = names.get(kinds[0], "unknown")
    depth = "/".join(dict.fromkeys(map(str, bits)))
    photometric = _one(tags, _PHOTOMETRIC, 0)
    colours = _NAMES.get(photometric, f"photometric interpretation {photometric}")
    compression = _one(tags, _COMPRESSION, 1)
    packed = "" if compression == 1 else f", compression {BYTEWISE.get(compression, compression)}"
    return (
        f"a TIFF of {count} {kind} {'samples' if count > 1 else 'sample'} of {depth} bits ({colours}{packed})"
    )


def _samples(tags: Any, kind: Literal["u", "i", "f"], bits: int) -> Samples | None:
    if bits not in {"u": (*range(1, 17), 32, 64), "i": (8, 16, 32, 64), "f": (16, 32, 64)}[kind]:
        return None
    black, white = _said(tags)
    nodata = None
    with contextlib.suppress(ValueError, TypeError):
        nodata = float(str(tags.get(_NODATA)).strip("\0 "))
    whole = bits not in (16, 32, 64)
    return Samples(kind=kind, bits=bits, black=black, white=white, nodata=nodata, exact=whole and kind == "u")


def _full_chroma(tags: Any, size: tuple[int, int]) -> bool:
    """Whether YCbCr has a colour for each pixel; writers forget the tag, whose default is a quarter."""
    if _SUBSAMPLING in tags:
        return _many(tags, _SUBSAMPLING, ()) == (1, 1)
    return sum(_many(tags, _COUNTS, ())) == 3 * size[0] * size[1]


def _said(tags: Any) -> tuple[float | None, float | None]:
    """Black and white where a tag or a microscope's description names them."""
    text = str(tags.get(_DESCRIPTION, ""))[:1_000_000]
    if found := re.search(r'SignificantBits="(\d{1,2})"', text):  # OME
        return 0.0, 2.0 ** int(found[1]) - 1
    if text.startswith("ImageJ="):
        low, high = (
            re.search(rf"^{name}=(-?[\d.]+(?:E[-+]?\d+)?)\s*$", text, re.M) for name in ("min", "max")
        )
        if low and high:
            with contextlib.suppress(ValueError):
                return float(low[1]), float(high[1])
    white = _numbers(tags, _SMAX) or _numbers(tags, _MAX)
    black = _numbers(tags, _SMIN)
    return (min(black) if black else None), (max(white) if white else None)


def _numbers(tags: Any, tag: int) -> list[float]:
    value = tags.get(tag)
    values = value if isinstance(value, tuple) else (value,)
    return [float(v) for v in values if isinstance(v, int | float)]


def _one(tags: Any, tag: int, default: int) -> int:
    value = tags.get(tag, default)
    if isinstance(value, tuple):
        value = value[0] if value else default
    return value if isinstance(value, int) else -1


def _many(tags: Any, tag: int, default: tuple[int, ...]) -> tuple[int, ...]:
    value = tags.get(tag, default)
    if isinstance(value, tuple):
        return tuple(v for v in value if isinstance(v, int)) or default
    return (value,) if isinstance(value, int) else default
