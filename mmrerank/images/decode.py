"""One decoder for every image: encoded bytes in, upright 8-bit RGB out, or an `ImageError` saying why not.

Sizes are checked on the header, before any pixel is decoded. Messages do not name the file; whoever asked
knows it. Colour profiles are applied, and of animations and stacks only the first frame is seen.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import PIL.Image
from PIL.ImageFile import ImageFile

from mmrerank.errors import ImageError, TruncatedImageError
from mmrerank.images import jpeg, png, profiles
from mmrerank.images.costs import expected
from mmrerank.images.formats import open_header
from mmrerank.images.limits import DEFAULT_MAX_PIXELS as DEFAULT_MAX_PIXELS
from mmrerank.images.limits import allowed_pixels, check_bytes, check_scans, check_size
from mmrerank.images.metadata import camera, exif_of, in_adobe_rgb, orientation_of, taken
from mmrerank.images.pixels import to_rgb, upright
from mmrerank.images.quiet import pillow_quiet
from mmrerank.images.spans import size_of, spans
from mmrerank.images.tiff import Tiff
from mmrerank.images.tiff_pixels import make_room
from mmrerank.types import Image


@dataclass(frozen=True, kw_only=True)
class ImageInfo:
    """What a header tells. ``width`` and ``height`` are pixels as seen, after orientation (1-8, EXIF).

    ``format`` is Pillow's name (``JPEG``, ``PNG``). ``taken`` is ISO 8601 without a zone, ``camera`` the
    maker and model; both are None where the file does not say.
    """

    width: int
    height: int
    format: str
    orientation: int = 1
    taken: str | None = None
    camera: str | None = None


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """A picture, and what its header tells."""

    pixels: PIL.Image.Image
    info: ImageInfo


def decode(
    source: Image | bytes, *, max_pixels: int | None = None, allow_truncated: bool = False
) -> PIL.Image.Image:
    """The picture as a person would see it: upright, sRGB, transparency over white, first frame.

    The content decides the format, not the name. Deep, signed and float samples are scaled to 8 bits
    (`mmrerank.images.ranges`). Metadata that is broken counts as absent. With ``allow_truncated`` the
    readable part of a damaged file is returned and the rest stays black (or grey). Raises `ImageError`, and
    nothing else, when the file is unreadable, empty, foreign, of a kind that is not read, damaged, cut off
    (`TruncatedImageError`) or beyond a limit of `mmrerank.images.limits`. ``max_pixels`` is the limit that
    the others follow; by default 50 million, or what the environment says. An `Image` with both hash and
    size was let in before (by an index): it may be damaged, but its size raises no limit. Safe to call
    from threads.
    """
    return decode_with_info(source, max_pixels=max_pixels, allow_truncated=allow_truncated).pixels


def decode_with_info(
    source: Image | bytes, *, max_pixels: int | None = None, allow_truncated: bool = False
) -> Decoded:
    """`decode` and `probe` in one: the header is read once. Raises `ImageError` as `decode` does."""
    max_pixels = allowed_pixels(max_pixels)
    if isinstance(source, Image) and source.sha256 and source.width and source.height:
        allow_truncated = True
    with _reading(source) as file, pillow_quiet():
        image = open_header(file, max_pixels)
        check_size(*image.size, max_pixels)
        check_bytes(expected(image), max_pixels)
        if image.format == "JPEG":
            check_scans(jpeg.scans(file), image.width * image.height, max_pixels)
        exif = exif_of(image)
        if "icc_profile" not in image.info and in_adobe_rgb(exif):
            image.info["icc_profile"] = profiles.adobe_rgb()
        by_reader = _reader_turns(image)
        info = _info(image, exif)
        image = _loaded(image, file, allow_truncated=allow_truncated)
        # A frame may turn out larger than the header said; nothing larger may leave this function.
        check_size(*image.size, max_pixels)
        # Turn after conversion: the fewer kinds of pixels are turned, the fewer can go wrong.
        rgb = to_rgb(image)
        pixels = rgb if by_reader else upright(rgb, orientation_of(exif))
        return Decoded(pixels=pixels, info=info)


def probe(source: Image | bytes, *, max_pixels: int | None = None) -> ImageInfo:
    """Size, format, orientation, time and camera, from the header alone; no pixel is decoded.

    Raises `ImageError` as `decode` does. Size is a reason to refuse only where opening costs as much as
    decoding (WebP and AVIF).
    """
    with _reading(source) as file, pillow_quiet():
        image = open_header(file, allowed_pixels(max_pixels))
        return _info(image, exif_of(image))


def _info(image: ImageFile, exif: PIL.Image.Exif) -> ImageInfo:
    orientation = orientation_of(exif)
    width, height = image.size
    if orientation >= 5 and not _reader_turns(image):
        width, height = height, width
    return ImageInfo(
        width=width,
        height=height,
        format=image.format or "",
        orientation=orientation,
        taken=taken(exif),
        camera=camera(exif),
    )


@contextlib.contextmanager
def _reading(source: Image | bytes) -> Iterator[IO[bytes]]:
    """Opens ``source`` and turns whatever goes wrong inside into one clear `ImageError`."""
    try:
        if isinstance(source, bytes):
            yield io.BytesIO(source)
        elif source.problem:
            raise ImageError(source.problem)
        elif source.data is not None:
            yield io.BytesIO(source.data)
        elif source.path is not None:
            if source.path.exists() and not source.path.is_file():
                # A pipe or device would block for ever.
                raise ImageError("it is not a regular file")
            # Read through the file: a refused giant then costs its header only.
            with source.path.open("rb") as file:
                yield file if source.offset is None and source.length is None else _span(source, file)
    except ImageError:
        raise
    except PIL.Image.DecompressionBombError as error:
        raise ImageError("a part of the image is far larger than it can be shown") from error
    except MemoryError as error:
        raise ImageError("the image does not fit into memory") from error
    except OSError as error:
        # Pillow's complaints carry no errno; the system's do.
        if error.errno is not None:
            raise ImageError(f"the file cannot be read: {error.strerror or error}") from error
        raise _damaged(error) from error
    except Exception as error:  # hostile files make decoders raise almost anything; the cause is chained
        raise _damaged(error) from error


def _span(source: Image, file: IO[bytes]) -> IO[bytes]:
    """The part of ``file`` that ``source`` names, no longer than there is."""
    start = min(max(source.offset or 0, 0), end := size_of(file))
    length = end - start if source.length is None else min(max(source.length, 0), end - start)
    return spans(file, [(start, length)])


def _damaged(error: Exception) -> ImageError:
    detail = " ".join(str(error).split())[:200] or type(error).__name__
    if "truncated" in detail.lower():
        return TruncatedImageError(f"the image is cut off ({detail.removeprefix('truncated: ')})")
    return ImageError(f"the image is damaged ({detail})")


def _reader_turns(image: ImageFile) -> bool:
    """True for formats whose reader hands out pixels, and announces the size, already upright."""
    return image.format in ("TIFF", "HEIF", "JXL")


def _has_memory(image: ImageFile) -> bool:
    # Pillow has no public way to ask: reading ``im`` would load the image
    return vars(image).get("_im") is not None


def _loaded(image: ImageFile, file: IO[bytes], *, allow_truncated: bool) -> ImageFile:
    """``image`` with its pixels. Raises what its decoder raises, where nothing else helps."""
    try:
        make_room(image)
        image.load()
        if image.format == "JPEG" and jpeg.prepared(file):
            raise OSError("truncated: zeros stand in place of its end")
        if image.format == "PNG":
            png.deepen(image, file)
        return image
    except Exception:  # decoders raise anything
        if image.format == "JPEG" and (whole := jpeg.ended(image, file)) is not None:
            return whole
        if isinstance(image, Tiff) and image.without_pillow():
            return _loaded(image, file, allow_truncated=allow_truncated)
        if not allow_truncated:
            raise
        return _salvage(image, file)


def _salvage(image: ImageFile, file: IO[bytes]) -> ImageFile:
    """What could be decoded of an image whose loading failed.

    Pillow's own switch for this is a global of the process, which would loosen every other thread's
    decoding. The rows decoded before the failure are in the image already; it is enough to declare it
    loaded. Raises `ImageError` where there are no pixels.
    """
    if image.format == "JPEG":
        image = jpeg.salvaged(image, file)
        with contextlib.suppress(Exception):  # the rows decoded so far count
            image.load()
    if isinstance(image, Tiff) and (image.deep is not None or image.without_pillow()):
        image.lenient = True
        image.load()
        return image
    # Pillow turns a TIFF after loading, so a half-loaded one is of unknown shape.
    if not _has_memory(image) or image.format == "TIFF":
        raise ImageError("the image is damaged, and no part of it can be shown")
    image.tile = []
    return image
