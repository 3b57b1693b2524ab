"""What an index makes of its source: what is out of sight is kept, what is unfinished or grown goes on."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from index_world import ColourEmbedder, build, paint, tally

from mmrerank.corpus import folder as folder_corpus
from mmrerank.corpus import webdataset
from mmrerank.errors import ImageIndexError
from mmrerank.index import importing, vectors
from mmrerank.index.index import ImageIndex
from mmrerank.ports import Corpus


def pack(shard: Path, start: int) -> None:
    """A shard of two pictures."""
    paint(shard.parent / "loose", ["a.png", "b.png"], start=start)
    with tarfile.open(shard, "w") as tar:
        for name in ("a.png", "b.png"):
            tar.add(shard.parent / "loose" / name, name)


def test_a_folder_that_cannot_be_listed_keeps_its_images(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path / "x", source)
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if Path(path) == source / "more":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    # Tests may run as root, whom no permission stops.
    monkeypatch.setattr(os, "scandir", refuse)
    (source / "00.png").unlink()
    report = build(tmp_path / "x", source)
    assert tally(report) == (0, 0, 1, 6, 1)
    assert report.failed[0].source == "more/"
    assert len(ImageIndex.open(tmp_path / "x")) == 9


def test_a_linked_disk_that_is_away_keeps_its_images(source: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    paint(disk, ["a.png", "b.png"], start=40)
    paint(source, ["own/c.png"], start=50)
    (source / "linked").symlink_to(disk)
    (source / "other").symlink_to(source / "own")
    (source / "round").symlink_to("round")
    assert tally(build(tmp_path / "x", source)) == (13, 0, 0, 0, 0)
    disk.rename(tmp_path / "away")
    # a link into the source itself hides nothing
    (source / "own/c.png").unlink()
    (source / "own").rmdir()
    report = build(tmp_path / "x", source)
    assert tally(report) == (0, 0, 1, 10, 1)
    assert report.failed[0].source == "linked/"
    assert report.failed[0].error == "the folder cannot be listed: No such file or directory"
    assert "linked/a.png" in ImageIndex.open(tmp_path / "x").ids
    (tmp_path / "away").rename(disk)
    assert tally(build(tmp_path / "x", source)) == (0, 0, 0, 12, 0)


def test_a_missing_shard_keeps_its_images(tmp_path: Path) -> None:
    for number in (0, 1):
        pack(tmp_path / f"{number}.tar", start=10 * number)

    def run() -> Any:
        corpus = webdataset.open(str(tmp_path / "{0..1}.tar"))
        return ImageIndex.build(tmp_path / "x", corpus, ColourEmbedder())

    assert tally(run()) == (4, 0, 0, 0, 0)
    (tmp_path / "1.tar").rename(tmp_path / "elsewhere")
    report = run()
    assert tally(report) == (0, 0, 0, 2, 1)
    assert report.failed[0].source == "1.tar"
    assert ImageIndex.open(tmp_path / "x").ids == ["0/a", "0/b", "1/a", "1/b"]


def test_a_pattern_of_shards_may_grow(tmp_path: Path) -> None:
    for number in range(3):
        pack(tmp_path / f"{number}.tar", start=10 * number)

    def run(pattern: str) -> Any:
        corpus = webdataset.open(str(tmp_path / pattern))
        return ImageIndex.build(tmp_path / "x", corpus, ColourEmbedder())

    assert tally(run("0.tar")) == (2, 0, 0, 0, 0)
    assert tally(run("{0..1}.tar")) == (2, 0, 0, 2, 0)
    assert tally(run("{0..2}.tar")) == (2, 0, 0, 4, 0)
    with pytest.raises(ImageIndexError, match="is the index of"):
        run("{1..2}.tar")
    index = ImageIndex.open(tmp_path / "x")
    assert index.manifest.source == str(tmp_path / "{0..2}.tar")
    assert index.verify(deep=True) == []


class Stopped(Exception):
    """As if the run were killed."""


def stop(*_: Any) -> None:
    raise Stopped


def test_an_unfinished_index_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "my pictures"
    paint(source, ["a.png", "b.png"])
    monkeypatch.chdir(source)
    index = tmp_path / "x y"

    def told() -> str:
        with pytest.raises(ImageIndexError, match="is unfinished; ") as caught:
            ImageIndex.open(index)
        return str(caught.value).partition("is unfinished; ")[2]

    with pytest.raises(Stopped):
        build(index, source, progress=stop)
    assert told() == f"go on with: mmrerank index '{source}' --index '{index}'"

    listing = folder_corpus.open("-", listing=b"a.png\n")
    with pytest.raises(Stopped):
        ImageIndex.build(index, listing, ColourEmbedder(), progress=stop, rebuild=True)
    # the rebuilt one comes to nothing as well, so the old one stays
    assert "go on with" in told()
    index = tmp_path / "list"
    with pytest.raises(Stopped):
        ImageIndex.build(index, listing, ColourEmbedder(), progress=stop)
    expected = f"pipe the same list again, in the folder {source}: mmrerank index - --index {index}"
    assert told() == expected
    ImageIndex.build(index, listing, ColourEmbedder())
    assert ImageIndex.open(index).manifest.listed

    index = tmp_path / "given"
    monkeypatch.setattr(importing, "clear", stop)  # what a kill leaves behind is not cleared away
    monkeypatch.setattr(vectors.VectorFiles, "append", stop)

    class Given(Corpus):
        location = str(source)
        vectors = np.eye(2, dtype=np.float32)

        def samples(self) -> Any:
            return folder_corpus.open(str(source)).samples()

    with pytest.raises(Stopped):
        ImageIndex.import_vectors(index, Given(), embedder_spec="clip-b32")
    assert told() == (
        f"import again with: mmrerank index '{source}' --index {index} --vectors V.npy --ids IDS.jsonl "
        "--embedder clip-b32"
    )
