"""What an index refuses, and what it survives: other embedders, two writers, kill -9, damage."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import index_world
import numpy as np
import pytest
from denied import denied
from index_world import ColourEmbedder, build, contents, load_flat, nearest, paint, save_flat, tally

from mmrerank.errors import ImageIndexError, MismatchError, ModelError
from mmrerank.index import lock
from mmrerank.index.index import ImageIndex
from mmrerank.index.stores import faiss as faiss_store
from mmrerank.index.vectors import VectorFiles


def test_another_embedder_is_refused(source: Path, tmp_path: Path) -> None:
    build(tmp_path / "x", source)
    other = ColourEmbedder("colour-2")
    index = ImageIndex.open(tmp_path / "x")
    index.check_embedder(ColourEmbedder())
    with pytest.raises(MismatchError, match=r"weights, prompt or preprocessing are now others"):
        index.check_embedder(other)
    other.spec = "test:other"
    with pytest.raises(MismatchError, match=r"test:colour.*not with test:other.*--rebuild"):
        index.search(np.ones((1, 12), dtype=np.float32), 1, embedder=other)
    with pytest.raises(MismatchError, match="--rebuild"):
        build(tmp_path / "x", source, other)
    assert tally(build(tmp_path / "x", source, other, rebuild=True)) == (10, 0, 0, 0, 0)
    ImageIndex.open(tmp_path / "x").check_embedder(other)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pictures", "x"]


def test_another_source_is_added_and_a_moved_one_is_not(source: Path, tmp_path: Path) -> None:
    build(tmp_path / "x", source)
    shutil.copytree(source, tmp_path / "others")
    assert build(tmp_path / "x", tmp_path / "others").sources == (str(source), str(tmp_path / "others"))
    source.rename(tmp_path / "elsewhere")
    report = build(tmp_path / "x", tmp_path / "elsewhere")
    assert tally(report) == (0, 0, 0, 10, 0)
    assert report.sources == (str(tmp_path / "elsewhere"), str(tmp_path / "others"))
    assert ImageIndex.open(tmp_path / "x").verify() == []


def test_a_folder_of_something_else_is_left_alone(source: Path, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "thesis.tex").write_text("chapter 1")
    for rebuild in (False, True):
        with pytest.raises(ImageIndexError, match="something else"):
            build(tmp_path / "x", source, rebuild=rebuild)
    assert (tmp_path / "x" / "thesis.tex").read_text() == "chapter 1"


@pytest.mark.parametrize("rebuild", [False, True])
def test_one_writer_at_a_time(source: Path, tmp_path: Path, rebuild: bool) -> None:
    build(tmp_path / "x", source)
    with (
        lock.writing(tmp_path / "x"),
        pytest.raises(ImageIndexError, match=f"being written by process {os.getpid()}"),
    ):
        build(tmp_path / "x", source, rebuild=rebuild)
    assert build(tmp_path / "x", source, rebuild=rebuild).failed == ()


def test_readers_go_on_while_somebody_writes(source: Path, tmp_path: Path) -> None:
    build(tmp_path / "x", source)
    index = ImageIndex.open(tmp_path / "x")
    expected = nearest(index, source / "05.png", 99)
    paint(source, ["late.png"], start=70)
    build(tmp_path / "x", source)
    assert nearest(index, source / "05.png", 99) == expected
    assert len(nearest(ImageIndex.open(tmp_path / "x"), source / "05.png", 99)) == 11


# Killed


def run(index: Path, source: Path, where: str, after: float) -> subprocess.Popen[str]:
    """A process that builds ``index`` and dies at ``where``; see `index_world.main`."""
    command = [sys.executable, index_world.__file__, str(index), str(source), where, str(after)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def killed(index: Path, source: Path, where: str, after: int) -> None:
    with run(index, source, where, after) as process:
        assert process.wait(60) == -signal.SIGKILL


@pytest.mark.slow
def test_a_killed_build_goes_on_where_it_stopped(tmp_path: Path) -> None:
    source, index = tmp_path / "p", tmp_path / "x"
    paint(source, [f"{n:03d}.png" for n in range(40)])
    for where, after in [("sample", 1), ("embed", 3), ("append", 2), ("sample", 30), ("shards", 1)]:
        killed(index, source, where, after)
        with pytest.raises(ImageIndexError, match=r"unfinished.*mmrerank index"):
            ImageIndex.open(index)
        if where == "sample" and after == 30:
            # a write that was torn in the middle
            with (index / "vectors/00000.npy").open("ab") as file:
                file.write(b"half a vector")
    embedder = ColourEmbedder()
    assert tally(build(index, source, embedder)) == (0, 0, 0, 40, 0)
    assert embedder.embedded == 0
    build(tmp_path / "fresh", source)
    assert contents(index) == contents(tmp_path / "fresh")


@pytest.mark.parametrize("samples", [17, 20])
def test_at_most_the_last_batch_is_lost(tmp_path: Path, samples: int) -> None:
    source, index = tmp_path / "p", tmp_path / "x"
    paint(source, [f"{n:03d}.png" for n in range(30)])
    killed(index, source, "sample", samples)
    assert samples - 4 <= build(index, source).unchanged <= samples


@pytest.mark.parametrize(("where", "after"), [("sample", 30), ("embed", 10), ("append", 10), ("shards", 1)])
def test_a_killed_update_leaves_an_index_that_works(tmp_path: Path, where: str, after: int) -> None:
    source, index = tmp_path / "p", tmp_path / "x"
    paint(source, [f"{n:03d}.png" for n in range(20)])
    build(index, source)
    paint(source, [f"{n:03d}.png" for n in range(10, 40)], start=100)
    killed(index, source, where, after)
    opened = ImageIndex.open(index)
    assert 20 < len(opened) <= 40
    assert {p.split(":")[0] for p in opened.verify(deep=True)} <= set(opened.ids)
    assert nearest(opened, source / "003.png")[0] == "003.png"
    assert nearest(opened, source / "020.png")[0] == "020.png"
    opened.close()
    assert sum(tally(build(index, source))[:4]) == 40
    build(tmp_path / "fresh", source)
    assert contents(index) == contents(tmp_path / "fresh")


def test_a_process_that_writes_is_named(source: Path, tmp_path: Path) -> None:
    with run(tmp_path / "x", source, "wait", 60) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        with pytest.raises(ImageIndexError, match=f"process {process.pid};"):
            build(tmp_path / "x", source)
        process.kill()
    assert build(tmp_path / "x", source).failed == ()


def test_a_rebuild_killed_between_its_renames_is_mended(source: Path, tmp_path: Path) -> None:
    build(tmp_path / "x", source)
    (tmp_path / "x").rename(tmp_path / ".x.old")
    assert tally(build(tmp_path / "x", source)) == (0, 0, 0, 10, 0)
    assert not (tmp_path / ".x.old").exists()


# Refused by the system


@pytest.mark.parametrize("file", [".", "manifest.json", "records.sqlite", "vectors", "vectors/00000.npy"])
def test_a_file_that_may_not_be_opened_is_not_called_damaged(source: Path, tmp_path: Path, file: str) -> None:
    path = tmp_path / "x"
    build(path, source)
    with denied(path / file), pytest.raises(ImageIndexError) as refusal:
        nearest(ImageIndex.open(path), source / "00.png")
    assert "Permission denied; this user has no right to it" in str(refusal.value)
    assert "damaged" not in str(refusal.value)
    assert "--rebuild" not in str(refusal.value)
    assert nearest(ImageIndex.open(path), source / "00.png")[0] == "00.png"


def test_a_folder_that_may_not_be_written_keeps_its_index(source: Path, tmp_path: Path) -> None:
    path = tmp_path / "x"
    build(path, source)
    paint(source, ["late.png"], start=70)
    with denied(path, 0o555):
        with pytest.raises(ImageIndexError, match=r"x cannot be written: Permission denied"):
            build(path, source)
        assert len(ImageIndex.open(path)) == 10
    assert tally(build(path, source)) == (1, 0, 0, 10, 0)


def test_verify_names_what_may_not_be_read(source: Path, tmp_path: Path) -> None:
    path = tmp_path / "x"
    build(path, source, store="exact")
    index = ImageIndex.open(path)
    with denied(path / "vectors/00000.npy"):
        assert [p.split(" ")[0] for p in index.verify()] == [str(path / "vectors/00000.npy")]
    with denied(source / "00.png"):
        (told,) = index.verify(deep=True)
        assert told.startswith(f"00.png: {source}/00.png cannot be read: Permission denied")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_disk_that_takes_no_more_is_named(
    source: Path, tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(VectorFiles, "append", refuse)
    with pytest.raises(ImageIndexError, match=rf"x cannot be written: {os.strerror(number)}; ") as refusal:
        build(tmp_path / "x", source)
    assert "--rebuild" not in str(refusal.value)


# Damaged


def corrupt(path: Path, change: Any) -> None:
    facts = json.loads((path / "manifest.json").read_text())
    change(facts)
    (path / "manifest.json").write_text(json.dumps(facts))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda p: (p / "manifest.json").unlink(), r"not an index.*manifest\.json"),
        (lambda p: (p / "manifest.json").write_text("{"), "cannot be read"),
        (lambda p: (p / "manifest.json").write_bytes(b"\xff\x00"), "cannot be read"),
        (lambda p: (p / "manifest.json").write_text("[1]"), "not the manifest"),
        (lambda p: corrupt(p, lambda f: f.update(format=99)), "format 99"),
        (lambda p: corrupt(p, lambda f: f.update(dim="wide")), "damaged"),
        (lambda p: corrupt(p, lambda f: f.update(dim=0)), "damaged"),
        (lambda p: corrupt(p, lambda f: f.update(surprise=1)), "damaged"),
        (lambda p: corrupt(p, lambda f: f.pop("shards")), "damaged"),
        (lambda p: corrupt(p, lambda f: f.update(shards=[1])), "damaged"),
        (lambda p: (p / "records.sqlite").unlink(), "is missing"),
        (lambda p: (p / "records.sqlite").write_bytes(b"not a database" * 100), "damaged"),
        (lambda p: (p / "records.sqlite").write_bytes(b""), "not a database of mmrerank"),
        (lambda p: foreign(p), "not a database of mmrerank"),
        (lambda p: version(p, 99), "schema 99"),
        (lambda p: version(p, 0), "old schema 0"),
        (lambda p: (p / "vectors/00000.npy").unlink(), "is missing"),
        (lambda p: (p / "vectors/00000.npy").write_bytes(b""), "damaged"),
        (lambda p: cut(p / "vectors/00000.npy"), "damaged"),
        (lambda p: np.save(p / "vectors/00000.npy", np.ones((10, 9), np.float32)), "width"),
        (lambda p: np.save(p / "vectors/00000.npy", np.ones((10, 12))), "<f8"),
        (lambda p: np.save(p / "vectors/00000.npy", np.ones((4, 12), np.float32)), "4 rows of 10"),
    ],
)
def test_damage_is_named_and_a_rebuild_mends_it(source: Path, tmp_path: Path, damage: Any, says: str) -> None:
    path = tmp_path / "x"
    build(path, source)
    damage(path)
    with pytest.raises(ImageIndexError, match=says):
        nearest(ImageIndex.open(path), source / "00.png")
    build(path, source, rebuild=True)
    assert nearest(ImageIndex.open(path), source / "00.png")[0] == "00.png"


def foreign(path: Path) -> None:
    (path / "records.sqlite").unlink()
    with sqlite3.connect(path / "records.sqlite") as db:
        db.execute("CREATE TABLE songs (title)")
    db.close()


def version(path: Path, number: int) -> None:
    with sqlite3.connect(path / "records.sqlite") as db:
        db.execute(f"PRAGMA user_version = {number}")
    db.close()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def test_verify_says_what_is_wrong(source: Path, tmp_path: Path) -> None:
    path = tmp_path / "x"
    build(path, source)
    (source / "00.png").unlink()
    (source / "01.png").write_bytes(b"shorter")
    data = bytearray((source / "02.png").read_bytes())
    data[-1] ^= 1
    (source / "02.png").write_bytes(data)
    index = ImageIndex.open(path)
    assert [p.split(":")[0] for p in index.verify()] == ["00.png", "01.png"]
    assert [p.split(":")[0] for p in index.verify(deep=True)] == ["00.png", "01.png", "02.png"]
    shard = path / "vectors/00000.npy"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert any("hash" in p for p in index.verify())
    cut(shard)
    assert any("damaged" in p for p in index.verify())
    shard.unlink()
    assert any("missing" in p for p in index.verify())


@pytest.fixture
def saving(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that leaves its view on the disk."""
    pytest.importorskip("faiss")
    monkeypatch.setattr(faiss_store.FaissStore, "save", save_flat)
    monkeypatch.setattr(faiss_store.FaissStore, "load", load_flat)


@pytest.mark.usefixtures("saving")
def test_a_damaged_view_is_made_again(source: Path, tmp_path: Path) -> None:
    build(tmp_path / "x", source, store="faiss")
    expected = nearest(ImageIndex.open(tmp_path / "x"), source / "00.png", 5)
    for damage in (lambda f: f.write_bytes(b"?"), lambda f: f.unlink()):
        damage(tmp_path / "x/faiss/flat.npy")
        assert nearest(ImageIndex.open(tmp_path / "x"), source / "00.png", 5) == expected
    (tmp_path / "x/faiss/stamp").write_text("of other vectors")
    assert nearest(ImageIndex.open(tmp_path / "x"), source / "00.png", 5) == expected


def test_without_faiss_the_answers_are_the_same(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path / "x", source, store="faiss")
    expected = nearest(ImageIndex.open(tmp_path / "x"), source / "00.png", 5)
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert nearest(ImageIndex.open(tmp_path / "x"), source / "00.png", 5) == expected
    with pytest.raises(ModelError, match=r'pip install "mmrerank\[cpu\]"'):
        build(tmp_path / "y", source, store="faiss")
    assert not (tmp_path / "y").exists()


def test_an_index_nobody_can_write_to_is_read(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path / "x", source)
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    index = ImageIndex.open(tmp_path / "x")
    assert nearest(index, source / "00.png")[0] == "00.png"
    assert not (tmp_path / "x/records.sqlite-wal").exists()


def test_a_place_that_cannot_be_written_is_named(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file/x"):
        with pytest.raises(ImageIndexError, match=r"file.* cannot be written"):
            build(place, source)


@pytest.mark.usefixtures("saving")
def test_verify_sees_a_damaged_view(source: Path, tmp_path: Path) -> None:
    index = tmp_path / "x"
    build(index, source, store="faiss")
    nearest_before = nearest(ImageIndex.open(index), source / "00.png")
    assert ImageIndex.open(index).verify() == []
    file = index / "faiss" / "flat.npy"
    body = bytearray(file.read_bytes())
    body[-100:] = bytes(100)
    file.write_bytes(body)
    (problem,) = ImageIndex.open(index).verify()
    assert "faiss" in problem
    assert "delete that folder" in problem
    shutil.rmtree(index / "faiss")
    assert nearest(ImageIndex.open(index), source / "00.png") == nearest_before
