"""`mmrerank index` on the command line: what it says beside the counts, and what it refuses before any
work.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from index_world import ColourEmbedder, paint
from shards import png, write
from typer.testing import CliRunner

from mmrerank.cli.main import cli
from mmrerank.index.index import ImageIndex


@pytest.fixture(autouse=True)
def embedder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("mmrerank.embed.open.open_embedder", lambda *_, **__: ColourEmbedder())
    monkeypatch.setattr("mmrerank.query_embedder.open_embedder", lambda *_, **__: ColourEmbedder())
    monkeypatch.setenv("MMRERANK_EMBEDDER", "open_clip:ViT-B-32:random")
    monkeypatch.chdir(tmp_path)


def run(*args: str | Path, **options: Any) -> Any:
    return CliRunner().invoke(cli, ["index", *map(str, args)], **options)


def test_two_folders_and_what_was_left_out(tmp_path: Path) -> None:
    paint(tmp_path / "a", ["0.png", "@eaDir/0.png", "raw/1.png"])
    paint(tmp_path / "b", ["0.png"], start=10)
    for name in ("a/1.NEF", "b/2.nef", "b/clip.mov"):
        (tmp_path / name).write_bytes(b"x")
    told = run("a", "b", "--index", "x", "--exclude-dir", "raw", "--exclude-dir", "rwa")
    assert told.exit_code == 0, told.output
    assert told.stdout == f"{tmp_path}/indexes/x: 2 added, 0 changed, 0 removed, 0 unchanged\n"
    assert told.stderr.splitlines() == [
        f"the index has 2 sources: {tmp_path}/a, {tmp_path}/b",
        "left out: files of kinds that are not read: .nef (2), .mov (1)",
        "left out: folders of thumbnails, trash and the like: @eaDir (1); to have one of them, index it "
        "with an "
        "--index of its own",
        "left out: folders that --exclude-dir names: raw (1), rwa (none found)",
    ]
    body = json.loads(run("b", "--index", "x", "--output", "json").stdout)
    assert (body["unchanged"], body["removed"], body["warnings"]) == (1, 0, [])
    assert body["sources"] == [f"{tmp_path}/a", f"{tmp_path}/b"]
    assert body["left_out"] == [
        {"reason": "files of kinds that are not read", "counts": {".nef": 1, ".mov": 1}, "advice": ""}
    ]
    assert run("a/0.png", "--index", "x").stdout.endswith(": 0 added, 0 changed, 0 removed, 1 unchanged\n")


def test_names_of_any_kind_are_one_line(tmp_path: Path) -> None:
    paint(tmp_path / "two\nlines", ["a\nb.png", "@eaDir/x.png"])
    (tmp_path / "two\nlines" / "bad\n.png").write_bytes(b"x")
    told = run(tmp_path / "two\nlines", "--index", "x")
    assert told.exit_code == 0
    assert len(told.stdout.splitlines()) == 1
    assert ["failed: bad\\n.png: " in line for line in told.stderr.splitlines()].count(True) == 1
    assert ImageIndex.open("x").ids == ["a\nb.png"]


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["", "--index", "x"], 2, "is empty"),
        (["a", "--index", ""], 2, "is empty"),
        (["a", "--index", " "], 2, "is empty"),
        (["--index", "x"], 2, "SOURCE"),
        (["a", "nowhere", "--index", "x"], 3, "there is no folder 'nowhere'"),
        (["a", "a/0.CR2", "--index", "x"], 3, "of a kind that is not read"),
        (["a", "--exclude-dir", "", "--index", "x"], 2, "--exclude-dir"),
        (["a", "a/sub", "--index", "x"], 2, "lies inside another SOURCE"),
        (["a", "b", "--vectors", "v", "--ids", "i", "--embedder", "e", "--index", "x"], 2, "one SOURCE"),
        (["s", "--index", "x"], 3, "s/*.tar'"),
        (["a/list.txt", "--index", "x"], 3, "mmrerank index - --index X < a/list.txt"),
    ],
)
def test_what_is_refused(tmp_path: Path, args: list[str], code: int, says: str) -> None:
    paint(tmp_path / "a", ["0.png", "sub/1.png"])
    paint(tmp_path / "b", ["0.png"])
    (tmp_path / "a/0.CR2").write_bytes(b"x")
    (tmp_path / "a/list.txt").write_text("0.png")
    write(tmp_path / "s/0.tar", [("0.png", png(1))])
    told = run(*args)
    assert told.exit_code == code, told.output
    assert says in " ".join(told.output.split())
    assert not (tmp_path / "indexes/x").exists()
