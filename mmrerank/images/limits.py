"""What decoding one image may cost at most. One number raises all of it: the pixels that are allowed.

Limits are checked on headers and by counting, before the work is done. What a record or a manifest says of an
image raises none of them.
"""

from __future__ import annotations

import os

from mmrerank.errors import ImageError, UsageError

DEFAULT_MAX_PIXELS = 50_000_000
"""Pixels of an image: more than most cameras make, and decoded in less than a gigabyte."""
VARIABLE = "MMRERANK_MAX_PIXELS"
"""The environment variable that raises (or lowers) `DEFAULT_MAX_PIXELS` for every command."""
BYTES_A_PIXEL = 16
"""Bytes that decoding may take for each pixel that is allowed: 800 MB by default."""
FILE_BYTES_A_PIXEL = 4
"""Bytes of a file that must be read as a whole, for each pixel that is allowed: 200 MB by default."""
SLOW_BYTES_A_PIXEL = 1
"""The same of a kind that Python itself unpacks, at a microsecond a byte (QOI, PNM in text, BMP in runs)."""
MOST_SIDE = 1_000_000
"""Pixels of a side: each row costs memory of its own, and no picture is a line of that length."""
MOST_SCANS = 100
"""Scans of a JPEG. Encoders make 1 to about 20; each costs a pass over the whole picture."""
SCANNED = 20
"""Scans of a JPEG that is as large as allowed; a smaller one may have more, up to `MOST_SCANS`."""

RAISED = f"raise it with --max-pixels, or for every command with {VARIABLE}"


def allowed_pixels(max_pixels: int | None = None) -> int:
    """``max_pixels``, or else what the environment says, or else the default. Raises `UsageError`."""
    if max_pixels is not None:
        return max_pixels
    said = os.environ.get(VARIABLE, "").strip()
    if not said:
        return DEFAULT_MAX_PIXELS
    number = int(said) if said.isascii() and said.isdigit() and len(said) < 19 else 0
    if number < 1:
        raise UsageError(f"{VARIABLE} is a number of pixels, at least 1, not {said[:40]!r}")
    return number


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raises `ImageError` where there is no pixel, or where there are more than allowed."""
    if width < 1 or height < 1:
        raise ImageError(f"the image is {width}x{height} and shows nothing")
    if width * height > max_pixels:
        raise ImageError(
            f"{width}x{height} = {_mega(width * height)} megapixels is over the limit of "
            f"{_mega(max_pixels)}; {RAISED}"
        )
    if max(width, height) > MOST_SIDE:
        raise ImageError(f"the image is {width}x{height}; a side has at most {MOST_SIDE:,} pixels")


def check_bytes(needed: float, max_pixels: int) -> None:
    """Raises `ImageError` where decoding would take more bytes than allowed."""
    budget = max_pixels * BYTES_A_PIXEL
    if needed > budget:
        raise ImageError(
            f"decoding it takes about {_mega(int(needed))} MB, and {_mega(budget)} MB are allowed; {RAISED}"
        )


def check_file(size: int, max_pixels: int, *, each: int = FILE_BYTES_A_PIXEL) -> None:
    """Raises `ImageError` where a file that must be read as a whole is too large."""
    most = max_pixels * each
    if size > most:
        raise ImageError(f"the file has {_mega(size)} MB, and {_mega(most)} MB are allowed; {RAISED}")


def check_scans(scans: int, pixels: int, max_pixels: int) -> None:
    """Raises `ImageError` where a JPEG passes over its picture too often."""
    most = min(MOST_SCANS, max(SCANNED * max_pixels // max(pixels, 1), SCANNED))
    if scans > most:
        raise ImageError(
            f"the JPEG has {scans} scans, and {most} are allowed at this size; save it again as a plain JPEG"
        )


def _mega(number: int) -> str:
    return f"{number / 1e6:.6f}".rstrip("0").rstrip(".")
