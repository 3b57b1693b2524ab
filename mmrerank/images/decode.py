"""One decoder for every image: encoded bytes in, upright 8-bit RGB out, or an `ImageError` saying why not.

Sizes are checked on the header, before any pixel is decoded. Messages do not name the file; whoever asked
knows it. Colour profiles are not applied, and of animations and stacks only the first frame is seen.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import PIL.Image
from PIL.ImageFile import ImageFile

from mmrerank.errors import ImageError
from mmrerank.images.formats import open_header
from mmrerank.images.metadata import camera, exif_of, orientation_of, taken
from mmrerank.images.pixels import to_rgb, upright
from mmrerank.images.quiet import pillow_quiet
from mmrerank.types import Image

DEFAULT_MAX_PIXELS = 200_000_000


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


def decode(
    source: Image | bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS, allow_truncated: bool = False
) -> PIL.Image.Image:
    """The picture as a person would see it: upright, RGB, transparency over white, first frame.

    The content decides the format, not the name. 16-bit, 32-bit and float grey values are scaled to 8
    bits. With ``allow_truncated`` the readable part of a damaged file is returned and the rest stays black
    (or grey). Raises `ImageError`, and nothing else, when the file is unreadable, empty, foreign, damaged
    or larger than ``max_pixels``. An `Image` with both hash and size was let in before (by an index, under
    limits of its own): it may be of that size, and damaged. Safe to call from threads.
    """
    if isinstance(source, Image) and source.sha256 and source.width and source.height:
        max_pixels, allow_truncated = max(max_pixels, source.width * source.height), True
    with _reading(source) as file, pillow_quiet():
        image = open_header(file)
        _check_size(image, max_pixels)
        orientation = orientation_of(image, file)
        by_reader = _reader_turns(image)
        try:
            _make_room(image)
            image.load()
        except Exception:
            if not allow_truncated:
                raise
            image = _salvage(image, file)
        # A frame may turn out larger than the header said; nothing larger may leave this function.
        _check_size(image, max_pixels)
        # Turn after conversion: the fewer kinds of pixels are turned, the fewer can go wrong.
        rgb = to_rgb(image)
        return rgb if by_reader else upright(rgb, orientation)


def probe(source: Image | bytes) -> ImageInfo:
    """Size, format, orientation, time and camera, from the header alone; no pixel is decoded.

    Raises `ImageError` as `decode` does, except that size is no reason to refuse.
    """
    with _reading(source) as file, pillow_quiet():
        image = open_header(file)
        orientation = orientation_of(image, file)
        exif = exif_of(image, file)
        width, height = image.size
        if orientation >= 5 and not _reader_turns(image):
            width, height = height, width
        # Phones pack several pictures into one JPEG; Pillow calls that MPO, everybody else JPEG.
        name = "JPEG" if image.format == "MPO" else image.format or ""
        return ImageInfo(
            width=width,
            height=height,
            format=name,
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
        elif source.data is not None:
            yield io.BytesIO(source.data)
        elif source.path is not None and source.offset is None and source.length is None:
            if source.path.exists() and not source.path.is_file():
                # A pipe or device would block for ever.
                raise ImageError("it is not a regular file")
            # Read through the file: a refused giant then costs its header only.
            with source.path.open("rb") as file:
                yield file
        else:
            yield io.BytesIO(source.read())
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
        raise ImageError(_damaged(error)) from error
    except Exception as error:
        # Hostile files make decoders raise almost anything; the cause is chained.
        raise ImageError(_damaged(error)) from error


def _damaged(error: Exception) -> str:
    detail = " ".join(str(error).split())[:200] or type(error).__name__
    if "truncated" in detail.lower():
        return f"the image is cut off ({detail}); allow truncated files to use what is there"
    return f"the image is damaged ({detail})"


def _check_size(image: ImageFile, max_pixels: int) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"the image is {width}x{height} and shows nothing")
    if width * height > max_pixels:
        raise ImageError(
            f"{width}x{height} = {_mega(width * height)} megapixels is over the budget of {_mega(max_pixels)}"
        )


def _mega(pixels: int) -> str:
    return f"{pixels / 1e6:.6f}".rstrip("0").rstrip(".")


def _reader_turns(image: ImageFile) -> bool:
    """True for formats whose reader hands out pixels, and announces the size, already upright."""
    return image.format in ("TIFF", "HEIF")


def _has_memory(image: ImageFile) -> bool:
    # Pillow has no public way to ask: reading ``im`` would load the image
    return vars(image).get("_im") is not None


def _make_room(image: ImageFile) -> None:
    """Gives a TIFF its memory, which its reader would otherwise do after asking Pillow's global limit.

    The caller has checked the size against a limit of its own.
    """
    size = vars(image).get("_tile_size")
    if image.format == "TIFF" and size is not None and not _has_memory(image):
        image.im = PIL.Image.new(image.mode, size).im


def _salvage(image: ImageFile, file: IO[bytes]) -> ImageFile:
    """What could be decoded of an image whose loading failed.

    Pillow's own switch for this is a global of the process, which would loosen every other thread's
    decoding. The rows decoded before the failure are in the image already; it is enough to declare it
    loaded. Raises `ImageError` where there are no pixels.
    """
    if image.format in ("JPEG", "MPO"):
        # Progressive files show nothing until their end is seen, so they are given one.
        file.seek(0)
        image = open_header(io.BytesIO(file.read() + b"\xff\xd9"))
        with contextlib.suppress(Exception):  # the rows decoded so far count
            image.load()
    # A TIFF is turned after loading, so a half-loaded one is of unknown shape.
    if not _has_memory(image) or image.format == "TIFF":
        raise ImageError("the image is damaged, and no part of it can be shown")
    image.tile = []
    return image
