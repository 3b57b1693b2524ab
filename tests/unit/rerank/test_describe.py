"""Describe: the caption of what is wanted, written by the model, is what the index is searched with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from mmrerank.chat.fakes.scripted import Scripted
from mmrerank.errors import ChatError
from mmrerank.messages import Reply, Retrieve
from mmrerank.ports import Retriever
from mmrerank.rerank.describing import read_description
from mmrerank.reranker import Reranker
from mmrerank.types import Candidate, Image, Query

REFERENCE = Image(data=b"a red car")
COMPOSED = Query(text="make it blue", images=(REFERENCE,), exclude=("people",))
DIALOGUE = Query(text="now blue", turns=("a car",))
FIRST = [Candidate(id=f"red{n}", image=Image(data=b"%d" % n), score=0.5 - n / 10) for n in range(3)]
FOUND = (
    Candidate(id="blue0", image=Image(data=b"blue 0"), score=0.9),
    Candidate(id="red2", image=Image(data=b"2"), score=0.6),
    Candidate(id="blue1", image=Image(data=b"blue 1"), score=0.4),
)


class Shelf(Retriever):
    """Finds blue cars, and keeps what it is asked."""

    def __init__(self) -> None:
        self.asked: list[Retrieve] = []

    def retrieve(self, requests: Sequence[Retrieve]) -> list[tuple[Candidate, ...]]:
        self.asked += requests
        return [FOUND[: r.k] for r in requests]


def describing(answer: Any = None) -> Scripted:
    told = answer or {"thought": "the car stays", "description": "a blue car"}
    return Scripted(lambda ask: told if ask.kind == "describe" else {"reason": "", "scores": {}})


@pytest.mark.parametrize("query", [COMPOSED, DIALOGUE], ids=["composed", "dialogue"])
def test_the_index_is_searched_with_the_description(query: Query) -> None:
    shelf, chat = Shelf(), describing()
    result = Reranker("describe", chat, retriever=shelf).rank(query, FIRST)
    (ask,), (request,) = chat.asks, shelf.asked
    assert [p.image for m in ask.messages for p in m.parts if p.image] == list(query.images)
    assert all(words in ask.messages[-1].text for words in (query.text, *query.turns))
    assert request.query
    assert (request.query.text, request.query.images, request.query.turns) == ("a blue car", (), ())
    assert request.query.exclude == query.exclude
    assert [h.id for h in result] == ["blue0", "red2", "blue1", "red0", "red1"]
    assert result.explanation.scores == {"blue0": 0.9, "red2": 0.6, "blue1": 0.4}
    assert 'the description "a blue car"; 2 images are new' in result.explanation.reason
    assert not result.warnings
    assert result.usage.calls == 1
    fused = Reranker("describe", chat, retriever=Shelf(), fuse=True).rank(query, FIRST)
    assert [h.id for h in fused][:2] == ["red2", "blue0"]  # both lists know the first of them


def test_then_another_method_judges_what_was_found() -> None:
    def answer(ask: Any) -> Any:
        if ask.kind == "describe":
            return {"thought": "", "description": "a blue car"}
        pairs = zip(ask.labels, ask.shown, strict=True)
        return {"reason": "", "scores": {n: 99 if i == "blue1" else 9 for n, i in pairs}}

    options = {"first": "describe", "then": "listwise", "keep": 3}
    result = Reranker("cascade", Scripted(answer), retriever=Shelf(), options=options).rank(COMPOSED, FIRST)
    assert [h.id for h in result] == ["blue1", "blue0", "red2", "red0", "red1"]
    assert "a blue car" in result.explanation.reason


@pytest.mark.parametrize("query", [Query(text="a blue car"), Query(images=(REFERENCE,))])
def test_what_needs_no_description_gets_none(query: Query) -> None:
    shelf, chat = Shelf(), describing()
    result = Reranker("describe", chat, retriever=shelf).rank(query, FIRST)
    assert [h.id for h in result] == [c.id for c in FIRST]
    assert not chat.asks
    assert not shelf.asked


def test_without_a_description_or_an_index_the_order_stands() -> None:
    lost = Reply(error=ChatError("lost"), finish="error")
    result = Reranker("describe", describing(lost), retriever=Shelf()).rank(COMPOSED, FIRST)
    assert [h.id for h in result] == [c.id for c in FIRST]
    assert result.degraded
    result = Reranker("describe", describing()).rank(COMPOSED, FIRST)
    assert [h.id for h in result] == [c.id for c in FIRST]
    assert any("no index" in w for w in result.warnings)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ('{"thought": "x", "description": " a blue\\n car "}', "a blue car"),
        ('```json\n{"caption": "a blue car"}\n```', "a blue car"),
        ('"a blue car"', "a blue car"),
        ("{}", ""),
        ("", ""),
    ],
)
def test_descriptions_are_read_as_models_write_them(text: str, read: str) -> None:
    assert read_description(Reply(text=text)) == read
