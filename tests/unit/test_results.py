"""Results as sequences, tables and files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmrerank import Candidate, Image, Query, Reranker, SearchResult
from mmrerank.chat.fakes.oracle import Oracle
from mmrerank.errors import InputError

MANY: list[Any] = [
    Candidate(id="a", image=Image(path=Path("x/a.jpg"), sha256="0" * 64, width=4, height=5), score=0.5,
              metadata={"year": 2024, "tags": ["x"]}),
    Candidate(id="b", image=Image(path=Path("shard.tar"), offset=512, length=99), score=np.float32(0.25)),
    Candidate(id="c", image=Image(data=b"in memory"), text="both"),
    {"id": "d", "text": "words"},
]  # fmt: skip


@pytest.fixture
def result() -> SearchResult:
    made = Reranker("pointwise", Oracle(lambda query, id: "abcd".index(id))).rank(
        Query(text="a boat", images=(Image(data=b"r"),), exclude=("people",), turns=("before",)), MANY
    )
    return replace(made, warnings=("mind this",))


def test_a_result_is_a_sequence_of_hits(result: SearchResult) -> None:
    assert [result[0].id, result[-1].id] == ["d", "a"]
    assert [h.id for h in result[1:3]] == ["c", "b"]
    with pytest.raises(IndexError):
        _ = result[4]


def test_a_saved_result_is_loaded_as_it_was(result: SearchResult, tmp_path: Path) -> None:
    found = SearchResult.load(result.save(tmp_path / "r.json"))
    assert found.to_dict() == result.to_dict()
    assert (found.first[0].id, found.explanation, found.trace) == ("a", result.explanation, result.trace)
    assert found.hits[3].candidate == result.hits[3].candidate
    assert found.hits[2].candidate.image == replace(result.hits[2].candidate.image or Image(data=b""))
    assert found.hits[1].candidate.image is not None
    with pytest.raises(OSError, match="held in memory"):
        found.hits[1].candidate.image.read()
    assert json.loads((tmp_path / "r.json").read_text("utf-8")).items() >= result.to_dict().items()
    assert found.html()


def test_what_is_printed_is_read_as_far_as_it_goes(result: SearchResult) -> None:
    body = json.loads(json.dumps(result.to_dict()))
    assert SearchResult.from_dict(body).to_dict() == body
    assert [h.id for h in SearchResult.from_dict(body).first] == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        pytest.param("[" * 100_000, id="deep"),
        "[]",
        "5",
        "{}",
        '{"hits": 5}',
        '{"whole": {}}',
        '{"format": 9}',
        '{"whole": {"hits": [1]}}',
    ],
)
def test_a_file_that_is_no_result_says_so(text: str, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(text, "utf-8")
    with pytest.raises(InputError, match="is no|has the format"):
        SearchResult.load(tmp_path / "r.json")
    with pytest.raises(InputError, match="cannot be read"):
        SearchResult.load(tmp_path / "none.json")


def test_a_result_is_a_table(result: SearchResult) -> None:
    rows = result.records
    assert [r["id"] for r in rows] == ["d", "c", "b", "a"]
    assert (rows[3]["year"], rows[3]["rank"], rows[3]["image"]) == (2024, 4, "x/a.jpg")


@pytest.mark.slow  # to import pandas takes seconds
def test_a_result_is_a_data_frame(result: SearchResult) -> None:
    pytest.importorskip("pandas")
    frame = result.to_pandas()
    assert list(frame["id"]) == ["d", "c", "b", "a"]


def test_a_picture_that_could_not_be_fetched_says_why() -> None:
    found = Reranker("none").rank("a boat", ["http://127.0.0.1:9/a.png", "a boat"], allow_urls=True)
    assert "cannot be fetched" in found[0].problem
    assert found[1].problem == ""
