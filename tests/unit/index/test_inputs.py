"""What an index makes of images, names and sources that are not as they should be."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from index_world import ColourEmbedder, build, contents, paint, tally

from mmrerank.errors import ImageIndexError, InputError, ModelError
from mmrerank.index.index import ImageIndex
from mmrerank.ports import Corpus, Sample
from mmrerank.types import Image


def test_images_that_cannot_be_used_are_reported_and_the_rest_indexed(source: Path, tmp_path: Path) -> None:
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
    names = ["line\nbreak.png", "quo'te\".png", "\U0001f600.png", "a b%20.png", os.fsdecode(b"\xff\xfe.png")]
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


def test_an_id_twice_is_refused(source: Path, tmp_path: Path) -> None:
    class Twice(Corpus):
        location = str(source)

        def samples(self) -> Iterable[Sample]:
            for _ in range(2):
                yield Sample(id="a", image=Image(path=source / "00.png"))

    with pytest.raises(InputError, match="'a' twice"):
        ImageIndex.build(tmp_path / "x", Twice(), ColourEmbedder())
    assert not (tmp_path / "x").exists()


def test_an_embedder_that_gives_nonsense_is_stopped(source: Path, tmp_path: Path) -> None:
    class Broken(ColourEmbedder):
        def embed_images(self, images: Any) -> Any:
            return super().embed_images(images) * np.nan

    with pytest.raises(ModelError, match="damaged"):
        build(tmp_path / "x", source, Broken())
    with pytest.raises(ImageIndexError, match="unfinished"):
        ImageIndex.open(tmp_path / "x")
    assert build(tmp_path / "x", source).added == 10
