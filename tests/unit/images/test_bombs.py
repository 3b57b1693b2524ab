"""Small files that would cost much: each is refused by counting, before the work is done."""

from __future__ import annotations

import io
import resource
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from pictures import encode, flag

from mmrerank.errors import ImageError, UsageError
from mmrerank.images import decode, encoded, jpeg, limits, png, probe, thumbnail
from mmrerank.types import Image


def webp_of(side: int) -> bytes:
    """34 bytes that announce a lossless WebP of ``side`` by ``side`` pixels."""
    bits = (side - 1) | (side - 1) << 14
    body = b"VP8L" + struct.pack("<I", 14) + b"\x2f" + struct.pack("<I", bits) + bytes(9)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def scanned(count: int) -> bytes:
    """A progressive JPEG with ``count`` empty scans behind its own."""
    data = encode(flag(), "JPEG", progressive=True)
    return data[:-2] + b"\xff\xda\x00\x08\x01\x01\x00\x01\x3f\x10" * count + b"\xff\xd9"


def tagged(count: int, size: int, head: bytes = b"") -> bytes:
    """A TIFF whose ``count`` tags each name the same ``size`` bytes."""
    rows = b"".join(struct.pack("<HHII", 1000 + n, 7, size, 8) for n in range(count))
    return head + (b"II*\0\x08\0\0\0" + struct.pack("<H", count) + rows + bytes(4)).ljust(size + 100, b"\0")


def jpeg2000(*, tile: int = 64, components: int = 3, block: int = 4, precinct: bytes = b"") -> bytes:
    """The header of a codestream of 7,000 by 7,000 pixels."""
    siz = struct.pack(">H8IH", 0, 7000, 7000, 0, 0, tile, tile, 0, 0, components) + b"\7\1\1" * components
    style = bytes([len(precinct) - 1 if precinct else 5, block, block, 0, 1]) + precinct
    cod = bytes([1 if precinct else 0, 0, 0, 1, 0]) + style
    segments = ((0xFF51, siz), (0xFF52, cod))
    return b"\xff\x4f" + b"".join(struct.pack(">HH", m, len(b) + 2) + b for m, b in segments)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (webp_of(13_300), r"13300x13300 = 176\.89 megapixels is over the limit of 50"),
        (scanned(2000), r"the JPEG has 20\d\d scans, and 100 are allowed"),
        (tagged(4000, 100_000), "its tags name more bytes than the file has"),
        (tagged(5000, 4), "its tags name more bytes than the file has"),
        (jpeg2000(tile=1), "decoding it takes about .* MB, and 800 MB are allowed"),
        (jpeg2000(tile=7000, components=16_384), "16384 components"),
        (jpeg2000(tile=3500, precinct=b"\0" * 6), "decoding it takes about"),
        (jpeg2000(tile=3500, block=0), "decoding it takes about"),
    ],
)
def test_a_bomb_is_refused_before_it_goes_off(data: bytes, why: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match=why):
            decode(data)
        assert tracemalloc.get_traced_memory()[1] < 4 * len(data) + 5_000_000
    finally:
        tracemalloc.stop()


def test_scans_are_counted_up_to_the_end_of_the_picture_and_past_hiding_places() -> None:
    plain = encode(flag(), "JPEG", progressive=True)
    assert decode(plain).size == decode(scanned(50)).size
    # an end marker inside a comment is none, and what follows the end is another picture
    hidden = scanned(200)
    at = hidden.index(b"\xff\xda\x00\x08\x01\x01\x00\x01\x3f\x10")
    hidden = hidden[:at] + b"\xff\xfe\x00\x04\xff\xd9" + hidden[at:]
    with pytest.raises(ImageError, match="scans"):
        decode(hidden)
    assert decode(plain + scanned(200)).size == (48, 32)


def test_work_for_each_part_of_a_file_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jpeg, "MOST_STEPS", 1000)
    segments = encode(flag(), "JPEG")
    for filling in (b"\xff\xfe\0\2", b"\0"):
        assert decode(segments[:2] + b"\xff\xfe\0\2" + filling * 900 + segments[2:]).size == (48, 32)
        with pytest.raises(ImageError, match="more than 1,000 segments"):
            decode(segments[:2] + b"\xff\xfe\0\2" + filling * 1001 + segments[2:])
    monkeypatch.setattr(png, "MOST_PARTS", 100)
    data = encode(flag(), "PNG")
    empty = struct.pack(">I4sI", 0, b"IDAT", zlib.crc32(b"IDAT"))
    assert decode(data[:33] + empty * 90 + data[33:]).size == (48, 32)
    with pytest.raises(ImageError, match="more than 100 parts"):
        decode(data[:33] + empty * 101 + data[33:])


@pytest.mark.parametrize("head", [b"qoif", b"P3 9 9 255 ", b"BM" + bytes(28) + b"\1"])
def test_kinds_that_python_unpacks_may_be_less_long(head: bytes) -> None:
    with pytest.raises(ImageError, match="the file has 0.002 MB, and 0.001 MB are allowed"):
        decode(head.ljust(2000, b"0"), max_pixels=1000)


def test_fewer_scans_are_allowed_the_larger_the_picture() -> None:
    limits.check_scans(100, 1_000_000, 50_000_000)
    limits.check_scans(20, 50_000_000, 50_000_000)
    with pytest.raises(ImageError, match="21 scans, and 20 are allowed"):
        limits.check_scans(21, 50_000_000, 50_000_000)


def test_a_record_raises_no_limit() -> None:
    data = encode(flag(), "PNG")
    claimed = Image(data=data, sha256="0" * 64, width=100_000, height=100_000)
    with pytest.raises(ImageError, match="1536"):
        decode(claimed, max_pixels=1535)
    huge = Image(data=webp_of(13_300), sha256="0" * 64, width=13_300, height=13_300)
    with pytest.raises(ImageError, match="over the limit of 50"):
        thumbnail(huge)
    small = Image(data=data, sha256="0" * 64, width=1, height=1)
    assert decode(small).size == (48, 32)


def test_the_environment_raises_every_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(flag(), "PNG")
    monkeypatch.setenv(limits.VARIABLE, "1535")
    with pytest.raises(
        ImageError, match="raise it with --max-pixels, or for every command with MMRERANK_MAX_"
    ):
        decode(data)
    with pytest.raises(ImageError, match="over the limit"):
        encoded(flag())
    monkeypatch.setenv(limits.VARIABLE, "1536")
    assert decode(data).size == (48, 32)
    for wrong in ("0", "-1", "many", "9" * 30):
        monkeypatch.setenv(limits.VARIABLE, wrong)
        with pytest.raises(UsageError, match="MMRERANK_MAX_PIXELS is a number of pixels"):
            decode(data)


def test_wide_kinds_are_counted_in_bytes() -> None:
    stack = PIL.Image.fromarray(np.ones((32, 48), np.float32))
    data = encode(stack, "TIFF")
    assert decode(data, max_pixels=1536).size == (48, 32)
    wide = bytearray(data)
    assert probe(bytes(wide)).width == 48
    with pytest.raises(ImageError, match="decoding it takes about 0.03072 MB, and 0.024576 MB are allowed"):
        limits.check_bytes(30_720, 1536)


def test_a_long_thin_picture_is_refused() -> None:
    with pytest.raises(ImageError, match="a side has at most 1,000,000 pixels"):
        limits.check_size(1, 50_000_000, 50_000_000)


def test_tags_of_exif_that_name_the_same_bytes_count_as_absent() -> None:
    data = encode(flag(), "JPEG", exif=tagged(4000, 60_000, b"Exif\0\0"))
    tracemalloc.start()
    assert decode(data).size == (48, 32)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_comments_of_a_gif_are_passed_over_and_bounded() -> None:
    data = encode(flag().quantize(4), "GIF")
    at = data.index(b",", 13 + 3 * 4)
    said = data[:at] + b"!\xfe" + (b"\xff" + b"a" * 255) * 4000 + b"\0" + data[at:]
    assert decode(said).tobytes() == decode(data).tobytes()
    for many in (b"!\xfe" + (b"\xff" + b"a" * 255) * 20_000 + b"\0", b"!\xfe\x01a\0" * 900_000):
        with pytest.raises(ImageError, match="bytes of comments stand before the picture"):
            decode(data[:at] + many + data[at:])


def test_a_part_of_a_file_is_read_in_place(tmp_path: Path) -> None:
    path = tmp_path / "shard.tar"
    data = encode(flag(), "PNG")
    path.write_bytes(b"x" * 100 + data + b"y" * 100)
    assert decode(Image(path=path, offset=100, length=len(data))).size == (48, 32)
    assert decode(Image(path=path, offset=100, length=2**62)).size == (48, 32)
    with pytest.raises(ImageError, match="empty"):
        decode(Image(path=path, offset=2**62, length=5))


_CHILD = """
import resource, sys
from pathlib import Path
from mmrerank.images import decode
from mmrerank.types import Image
decode(Path(sys.argv[1]).with_name("small.png").read_bytes())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert decode(Image(path=Path(sys.argv[1])), allow_truncated=True).width == 7071
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def _rows(bytes_a_row: int) -> bytes:
    return zlib.compress(bytes(bytes_a_row) * 7071, 1)


def _tiff16(folder: Path) -> bytes:
    rows = _rows(7071 * 2)
    tags = [(256, 7071), (257, 7071), (258, 16), (259, 8), (262, 1), (273, 8), (277, 1), (278, 7071),
            (279, len(rows))]  # fmt: skip
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return (
        b"II*\0" + struct.pack("<I", 8 + len(rows)) + rows + struct.pack("<H", len(tags)) + table + bytes(4)
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["JPEG", "JPEG-cut", "CMYK", "PNG", "PNG16", "WEBP", "TIFF16", "GIF", "AVIF"]
)
def test_the_largest_allowed_picture_takes_less_than_a_gigabyte(kind: str, tmp_path: Path) -> None:
    (tmp_path / "small.png").write_bytes(encode(flag(), "PNG"))
    path = tmp_path / "large"
    size = (7071, 7071)
    if kind == "TIFF16":
        path.write_bytes(_tiff16(tmp_path))
    elif kind == "PNG16":
        PIL.Image.new("I;16", size, 300).save(path, "PNG")
    else:
        mode = {"CMYK": "CMYK", "PNG": "RGBA", "WEBP": "RGBA", "GIF": "P"}.get(kind, "RGB")
        form = {"CMYK": "JPEG", "JPEG-cut": "JPEG"}.get(kind, kind)
        options = {"JPEG": {"progressive": True}, "WEBP": {"method": 0}, "AVIF": {"speed": 10}}.get(form, {})
        buffer = io.BytesIO()
        PIL.Image.new(mode, size).save(buffer, form, **options)
        path.write_bytes(buffer.getvalue()[: -2 if kind == "JPEG-cut" else None])
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(path)], capture_output=True, text=True, check=True
    )
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(done.stdout) * unit < 1_000_000_000
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
