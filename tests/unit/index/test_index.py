"""Building an index: what is added, kept, embedded again, reported."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from index_world import ColourEmbedder, build, contents, nearest, paint, tally

from mmrerank.corpus import folder as folder_corpus
from mmrerank.errors import ImageError, ImageIndexError, InputError, MismatchError, UsageError
from mmrerank.images import decode
from mmrerank.index import vectors
from mmrerank.index.index import ImageIndex, index_path
from mmrerank.index.vectors import VectorFiles
from mmrerank.ports import Corpus, Sample
from mmrerank.search import ImageSearch
from mmrerank.types import Image


def test_build_open_search(source: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int | None]] = []
    report = build(tmp_path / "x", source, domain="noise", progress=lambda d, t: steps.append((d, t)))
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
    found = [ImageIndex.open(tmp_path / "x", store=name).search(queries, 4) for name in ("exact", "faiss")]
    assert found[0] == found[1]


def test_a_file_that_has_changed_is_not_known_by_its_old_bytes(source: Path, tmp_path: Path) -> None:
    build(tmp_path / "x", source)
    index = ImageIndex.open(tmp_path / "x")
    old = index.image("03.png")
    paint(source, ["03.png"], start=90)
    now = index.image("03.png")
    assert now.digest == Image(path=source / "03.png").digest != old.digest
    assert (now.sha256, now.width, now.height) == (None, None, None)
    (source / "03.png").unlink()
    assert index.image("03.png") == old


def test_what_an_index_let_in_can_be_shown(source: Path, tmp_path: Path) -> None:
    noise = PIL.Image.effect_noise((300, 200), 90).convert("RGB")
    noise.save(source / "whole.jpg")
    data = (source / "whole.jpg").read_bytes()
    (source / "cut.jpg").write_bytes(data[: len(data) // 2])
    report = build(tmp_path / "x", source, max_pixels=50_000)
    told = {f.source: f.error for f in report.failed}
    assert "is over the limit of 0.05; raise it with --max-pixels" in told["whole.jpg"]
    build(tmp_path / "x", source, allow_truncated=True)
    index = ImageIndex.open(tmp_path / "x")
    with pytest.raises(ImageError, match="cut off|damaged"):
        decode(Image(path=source / "cut.jpg"))
    assert decode(index.image("cut.jpg")).size == (300, 200)
    # the size that a record tells raises no limit
    assert (index.image("whole.jpg").width, index.image("whole.jpg").height) == (300, 200)
    with pytest.raises(ImageError, match=r"over the limit of 0\.05;"):
        decode(index.image("whole.jpg"), max_pixels=50_000)


def test_files_with_the_same_bytes_share_a_vector_and_keep_their_ids(source: Path, tmp_path: Path) -> None:
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


def test_spans_of_a_file(source: Path, tmp_path: Path) -> None:
    parts = [(source / f"{n:02d}.png").read_bytes() for n in range(4)]
    pack = tmp_path / "pack.tar"
    pack.write_bytes(b"".join(parts))

    class Packed(Corpus):
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


def test_many_shards(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = lambda folder, dim, **more: VectorFiles(folder, dim, shard_rows=4, **more)  # noqa: E731
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
    # each shard is read by itself: together they may not fit into memory
    monkeypatch.setattr(VectorFiles, "load", None)
    wanted = ["later.png", "00.png", "more/0.png", "00.png"]
    expected = ColourEmbedder().embed_images([PIL.Image.open(source / name) for name in wanted])
    assert index.vectors(wanted) == pytest.approx(expected, abs=1e-6)
    assert index.vectors([]).shape == (0, 12)
    monkeypatch.undo()
    files = VectorFiles(tmp_path / "x/vectors", 12, shard_rows=4)
    files.truncate(6)
    assert files.load(6).shape == (6, 12)
    with pytest.raises(ImageIndexError, match=r"rows of|missing"):
        files.load(9)
    assert vectors.SHARD_ROWS % 4 == 0


def test_names_and_paths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: Path) -> None:
    assert index_path("animals") == Path("indexes/animals")
    assert index_path("./animals") == Path("./animals")
    assert index_path("/a/b") == Path("/a/b")
    assert index_path(".") == Path()
    assert index_path(Path("animals")) == Path("animals")
    with pytest.raises(UsageError):
        index_path(" ")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImageIndexError, match=r"indexes/a; \./indexes has none.*--index a"):
        ImageIndex.open("a")
    ImageIndex.build("birds", folder_corpus.open(str(source)), ColourEmbedder())
    with pytest.raises(ImageIndexError, match=r"there are: birds.*mmrerank index SOURCE --index a"):
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
    searcher = ImageSearch(index, embedder=ColourEmbedder())
    for k in (0, -1):
        with pytest.raises(UsageError, match=f"k must be at least 1, not {k}"):
            searcher.search("a", k=k)


def test_large_images_do_not_wait_for_a_full_batch(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmrerank.index import build as building

    batches: list[int] = []

    class Counting(ColourEmbedder):
        def embed_images(self, images: Any) -> Any:
            batches.append(len(images))
            return super().embed_images(images)

    monkeypatch.setattr(building, "_COMMIT_PIXELS", 3 * 8 * 6)
    assert build(tmp_path / "x", source, Counting()).added == 10
    assert batches == [3, 3, 3, 1]
    batches.clear()
    ready = Counting()
    ready.prepares = True  # what is prepared is small
    assert build(tmp_path / "y", source, ready).added == 10
    assert batches == [10]


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
