"""``kill -9`` at every change of the disk that a rebuild or an import makes: the index always answers."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from index_world import ColourEmbedder, build, contents, nearest, paint, tally
from killing import killed_at

from mmrerank.errors import ImageIndexError, InputError
from mmrerank.index import folders, lock
from mmrerank.index.index import ImageIndex
from mmrerank.index.vectors import VectorFiles
from mmrerank.ports import Corpus, Sample
from mmrerank.types import Image

pytestmark = pytest.mark.skipif(os.name == "nt", reason="kills a forked process")
TWENTY = 20


class Given(Corpus):
    """Vectors for the pictures below a folder."""

    def __init__(self, source: Path) -> None:
        self.location = str(source)
        self.names = sorted(str(p.relative_to(source)) for p in source.rglob("*.png"))
        noise = np.random.default_rng(len(self.names)).normal(size=(len(self.names), 12))
        self.vectors = noise.astype(np.float32)

    def samples(self) -> Any:
        for name in self.names:
            yield Sample(id=name, image=Image(path=Path(self.location) / name))


def imported(index: Path, source: Path) -> Any:
    return ImageIndex.import_vectors(index, Given(source), embedder_spec="clip-b32")


def alone(tmp_path: Path) -> None:
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pictures", "x"]


@pytest.mark.slow
def test_a_killed_rebuild_goes_on_where_it_stopped(source: Path, tmp_path: Path) -> None:
    index = tmp_path / "x"
    build(index, source, ColourEmbedder("old"))
    before = contents(index)
    step = 0
    again = ColourEmbedder("new")
    while len(folders._plan(tmp_path / ".x.rebuild")) == 0 or _images(tmp_path / ".x.rebuild") < 6:
        step += 1
        assert killed_at(lambda: build(index, source, ColourEmbedder("new"), rebuild=True, batch=2), step)
        assert contents(index) == before
    there = _images(tmp_path / ".x.rebuild")
    # an ordinary run goes on with the old index, and says what waits
    report = build(index, source, ColourEmbedder("old"))
    assert tally(report) == (0, 0, 0, 10, 0)
    assert f".x.rebuild holds the {there} images of a stopped --rebuild" in report.remarks[0]
    report = build(index, source, again, rebuild=True, batch=2)
    assert report.remarks == (
        f"went on with the {there} images that a --rebuild had embedded when it was stopped",
    )
    assert again.embedded == 10 - there
    assert ImageIndex.open(index).verify(deep=True) == []
    alone(tmp_path)


def _images(folder: Path) -> int:
    return folders.count_of(folder)


def test_what_a_stopped_rebuild_of_another_model_left_is_discarded(source: Path, tmp_path: Path) -> None:
    index = tmp_path / "x"
    build(index, source)

    def stop(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    def stopped(fingerprint: str) -> None:
        with pytest.raises(KeyboardInterrupt):
            build(index, source, ColourEmbedder(fingerprint), rebuild=True, batch=1, progress=stop)
        assert (tmp_path / ".x.rebuild" / folders.PLAN).exists()

    stopped("one")
    other = ColourEmbedder("two")
    report = build(index, source, other, rebuild=True)
    assert other.embedded == 10
    assert "of other sources, options or another model, and was discarded" in report.remarks[0]
    alone(tmp_path)
    stopped("three")
    (tmp_path / ".x.rebuild" / "records.sqlite").write_bytes(b"not a database" * 100)
    report = build(index, source, ColourEmbedder("three"), rebuild=True)
    assert "is damaged, and was discarded" in report.remarks[0]
    alone(tmp_path)


def test_a_second_rebuild_is_told(source: Path, tmp_path: Path) -> None:
    index = tmp_path / "x"
    build(index, source)

    def second(done: int, total: int | None) -> None:
        for rebuild in (True, False):
            with pytest.raises(ImageIndexError, match=f"being written by process {os.getpid()}"):
                build(index, source, rebuild=rebuild)

    build(index, source, rebuild=True, progress=second)
    alone(tmp_path)


def test_a_lock_of_a_folder_that_was_replaced_is_none(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path / "x", source)
    take = lock.lock

    def late(file: Any) -> bool:
        monkeypatch.setattr(lock, "lock", take)
        build(tmp_path / "x", source, rebuild=True)
        return take(file)

    monkeypatch.setattr(lock, "lock", late)
    with pytest.raises(ImageIndexError, match="was replaced by another process just now"):
        build(tmp_path / "x", source)


@pytest.mark.parametrize("one_step", [True, False])
def test_a_search_finds_an_index_at_every_step_of_the_swap(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_step: bool
) -> None:
    index = tmp_path / "x"
    if not one_step:
        monkeypatch.setattr(folders, "exchange", lambda *_: False)
    build(index, source)
    early = ImageIndex.open(index)
    expected = nearest(early, source / "05.png", 99)
    swap = folders._swap
    paint(source, ["late.png"], start=70)

    def step(work: Any) -> Any:
        def wrapped(*args: Any) -> Any:
            found.append(len(nearest(ImageIndex.open(index), source / "05.png", 99)))
            result = work(*args)
            found.append(len(nearest(ImageIndex.open(index), source / "05.png", 99)))
            return result

        return wrapped

    def watched(folder: Path) -> None:
        monkeypatch.setattr(os, "rename", step(os.rename))
        swap(folder)

    found: list[int] = []
    monkeypatch.setattr(folders, "_swap", step(watched))
    build(index, source, rebuild=True)
    assert found == ([10, 11] if one_step and len(found) == 2 else [10, 10, 10, 10, 11, 11])
    assert nearest(early, source / "05.png", 99) == expected
    alone(tmp_path)


@pytest.mark.parametrize("where", ["append", "exchange", "rename"])
def test_a_full_disk_leaves_the_old_index(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    index = tmp_path / "x"
    build(index, source)
    before = contents(index)

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        if where == "append":
            patch.setattr(VectorFiles, "append", refuse)
        elif where == "exchange":
            patch.setattr(folders, "exchange", refuse)
        else:
            patch.setattr(folders, "exchange", lambda *_: False)
            rename, left = os.rename, [2]

            def second(*args: Any) -> None:
                left[0] -= 1
                refuse() if left[0] == 0 else rename(*args)

            patch.setattr(os, "rename", second)
        with pytest.raises(ImageIndexError, match="No space left on device; make room on that disk"):
            build(index, source, ColourEmbedder("new"), rebuild=True)
    assert contents(index) == before
    again = ColourEmbedder("new")
    build(index, source, again, rebuild=True)
    assert again.embedded == (10 if where == "append" else 0)
    alone(tmp_path)


def test_a_rebuild_that_would_lose_many_images_needs_leave(tmp_path: Path) -> None:
    source, index = tmp_path / "pictures", tmp_path / "x"
    paint(source, [f"{n:02d}.png" for n in range(30)])
    build(index, source)
    before = contents(index)
    (tmp_path / "away").mkdir()
    for n in range(12):
        (source / f"{n:02d}.png").rename(tmp_path / "away" / f"{n:02d}.png")
    with pytest.raises(InputError, match=r"of the 30 images .* 12 would be lost, .*--allow-removal"):
        build(index, source, rebuild=True)
    assert len(ImageIndex.open(index)) == 30
    embedder = ColourEmbedder()
    assert build(index, source, embedder, rebuild=True, allow_removal=True).unchanged == 18
    assert (embedder.embedded, len(ImageIndex.open(index)), len(before)) == (0, 18, 30)


def test_an_import_that_would_lose_many_images_needs_leave(tmp_path: Path) -> None:
    source, index = tmp_path / "pictures", tmp_path / "x"
    paint(source, [f"{n:02d}.png" for n in range(30)])
    imported(index, source)
    for n in range(12):
        (source / f"{n:02d}.png").unlink()
    with pytest.raises(InputError, match=r"12 of the 30 images .*--allow-removal"):
        imported(index, source)
    assert len(ImageIndex.open(index)) == 30
    alone(tmp_path)
    given = Given(source)
    report = ImageIndex.import_vectors(index, given, embedder_spec="clip-b32", allow_removal=True)
    assert (report.removed, len(ImageIndex.open(index))) == (12, 18)


@pytest.mark.slow
@pytest.mark.parametrize("one_step", [True, False])
@pytest.mark.parametrize("work", ["rebuild", "import"])
def test_a_kill_at_every_change_of_the_disk(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work: str, one_step: bool
) -> None:
    index = tmp_path / "x"
    if not one_step:
        monkeypatch.setattr(folders, "exchange", lambda *_: False)

    def first() -> None:
        build(index, source) if work == "rebuild" else imported(index, source)

    def replace() -> None:
        if work == "rebuild":
            build(index, source, ColourEmbedder(), rebuild=True, batch=3)
        else:
            imported(index, source)

    first()
    before = contents(index)
    kills = 0
    while killed_at(replace, kills + 1):
        kills += 1
        opened = ImageIndex.open(index)
        assert len(opened.search(np.ones((1, 12), dtype=np.float32), 99)[0]) == 10
        assert opened.verify(deep=True) == []
        opened.close()
        if kills % 3 == 0:
            replace()
            assert contents(index) == before
            alone(tmp_path)
    assert kills >= TWENTY
    replace()
    assert contents(index) == before
    alone(tmp_path)


@pytest.mark.slow
def test_a_first_import_that_is_killed_is_done_by_the_same_command(source: Path, tmp_path: Path) -> None:
    kills = 0
    while killed_at(lambda: imported(tmp_path / "x", source), kills + 1):
        kills += 1
        if kills % 2:
            imported(tmp_path / "x", source)
            assert ImageIndex.open(tmp_path / "x").verify(deep=True) == []
            alone(tmp_path)
            folders._remove(tmp_path / "x")
    assert kills >= TWENTY // 2
