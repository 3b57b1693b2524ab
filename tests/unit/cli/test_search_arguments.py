"""What `mmrerank search` and `rerank` take as files and texts, and what they say of anything else."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import data, run
from index_world import ColourEmbedder, build, paint

from mmrerank import ImageSearch
from mmrerank.cli._files import no_file_name
from mmrerank.images import decode
from mmrerank.index.index import ImageIndex
from mmrerank.ports import Vectors
from mmrerank.types import Query


class Shortsighted(ColourEmbedder):
    """Reads ten words of a text, a token each."""

    def embed_queries(self, queries: Sequence[Query]) -> Vectors:
        def one(query: Query) -> Any:
            if query.images:
                return self.embed_images([decode(query.images[0])])[0]
            return np.eye(12, dtype=np.float32)[len(query.words) % 12]

        return np.stack([one(q) for q in queries])

    def overlong(self, text: str) -> tuple[int, int] | None:
        tokens = len(text.split())
        return (tokens, 10) if tokens > 10 else None


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    paint(tmp_path / "pictures", ["a.png", "two\nlines.png", "c d.png"])
    build(tmp_path / "x", tmp_path / "pictures")
    monkeypatch.setattr("mmrerank.search.words_embedder", lambda *_, **__: Shortsighted())
    return tmp_path / "x"


LONG = "a red boat at dawn " * 4


def test_a_query_that_is_cut_off_is_reported(index: Path) -> None:
    # huggingface/sentence-transformers#1269
    words = (
        "the query has 20 tokens, and test:colour reads the first 10: its end was cut off; use fewer words"
    )
    assert data("search", LONG, "--index", index)["warnings"] == [words]
    assert words in " ".join(run("search", LONG, "--index", index).stdout.split())
    assert words in run("search", LONG, "--index", index, "--filepath-only").stderr
    assert data("search", "a red boat", "--index", index)["warnings"] == []
    found = ImageSearch(ImageIndex.open(index), embedder=Shortsighted()).search(LONG)
    assert found.warnings == (words,)
    (excluded,) = data("search", "a boat", "--exclude", LONG, "--index", index)["warnings"]
    assert excluded.startswith("the text to exclude has 20 tokens")
    (turns,) = data("search", "a boat", "--turn", LONG, "--index", index)["warnings"]
    assert "its end, such as the last turn, was cut off" in turns


def test_the_text_comes_from_stdin(index: Path) -> None:
    words = data("search", "a red boat", "--index", index)
    assert data("search", "-", "--index", index, input="a red\nboat\n") == words
    for blank in ("", " \n", "\u200b"):
        assert "TEXT: stdin is empty" in run("search", "-", "--index", index, input=blank, code=2).stderr


def test_an_image_comes_from_stdin(index: Path, tmp_path: Path) -> None:
    body = (tmp_path / "pictures/a.png").read_bytes()
    told = piped(body, "search", "--image", "-", "--index", index, "--k", 1, "--output", "json")
    assert [h["id"] for h in json.loads(told.stdout)["hits"]] == ["a.png"]
    assert piped(b"", "search", "--image", "-", "--index", index).exit_code == 2
    assert piped(b"no image", "search", "--image", "-", "--index", index).exit_code == 3
    twice = run("search", "-", "--image", "-", "--index", index, input="x", code=2)
    assert "stdin (-) can be read once" in twice.stderr


def test_vectors_come_from_stdin(index: Path, tmp_path: Path) -> None:
    file = io.BytesIO()
    np.save(file, np.eye(12, dtype=np.float32)[:2])
    out = tmp_path / "out.trec"
    told = piped(file.getvalue(), "search", "--query-vectors", "-", "--index", index, "--k", 2, "--run", out)
    assert told.exit_code == 0, told.stderr
    assert len(out.read_text().splitlines()) == 4
    assert piped(b"", "search", "--query-vectors", "-", "--index", index, "--run", out).exit_code == 2


def piped(body: bytes, *arguments: Any) -> Any:
    from typer.testing import CliRunner

    from mmrerank.cli.main import cli

    return CliRunner().invoke(cli, [str(a) for a in arguments], input=body)


def test_paths_are_ended_by_nul(index: Path, tmp_path: Path) -> None:
    # BestImageViewer/geeqie#722; sahib/rmlint#388
    paths = run("search", "a boat", "--index", index, "--print0").stdout_bytes.split(b"\0")
    assert paths.pop() == b""
    assert {Path(p.decode()) for p in paths} == set((tmp_path / "pictures").iterdir())
    assert (
        "leave out"
        in run("search", "a boat", "--index", index, "--print0", "--output", "json", code=2).stderr
    )


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("https://example.invalid/x.jpg", "curl -L -o FILE 'https://example.invalid/x.jpg'"),
        ("s3://bucket/x.jpg", "s3://bucket/x.jpg is an address"),
        ("file:///home/me/a%20b.jpg", "give the path alone: /home/me/a b.jpg"),
        ("data:image/png;base64,AAAA", "is a data: URI"),
    ],
)
def test_addresses_are_named_whole_with_the_way_on(
    index: Path, tmp_path: Path, address: str, words: str
) -> None:
    assert words in no_file_name(address)
    assert words in run("search", "--image", address, "--index", index, code=2).stderr
    for query, candidate in ((address, None), (None, address)):
        line = {
            "query": {"text": "a boat", **({"images": [query]} if query else {})},
            "candidates": [{"id": "a", **({"image": candidate} if candidate else {"text": "a boat"})}],
        }
        told = run("rerank", "--input", "-", "--chat", "oracle", input=json.dumps(line), code=3)
        assert words in told.stderr
        assert "line 1" in told.stderr
    assert no_file_name("C:\\pictures\\a.jpg") == no_file_name("a:b/c.jpg") == ""


@pytest.mark.parametrize("name", ["", "  ", "-"])
def test_no_file_is_named_by_nothing_or_a_dash(index: Path, name: str) -> None:
    # rclone/rclone#4239
    for flag in ("--run", "--report", "--trace", "--record", "--config"):
        told = run("search", "a boat", "--index", index, flag, name, code=2).stderr
        assert flag in told
        assert "it is empty" in told or "name a file" in told
    assert not (Path.cwd() / "-").exists()


def test_empty_texts_and_names_are_usage_errors(index: Path) -> None:
    for text in ("", " \t", "\u200b"):
        assert "TEXT" in run("search", text, "--index", index, code=2).stderr
    for flag in ("--image", "--query-vectors"):
        assert "it is empty" in run("search", "a boat", "--index", index, flag, "", code=2).stderr
    for flag in ("--exclude", "--turn"):
        assert "is empty" in run("search", "a boat", "--index", index, flag, " ", code=2).stderr
        assert "stdin" in run("search", "a boat", "--index", index, flag, "-", code=2).stderr
    assert "it is empty" in run("search", "a boat", "--index", "", code=2).stderr
    for verb in ("info", "verify"):
        assert run(verb, "", code=2).stderr
    assert "it is empty" in run("rerank", "--input", "", "--chat", "oracle", code=2).stderr
    assert (
        "stdin holds no request"
        in run("rerank", "--input", "-", "--chat", "oracle", input="\n", code=3).stderr
    )


def test_what_is_no_image_file_is_named(index: Path, tmp_path: Path) -> None:
    for path, words in (
        (tmp_path, "is a folder"),
        ("/dev/null", "a pipe or a device"),
        ("gone.png", "there is no"),
    ):
        assert words in run("search", "--image", path, "--index", index, code=3).stderr


def test_advice_is_given_where_it_can_be_followed(index: Path, tmp_path: Path) -> None:
    cut = tmp_path / "pictures/cut.png"
    cut.write_bytes((tmp_path / "pictures/a.png").read_bytes()[:60])
    assert "truncated files" not in run("search", "--image", cut, "--index", index, code=3).stderr
    (failure,) = build(tmp_path / "x", tmp_path / "pictures").failed
    assert "--allow-truncated" in failure.error
    assert "--allow-truncated" in run("index", "--help").stdout
