"""Which formats are read, and how a file of unknown name is opened without trusting it.

Only raster formats whose decoders run inside this process are tried: nothing here starts an external
program (as EPS would), fetches anything, or goes by the file's name. It reads headers, never pixels.
"""

from __future__ import annotations

import importlib
from typing import IO, Any

import PIL.Image
from PIL.ImageFile import ImageFile

from mmrerank.errors import ImageError
from mmrerank.images import jxl
from mmrerank.images.gif import open_gif
from mmrerank.images.jpeg import open_jpeg
from mmrerank.images.jpeg2000 import check_jpeg2000
from mmrerank.images.limits import SLOW_BYTES_A_PIXEL, check_file
from mmrerank.images.png import open_png
from mmrerank.images.spans import size_of, spans
from mmrerank.images.tiff import Tiff
from mmrerank.images.webp import open_webp

# fmt: off
IMAGE_SUFFIXES = frozenset({
    ".apng", ".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".hif", ".j2k", ".jfif", ".jp2",
    ".jpe", ".jpeg", ".jpf", ".jpg", ".jps", ".jpx", ".jxl", ".mpo",
    ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".qoi", ".tif", ".tiff", ".webp",
})
# fmt: on
"""Lower-case suffixes that mark a file as an image when a folder or shard is searched."""

# How the formats begin that are opened here, around Pillow's readers.
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_JPEG2000 = (b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  \x0d\x0a\x87\x0a")
_TIFF = (b"II*\0", b"MM\0*", b"II\0*", b"MM*\0", b"II+\0", b"MM\0+")
_GIF = (b"GIF87a", b"GIF89a")
_BIG_ENDIAN_BIGTIFF = b"MM\0+"
# What scripts print before the image they send.
_SLOW = (b"qoif", b"P1", b"P2", b"P3")
_BLANK = b"\r\n\t \xef\xbb\xbf"
# Pillow modules of the others by format, in the order tried.
_READERS = {
    "BMP": "PIL.BmpImagePlugin",
    "AVIF": "PIL.AvifImagePlugin",
    "JPEG2000": "PIL.Jpeg2KImagePlugin",
    "PPM": "PIL.PpmImagePlugin",
    "QOI": "PIL.QoiImagePlugin",
}
_HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1", b"heif"}


def open_header(file: IO[bytes], max_pixels: int) -> ImageFile:
    """The lazily opened image: size, mode and tags are known, no pixel is decoded.

    Calls Pillow's readers directly rather than through `PIL.Image.open`, whose own size limit is a global
    of the process that other users of Pillow may rely on. Raises `ImageError` for an empty or foreign
    file; whatever a reader raises on a damaged header passes through. ``max_pixels`` bounds what opening
    alone may cost: files that are read as a whole, canvases, tables of tiles.
    """
    prefix = file.read(32)
    if not prefix:
        raise ImageError("the file is empty (0 bytes)")
    file.seek(0)
    if prefix.startswith((_JPEG, *_JPEG2000)) or prefix[4:8] == b"ftyp" or prefix[:4] == b"RIFF":
        check_file(size_of(file), max_pixels)
    if prefix.startswith(_JPEG):
        return open_jpeg(file)
    if prefix.startswith(jxl.MAGIC):
        check_file(size_of(file), max_pixels)
        return jxl.Jxl(file, "")
    if prefix.startswith(_PNG):
        return open_png(file)
    if prefix.startswith(_BIG_ENDIAN_BIGTIFF):
        raise ImageError("a big-endian BigTIFF is a kind that is not read; convert it to a plain TIFF")
    if prefix.startswith(_TIFF):
        return Tiff(file, "")
    if prefix.startswith(_GIF):
        return open_gif(file)
    if prefix[:4] == b"RIFF" and prefix[8:12] == b"WEBP":
        return open_webp(file, max_pixels)
    if prefix.startswith(_JPEG2000):
        check_jpeg2000(file, max_pixels)
    if prefix.startswith(_SLOW) or (prefix.startswith(b"BM") and prefix[30:31] in (b"\1", b"\2")):
        check_file(size_of(file), max_pixels, each=SLOW_BYTES_A_PIXEL)
    problem: Exception | None = None
    for name, module in _READERS.items():
        importlib.import_module(module)
        factory, accept = PIL.Image.OPEN[name]
        if accept is not None and accept(prefix) is not True:
            continue
        file.seek(0)
        try:
            return factory(file, "")
        except SyntaxError as error:
            # Pillow's way of saying "not mine after all" or "damaged header": another reader may take it.
            problem = error
    file.seek(0)
    if prefix[4:8] == b"ftyp" and prefix[8:12] in _HEIF_BRANDS:
        return _open_heif(file)
    rest = prefix.lstrip(_BLANK)
    if rest != prefix and rest.startswith((_JPEG, _PNG, b"GIF8", b"RIFF")):
        start = len(prefix) - len(rest)
        return open_header(spans(file, [(start, size_of(file) - start)]), max_pixels)
    if problem is not None:
        raise problem
    raise ImageError("the content is of no image format known here, whatever its name says")


def _open_heif(file: IO[bytes]) -> ImageFile:
    try:
        plugin: Any = importlib.import_module("pillow_heif.as_plugin")
    except ImportError as error:
        raise ImageError("HEIC images need an optional package: pip install 'mmrerank[formats]'") from error
    # The class is used as it is; registering it with Pillow would change every other user's `open`.
    image: ImageFile = plugin.HeifImageFile(file, "")
    return image
