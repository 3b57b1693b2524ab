"""What is not looked at again: only what the closer look would call the same. And what runs beside what."""

from __future__ import annotations

import dataclasses
import os
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from index_world import ColourEmbedder, build, paint, tally

from mmrerank.errors import ImageIndexError
from mmrerank.index import intake
from mmrerank.index.index import ImageIndex
from mmrerank.index.intake import Intake, place, status
from mmrerank.index.kept import Kept
from mmrerank.index.known import PORTION, Known, Row
from mmrerank.index.record import values
from mmrerank.index.records import Record, Records
from mmrerank.index.vectors import VectorFiles
from mmrerank.index.writing import Writer
from mmrerank.ports import Sample
from mmrerank.types import Image


class Plain(Records):
    """Records that parse a row without a database."""

    def __init__(self) -> None:
        pass

    def checked(self, seq: int, fields: list[Any], sum_: int) -> Record:
        return RECORDS[seq]

    def row_of(self, sha256: str) -> int | None:
        return None


RECORDS: dict[int, Record] = {}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    paint(folder, ["a.png", "sub/b.png"])
    (folder / "empty.png").touch()
    return folder


CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "path": st.sampled_from([b"a.png", b"sub/b.png", b"/a.png", None]),
        "offset": st.sampled_from([None, 0, 3]),
        "length": st.sampled_from([None, 10]),
        "size": st.sampled_from([None, 0, 10]),
        "mtime_ns": st.sampled_from([None, 1]),
        "ctime_ns": st.sampled_from([None, 1]),
        "row": st.none(),
        "away": st.sampled_from([None, "it is away"]),
        "metadata": st.sampled_from([{}, {"a": 1}, {"a": [1, "é"]}]),
    },
)


@settings(deadline=None, max_examples=60)
@given(
    name=st.sampled_from(["a.png", "sub/b.png", "gone.png", "sub", "empty.png", "sub/../a.png"]),
    span=st.sampled_from([(None, None), (0, 10), (3, 10), (None, 10)]),
    told=st.sampled_from([{}, {"a": 1}, {"a": (1, "é")}]),
    version=st.sampled_from([None, (1, 1)]),
    changes=CHANGES,
)
def test_what_is_the_same_is_so_for_the_closer_look(
    files: Path, name: str, span: tuple[Any, Any], told: Any, version: Any, changes: dict[str, Any]
) -> None:
    image = Image(path=files / name, offset=span[0], length=span[1])
    sample = Sample(id="x", image=image, metadata=told, version=version)
    record = Record(id="x", sha256="0" * 64, row=0, metadata=told)
    try:
        found = status(image, changed=True)
    except Exception:  # a folder, or nothing
        found = {}
    record = dataclasses.replace(record, **place(image, files), **found)
    record = dataclasses.replace(record, **changes)
    if record.row is None:
        record = dataclasses.replace(record, error="why")
    RECORDS[1] = record
    row = Row(seq=1, fields=values(record), checksum=0)
    known = Known(Plain(), files)
    look = Intake(
        records=Plain(), known=known, kept=Kept(files, 0), root=files, max_pixels=10**6, allow_truncated=False
    ).look(sample, row)
    if known.is_same(sample, row):
        assert look.same
        assert values(look.record) == values(record)
    elif look.same and name != "sub/../a.png":
        # only what is to be written is looked at again
        assert values(look.record) != values(record)


def test_nothing_is_the_same_as_nothing(files: Path) -> None:
    known = Known(Plain(), files)
    assert not known.is_same(Sample(id="x", image=Image(path=files / "a.png")), None)
    row = Row(seq=1, fields=values(Record(id="x", row=0)), checksum=0)
    assert not known.is_same(Sample(id="x", error="why"), row)
    assert not known.is_same(Sample(id="x", image=Image(data=b"1")), row)


def test_an_unchanged_image_is_not_looked_at(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path / "x", source)
    os.utime(source / "05.png", ns=(5, 5))
    looks: list[str] = []
    look = intake.Intake.look

    def counting(self: Any, sample: Any, row: Any) -> Any:
        looks.append(sample.id)
        return look(self, sample, row)

    monkeypatch.setattr(intake.Intake, "look", counting)
    assert tally(build(tmp_path / "x", source)) == (0, 0, 0, 10, 0)
    assert looks == ["05.png"]


def test_a_damaged_record_of_an_unchanged_image_stops_the_run(source: Path, tmp_path: Path) -> None:
    build(tmp_path / "x", source)
    db = sqlite3.connect(tmp_path / "x/records.sqlite")
    db.execute("UPDATE records SET width = width + 1 WHERE id = '04.png'")
    db.commit()
    db.close()
    with pytest.raises(ImageIndexError, match=r"damaged in the record of '04\.png'"):
        build(tmp_path / "x", source)


def test_portions_grow_and_those_in_memory_stay_small(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [Sample(id=str(n), error="") for n in range(2000)]
    portions = list(intake._portions(many))
    assert [s for p in portions for s in p] == many
    assert [len(p) for p in portions] == [16, 32, 64, 128, 256, PORTION, PORTION, PORTION, 4]
    monkeypatch.setattr(intake, "_PORTION_BYTES", 100)
    large = [Sample(id=str(n), image=Image(data=bytes(60))) for n in range(5)]
    assert [len(p) for p in intake._portions(large)] == [2, 2, 1]
    assert list(intake._portions([])) == []


def test_looks_come_in_order_and_few_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    under_way, most, lock = 0, 0, threading.Lock()

    class All(Known):
        def __init__(self) -> None:
            pass

        def fetch(self, ids: Any) -> Any:
            return {}

        def is_same(self, sample: Sample, row: Any) -> bool:
            return int(sample.id) % 3 == 0

    def look(self: Any, sample: Sample, row: Any) -> str:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.001 * (int(sample.id) % 4))
        return sample.id

    monkeypatch.setattr(Intake, "look", look)
    at = Intake(
        records=Plain(),
        known=All(),
        kept=Kept(tmp_path, 0),
        root=tmp_path,
        max_pixels=1,
        allow_truncated=False,
    )
    found = []
    for one in at.looked((Sample(id=str(n), error="") for n in range(100)), depth=5):
        if one is not None:
            with lock:
                under_way -= 1
        found.append(one)
    assert found == [None if n % 3 == 0 else str(n) for n in range(100)]
    assert 2 <= most <= 5


def test_the_writer_writes_in_order_and_tells_what_went_wrong(tmp_path: Path) -> None:
    records = Records(tmp_path, write=True)
    seen, files, kept = Records(tmp_path), VectorFiles(tmp_path / "vectors", 2), Kept(tmp_path, 0)
    files.truncate(0)
    vectors = np.eye(2, dtype=np.float32)
    made = [Record(id=c, sha256=c * 64) for c in "ab"]
    gate = threading.Event()
    append = files.append
    calls: list[int] = []

    def slow(rows: Any, at: int) -> None:
        assert gate.wait(10)
        calls.append(at)
        if at == 2:
            raise OSError(28, "No space left on device")
        append(rows, at)

    files.append = slow  # type: ignore[method-assign]
    with Writer(records, seen, files, kept) as writer:
        writer.write(["a" * 64, "b" * 64], vectors, made)
        assert (writer.row_of("b" * 64), seen.row_of("b" * 64), writer.rows) == (1, None, 2)
        gate.set()
        again = Record(id="c", sha256="a" * 64)
        writer.write([], None, [again])
        assert (writer.row_of("b" * 64), seen.row_of("b" * 64)) == (1, 1)
        writer.write(["d" * 64], vectors[:1], [Record(id="d", sha256="d" * 64)])
        with pytest.raises(OSError, match="No space"):
            writer.write(["e" * 64], vectors[:1], [])
    assert calls == [0, 2]
    assert seen.rows_among(["a", "b", "c", "d"]) == {"a": 0, "b": 1, "c": 0}
    for one in (seen, records, kept):
        one.close()


def test_a_portion_is_computed_while_the_one_before_is_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    append = VectorFiles.append
    begun = threading.Event()

    class Telling(ColourEmbedder):
        def embed_images(self, images: Any) -> Any:
            order.append(f"computes {len(images)}")
            begun.set()
            return super().embed_images(images)

    def slow(self: Any, vectors: Any, at: int) -> None:
        begun.clear()
        if at < 8:
            assert begun.wait(10)  # the next portion is computed meanwhile, or this never ends
        append(self, vectors, at)
        order.append(f"wrote {at}")

    monkeypatch.setattr(VectorFiles, "append", slow)
    assert build(tmp_path / "x", source, Telling(), batch=8).added == 10
    assert order == ["computes 4", "computes 4", "wrote 0", "computes 2", "wrote 4", "wrote 8"]
    assert ImageIndex.open(tmp_path / "x").verify() == []
