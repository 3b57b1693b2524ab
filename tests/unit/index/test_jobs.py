"""A job of shards gives the index that the ordinary build gives, however it was stopped."""

from __future__ import annotations

import functools
import gzip
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmrerank.corpus import folder as folder_corpus
from mmrerank.corpus import open_corpora
from mmrerank.errors import ImageIndexError, MismatchError, MissingExtraError, ModelError, UsageError
from mmrerank.index.index import ImageIndex
from mmrerank.index.jobs import build_in_shards, cluster, local, shards
from mmrerank.index.jobs import plan as planning
from mmrerank.index.kept import is_kept
from tests.support import job_world
from tests.support.index_world import ColourEmbedder, build, contents, paint, tally
from tests.support.job_world import dying, in_shards
from tests.support.shards import packed, write


def source(folder: Path, count: int = 23) -> Path:
    """Pictures, two of them alike, an empty file and a broken one."""
    paint(folder, [f"{n // 5}/{n:02d}.png" for n in range(count)])
    (folder / "copy.png").write_bytes((folder / "0/00.png").read_bytes())
    (folder / "empty.png").write_bytes(b"")
    (folder / "broken.png").write_bytes((folder / "0/00.png").read_bytes()[:60])
    return folder


def vectors_of(index: Path) -> list[Any]:
    return [np.load(p).tolist() for p in sorted((index / "vectors").glob("*.npy"))]


def rows_of(index: Path) -> list[tuple[Any, ...]]:
    """Every record as it is, in order; but where a copy begins, for threads add them as they come."""
    with ImageIndex.open(index) as opened:
        found = [r if not is_kept(r.path) else replace(r, offset=0) for r in opened._records.everything()]
        return [tuple(sorted(vars(r).items(), key=str)) for r in found]


def test_a_job_gives_the_index_of_the_ordinary_build(tmp_path: Path) -> None:
    place = source(tmp_path / "in")
    expected, got = build(tmp_path / "a", place), in_shards(tmp_path / "b", place)
    assert tally(got) == tally(expected)
    assert got.failed == expected.failed
    assert rows_of(tmp_path / "b") == rows_of(tmp_path / "a")
    assert vectors_of(tmp_path / "b") == vectors_of(tmp_path / "a")
    assert contents(tmp_path / "b") == contents(tmp_path / "a")
    assert not list(tmp_path.glob(".b*"))


def test_several_sources_and_shards_and_metadata(tmp_path: Path) -> None:
    paint(tmp_path / "one", ["a.png", "b.png"])
    paint(tmp_path / "two", ["a.png", "c.png"], start=7)
    members = [
        (f"{n}.png", (tmp_path / f"{f}/{n}.png").read_bytes()) for f, n in (("one", "b"), ("two", "c"))
    ]
    write(tmp_path / "0.tar", [*members[:1], ("b.json", b'{"species": "Larus"}'), *members[1:]])
    (tmp_path / "1.tar.gz").write_bytes(gzip.compress(packed(members)))
    places = [str(tmp_path / name) for name in ("one", "two", "0.tar", "1.tar.gz")]
    ImageIndex.build(tmp_path / "a", open_corpora(places), ColourEmbedder())
    build_in_shards(tmp_path / "b", open_corpora(places), ColourEmbedder(), shard_images=1)
    assert rows_of(tmp_path / "b") == rows_of(tmp_path / "a")
    assert contents(tmp_path / "b") == contents(tmp_path / "a")


def test_what_is_in_the_index_is_not_embedded_again(tmp_path: Path) -> None:
    place = source(tmp_path / "in")
    for name in ("a", "b"):
        build(tmp_path / name, place)
    paint(place, ["new/1.png", "new/2.png", "0/01.png"], start=50)
    (place / "2/10.png").unlink()
    embedder = ColourEmbedder()
    expected, got = build(tmp_path / "a", place), in_shards(tmp_path / "b", place, embedder)
    assert embedder.embedded == 3
    assert tally(got) == tally(expected)
    assert rows_of(tmp_path / "b") == rows_of(tmp_path / "a")
    assert vectors_of(tmp_path / "b") == vectors_of(tmp_path / "a")


def test_a_stopped_job_goes_on_with_the_shards_that_are_there(tmp_path: Path) -> None:
    place = source(tmp_path / "in")
    embedder = ColourEmbedder()
    embed_images = embedder.embed_images

    def stops(images: Any) -> Any:
        if embedder.embedded > 10:
            raise KeyboardInterrupt
        return embed_images(images)

    embedder.embed_images = stops  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        in_shards(tmp_path / "b", place, embedder)
    assert not (tmp_path / "b").exists()
    first, again = embedder.embedded, ColourEmbedder()
    report = in_shards(tmp_path / "b", place, again)
    assert again.embedded == 24 - first  # the copy is in another shard, and is embedded there
    assert "went on with a job that was stopped" in report.remarks[0]
    build(tmp_path / "a", place)
    assert rows_of(tmp_path / "b") == rows_of(tmp_path / "a")


def test_a_changed_option_makes_a_new_plan_and_says_so(tmp_path: Path) -> None:
    place = source(tmp_path / "in")
    work = tmp_path / ".b.job"
    with pytest.raises(ModelError):
        in_shards(tmp_path / "b", place, _Broken())
    assert (work / planning.FILE).exists()
    report = in_shards(tmp_path / "b", place, shard_images=7)
    assert "was discarded" in report.remarks[0]


class _Broken(ColourEmbedder):
    def embed_images(self, images: Any) -> Any:
        return np.full((len(images), self.dim), np.nan, dtype=np.float32)


def test_a_shard_that_was_edited_is_refused(tmp_path: Path) -> None:
    place, work = source(tmp_path / "in"), tmp_path / "work"
    embedder = ColourEmbedder()
    stop = MismatchError("stop")

    def stops(*args: Any, **kwargs: Any) -> Any:
        raise stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmrerank.index.build.build", stops)
        with pytest.raises(MismatchError):
            in_shards(tmp_path / "b", place, embedder, work=work)
    file = work / "shard-00001" / "vectors.npy"
    file.write_bytes(file.read_bytes()[:-4] + b"abcd")
    with pytest.raises(ImageIndexError, match=r"shard-00001.*not as it was written; delete"):
        in_shards(tmp_path / "b", place, embedder, work=work)
    (work / "plan" / "00000.jsonl").write_text("{}\n")
    with pytest.raises(ImageIndexError, match=r"00000.jsonl is not as it was written"):
        in_shards(tmp_path / "c", place, embedder, work=work)


def test_another_model_in_a_worker_is_refused(tmp_path: Path) -> None:
    place = source(tmp_path / "in")
    plan = planning.make(
        tmp_path,
        {"fingerprint": "colour-2", "dim": 12, "max_pixels": 1000, "allow_truncated": False},
        str(place),
        iter([]),
        [folder_corpus.open(str(place))],
        4,
    )
    part = planning.PlanPart(number=0, corpus=0, lines=1, images=1, sha256="")
    with pytest.raises(MismatchError, match="give every machine the same files"):
        shards.embed(tmp_path, plan, part, ColourEmbedder())


def test_settings_out_of_place_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = source(tmp_path / "in", 1)
    for options, word in (
        ({"engine": "spark"}, "engines are local, ray"),
        ({"workers": 0}, "--workers"),
        ({"shard_images": 0}, "--shard-images"),
        ({"workers": 2}, "opener"),
    ):
        with pytest.raises(UsageError, match=word):
            in_shards(tmp_path / "b", place, **options)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.txt").write_text("mine")
    with pytest.raises(ImageIndexError, match=r"something else than a job.*thesis.txt"):
        in_shards(tmp_path / "b", place, work=tmp_path / "work")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"mmrerank\[ray\]"):
        cluster.check()


@pytest.mark.slow
def test_two_processes_one_of_them_killed_give_the_same_index(tmp_path: Path) -> None:
    place = source(tmp_path / "in")
    opener = functools.partial(dying, str(tmp_path / "flag"))
    in_shards(tmp_path / "b", place, opener=opener, workers=2)
    assert (tmp_path / "flag").exists()
    build(tmp_path / "a", place)
    assert rows_of(tmp_path / "b") == rows_of(tmp_path / "a")
    assert vectors_of(tmp_path / "b") == vectors_of(tmp_path / "a")


@pytest.mark.slow
def test_a_shard_that_always_ends_its_worker_is_named(tmp_path: Path) -> None:
    place = source(tmp_path / "in", 3)
    opener = functools.partial(dying, str(tmp_path / "flag"), every=True)
    with pytest.raises(ModelError, match=r"^shard 0000\d has ended its worker 3 times.*0000\d.jsonl"):
        in_shards(tmp_path / "b", place, opener=opener, workers=2)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ray_with_two_workers_one_of_them_killed_gives_the_index_of_the_local_engine(tmp_path: Path) -> None:
    place = source(tmp_path / "in")
    in_shards(tmp_path / "a", place)
    # Ray opens sockets of its own, and stays in a process that has begun it
    command = [sys.executable, job_world.__file__, str(tmp_path / "b"), str(place), str(tmp_path / "flag")]
    root = str(Path(__file__).parents[3])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    environment["RAY_worker_niceness"] = "0"
    for _ in range(3):  # it gives itself half a minute to start, which a busy machine may not have
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=800)
        if "Ray cannot be started" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "flag").exists()
    assert rows_of(tmp_path / "b") == rows_of(tmp_path / "a")
    assert vectors_of(tmp_path / "b") == vectors_of(tmp_path / "a")
    assert contents(tmp_path / "b") == contents(tmp_path / "a")


def test_an_error_of_a_worker_is_worded() -> None:
    assert local.worded(ModelError("the weights are missing")) == "the weights are missing"
    assert local.worded(KeyError("x")) == "KeyError: 'x'"
