"""How many hits are kept, and how relevant they have to be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from index_world import ColourEmbedder, build, paint

from mmrerank import ImageSearch, Reranker
from mmrerank.best import best
from mmrerank.chat.fakes.oracle import Oracle
from mmrerank.errors import ChatError, UsageError
from mmrerank.messages import Ask, Reply
from mmrerank.ports import Chat, Vectors
from mmrerank.results import SearchResult
from mmrerank.types import Query

TEXTS = [{"id": n, "text": n, "score": 0.3} for n in ("a house", "red", "a boat", "a red boat")]


class Half(Oracle):
    """An oracle that fails over what it is told to."""

    def __init__(self, failing: Sequence[str]) -> None:
        super().__init__()
        self.failing = failing

    def reply(self, asks: Sequence[Ask]) -> list[Reply]:
        found = zip(asks, super().reply(asks), strict=True)
        broken = Reply(error=ChatError("out of order"), finish="error")
        return [broken if set(a.shown) & set(self.failing) else r for a, r in found]


def ranked(chat: Chat | None = None, **more: Any) -> SearchResult:
    return Reranker("pointwise", chat or Oracle()).rank("a red boat", TEXTS, **more)


def test_relevance_stands_beside_the_score_of_the_first_stage() -> None:
    found = [(h["id"], h["rank"], h["score"], h["relevance"]) for h in ranked().to_dict()["hits"]]
    # the oracle says yes with (grade + 0.5) / 4
    assert found == [
        ("a red boat", 1, 0.3, pytest.approx(0.875)),
        ("a boat", 2, 0.3, pytest.approx(0.625)),
        ("a house", 3, 0.3, pytest.approx(0.375)),
        ("red", 4, 0.3, pytest.approx(0.375)),
    ]


def test_the_best_are_kept() -> None:
    result = ranked(top_n=2)
    assert [h.id for h in result] == ["a red boat", "a boat"]
    assert [h.id for h in result.first] == ["a house", "red"]
    assert result.cut == 0
    assert ranked(top_n=99).to_dict()["hits"] == ranked().to_dict()["hits"]


def test_a_threshold_leaves_out_what_is_less_relevant_and_says_how_many() -> None:
    result = ranked(threshold=0.625)
    assert [h.id for h in result] == ["a red boat", "a boat"]
    assert result.to_dict()["cut"] == 2
    assert result.warnings == ()
    assert not result.no_match
    assert ranked(threshold=0.6, top_n=1).cut == 0  # one was wanted, and one is there
    nothing = ranked(threshold=0.99)
    assert len(nothing) == 0
    assert nothing.cut == 4
    assert nothing.no_match


def test_what_was_not_judged_is_left_out_and_told() -> None:
    result = ranked(Half(["a house"]), threshold=0.3)
    # its place was the first, and the ranks close up
    assert [(h.rank, h.id) for h in result] == [(1, "a red boat"), (2, "a boat"), (3, "red")]
    assert result.cut == 1
    assert "1 image that was not judged is left out by the threshold of 0.3" in result.warnings
    silent = ranked(Half([t["id"] for t in TEXTS]), threshold=0.3)  # type: ignore[misc]
    assert len(silent) == 4
    assert "the threshold of 0.3 left out nothing: no image was judged by pointwise" in silent.warnings


@pytest.mark.parametrize("wrong", [{"threshold": 1.5}, {"threshold": float("nan")}, {"threshold": "high"},
                                   {"top_n": 0}, {"top_n": 2.5}])  # fmt: skip
def test_a_wrong_value_is_an_error_before_anything_is_asked(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        ranked(**wrong)


def test_a_threshold_takes_a_method_that_judges() -> None:
    with pytest.raises(UsageError, match="needs a method that judges"):
        Reranker("none").rank("a red boat", TEXTS, threshold=0.5)
    plain = Reranker("none").rank("a red boat", TEXTS)
    assert best(plain) is plain
    assert all(h.relevance is None for h in plain)


class Words(ColourEmbedder):
    """Every query lies nearest to the same picture."""

    def embed_queries(self, queries: Sequence[Query]) -> Vectors:
        rows = np.eye(self.dim, dtype=np.float32)
        return rows[[0] * len(queries)]


def test_a_search_keeps_what_is_relevant_enough(tmp_path: Path) -> None:
    names = ["boat.png", "red boat.png", "a red boat.png", "house.png", "car.png"]
    paint(tmp_path / "in", names)
    build(tmp_path / "index", tmp_path / "in", Words())
    search = ImageSearch.open(tmp_path / "index", embedder=Words(), chat=Oracle())
    result = search.search("a red boat", rerank="pointwise", threshold=0.5)
    assert [h.id for h in result] == ["a red boat.png", "red boat.png"]
    assert result.cut == 3
    assert len(result.first) == 2
    assert [h.id for h in search.search("a red boat", rerank="pointwise", top_n=1)] == ["a red boat.png"]
    # what stands beyond the candidates is not judged
    few = search.search("a red boat", rerank="pointwise", candidates=2, threshold=0.0)
    assert len(few) == 2
    assert few.cut == 3
    assert "3 images not judged are left out by the threshold of 0" in few.warnings
    plain = search.search("a red boat", rerank="pointwise", candidates=2)
    assert [h.relevance for h in plain][2:] == [None] * 3
    with pytest.raises(UsageError, match="needs a method that judges"):
        search.search("a red boat", threshold=0.5)
