"""`mmrerank search --in`: one command indexes what is new and searches."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from index_world import ColourEmbedder, paint
from typer.testing import CliRunner

from mmrerank import home
from mmrerank.cli.main import cli
from mmrerank.index import own
from mmrerank.index.folders import count_of
from mmrerank.index.index import ImageIndex
from mmrerank.ports import Embedder, Vectors
from mmrerank.types import Query

SPEC = "open_clip:ViT-B-32:random"


class Embedder_(ColourEmbedder):
    """One that also takes words, all of them alike."""

    def embed_queries(self, queries: Sequence[Query]) -> Vectors:
        return np.tile(np.eye(1, self.dim, dtype=np.float32), (len(queries), 1))


@pytest.fixture(autouse=True)
def opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The specs of the embedders that were opened. A home of its own, and a folder to be in."""
    specs: list[str] = []

    def open_embedder(spec: str, **_: Any) -> Embedder:
        specs.append(spec)
        found = Embedder_()
        found.spec = spec
        return found

    for place in ("mmrerank.embed.open", "mmrerank.query_embedder"):
        monkeypatch.setattr(f"{place}.open_embedder", open_embedder)
    monkeypatch.setenv(home.VARIABLE, str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return specs


def run(*arguments: Any, code: int = 0) -> Any:
    told = CliRunner().invoke(cli, ["search", *map(str, arguments)])
    assert told.exit_code == code, (told.output, told.exception)
    return told


def ids(told: Any) -> list[str]:
    return [Path(line).name for line in told.stdout.splitlines()]


def test_it_indexes_then_only_looks(
    tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "My Pictures"
    paint(source, ["a.png", "b.png"])
    first = run("red", "--in", source, "--embedder", SPEC, "--filepath-only")
    assert sorted(ids(first)) == ["a.png", "b.png"]
    (known,) = own.made_of([str(source)])
    assert known.path.parent == tmp_path / "home/indexes"
    assert known.path.name.startswith("My-Pictures-")
    assert known.images == 2
    assert known.bytes > 0
    assert "indexed 2 images in" in first.stderr
    assert f"their index is {known.path} " in first.stderr
    assert opened == [SPEC]  # the model that made it embeds the query as well
    monkeypatch.chdir(source)
    again = run("red", "--in", ".", "--filepath-only")  # found again, with its embedder
    assert ids(again) == ids(first)
    assert again.stderr == ""
    assert opened == [SPEC, SPEC]  # for the query alone
    assert not (tmp_path / "here/indexes").exists()


def test_what_changed_is_taken_up(tmp_path: Path, opened: list[str]) -> None:
    source = tmp_path / "p"
    paint(source, ["a.png", "b.png", "c.png"])
    run("red", "--in", source, "--embedder", SPEC)
    paint(source, ["d.png"], start=9)
    (source / "a.png").unlink()
    (source / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    old = run("red", "--in", source, "--no-update", "--filepath-only")
    assert sorted(ids(old)) == ["a.png", "b.png", "c.png"]
    opened.clear()
    new = run("red", "--in", source, "--embedder", SPEC, "--filepath-only")
    assert sorted(ids(new)) == ["b.png", "c.png", "d.png"]
    assert opened == [SPEC]
    assert "index brought up to date: 1 added, 1 removed" in new.stderr
    assert "1 images cannot be used, such as broken.jpg" in new.stderr
    assert "Traceback" not in new.stderr


def test_one_index_for_each_set_of_sources_and_embedder(tmp_path: Path, opened: list[str]) -> None:
    a, b = tmp_path / "x/p", tmp_path / "y/p"
    paint(a, ["1.png"])
    paint(b, ["2.png"], start=4)
    run("red", "--in", a, "--embedder", SPEC)
    run("red", "--in", b, "--embedder", SPEC)
    both = run("red", "--in", a, "--in", b, "--embedder", SPEC, "--filepath-only")
    assert sorted(ids(both)) == ["1.png", "2.png"]
    assert run("red", "--in", b, "--in", a, "--filepath-only").stderr == ""  # in any order
    run("red", "--in", a, "--embedder", "open_clip:ViT-B-16:random")
    refused = run("red", "--in", a, code=2)
    assert SPEC in refused.stderr
    assert "say which with --embedder" in refused.stderr
    assert len(own.every()) == 4
    told = CliRunner().invoke(cli, ["list", "indexes"])
    assert "p-" in told.stdout
    assert "To remove one, delete its folder." in told.stdout
    shutil.rmtree(own.place_of([str(a)], SPEC))
    assert run("red", "--in", a).stderr == ""


def test_an_index_that_is_named(tmp_path: Path) -> None:
    paint(tmp_path / "p", ["1.png"])
    run("red", "--in", tmp_path / "p", "--index", "mine", "--embedder", SPEC)
    assert len(ImageIndex.open("mine")) == 1
    assert not (tmp_path / "home").exists()
    paint(tmp_path / "p", ["2.png"], start=5)
    told = run("red", "--in", tmp_path / "p", "--index", "mine", "--filepath-only")
    assert sorted(ids(told)) == ["1.png", "2.png"]


def test_a_default_embedder_is_told_and_never_replaces_one(tmp_path: Path, opened: list[str]) -> None:
    paint(tmp_path / "p", ["1.png"])
    paint(tmp_path / "q", ["1.png"])
    run("red", "--in", tmp_path / "p", "--embedder", SPEC)
    home.defaults_file().write_text("embedder: open_clip:ViT-B-16:random\n")
    assert "your default" not in run("red", "--in", tmp_path / "p").stderr
    told = run("red", "--in", tmp_path / "q")
    assert "embedder open_clip:ViT-B-16:random (your default)" in told.stderr
    assert opened == [SPEC, SPEC, "open_clip:ViT-B-16:random"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--in", "p"], 5, "no embedder was named for these images"),
        (["--in", "nowhere", "--embedder", SPEC], 3, "there is no folder"),
        (["--in", "p", "--embedder", SPEC, "--no-update"], 2, "leave out --no-update to make one"),
        (["--no-update"], 2, "--no-update is for --in"),
        (["--in", "-"], 2, "name its index with --index"),
        (["--in", "p", "--embedder", SPEC, "--rerank", "cottr"], 2, "Did you mean 'cotrr'"),
        (["--in", "p", "--embedder", "clip-b32"], 5, "the model hub huggingface.co is not asked"),
    ],
)
def test_what_is_refused(
    arguments: list[str], code: int, says: str, tmp_path: Path, opened: list[str]
) -> None:
    paint(Path("p"), ["1.png"])
    told = run("red", *arguments, code=code)
    assert says in told.stderr
    assert opened == []
    assert not (tmp_path / "home").exists()
    if code == 5:
        assert len(told.stderr.splitlines()) == 3


def test_a_source_that_is_gone_leaves_its_index(tmp_path: Path) -> None:
    paint(tmp_path / "p", ["1.png"])
    run("red", "--in", tmp_path / "p", "--embedder", SPEC)
    (tmp_path / "p").rename(tmp_path / "away")
    assert "--no-update searches what is indexed" in run("red", "--in", tmp_path / "p", code=3).stderr
    assert len(ids(run("red", "--in", tmp_path / "p", "--no-update", "--filepath-only"))) == 1


def test_while_another_process_writes_the_old_index_is_searched(tmp_path: Path) -> None:
    from mmrerank.index import lock

    paint(tmp_path / "p", ["1.png"])
    run("red", "--in", tmp_path / "p", "--embedder", SPEC)
    with lock.writing(own.place_of([str(tmp_path / "p")], SPEC)):
        told = run("red", "--in", tmp_path / "p", "--filepath-only")
    assert ids(told) == ["1.png"]
    assert "not brought up to date" in told.stderr


@pytest.mark.parametrize("verb", ["search", "index"])
def test_interrupted_it_says_what_is_kept(verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paint(tmp_path / "p", [f"{n:03}.png" for n in range(70)])
    real, calls = Embedder_.embed_images, []

    def stopping(self: Any, images: Sequence[Any]) -> Vectors:
        if calls:
            raise KeyboardInterrupt
        calls.append(1)
        return real(self, images)

    monkeypatch.setattr(Embedder_, "embed_images", stopping)
    place = tmp_path / "index"
    arguments = {
        "search": ["search", "red", "--in", str(tmp_path / "p"), "--index", str(place), "--embedder", SPEC],
        "index": ["index", str(tmp_path / "p"), "--index", str(place), "--embedder", SPEC],
    }[verb]
    told = CliRunner().invoke(cli, arguments)
    assert told.exit_code == 130
    assert f"stopped: 32 images are in {place} and stay; the same command goes on there" in told.stderr
    monkeypatch.setattr(Embedder_, "embed_images", real)
    assert CliRunner().invoke(cli, arguments).exit_code == 0
    assert len(ImageIndex.open(place)) == 70


@pytest.mark.parametrize("source", ["pipe:zstd -dc x.zst", "https://example.org/{0..3}.tar", "hf:org/set"])
def test_addresses_stay_as_they_are(source: str) -> None:
    assert own.absolute(source) == source


def test_paths_are_absolute_and_short_names_are_their_specs() -> None:
    assert own.absolute("a/../b") == str(Path.cwd() / "b")
    assert own.place_of(["/p"], "clip-b32") == own.place_of(["/p"], " open_clip:ViT-B-32:openai")
    assert own.place_of(["/p"], "clip-b32") != own.place_of(["/p"], "clip-l14")
    assert own.place_of(["/a/b c/é!"], "clip-b32").name.rpartition("-")[0] == "é"
    assert own.place_of(["/"], "clip-b32").name.startswith("images-")


@pytest.mark.slow
@pytest.mark.timeout(900)  # a machine may be busy
def test_a_real_model_and_a_real_interruption(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new user's first minutes, in processes of their own."""
    few = tmp_path / "photos"
    few.mkdir()
    for file in sorted((photos / "images").glob("*.jpg"))[:40]:
        (few / file.name).symlink_to(file)
    command = [sys.executable, "-m", "mmrerank", "search", "a dog on a beach", "--in", str(few), "--k", "3"]
    monkeypatch.setenv(home.VARIABLE, str(tmp_path / "home"))
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (refused.returncode, len(refused.stderr.splitlines())) == (5, 3)
    command += ["--embedder", SPEC]
    first = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a test in the background ignores it
    )  # fmt: skip
    place = own.place_of([str(few)], SPEC)
    until = time.monotonic() + 120
    while count_of(place) < 32 and first.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    first.send_signal(signal.SIGINT)
    _, said = first.communicate(timeout=60)
    if first.returncode == 130:  # else it was faster than the signal
        assert "images are in" in said
        assert "the same command goes on there" in said
        assert "Traceback" not in said
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "images cannot be used" not in done.stderr
    assert done.stdout.count(".jpg") == 3
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert again.stdout == done.stdout
    assert again.stderr == ""
