"""Every byte of an index is below a hash, and what comes from elsewhere is refused in words."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import data
from index_world import ColourEmbedder, build, nearest, paint
from shards import packed, png

from mmrerank.corpus import open_corpora
from mmrerank.errors import ImageIndexError
from mmrerank.index import manifest
from mmrerank.index.index import ImageIndex
from mmrerank.index.record import COLUMNS, checksum
from mmrerank.index.records import Record, Records
from mmrerank.ports import Corpus, Sample


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index with everything that one can hold: a saved view, and copies of images."""
    place = tmp_path_factory.mktemp("whole")
    (place / "p").mkdir()
    paint(place / "p", ["a.png", "b.png", "ü.png"])
    members = [(f"{c}.{e}", d) for c in (10, 200) for e, d in (("png", png(c)), ("txt", b"%d" % c))]
    (place / "s.tar.gz").write_bytes(gzip.compress(packed(members)))
    corpora = open_corpora([str(place / "p"), str(place / "s.tar.gz")])
    ImageIndex.build(place / "x", corpora, ColourEmbedder())
    paint(place / "p", ["late.png"], start=70)
    ImageIndex.build(place / "x", open_corpora([str(place / "p")]), ColourEmbedder())
    return place / "x"


def found(index: Path, *, deep: bool = False) -> list[str]:
    try:
        with ImageIndex.open(index) as opened:
            return opened.verify(deep=deep)
    except ImageIndexError as error:
        return [str(error)]


@pytest.mark.parametrize("flips", [150, pytest.param(2000, marks=pytest.mark.slow)])
def test_no_flipped_bit_is_missed(whole: Path, flips: int) -> None:
    assert found(whole, deep=True) == []
    # what SQLite keeps beside a database for its readers is made anew by the next one
    files = sorted(
        p for p in whole.rglob("*") if p.stat().st_size and p.is_file() and p.suffix != ".sqlite-shm"
    )
    names = {p.relative_to(whole).as_posix() for p in files}
    assert {"manifest.json", "records.sqlite", "vectors/00000.npy", "kept.bin"} <= names
    chance = random.Random(flips)
    missed = []
    for number in range(flips):
        # half by the byte, so that large files get most; half by the file
        sizes = [p.stat().st_size for p in files]
        (path,) = chance.choices(files, sizes if number % 2 else None)
        at, bit = chance.randrange(path.stat().st_size), chance.randrange(8)
        with path.open("r+b") as file:
            file.seek(at)
            (old,) = file.read(1)
            file.seek(at)
            file.write(bytes([old ^ 1 << bit]))
            file.flush()
            problems = found(whole)
            file.seek(at)
            file.write(bytes([old]))
        if not any(path.name in p or path.parent.name in p for p in problems):
            missed.append((path.name, at, bit, problems))
    assert missed == []
    assert found(whole, deep=True) == []


# From elsewhere: whoever makes an index can make its checksums right, too


def sealed(index: Path, **facts: Any) -> None:
    """Changes the manifest, and makes its checksum right."""
    body = json.loads((index / "manifest.json").read_text())
    del body["checksum"]
    body |= facts
    digest = hashlib.sha256(json.dumps(body).encode()).hexdigest()
    (index / "manifest.json").write_text(json.dumps({**body, "checksum": digest}, indent=2) + "\n")


FIELDS = "n, name, images, text, date, number, boolean, list, other, odd"


def sql(index: Path, *statements: str, right: bool = True) -> None:
    """Changes the database, and makes its checksums ``right``."""
    db = sqlite3.connect(index / "records.sqlite", isolation_level=None)
    for statement in ("PRAGMA ignore_check_constraints = ON", *statements):
        db.execute(statement)
    if right:
        total, names = 0, ",".join(f'"{c}"' for c in COLUMNS)
        rows = db.execute(f"SELECT seq,{names} FROM records").fetchall()
        for row in rows:
            total += checksum(row)
            db.execute("UPDATE records SET checksum = ? WHERE seq = ?", [checksum(row), row[0]])
        fields = db.execute(f"SELECT {FIELDS} FROM fields").fetchall()
        for field in fields:
            db.execute("UPDATE fields SET checksum = ? WHERE n = ?", [checksum(field), field[0]])
        sums = (total, sum(map(checksum, fields)))
        state = [9, len(rows), *((s + 2**63) % 2**64 - 2**63 for s in sums)]
        db.execute("DELETE FROM state")
        db.execute("INSERT INTO state VALUES (?, ?, ?, ?, ?)", [*state, checksum(state)])
    db.close()


def long(index: Path) -> None:
    with (index / "manifest.json").open("wb") as file:
        file.truncate(1 << 30)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def shard(index: Path, **changes: Any) -> None:
    (one,) = json.loads((index / "manifest.json").read_text())["shards"]
    sealed(index, shards=[{**one, **changes}])


@pytest.mark.parametrize(
    ("attack", "says"),
    [
        (lambda x: shard(x, file="../../p/00.png"), "lists '../../p/00.png' where 00000.npy belongs"),
        (lambda x: shard(x, file="/etc/passwd"), "lists '/etc/passwd' where 00000.npy belongs"),
        (lambda x: shard(x, rows=2**60), "shards have 1152921504606846976 rows"),
        (lambda x: sealed(x, store="../p"), "store is '../p'"),
        (lambda x: sealed(x, store="nothing"), "made for another store: there is no store 'nothing'"),
        (lambda x: sealed(x, source="a\0b"), "source holds a NUL"),
        (lambda x: sealed(x, source="\ud800"), "surrogates not allowed"),
        (lambda x: sealed(x, dim=10**400), "dim is 1000000"),
        (lambda x: sealed(x, dim=1e308), "dim is 1e"),
        (lambda x: (x / "manifest.json").write_text("[" * 1_000_000), "recursion"),
        (long, "has 1,073,741,824 bytes; at most 4,194,304 are read (MAX_BYTES"),
        (lambda x: pipe(x / "manifest.json"), "manifest.json is a pipe or a device"),
        (lambda x: pipe(x / "vectors/00000.npy"), "00000.npy is a pipe or a device"),
        (lambda x: pipe(x / "records.sqlite"), "records.sqlite is a pipe or a device"),
        (
            lambda x: (x / "records.sqlite-journal").write_bytes(b"\xd9\xd5"),
            "-journal is no file of an index",
        ),
        (lambda x: sql(x, "UPDATE records SET row = -1 WHERE seq = 3"), "the rows -1 to"),
        (lambda x: sql(x, f"UPDATE records SET row = {2**62} WHERE seq = 3"), "to 4611686018427387904"),
        (lambda x: sql(x, "UPDATE records SET row = 2.5 WHERE seq = 3"), "a row is no whole number"),
        (lambda x: sql(x, "UPDATE records SET row = 1 WHERE seq = 3"), "has the vector of another image"),
        (lambda x: sql(x, "UPDATE records SET row = 1 WHERE seq = 3", right=False), "not as it was written"),
        (lambda x: sql(x, "UPDATE records SET id = x'00' WHERE seq = 3"), "id is b'\\x00'"),
        (lambda x: sql(x, "UPDATE records SET path = x'610062'"), "path is b'a\\x00b'"),
        (lambda x: sql(x, "UPDATE records SET width = 'wide'"), "width is 'wide'"),
        (lambda x: sql(x, "UPDATE records SET metadata = '[1]'"), "metadata are list"),
        (
            lambda x: sql(x, "UPDATE records SET metadata = zeroblob(20000000) WHERE seq = 3", right=False),
            "a record is longer than 16,777,216 bytes (LONGEST",
        ),
        (lambda x: sql(x, "CREATE VIEW more AS SELECT 1"), "its tables are others"),
        (
            lambda x: sql(x, "CREATE TRIGGER t AFTER INSERT ON records BEGIN DELETE FROM vectors; END"),
            "its tables are others",
        ),
    ],
)
def test_what_no_index_of_ours_holds(source: Path, tmp_path: Path, attack: Any, says: str) -> None:
    build(tmp_path / "x", source, store="exact")
    attack(tmp_path / "x")
    with pytest.raises(ImageIndexError, match=re.escape(says)):
        nearest(ImageIndex.open(tmp_path / "x"), source / "00.png", 99)
    assert found(tmp_path / "x")


@pytest.mark.parametrize("name", ["manifest.json", "records.sqlite", "vectors", "vectors/00000.npy", "lock"])
def test_no_link_is_followed_out_of_an_index(source: Path, tmp_path: Path, name: str) -> None:
    build(tmp_path / "x", source)
    (tmp_path / "x" / name).rename(tmp_path / "theirs")
    (tmp_path / "x" / name).symlink_to(tmp_path / "theirs")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    for what in (lambda: ImageIndex.open(tmp_path / "x"), lambda: build(tmp_path / "x", source)):
        with pytest.raises(ImageIndexError, match=f"{name} is a link"):
            what()
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_no_temporary_file_is_written_through_a_link(source: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("precious")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / manifest.TEMPORARY).symlink_to(tmp_path / "theirs")
    build(tmp_path / "x", source)
    assert (tmp_path / "theirs").read_text() == "precious"
    assert found(tmp_path / "x") == []


@pytest.mark.parametrize("store", ["exact", "faiss"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, 3.0])
def test_a_search_does_not_answer_from_damaged_vectors(
    source: Path, tmp_path: Path, store: str, value: float
) -> None:
    pytest.importorskip("faiss")
    build(tmp_path / "x", source, store=store)
    shutil.rmtree(tmp_path / "x/faiss", ignore_errors=True)
    rows = np.lib.format.open_memmap(tmp_path / "x/vectors/00000.npy", mode="r+")
    rows[3] = value
    rows.flush()
    with pytest.raises(ImageIndexError, match=r"vector 3 .*--rebuild"):
        nearest(ImageIndex.open(tmp_path / "x"), source / "00.png", 99)
    with pytest.raises(ImageIndexError, match=r"vector 3 .*--rebuild"):
        ImageIndex.open(tmp_path / "x").vectors(["02.png", "03.png"])
    problems = found(tmp_path / "x")
    assert any("00000.npy does not have the hash" in p for p in problems)
    assert any("vector 3 (from 0) is not as it was written" in p for p in problems)


def test_damage_is_not_hidden_by_an_update(source: Path, tmp_path: Path) -> None:
    build(tmp_path / "x", source)
    shard = tmp_path / "x/vectors/00000.npy"
    body = bytearray(shard.read_bytes())
    body[-1] ^= 1
    shard.write_bytes(body)
    paint(source, ["late.png"], start=70)
    with pytest.raises(ImageIndexError, match=r"00000.npy is damaged: .* --rebuild"):
        build(tmp_path / "x", source)
    assert found(tmp_path / "x")


def test_a_file_that_is_cut_while_it_is_open_is_an_error(source: Path, tmp_path: Path) -> None:
    """Without a look at its length before each search, this process would end with SIGBUS."""
    build(tmp_path / "x", source, store="exact")
    index = ImageIndex.open(tmp_path / "x")
    nearest(index, source / "00.png")
    os.truncate(tmp_path / "x/vectors/00000.npy", 128)
    with pytest.raises(ImageIndexError, match=r"has become shorter since it was opened: 128 bytes of 608"):
        nearest(index, source / "00.png")
    with pytest.raises(ImageIndexError, match="128 bytes of 608"):
        index.vectors(["00.png"])


CUT = """
import os, sys
import numpy as np
from mmrerank.errors import ImageIndexError
from mmrerank.index.index import ImageIndex
index, query = ImageIndex.open(sys.argv[1], store="exact"), np.ones((1, 512), np.float32)
index.search(query, 3)
os.truncate(sys.argv[1] + "/vectors/00000.npy", 4096)
try:
    index.search(query, 3)
except ImageIndexError as error:
    print(error)
"""


@pytest.mark.slow
def test_pages_behind_the_end_of_a_file_do_not_end_the_process(tmp_path: Path) -> None:
    class Given(Corpus):
        location = str(tmp_path)
        vectors = np.random.default_rng(0).normal(size=(2000, 512)).astype(np.float32)

        def samples(self) -> Iterator[Sample]:
            return (Sample(id=str(n)) for n in range(2000))

    ImageIndex.import_vectors(tmp_path / "x", Given(), embedder_spec="clip-b32", store="exact")
    run = subprocess.run([sys.executable, "-c", CUT, tmp_path / "x"], capture_output=True, text=True)
    assert run.returncode == 0, run
    assert "has become shorter since it was opened: 4096 bytes" in run.stdout


def test_verify_says_that_an_update_is_not_finished(source: Path, tmp_path: Path) -> None:
    build(tmp_path / "x", source)
    with ImageIndex.open(tmp_path / "x") as index:
        assert index.unfinished() == ""
    records = Records(tmp_path / "x", write=True)
    with records.transaction():
        records.put(Record(id="new", error="it is not done yet"))
    records.close()
    told = data("verify", tmp_path / "x")
    assert (told["ok"], told["problems"]) == (True, [])
    assert "To finish it, go on with: mmrerank index" in told["warnings"][-1]
    build(tmp_path / "x", source)
    with ImageIndex.open(tmp_path / "x") as index:
        assert index.unfinished() == ""


@pytest.mark.slow  # SQLite waits five seconds for the reader
def test_a_reader_in_the_way_of_sealing_makes_no_false_alarm(source: Path, tmp_path: Path) -> None:
    build(tmp_path / "x", source)
    reader = sqlite3.connect(tmp_path / "x/records.sqlite", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM records").fetchall()
    paint(source, ["late.png"], start=70)
    build(tmp_path / "x", source)
    assert found(tmp_path / "x") == []
    reader.close()
    assert found(tmp_path / "x") == []
    with ImageIndex.open(tmp_path / "x") as index:
        assert index.unfinished()
    build(tmp_path / "x", source)  # nothing is new, and now nobody is in the way
    with ImageIndex.open(tmp_path / "x") as index:
        assert (index.unfinished(), index.verify()) == ("", [])
