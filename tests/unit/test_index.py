"""The index on disk: built, brought up to date, killed, damaged, searched."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import index_world
import numpy as np
import PIL.Image
import pytest
from index_world import ColourEmbedder, paint

from mmrerank.corpus import folder as folder_corpus
from mmrerank.errors import IndexError_, InputError, MismatchError, ModelError, UsageError
from mmrerank.index import lock, vectors
from mmrerank.index.index import ImageIndex, Scored, index_path
from mmrerank.index.vectors import VectorFiles
from mmrerank.ports import Sample
from mmrerank.types import Image


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with ten pictures, in two folders."""
    folder = tmp_path / "pictures"
    paint(folder, [f"{n:02d}.png" for n in range(7)] + [f"more/{n}.png" for n in range(3)])
    return folder


def build(index: Path, source: Path, embedder: Any = None, **options: Any) -> Any:
    embedder = embedder or ColourEmbedder()
    return ImageIndex.build(index, folder_corpus.open(str(source)), embedder, **options)


def tally(report: Any) -> tuple[int, int, int, int, int]:
    return (
        report.added,
        report.changed,
        report.removed,
        report.unchanged,
        len(report.failed),
    )


def nearest(index: ImageIndex, picture: Path, k: int = 3) -> list[str]:
    with PIL.Image.open(picture) as image:
        query = ColourEmbedder().embed_images([image.convert("RGB")])
    return [s.id for s in index.search(query, k)[0]]


def contents(path: Path) -> dict[str, tuple[Any, ...]]:
    """Everything that a finished index says about each id, whatever the order it was made in."""
    with ImageIndex.open(path) as index:
        assert index.verify(deep=True) == []
        rows = index._records.rows()
        files = VectorFiles(path / "vectors", index.dim).load(index._records.vectors)
        assert not rows or rows[-1] < len(files)
        return {
            r.id: (
                r.path,
                r.sha256,
                r.width,
                r.height,
                r.error,
                r.row is not None and files[r.row].tolist(),
            )
            for r in index._records.everything()
        }


# Building


def test_build_open_search(source: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int | None]] = []
    report = build(
        tmp_path / "x", source, domain="noise", progress=lambda d, t: steps.append((d, t))
    )
    assert tally(report) == (10, 0, 0, 0, 0)
    assert report.index == tmp_path / "x"
    assert steps == [(n, None) for n in range(1, 11)]
    index = ImageIndex.open(tmp_path / "x")
    assert len(index) == 10
    assert index.ids == [f"{n:02d}.png" for n in range(7)] + [f"more/{n}.png" for n in range(3)]
    assert (index.embedder_spec, index.domain, index.dim) == ("test:colour", "noise", 12)
    assert nearest(index, source / "more/1.png")[0] == "more/1.png"
    assert index.verify(deep=True) == []
    info = index.info()
    assert (info["images"], info["vectors"], info["failed"]) == (10, 10, 0)
    assert json.loads(json.dumps(info)) == info


def test_candidates_carry_what_is_known(source: Path, tmp_path: Path) -> None:
    build(tmp_path / "x", source)
    index = ImageIndex.open(tmp_path / "x")
    query = ColourEmbedder().embed_images([PIL.Image.open(source / "03.png")])[0]
    first, second = index.candidates(query, 2)
    assert first.id == "03.png"
    assert first.score == pytest.approx(1)
    assert second.score is not None
    assert second.score < 1
    assert first.image is not None
    assert first.image.path == source / "03.png"
    assert (first.image.width, first.image.height) == (8, 6)
    assert first.image.digest == Image(path=source / "03.png").digest
    assert index.image("03.png") == first.image
    with pytest.raises(InputError, match=r"no image 'none\.png'"):
        index.image("none.png")


def test_the_store_makes_no_difference(source: Path, tmp_path: Path) -> None:
    build(tmp_path / "x", source)
    queries = np.random.default_rng(0).normal(size=(5, 12)).astype(np.float32)
    found = [
        ImageIndex.open(tmp_path / "x", store=name).search(queries, 4)
        for name in ("exact", "faiss")
    ]
    assert found[0] == found[1]


def test_files_with_the_same_bytes_share_a_vector_and_keep_their_ids(
    source: Path, tmp_path: Path
) -> None:
    shutil.copy(source / "02.png", source / "02-copy.png")
    shutil.copy(source / "02.png", source / "zz.png")
    embedder = ColourEmbedder()
    assert tally(build(tmp_path / "x", source, embedder, batch=3)) == (12, 0, 0, 0, 0)
    assert embedder.embedded == 10
    index = ImageIndex.open(tmp_path / "x")
    assert index.info()["vectors"] == 10
    assert nearest(index, source / "zz.png", 3) == ["02-copy.png", "02.png", "zz.png"]
    assert nearest(index, source / "zz.png", 2) == ["02-copy.png", "02.png"]
    assert len(nearest(index, source / "zz.png", 99)) == 12


def test_only_what_changed_is_embedded_again(source: Path, tmp_path: Path) -> None:
    build(tmp_path / "x", source)
    embedder = ColourEmbedder()
    assert tally(build(tmp_path / "x", source, embedder)) == (0, 0, 0, 10, 0)
    assert embedder.embedded == 0

    paint(source, ["00.png", "new.png"], start=50)  # one changed, one added
    (source / "01.png").unlink()
    (source / "02.png").rename(source / "moved.png")
    os.utime(source / "03.png", ns=(1, 1))  # touched only
    assert tally(build(tmp_path / "x", source, embedder)) == (2, 1, 2, 7, 0)
    assert embedder.embedded == 2
    build(tmp_path / "fresh", source)
    assert contents(tmp_path / "x") == contents(tmp_path / "fresh")
    index = ImageIndex.open(tmp_path / "x")
    assert "01.png" not in nearest(index, source / "00.png", 99)
    assert nearest(index, source / "00.png")[0] == "00.png"
    assert tally(build(tmp_path / "x", source, embedder)) == (0, 0, 0, 10, 0)


def test_a_file_that_comes_back_is_not_embedded_again(source: Path, tmp_path: Path) -> None:
    build(tmp_path / "x", source)
    (source / "01.png").rename(tmp_path / "away.png")
    assert build(tmp_path / "x", source).removed == 1
    (tmp_path / "away.png").rename(source / "back.png")
    embedder = ColourEmbedder()
    assert tally(build(tmp_path / "x", source, embedder)) == (1, 0, 0, 9, 0)
    assert embedder.embedded == 0


def test_images_that_cannot_be_used_are_reported_and_the_rest_indexed(
    source: Path, tmp_path: Path
) -> None:
    (source / "00.png").write_bytes(b"")
    (source / "01.png").write_bytes(b"no image at all")
    (source / "more/2.png").write_bytes((source / "more/2.png").read_bytes()[:70])
    report = build(tmp_path / "x", source)
    assert tally(report) == (7, 0, 0, 0, 3)
    assert [f.source for f in report.failed] == ["00.png", "01.png", "more/2.png"]
    assert all(f.error for f in report.failed)
    index = ImageIndex.open(tmp_path / "x")
    assert len(index) == len(index.ids) == 7
    assert index.info()["failed"] == 3
    # tried again each time, and counted as added once it works
    assert tally(build(tmp_path / "x", source)) == (0, 0, 0, 7, 3)
    paint(source, ["00.png"])
    assert tally(build(tmp_path / "x", source)) == (1, 0, 0, 7, 2)
    # a good one goes bad
    (source / "02.png").write_bytes(b"gone")
    assert tally(build(tmp_path / "x", source)) == (0, 0, 0, 7, 3)
    assert "02.png" not in ImageIndex.open(tmp_path / "x").ids


def test_truncated_and_large_images_on_request(source: Path, tmp_path: Path) -> None:
    PIL.Image.effect_noise((300, 200), 90).convert("RGB").save(source / "big.jpg")
    data = (source / "big.jpg").read_bytes()
    (source / "cut.jpg").write_bytes(data[: len(data) // 2])
    report = build(tmp_path / "x", source, max_pixels=50_000)
    assert [f.source for f in report.failed] == ["big.jpg", "cut.jpg"]
    report = build(tmp_path / "x", source, allow_truncated=True)
    assert tally(report) == (2, 0, 0, 10, 0)


def test_odd_names(tmp_path: Path) -> None:
    source = tmp_path / "p"
    names = [
        "line\nbreak.png",
        "quo'te\".png",
        "\U0001f600.png",
        "a b%20.png",
        os.fsdecode(b"\xff\xfe.png"),
    ]
    paint(source, names)
    assert tally(build(tmp_path / "x", source)) == (5, 0, 0, 0, 0)
    index = ImageIndex.open(tmp_path / "x")
    assert len(set(index.ids)) == 5
    found = [index.image(i) for i in index.ids]
    assert {i.path.name for i in found if i.path} == set(names)
    assert index.verify(deep=True) == []


@pytest.mark.parametrize("existing", [False, True])
def test_an_empty_source_leaves_nothing_behind(tmp_path: Path, existing: bool) -> None:
    (tmp_path / "empty").mkdir()
    if existing:
        (tmp_path / "x").mkdir()
    with pytest.raises(InputError, match=r"no images found in .*empty.*\.jpg"):
        build(tmp_path / "x", tmp_path / "empty")
    assert (tmp_path / "x").exists() == existing


@pytest.mark.parametrize("existing", [False, True])
def test_nothing_but_failures_leaves_nothing_behind(tmp_path: Path, existing: bool) -> None:
    source = tmp_path / "bad"
    source.mkdir()
    for n in range(5):
        (source / f"{n}.jpg").write_bytes(b"x")
    if existing:
        (tmp_path / "x").mkdir()
    with pytest.raises(InputError, match=r"none of the 5 images .*0\.jpg: .*and 2 more"):
        build(tmp_path / "x", source)
    assert (tmp_path / "x").exists() == existing
    assert not existing or not list((tmp_path / "x").iterdir())


def test_a_source_that_has_become_empty_costs_nothing(source: Path, tmp_path: Path) -> None:
    build(tmp_path / "x", source)
    before = contents(tmp_path / "x")
    kept = tmp_path / "kept"
    source.rename(kept)
    source.mkdir()
    with pytest.raises(InputError, match="no images found"):
        build(tmp_path / "x", source)
    (source / "00.png").write_bytes(b"x")
    for rebuild in (False, True):
        with pytest.raises(InputError, match="none of the 1 images"):
            build(tmp_path / "x", source, rebuild=rebuild)
    shutil.rmtree(source)
    kept.rename(source)
    assert contents(tmp_path / "x") == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pictures", "x"]


def test_a_folder_out_of_sight_is_not_a_folder_gone(source: Path, tmp_path: Path) -> None:
    build(tmp_path / "x", source)

    class Blind:
        location = str(source)

        def samples(self) -> Iterable[Sample]:
            yield from (s for s in folder_corpus.open(str(source)).samples() if "more" not in s.id)
            yield Sample(id="more", error="the folder cannot be listed")

    report = ImageIndex.build(tmp_path / "x", Blind(), ColourEmbedder())
    assert tally(report) == (0, 0, 0, 7, 1)
    assert len(ImageIndex.open(tmp_path / "x")) == 10


def test_an_id_twice_is_refused(source: Path, tmp_path: Path) -> None:
    class Twice:
        location = str(source)

        def samples(self) -> Iterable[Sample]:
            for _ in range(2):
                yield Sample(id="a", image=Image(path=source / "00.png"))

    with pytest.raises(InputError, match="'a' twice"):
        ImageIndex.build(tmp_path / "x", Twice(), ColourEmbedder())
    assert not (tmp_path / "x").exists()


def test_spans_of_a_file(source: Path, tmp_path: Path) -> None:
    parts = [(source / f"{n:02d}.png").read_bytes() for n in range(4)]
    pack = tmp_path / "pack.tar"
    pack.write_bytes(b"".join(parts))

    class Packed:
        location = str(pack)

        def samples(self) -> Iterable[Sample]:
            at = 0
            for n, part in enumerate(parts):
                image = Image(path=pack, offset=at, length=len(part))
                yield Sample(id=str(n), image=image, metadata={"caption": f"number {n}"})
                at += len(part)

    assert tally(ImageIndex.build(tmp_path / "x", Packed(), ColourEmbedder())) == (4, 0, 0, 0, 0)
    assert tally(ImageIndex.build(tmp_path / "x", Packed(), ColourEmbedder())) == (0, 0, 0, 4, 0)
    index = ImageIndex.open(tmp_path / "x")
    assert index.image("2").read() == parts[2]
    assert index.candidates(np.ones(12, dtype=np.float32), 1)[0].metadata["caption"][:6] == "number"
    assert index.verify(deep=True) == []


def test_an_embedder_that_gives_nonsense_is_stopped(source: Path, tmp_path: Path) -> None:
    class Broken(ColourEmbedder):
        def embed_images(self, images: Any) -> Any:
            return super().embed_images(images) * np.nan

    with pytest.raises(ModelError, match="damaged"):
        build(tmp_path / "x", source, Broken())
    with pytest.raises(IndexError_, match="unfinished"):
        ImageIndex.open(tmp_path / "x")
    assert build(tmp_path / "x", source).added == 10


# Who may touch it


def test_another_embedder_is_refused(source: Path, tmp_path: Path) -> None:
    build(tmp_path / "x", source)
    other = ColourEmbedder("colour-2")
    index = ImageIndex.open(tmp_path / "x")
    index.check_embedder(ColourEmbedder())
    with pytest.raises(MismatchError, match=r"weights or preprocessing are now others"):
        index.check_embedder(other)
    other.spec = "test:other"
    with pytest.raises(MismatchError, match=r"test:colour.*not with test:other.*--rebuild"):
        index.search(np.ones((1, 12), dtype=np.float32), 1, embedder=other)
    with pytest.raises(MismatchError, match="--rebuild"):
        build(tmp_path / "x", source, other)
    assert tally(build(tmp_path / "x", source, other, rebuild=True)) == (10, 0, 0, 0, 0)
    ImageIndex.open(tmp_path / "x").check_embedder(other)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pictures", "x"]


def test_another_source_is_refused_and_a_moved_one_is_not(source: Path, tmp_path: Path) -> None:
    build(tmp_path / "x", source)
    shutil.copytree(source, tmp_path / "others")
    with pytest.raises(IndexError_, match=r"is the index of .*pictures, not of .*others"):
        build(tmp_path / "x", tmp_path / "others")
    source.rename(tmp_path / "elsewhere")
    assert tally(build(tmp_path / "x", tmp_path / "elsewhere")) == (0, 0, 0, 10, 0)
    assert ImageIndex.open(tmp_path / "x").verify() == []


def test_a_folder_of_something_else_is_left_alone(source: Path, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "thesis.tex").write_text("chapter 1")
    for rebuild in (False, True):
        with pytest.raises(IndexError_, match="something else"):
            build(tmp_path / "x", source, rebuild=rebuild)
    assert (tmp_path / "x" / "thesis.tex").read_text() == "chapter 1"


@pytest.mark.parametrize("rebuild", [False, True])
def test_one_writer_at_a_time(source: Path, tmp_path: Path, rebuild: bool) -> None:
    build(tmp_path / "x", source)
    with (
        lock.writing(tmp_path / "x"),
        pytest.raises(IndexError_, match=f"being written by process {os.getpid()}"),
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


def test_a_killed_build_goes_on_where_it_stopped(tmp_path: Path) -> None:
    source, index = tmp_path / "p", tmp_path / "x"
    paint(source, [f"{n:03d}.png" for n in range(40)])
    for where, after in [("sample", 1), ("embed", 3), ("append", 2), ("sample", 30), ("shards", 1)]:
        killed(index, source, where, after)
        with pytest.raises(IndexError_, match=r"unfinished.*mmrerank index"):
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


@pytest.mark.parametrize(("samples", "lost"), [(17, 1), (20, 0)])
def test_at_most_the_last_batch_is_lost(tmp_path: Path, samples: int, lost: int) -> None:
    source, index = tmp_path / "p", tmp_path / "x"
    paint(source, [f"{n:03d}.png" for n in range(30)])
    killed(index, source, "sample", samples)
    assert build(index, source).unchanged == samples - lost


@pytest.mark.parametrize(
    ("where", "after"), [("sample", 30), ("embed", 5), ("append", 5), ("shards", 1)]
)
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
        with pytest.raises(IndexError_, match=f"process {process.pid};"):
            build(tmp_path / "x", source)
        process.kill()
    assert build(tmp_path / "x", source).failed == ()


def test_a_rebuild_killed_between_its_renames_is_mended(source: Path, tmp_path: Path) -> None:
    build(tmp_path / "x", source)
    (tmp_path / "x").rename(tmp_path / ".x.old")
    assert tally(build(tmp_path / "x", source)) == (0, 0, 0, 10, 0)
    assert not (tmp_path / ".x.old").exists()


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
        (lambda p: np.save(p / "vectors/00000.npy", np.ones((10, 12))), "float64"),
        (lambda p: np.save(p / "vectors/00000.npy", np.ones((4, 12), np.float32)), "4 rows of 10"),
    ],
)
def test_damage_is_named_and_a_rebuild_mends_it(
    source: Path, tmp_path: Path, damage: Any, says: str
) -> None:
    path = tmp_path / "x"
    build(path, source)
    damage(path)
    with pytest.raises(IndexError_, match=says):
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


def test_a_damaged_view_is_made_again(source: Path, tmp_path: Path) -> None:
    build(tmp_path / "x", source)
    expected = nearest(ImageIndex.open(tmp_path / "x"), source / "00.png", 5)
    for damage in (lambda f: f.write_bytes(b"?"), lambda f: f.unlink()):
        damage(tmp_path / "x/faiss/flat.index")
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


def test_many_shards(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = lambda folder, dim: VectorFiles(folder, dim, shard_rows=4)  # noqa: E731
    for module in ("build", "index", "verify"):
        monkeypatch.setattr(f"mmrerank.index.{module}.VectorFiles", small)
    build(tmp_path / "x", source, batch=3)
    assert len(list((tmp_path / "x/vectors").iterdir())) == 3
    paint(source, ["late.png", "later.png"], start=70)
    build(tmp_path / "x", source, batch=3)
    index = ImageIndex.open(tmp_path / "x")
    assert [s.rows for s in index.manifest.shards] == [4, 4, 4]
    assert index.verify() == []
    for name in ("00.png", "late.png", "later.png"):
        assert nearest(index, source / name)[0] == name
    files = VectorFiles(tmp_path / "x/vectors", 12, shard_rows=4)
    files.truncate(6)
    assert files.load(6).shape == (6, 12)
    with pytest.raises(IndexError_, match=r"rows of|missing"):
        files.load(9)
    assert vectors.SHARD_ROWS % 4 == 0


def test_an_index_nobody_can_write_to_is_read(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path / "x", source)
    monkeypatch.setattr(os, "access", lambda *_: False)
    index = ImageIndex.open(tmp_path / "x")
    assert nearest(index, source / "00.png")[0] == "00.png"
    assert not (tmp_path / "x/records.sqlite-wal").exists()


def test_a_place_that_cannot_be_written_is_named(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file/x"):
        with pytest.raises(IndexError_, match=r"file.* cannot be written"):
            build(place, source)


# Asking


def test_names_and_paths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: Path) -> None:
    assert index_path("animals") == Path("indexes/animals")
    assert index_path("./animals") == Path("./animals")
    assert index_path("/a/b") == Path("/a/b")
    assert index_path(".") == Path()
    assert index_path(Path("animals")) == Path("animals")
    with pytest.raises(UsageError):
        index_path(" ")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(IndexError_, match=r"indexes/a; \./indexes has none.*--index a"):
        ImageIndex.open("a")
    ImageIndex.build("birds", folder_corpus.open(str(source)), ColourEmbedder())
    with pytest.raises(IndexError_, match=r"there are: birds.*mmrerank index SOURCE --index a"):
        ImageIndex.open("a")
    assert len(ImageIndex.open("birds")) == 10


def test_queries_are_checked(source: Path, tmp_path: Path) -> None:
    build(tmp_path / "x", source)
    index = ImageIndex.open(tmp_path / "x")
    with pytest.raises(MismatchError, match="12-d vectors of test:colour"):
        index.search(np.ones((1, 13)), 1)
    with pytest.raises(MismatchError, match="need"):
        index.search(np.ones(12), 1)
    for bad in (0.0, np.nan, np.inf):
        with pytest.raises(InputError, match="query vector 1 "):
            index.search(np.stack([np.ones(12), np.full(12, bad)]), 1)
    with pytest.raises(UsageError, match="k must be"):
        index.search(np.ones((1, 12)), 0)
    assert index.search(np.ones((0, 12)), 3) == []
    once, scaled = index.search(np.stack([np.ones(12), 7 * np.ones(12)]), 3)
    assert once == scaled


# Importing


@dataclass
class Given:
    """A corpus with vectors."""

    location: str
    vectors: Any
    names: list[str]

    def samples(self) -> Iterable[Sample]:
        for name in self.names:
            yield Sample(
                id=name, image=Image(path=Path(self.location) / name), metadata={"n": name}
            )


def test_imported_vectors_keep_row_order_and_need_no_model(source: Path, tmp_path: Path) -> None:
    names = ["02.png", "00.png", "lost.png", "01.png"]
    given = Given(str(source), np.array([[3, 4], [1, 0], [6, 8], [0, 2]], np.float16), names)
    report = ImageIndex.import_vectors(
        tmp_path / "x", given, embedder_spec="open_clip:ViT-B-32:openai"
    )
    assert tally(report) == (4, 0, 0, 0, 0)
    index = ImageIndex.open(tmp_path / "x")
    found = index.search(np.array([[3, 4]]), 4)[0]
    assert [s.id for s in found] == ["02.png", "lost.png", "01.png", "00.png"]
    assert found[0] == Scored(id="02.png", score=1.0)
    assert found[0].score == found[1].score
    assert index.image("00.png").width == 8
    assert index.image("lost.png").width is None
    assert [p.split(":")[0] for p in index.verify(deep=True)] == ["lost.png"]
    assert index.candidates(np.array([1, 0]), 1)[0].metadata == {"n": "00.png"}

    embedder = ColourEmbedder()
    embedder.dim = 2
    embedder.spec = "clip-b32"  # a short name of the very model
    index.check_embedder(embedder)
    embedder.spec = "open_clip:ViT-L-14:openai"
    with pytest.raises(MismatchError, match="ViT-B-32:openai"):
        index.check_embedder(embedder)
    with pytest.raises(MismatchError, match="imported"):
        build(tmp_path / "x", source)


def test_importing_again_replaces(source: Path, tmp_path: Path) -> None:
    def run(vectors: Any, names: list[str], spec: str = "clip-b32", **options: Any) -> Any:
        given = Given(str(source), np.array(vectors, np.float32), names)
        return ImageIndex.import_vectors(tmp_path / "x", given, embedder_spec=spec, **options)

    run([[1, 0], [0, 1], [1, 1]], ["a", "b", "c"])
    assert tally(run([[1, 0], [1, 1], [2, 2]], ["a", "b", "d"])) == (1, 1, 1, 1, 0)
    with pytest.raises(MismatchError, match="--rebuild"):
        run([[1, 0]], ["a"], spec="clip-l14-laion")
    assert len(ImageIndex.open(tmp_path / "x")) == 3
    assert tally(run([[1, 0]], ["a"], spec="clip-l14-laion", rebuild=True)) == (1, 0, 0, 0, 0)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pictures", "x"]


@pytest.mark.parametrize(
    ("vectors", "names", "says"),
    [
        ([[1, 0]], ["a", "b"], "more images"),
        ([[1, 0], [0, 1]], ["a"], "only 1 images"),
        ([[1, 0], [0, 1]], ["a", "a"], "twice"),
        ([[1, 0], [0, 0]], ["a", "b"], "vector 1 "),
        ([[1, 0], [0, np.inf]], ["a", "b"], "vector 1 "),
        (np.zeros((0, 2)), [], "no images"),
    ],
)
def test_bad_imports_leave_nothing_behind(
    source: Path, tmp_path: Path, vectors: Any, names: list[str], says: str
) -> None:
    given = Given(str(source), np.asarray(vectors, np.float32), names)
    with pytest.raises(InputError, match=says):
        ImageIndex.import_vectors(tmp_path / "x", given, embedder_spec="clip-b32")
    assert not (tmp_path / "x").exists()


def test_a_source_that_is_gone_is_not_replaced_by_another(source: Path, tmp_path: Path) -> None:
    index = tmp_path / "x"
    build(index, source)
    source.rename(tmp_path / "unmounted")
    other = tmp_path / "other"
    paint(other, ["a.png", "b.png"], start=50)
    with pytest.raises(IndexError_, match="--rebuild"):
        build(index, other)
    with ImageIndex.open(index) as kept:
        assert len(kept) == 10
    assert tally(build(index, tmp_path / "unmounted")) == (0, 0, 0, 10, 0)


def test_copies_are_not_held_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmrerank.index import build as building

    folder = tmp_path / "copies"
    paint(folder, ["0.png"])
    for n in range(1, 40):
        shutil.copy(folder / "0.png", folder / f"{n}.png")
    held: list[int] = []
    commit = building._Run._commit

    def counting(run: Any) -> None:
        held.append(sum(look.pixels is not None for look in run.pending))
        commit(run)

    monkeypatch.setattr(building._Run, "_commit", counting)
    assert build(tmp_path / "x", folder).added == 40
    assert held
    assert max(held) == 0


def test_verify_sees_a_damaged_view(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    index = tmp_path / "x"
    build(index, source, store="faiss")
    nearest_before = nearest(ImageIndex.open(index), source / "00.png")
    assert ImageIndex.open(index).verify() == []
    file = index / "faiss" / "flat.index"
    body = bytearray(file.read_bytes())
    body[-100:] = bytes(100)
    file.write_bytes(body)
    (problem,) = ImageIndex.open(index).verify()
    assert "faiss" in problem
    assert "delete that folder" in problem
    shutil.rmtree(index / "faiss")
    assert nearest(ImageIndex.open(index), source / "00.png") == nearest_before
