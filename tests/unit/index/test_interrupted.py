"""Whatever ends a run, the next ones make the index that one whole run would have made: the same ids, hashes
and vectors. Killed at random moments, on a full disk, beside another writer, with a source that goes away.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from index_world import ColourEmbedder, build, digest, paint, tally
from killing import begun, ended, killed_after

from mmrerank.errors import ImageIndexError
from mmrerank.index.index import ImageIndex

pytestmark = pytest.mark.skipif(os.name == "nt", reason="forks, and kills what it forked")
BATCH = 8


class Slow(ColourEmbedder):
    """Takes its time, so that there are moments to be killed in."""

    def embed_images(self, images: Any) -> Any:
        time.sleep(0.004 * len(images))
        return super().embed_images(images)


def names(start: int, stop: int) -> list[str]:
    return [f"{n // 40}/{n:03d}.png" for n in range(start, stop)]


def first(source: Path) -> None:
    """A collection, in which some files have the same bytes."""
    paint(source, names(0, 90))
    for n in range(0, 90, 9):
        shutil.copy(source / f"{n // 40}/{n:03d}.png", source / f"copy-{n}.png")


def later(source: Path) -> None:
    """The same collection after some time: pictures were added, changed, renamed and taken away."""
    first(source)
    paint(source, names(90, 160), start=90)
    paint(source, names(20, 30), start=500)
    for n in range(4):
        (source / f"0/{n:03d}.png").unlink()
    (source / "0/005.png").rename(source / "renamed.png")


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path | None, str]]:
    """By name: a source, the index that there is before, and what one whole run makes of both."""
    place = tmp_path_factory.mktemp("worlds")
    first(place / "p")
    build(place / "before", place / "p")
    build(place / "whole", place / "p")
    found: dict[str, tuple[Path, Path | None, str]] = {"first": (place / "p", None, digest(place / "whole"))}
    # an index knows its source by place: the same folder, later
    shutil.copytree(place / "p", place / "q")
    build(place / "before-q", place / "q")
    later(place / "q")
    shutil.copytree(place / "before-q", place / "whole-q")
    build(place / "whole-q", place / "q")
    found["update"] = (place / "q", place / "before-q", digest(place / "whole-q"))
    return found


def start(world: tuple[Path, Path | None, str], index: Path) -> Callable[[], Any]:
    """Puts the index that there is before at ``index``; returns a run over the source."""
    source, before, _ = world
    if before is not None:
        shutil.copytree(before, index)
    return lambda: build(index, source, Slow(), batch=BATCH)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["first", "update"])
def test_kills_at_random_moments_leave_the_index_of_a_whole_run(
    worlds: dict[str, tuple[Path, Path | None, str]], tmp_path: Path, what: str
) -> None:
    world = worlds[what]
    chance = random.Random(what)
    clock = time.perf_counter()
    assert ended(begun(start(world, tmp_path / "alone")))
    long = time.perf_counter() - clock
    assert digest(tmp_path / "alone") == world[2]
    kills, number = 0, 0
    while kills < 12:
        number += 1
        index = tmp_path / f"x{number}"
        run = start(world, index)
        # one run may be killed several times before it is let alone
        while killed_after(run, chance.uniform(0, long)):
            kills += 1
            if world[1] is not None:
                with ImageIndex.open(index) as opened:
                    assert 100 <= len(opened) <= 171
                    assert not [p for p in opened.verify() if "damaged" in p]
        run()
        assert digest(index) == world[2]
        shutil.rmtree(index)
    assert number > 3


def limited(run: Callable[[], Any], size: int) -> None:
    """A run that may make no file larger than so many bytes; it fails with an error of ours, or is done."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    with contextlib.suppress(ImageIndexError):
        run()


@pytest.mark.slow
@pytest.mark.parametrize("what", ["first", "update"])
def test_files_that_may_not_grow_cost_nothing_that_was_written(
    worlds: dict[str, tuple[Path, Path | None, str]], tmp_path: Path, what: str
) -> None:
    world = worlds[what]
    for size in (200, 3_000, 9_000, 30_000, 60_000, 100_000, 140_000):
        index = tmp_path / f"x{size}"
        run = start(world, index)
        child = begun(lambda run=run, size=size: limited(run, size))
        assert ended(child)
        run()
        assert digest(index) == world[2]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 100 kB; `grow` makes it larger."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=100k", "none", str(place)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("this user may not mount a small disk; the test with a limit on files stands in for it")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def grow(disk: Path, size: int) -> None:
    options = f"remount,size={size}k"
    subprocess.run(["mount", "-o", options, str(disk)], check=True)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("mount"), reason="there is no mount")
def test_a_disk_that_fills_up_costs_nothing_that_was_written(
    worlds: dict[str, tuple[Path, Path | None, str]], tmp_path: Path, small_disk: Path
) -> None:
    source, _, expected = worlds["first"]
    index, told = small_disk / "x", tmp_path / "told"

    def run() -> None:
        try:
            build(index, source, Slow(), batch=BATCH)
        except ImageIndexError as error:
            told.write_text(str(error))

    fills = 0
    for size in range(100, 1000, 24):
        told.write_text("")
        grow(small_disk, size)
        assert ended(begun(run))
        if not told.read_text():
            break
        assert "No space left on device; make room on that disk" in told.read_text()
        fills += 1
    assert fills >= 3
    assert digest(index) == expected


def one_of_two(index: Path, source: Path) -> None:
    """A run that waits while another one writes."""
    for _ in range(2000):
        try:
            build(index, source, Slow(), batch=BATCH)
            return
        except ImageIndexError as error:
            if "is being written by process" not in str(error):
                raise
            time.sleep(0.01)
    raise AssertionError("it never came to its turn")


@pytest.mark.slow
@pytest.mark.parametrize("what", ["first", "update"])
def test_two_writers_take_turns(
    worlds: dict[str, tuple[Path, Path | None, str]], tmp_path: Path, what: str
) -> None:
    world = worlds[what]
    chance = random.Random(what)
    for number in range(4):
        index = tmp_path / f"x{number}"
        start(world, index)
        both = [begun(lambda index=index: one_of_two(index, world[0])) for _ in range(2)]
        if number % 2:  # the one that writes may die; the other goes on
            time.sleep(chance.uniform(0.1, 0.5))
            os.kill(both[0], 9)
        assert [ended(child) for child in both][1]
        assert digest(index) == world[2]


@pytest.mark.parametrize("kind", ["first", "update"])
def test_a_source_that_goes_away_in_the_middle_loses_nothing(tmp_path: Path, kind: str) -> None:
    source, away, index = tmp_path / "p", tmp_path / "away", tmp_path / "x"
    paint(source, [f"{n // 20}/{n:03d}.png" for n in range(60)])
    build(tmp_path / "whole", source)
    expected = digest(tmp_path / "whole")
    if kind == "update":
        build(index, source)
        for n in range(0, 60, 7):
            (source / f"{n // 20}/{n:03d}.png").touch()

    def go(done: int, total: int | None) -> None:
        if done == 15:
            source.rename(away)

    report = build(index, source, Slow(), batch=BATCH, progress=go)
    assert report.removed == 0
    assert report.unchanged + report.added + report.kept + len(report.failed) >= 15
    with ImageIndex.open(index) as opened:
        assert len(opened) == (60 if kind == "update" else report.added)
    away.rename(source)
    assert tally(build(index, source))[2] == 0
    assert digest(index) == expected


def test_a_reader_beside_a_writer_answers_from_what_was_committed(tmp_path: Path) -> None:
    source, index = tmp_path / "p", tmp_path / "x"
    paint(source, [f"{n:03d}.png" for n in range(12)])
    build(index, source)
    paint(source, [f"{n:03d}.png" for n in range(12, 100)], start=12)
    expected = {}
    for file in sorted(source.iterdir()):
        with PIL.Image.open(file) as image:
            expected[file.name] = ColourEmbedder().embed_images([image.convert("RGB")])[0]
    query = np.ones((1, 12), dtype=np.float32) / np.sqrt(np.float32(12))
    early = ImageIndex.open(index)
    before = early.search(query, 200)
    child = begun(lambda: build(index, source, Slow(), batch=BATCH))
    counts = []
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        with ImageIndex.open(index) as opened:
            (found,) = opened.search(query, 200)
        counts.append(len(found))
        assert [s.score for s in found] == sorted((s.score for s in found), reverse=True)
        for hit in found:
            assert hit.score == pytest.approx(float(expected[hit.id] @ query[0]), abs=1e-5)
        assert early.search(query, 200) == before
    early.close()
    assert counts == sorted(counts)
    assert all((count - 12) % (BATCH // 2) == 0 for count in counts)
    assert len(set(counts)) > 2
    with ImageIndex.open(index) as opened:
        assert len(opened.search(query, 200)[0]) == 100
