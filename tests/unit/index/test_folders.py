"""Folders of indexes: what is not an index's is left alone, and what was replaced is noticed."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from index_world import build, nearest, paint, tally

from mmrerank.errors import ImageIndexError
from mmrerank.index.index import ImageIndex


def held(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


@pytest.mark.parametrize("there", [True, False])
def test_a_stranger_beside_the_index_is_left_alone(source: Path, tmp_path: Path, there: bool) -> None:
    if there:
        build(tmp_path / "x", source)
    for name in (".x.old", ".x.rebuild"):
        paint(tmp_path / name, ["holiday.png"])
    build(tmp_path / "x", source)
    for name in (".x.old", ".x.rebuild"):
        with pytest.raises(ImageIndexError, match=rf"\{name} holds something else than an index"):
            build(tmp_path / "x", source, rebuild=True)
        assert held(tmp_path / name) == ["holiday.png"]
        shutil.rmtree(tmp_path / name)
    build(tmp_path / "x", source, rebuild=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pictures", "x"]


@pytest.mark.parametrize("started", [False, True])
def test_what_a_killed_rebuild_left_is_removed(source: Path, tmp_path: Path, started: bool) -> None:
    build(tmp_path / "x", source)
    if started:
        for name in (".x.old", ".x.rebuild"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "lock").write_text("1\n")
            (tmp_path / name / ".manifest.json.tmp").write_text("{")
    else:
        shutil.copytree(tmp_path / "x", tmp_path / ".x.rebuild")
        shutil.copytree(tmp_path / "x", tmp_path / ".x.old")
    assert tally(build(tmp_path / "x", source, rebuild=True)) == (10, 0, 0, 0, 0)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pictures", "x"]


@pytest.mark.parametrize(
    "names", [["lock", "vectors/mine.npy"], ["manifest.json", "index.html"], ["lock", "a.png"]]
)
def test_files_that_are_called_like_ours_make_no_index(
    source: Path, tmp_path: Path, names: list[str]
) -> None:
    paint(tmp_path / "x", names)
    before = held(tmp_path / "x")
    for rebuild in (False, True):
        with pytest.raises(ImageIndexError, match="holds something else than an index"):
            build(tmp_path / "x", source, rebuild=rebuild)
        assert held(tmp_path / "x") == before


def test_an_index_that_was_replaced_gives_no_vectors(source: Path, tmp_path: Path) -> None:
    build(tmp_path / "x", source)
    early, late = ImageIndex.open(tmp_path / "x"), ImageIndex.open(tmp_path / "x")
    expected = nearest(early, source / "05.png", 99)
    # the same number of images, in another order
    (source / "00.png").rename(source / "zz.png")
    build(tmp_path / "x", source, rebuild=True)
    assert nearest(early, source / "05.png", 99) == expected  # all it needs it holds already
    for asked in (lambda: early.vectors(["03.png"]), lambda: late.search(np.ones((1, 12)), 1)):
        with pytest.raises(ImageIndexError, match="was replaced by another index; open it again"):
            asked()
    fresh = ImageIndex.open(tmp_path / "x")
    assert fresh.vectors(["03.png"]).shape == (1, 12)
    assert nearest(fresh, source / "03.png")[0] == "03.png"
    shutil.rmtree(tmp_path / "x")
    with pytest.raises(ImageIndexError, match="was replaced"):
        fresh.vectors(["03.png"])
