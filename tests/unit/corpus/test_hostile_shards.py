"""Shards that mean harm: each is named, what stood before is kept, and the other shards are read."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import time
import tracemalloc
from pathlib import Path

import pytest
from shards import png, write

from mmrerank.corpus import _group, _tar, _tar_headers, _unpack, open_corpus, webdataset
from mmrerank.ports import Sample

FIRST = ("a.png", png(1))


def header(name: str = "x", kind: bytes = tarfile.REGTYPE, size: int = 0, **more: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, 0
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = b"%011o\0" % size if 0 <= size < 8**11 else _base256(size)
    for place, value in more.items():
        block[int(place[2:])] = value
    return _summed(block)


def _base256(size: int) -> bytes:
    return bytes([0x80 if size >= 0 else 0xFF]) + (size % (1 << 88)).to_bytes(11)


def _summed(block: bytearray) -> bytes:
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(records: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    return header("pax", kind, len(records)) + records.ljust(-(-len(records) // 512) * 512, b"\0")


def record(key: str, value: str) -> bytes:
    rest = f" {key}={value}\n".encode()
    length = len(rest) + 1
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return str(length).encode() + rest


def plain(name: str, data: bytes) -> bytes:
    return header(name, size=len(data)) + data.ljust(-(-len(data) // 512) * 512, b"\0")


def read(folder: Path, tail: bytes) -> list[Sample]:
    """Samples of a good picture followed by ``tail``, and of a good shard behind it."""
    (folder / "0.tar").write_bytes(plain(*FIRST) + tail)
    write(folder / "1.tar", [("b.png", png(2))])
    return list(open_corpus(str(folder / "{0..1}.tar")).samples())


ATTACKS = {
    "nested": (pax(record("comment", "x")) * 2000 + plain("z.png", png()), "more than 8 headers in a row"),
    "nested globals": (pax(record("path", "x"), b"g") * 2000, "more than 8 headers in a row"),
    "nested long names": ((header("n", b"L", 2) + b"z\0".ljust(512, b"\0")) * 99, "more than 8 headers"),
    "pax of 8 GB": (header("p", b"x", 8**11 - 1), "a header of 8589934591 bytes; at most 1048576"),
    "long name of 8 GB": (header("n", b"L", 8**11 - 1), "a header of 8589934591 bytes; at most 65536"),
    "long link of 2^62": (header("n", b"K", 2**62), "a header of"),
    "negative pax": (header("p", b"x", -512), "a header of -512 bytes"),
    "negative size": (header("z.png", size=-1536), "is no size"),
    "pax size negative": (pax(record("size", "-1536")) + plain("z.png", png()), "a size that is none"),
    "pax size of 400 digits": (pax(record("size", "9" * 400)) + plain("z.png", png()), "a size that is none"),
    "member of 2^62": (header("z.png", size=2**62), "it is cut off within 'z.png'"),
    "global size": (
        pax(record("size", str(2**60)), b"g") + plain("z.png", png()),
        "cut off|a size that is none",
    ),
    "digits": (pax(b"9" * 60_000) + plain("z.png", png()), "a damaged pax header"),
    "length 0": (pax(b"0 path=x\n") + plain("z.png", png()), "a damaged pax header"),
    "sum": (bytearray(header("z.png"))[:500] + b"x" * 12, "the header at byte 1024 is damaged"),
    "holes": (header("z.png", b"S", 512, at482=1) + (bytes(504) + b"\1" + bytes(7)) * 2000, "more holes"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_one_bad_shard_keeps_what_stood_before_and_the_others(name: str, tmp_path: Path) -> None:
    tail, why = ATTACKS[name]
    tracemalloc.start()
    started = time.process_time()
    found = read(tmp_path, bytes(tail))
    assert time.process_time() - started < 2
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()
    assert [s.id for s in found if s.image] == ["0/a", "1/b"]
    (bad,) = (s for s in found if s.error)
    assert bad.id == "0.tar"
    assert any(part in bad.error for part in why.split("|")), bad.error


def test_members_with_holes_are_named_and_their_maps_not_read(tmp_path: Path) -> None:
    said = (
        record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0") + record("GNU.sparse.name", "h.png")
    )
    tail = pax(said) + plain("x/GNUSparseFile/h.png", b"9" * 400 + b"\n") + plain("c.png", png(3))
    found = {s.id: s for s in read(tmp_path, tail + bytes(1024))}
    assert "stored with holes" in found["0/h"].error
    assert found["0/c"].image is not None


def test_long_names_and_pax_names_are_read_as_before(tmp_path: Path) -> None:
    long = "d/" * 60 + "long.png"
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
            info = tarfile.TarInfo(long)
            info.size = len(png(9))
            tar.addfile(info, io.BytesIO(png(9)))
        (tmp_path / "x.tar").write_bytes(buffer.getvalue())
        (sample,) = open_corpus(str(tmp_path / "x.tar")).samples()
        assert sample.id == f"x/{long[:-4]}"
        assert sample.image is not None
        assert sample.image.read() == png(9)


def test_names_devices_and_loops(tmp_path: Path) -> None:
    tail = (
        header("fifo.png", tarfile.FIFOTYPE)
        + header("device.png", tarfile.CHRTYPE)
        + plain("../../etc/up.png", png(4))
        + plain("/abs.png", png(5))
        + plain("n/" * 40 + "deep.png", png(6))
        + pax(record("path", "q/" * 500 + "deepest.png"))
        + plain("short.png", png(7))
    )
    found = read(tmp_path, tail + bytes(1024))
    ids = {s.id for s in found if s.image}
    # ids are names and never paths that are opened: every image is a span of the shard
    assert {"0/../../etc/up", "0/abs"} <= ids
    assert not any("fifo" in s.id or "device" in s.id for s in found)
    assert any("more than 100 folders deep" in s.error for s in found)
    assert all(s.image.path == tmp_path / f"{s.id[0]}.tar" for s in found if s.image)


def test_a_flood_of_names_ends_at_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tar, "MOST_LISTED", 100_000)
    found = read(tmp_path, b"".join(header(f"{n}.png") for n in range(400)) + bytes(1024))
    assert "the names of its files take more than" in found[-2].error
    assert found[0].id == "0/a"
    assert found[-1].id == "1/b"


def test_many_members_of_one_name_take_no_quadratic_time(tmp_path: Path) -> None:
    members = [_tar.Member(name="a.png") for _ in range(30_000)]
    started = time.process_time()
    assert len(_group.grouped(members)["a"]) == 30_000
    assert time.process_time() - started < 2


def test_shared_metadata_is_counted_for_each_image(tmp_path: Path) -> None:
    text = json.dumps({"caption": "x" * 100_000}).encode()
    tail = b"".join(plain(f"k.{n}.png", png(n)) for n in range(250)) + plain("k.json", text)
    found = [s for s in read(tmp_path, tail + bytes(1024)) if s.id.startswith("0/k")]
    assert len(found) == 250
    assert {s.metadata.get("note") for s in found} == {
        "k.json is left out: its images have too much metadata"
    }
    few = b"".join(plain(f"k.{n}.png", png(n)) for n in range(5)) + plain("k.json", text)
    assert [len(s.metadata["caption"]) for s in read(tmp_path, few + bytes(1024)) if s.id[2] == "k"] == [
        100_000
    ] * 5


def test_many_texts_of_one_image_are_bounded(tmp_path: Path) -> None:
    tail = plain("k.png", png()) + b"".join(
        plain(f"k.{n}.json", json.dumps({str(n): "x" * 400_000}).encode()) for n in range(9)
    )
    (sample,) = (s for s in read(tmp_path, tail + bytes(1024)) if s.id == "0/k")
    assert sum(len(str(v)) for v in sample.metadata.values()) < _group.MOST_METADATA
    assert "too much metadata" in sample.metadata["note"]


@pytest.mark.parametrize("text", ["[" * 200_000, "9" * 100_000, '{"a":' * 50_000])
def test_json_that_no_parser_likes_is_a_note(text: str, tmp_path: Path) -> None:
    tail = plain("k.png", png()) + plain("k.json", text.encode())
    (sample,) = (s for s in read(tmp_path, tail + bytes(1024)) if s.id == "0/k")
    assert sample.image is not None
    assert "is not JSON" in sample.metadata["note"]


def test_a_sample_of_too_many_files_is_one_error(tmp_path: Path) -> None:
    tail = b"".join(header(f"k.{n}.png") for n in range(_group.MOST_PARTS + 1))
    found = [s for s in read(tmp_path, tail + bytes(1024)) if s.id == "0/k"]
    assert [s.error for s in found] == ["the sample has 1,001 files; at most 1,000 make one"]


def test_a_packed_bomb_stops_at_its_ratio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_unpack, "ALWAYS", 1 << 20)
    whole = plain(*FIRST) + plain("b.png", bytes(8 << 20)) + bytes(1024)
    (tmp_path / "0.tar.gz").write_bytes(gzip.compress(whole))
    write(tmp_path / "1.tar", [("b.png", png(2))])
    found = list(open_corpus(str(tmp_path / "{0.tar.gz,1.tar}")).samples())
    assert {s.id for s in found if s.image} == {"0/a", "1/b"}
    assert any("it becomes more than 100 times its size" in s.error for s in found)


def test_a_large_member_of_a_packed_shard_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webdataset, "MOST_MEMBER", 1000)
    (tmp_path / "0.tar.gz").write_bytes(
        gzip.compress(plain(*FIRST) + plain("b.png", bytes(2000)) + bytes(1024))
    )
    found = {s.id: s for s in open_corpus(str(tmp_path / "0.tar.gz")).samples()}
    assert found["0/a"].image is not None
    assert "it has 2,000 bytes; of a packed shard at most 1,000" in found["0/b"].error


def test_whatever_a_shard_raises_ends_that_shard_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RecursionError("deep")

    monkeypatch.setattr(_tar_headers.Header, "_proc_member", fail)
    found = read(tmp_path, b"")
    assert [s.id for s in found] == ["0.tar", "1.tar"]
    assert "deep" in found[0].error
