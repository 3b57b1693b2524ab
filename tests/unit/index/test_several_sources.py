"""Several sources in one index: no id is of two of them, and none is forgotten for another."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from index_world import ColourEmbedder, contents, paint, tally
from shards import png, write

from mmrerank.corpus import folder as folder_corpus
from mmrerank.corpus import open_corpora
from mmrerank.errors import ImageIndexError, InputError, UsageError
from mmrerank.index.index import ImageIndex


def run(index: Path, *places: Path | str, **options: Any) -> Any:
    corpora = open_corpora([str(p) for p in places], exclude=options.pop("exclude", ()))
    return ImageIndex.build(index, corpora, ColourEmbedder(), **options)


def ids(index: Path) -> list[str]:
    with ImageIndex.open(index) as opened:
        assert opened.verify(deep=True) == []
        return sorted(opened.ids)


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders with files of the same names."""
    paint(tmp_path / "a", ["0.png", "1.png", "sub/2.png"])
    paint(tmp_path / "b", ["0.png", "1.png"], start=10)
    return tmp_path / "a", tmp_path / "b"


@pytest.mark.parametrize("at_once", [True, False])
def test_two_folders(two: tuple[Path, Path], tmp_path: Path, at_once: bool) -> None:
    a, b = two
    if at_once:
        report = run(tmp_path / "x", a, b)
        assert tally(report) == (5, 0, 0, 0, 0)
    else:
        assert tally(run(tmp_path / "x", a)) == (3, 0, 0, 0, 0)
        report = run(tmp_path / "x", b)
        assert tally(report) == (2, 0, 0, 0, 0)
    assert report.sources == (str(a), str(b))
    assert ids(tmp_path / "x") == ["0.png", "1.png", "b//0.png", "b//1.png", "sub/2.png"]
    assert tally(run(tmp_path / "x", b, a)) == (0, 0, 0, 5, 0)
    # what is gone is noticed in the source that was looked at
    (a / "0.png").unlink()
    (b / "0.png").unlink()
    assert tally(run(tmp_path / "x", b)) == (0, 0, 1, 1, 0)
    assert "0.png" in ImageIndex.open(tmp_path / "x").ids
    assert tally(run(tmp_path / "x", a)) == (0, 0, 1, 2, 0)
    assert ids(tmp_path / "x") == ["1.png", "b//1.png", "sub/2.png"]
    with ImageIndex.open(tmp_path / "x") as index:
        assert index.image("b//1.png").path == b / "1.png"
        assert index.info()["sources"] == [str(a), str(b)]


def test_names_cannot_collide(tmp_path: Path) -> None:
    paint(tmp_path / "a", ["b/0.png", "0.png"])
    for number, folder in enumerate(("x/b", "y/b")):
        paint(tmp_path / folder, ["0.png"], start=10 * (number + 1))
    report = run(tmp_path / "i", tmp_path / "a", tmp_path / "x/b", tmp_path / "y/b")
    assert tally(report) == (4, 0, 0, 0, 0)
    assert ids(tmp_path / "i") == ["0.png", "b-2//0.png", "b//0.png", "b/0.png"]


def test_a_part_of_a_source_is_brought_up_to_date_alone(two: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = two
    run(tmp_path / "x", a, b)
    (a / "0.png").unlink()
    (a / "sub/2.png").unlink()
    paint(a, ["sub/new.png", "other.png"], start=30)
    assert tally(run(tmp_path / "x", a / "sub")) == (1, 0, 1, 0, 0)
    paint(b, ["new.png"], start=40)
    # files are added and nothing is removed; each has the id that the walk gives it
    assert tally(run(tmp_path / "x", a / "other.png", b / "new.png", a / "1.png")) == (2, 0, 0, 1, 0)
    listing = folder_corpus.open("-", listing=f"{b}/new.png\n".encode())
    object.__setattr__(listing, "root", b)  # as if the list were made there
    assert tally(ImageIndex.build(tmp_path / "x", listing, ColourEmbedder())) == (0, 0, 0, 1, 0)
    (tmp_path / "x" / "lock").unlink()
    with ImageIndex.open(tmp_path / "x") as index:
        assert sorted(index.ids) == [
            "0.png", "1.png", "b//0.png", "b//1.png", "b//new.png", "other.png", "sub/new.png",
        ]  # fmt: skip
    assert tally(run(tmp_path / "x", a, b)) == (0, 0, 1, 6, 0)


def test_the_folder_of_single_files_completes_them(two: tuple[Path, Path], tmp_path: Path) -> None:
    a, _ = two
    assert tally(run(tmp_path / "x", a / "0.png")) == (1, 0, 0, 0, 0)
    assert tally(run(tmp_path / "x", a / "1.png")) == (1, 0, 0, 0, 0)
    assert tally(run(tmp_path / "x", a)) == (1, 0, 0, 2, 0)
    assert ids(tmp_path / "x") == ["0.png", "1.png", "sub/2.png"]


def test_no_image_twice(two: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = two
    run(tmp_path / "x", a / "sub")
    before = contents(tmp_path / "x")
    with pytest.raises(ImageIndexError, match=r"is the index of .*a/sub, which lies inside .*--rebuild"):
        run(tmp_path / "x", a)
    for places in ((a, a / "sub"), (a / "sub", a), (b, a, a / "sub")):
        with pytest.raises(UsageError, match=r"named twice|lies inside"):
            run(tmp_path / "y", *places)
        assert not (tmp_path / "y").exists()
    (tmp_path / "linked").symlink_to(a / "sub")
    assert tally(run(tmp_path / "x", tmp_path / "linked")) == (0, 0, 0, 1, 0)
    assert contents(tmp_path / "x") == before
    assert tally(run(tmp_path / "x", a, rebuild=True)) == (3, 0, 0, 0, 0)


def test_sources_move_each_by_itself(two: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = two
    run(tmp_path / "x", a, b)
    b.rename(tmp_path / "c")
    report = run(tmp_path / "x", tmp_path / "c")
    assert tally(report) == (0, 0, 0, 2, 0)
    a.rename(tmp_path / "d")
    report = run(tmp_path / "x", tmp_path / "d", tmp_path / "c")
    assert tally(report) == (0, 0, 0, 5, 0)
    assert report.sources == (str(tmp_path / "d"), str(tmp_path / "c"))
    assert ids(tmp_path / "x") == ["0.png", "1.png", "b//0.png", "b//1.png", "sub/2.png"]


def test_a_source_that_comes_to_nothing_leaves_the_others(two: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = two
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/0.png").write_bytes(b"junk")
    with pytest.raises(InputError, match="no images found in .*empty"):
        run(tmp_path / "x", a, tmp_path / "empty")
    assert not (tmp_path / "x").exists()
    run(tmp_path / "x", a, b)
    before = contents(tmp_path / "x"), ImageIndex.open(tmp_path / "x").manifest.sources
    for place in ("empty", "bad"):
        with pytest.raises(InputError, match=place):
            run(tmp_path / "x", tmp_path / place)
        assert (contents(tmp_path / "x"), ImageIndex.open(tmp_path / "x").manifest.sources) == before
    # a known one that is all damaged now keeps what it had
    for name in ("0.png", "1.png"):
        (b / name).write_bytes(b"junk")
    report = run(tmp_path / "x", a, b)
    assert tally(report) == (0, 0, 0, 3, 2)
    assert report.remarks[0] == f"nothing in {b} can be used now; what the index holds of it stays"
    assert (report.kept, len(report.remarks)) == (2, 2)
    assert len(ImageIndex.open(tmp_path / "x")) == 5


class Stopped(Exception):
    """As if the run were killed."""


def test_a_killed_run_keeps_the_new_sources_name(two: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = two
    run(tmp_path / "x", a)

    def stop(done: int, total: int | None) -> None:
        if done == 1:
            raise Stopped

    with pytest.raises(Stopped):
        run(tmp_path / "x", b, progress=stop, batch=1)
    assert [i for i in ids(tmp_path / "x") if "//" in i] == ["b//0.png"]
    assert tally(run(tmp_path / "x", a)) == (0, 0, 0, 3, 0)
    assert tally(run(tmp_path / "x", b)) == (1, 0, 0, 1, 0)


def test_what_was_left_out_is_added_up(two: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = two
    for place in (a / "x.cr2", b / "y.CR2", b / "@eaDir/t.png"):
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(b"x")
    report = run(tmp_path / "x", a, b, exclude=["sub", "none"])
    assert {e.reason: e.counts for e in report.left_out} == {
        "files of kinds that are not read": {".cr2": 2},
        "folders of thumbnails, trash and the like": {"@eaDir": 1},
        "folders that --exclude-dir names": {"sub": 1, "none": 0},
    }
    shutil.rmtree(b)
    b.mkdir()
    (b / "only.psd").write_bytes(b"x")
    with pytest.raises(InputError, match=r"no images found in .*b .*kinds that are not read: \.psd \(1\)"):
        run(tmp_path / "y", b)


def test_shards_beside_a_folder(two: tuple[Path, Path], tmp_path: Path) -> None:
    a, _ = two
    for number in range(3):
        write(tmp_path / f"s/{number}.tar", [("0.png", png(number)), ("0.txt", b"words")])
    assert tally(run(tmp_path / "x", a, tmp_path / "s/0.tar")) == (4, 0, 0, 0, 0)
    assert tally(run(tmp_path / "x", tmp_path / "s/{0..2}.tar")) == (2, 0, 0, 1, 0)
    assert [i for i in ids(tmp_path / "x") if "//" in i] == ["0.tar//0/0", "0.tar//1/0", "0.tar//2/0"]
    with pytest.raises(ImageIndexError, match="has some of these shards; index that again"):
        run(tmp_path / "x", tmp_path / "s/1.tar")
    with pytest.raises(
        InputError, match=r"tar shards: \.tar \(3\); index them .*mmrerank index '.*/s/\*\.tar'"
    ):
        run(tmp_path / "y", tmp_path / "s")
