"""Methods where a query is made of exclusions or references, and where a reply is missing or cut off."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mmrerank.chat.fakes.oracle import Oracle
from mmrerank.errors import ChatError, NoRoomError
from mmrerank.messages import Ask, Reply, Retrieve
from mmrerank.ports import Retriever
from mmrerank.rerank import comparisons, judgements
from mmrerank.rerank.states import attend, read_attention
from mmrerank.reranker import Reranker
from mmrerank.types import Candidate, Image, Query

PICTURE = Image(data=b"not decoded here")
REFERENCE = Image(data=b"the reference")
LIST = [Candidate(id=f"i{n}", image=PICTURE) for n in range(6)]


class Heard(Oracle):
    """An oracle that likes later images better, and keeps what it is asked; ``lost`` questions fail."""

    def __init__(self, parts: Sequence[dict[str, str]] = (), lost: Any = lambda ask, n: False) -> None:
        super().__init__(lambda query, id: int(id[1:]) % 4, lambda query: parts)
        self.asks: list[Ask] = []
        self.lost = lost

    def reply(self, asks: Sequence[Ask]) -> list[Reply]:
        replies = super().reply(asks)
        for n, ask in enumerate(asks):
            if self.lost(ask, len(self.asks)):
                replies[n] = Reply(error=ChatError("lost"), finish="error")
            self.asks.append(ask)
        return replies

    def said(self, kind: str) -> list[str]:
        """The words of each question of a kind."""
        return [a.transcript for a in self.asks if a.kind == kind]

    def pictures(self, kind: str) -> list[list[Any]]:
        """The images of each question of a kind."""
        asks = [a for a in self.asks if a.kind == kind]
        return [[p.image for m in a.messages for p in m.parts if p.image] for a in asks]


def test_what_is_not_wanted_is_nothing_to_be_near_to() -> None:
    heard = Heard([{"kind": "exclusion", "text": "the dog"}])
    query = Query(text="without the dog", exclude=("people",))
    result = Reranker("mvp", heard).rank(query, LIST)
    assert [h.id for h in result] == [c.id for c in LIST]
    assert "first-stage order" in result.explanation.reason
    assert {a.kind for a in heard.asks} == {"deconstruct"}

    heard = Heard()
    Reranker("multivector", heard).rank(Query(text="a boat", exclude=("people",)), LIST)
    assert heard.said("tokens_text")
    assert "people" not in heard.said("tokens_text")[0]


@pytest.mark.parametrize("lost", [False, True])
def test_a_reference_image_is_looked_for_itself(lost: bool) -> None:
    query = Query(images=(REFERENCE,))
    heard = Heard(lost=lambda ask, n: lost and ask.kind == "deconstruct")
    Reranker("mvp", heard, deconstruct=lost).rank(query, LIST)
    assert heard.pictures("tokens_query") == [[REFERENCE]]
    assert not heard.said("tokens_text")  # the words that stand for it say nothing of it

    heard = Heard()
    both = Query(text="the same at night", images=(REFERENCE,))
    Reranker("multivector", heard).rank(both, LIST)
    assert heard.pictures("tokens_query") == [[REFERENCE]]
    assert "the same at night" in heard.said("tokens_text")[0]


@pytest.mark.parametrize(("method", "kind"), [("icr", "attend"), ("first", "pick")])
def test_the_search_without_content_has_no_reference(method: str, kind: str) -> None:
    heard = Heard()
    Reranker(method, heard, calibrate=True).rank(Query(images=(REFERENCE,)), LIST)
    shown = [REFERENCE in pictures for pictures in heard.pictures(kind)]
    assert sorted(shown) == [False, True]


def test_attention_is_not_taken_from_another_image() -> None:
    group = [LIST[0], Candidate(id="t", text="words alone"), LIST[1]]
    ask = attend(Query(text="x", images=(REFERENCE,)), group)
    states = tuple(np.full(2, v, np.float32) for v in (99.0, 1.0, 2.0))
    assert read_attention(Reply(states=states), ask) is None
    ask = attend(Query(text="x", images=(REFERENCE,)), [LIST[0], LIST[1]])
    assert [float(s[0]) for s in read_attention(Reply(states=states), ask) or ()] == [1.0, 2.0]


def test_a_yes_is_on_one_scale_whether_its_mass_is_known_or_not() -> None:
    sure = Reply(logprobs={"yes": -0.01, "no": -4.6}, mass=-0.001)
    unsure = Reply(logprobs={"yes": -0.2, "no": -1.7})
    one, other = comparisons.read_alone(sure), comparisons.read_alone(unsure)
    assert one is not None
    assert other is not None
    assert other < one < 0


def test_one_image_that_fails_costs_no_vote() -> None:
    heard = Heard(lost=lambda ask, n: "i0" in ask.shown)
    result = Reranker("vote", heard, method="pointwise", votes=2).rank("x", LIST[:4])
    # i0 stays where it stood, the others are in the model's order
    assert [h.id for h in result] == ["i0", "i3", "i2", "i1"]
    assert result.repairs.failed == 2


@pytest.mark.parametrize("written", [False, True])
def test_half_a_pair_says_nothing(written: bool) -> None:
    # only the first of each two orders is answered, by a model that would turn the list around
    heard = Heard(lost=lambda ask, n: n % 2 == 1)
    options = {"schedule": "allpairs", "read": "written" if written else "logprobs"}
    result = Reranker("prp", heard, options=options).rank("x", LIST[:3])
    assert [h.id for h in result] == ["i0", "i1", "i2"]


def test_verdicts_keep_to_their_parts_when_a_part_is_dropped() -> None:
    ask = judgements.single(Query(text="a dog on a beach"), LIST[:2])
    dog, beach = {"kind": "subject", "text": "a dog"}, {"kind": "environment", "text": "on a beach"}
    images = {"A": {"note": "", "verdicts": ["met", "met", "missed"], "grade": 2}}
    body = {"components": [dog, dog, beach], "images": images, "reason": "", "scores": {"A": 9, "B": 1}}
    read = judgements.read_single(Reply(text=json.dumps(body)), ask)
    told = {v.component: v.verdict for v in read.assessments["i0"].verdicts}
    assert [c.text for c in read.components] == ["a dog", "on a beach"]
    assert told == {"c1": "met", "c2": "missed"}


class Shelf(Retriever):
    """A first stage that keeps what it is asked."""

    def __init__(self) -> None:
        self.asked: list[Query] = []

    def retrieve(self, requests: Sequence[Retrieve]) -> list[tuple[Candidate, ...]]:
        self.asked += [r.query for r in requests if r.query]
        return [() for _ in requests]


def test_every_search_of_a_plan_keeps_away_from_what_is_not_wanted() -> None:
    shelf = Shelf()
    heard = Heard([{"kind": "subject", "text": "a dog"}, {"kind": "detail", "text": "red"}])
    query = Query(text="dog", exclude=("cat",), instruction="photographs only")
    Reranker("plan", heard, retriever=shelf).rank(query, LIST)
    assert shelf.asked
    assert all((q.exclude, q.instruction) == (query.exclude, query.instruction) for q in shelf.asked)


def test_thoughts_that_took_all_the_room_are_given_more() -> None:
    class Thinker(Heard):
        def reply(self, asks: Sequence[Ask]) -> list[Reply]:
            replies = super().reply(asks)
            cut = Reply(error=NoRoomError("only reasoning"), finish="error")
            return [cut] if len(self.asks) == 1 else replies

    heard = Thinker()
    result = Reranker("reasonrank", heard).rank("x", LIST[:4])
    assert [a.max_tokens for a in heard.asks][1] == 2 * heard.asks[0].max_tokens
    assert [h.id for h in result] == ["i3", "i2", "i1", "i0"]
    assert result.repairs.failed == 0


@pytest.mark.parametrize(
    ("method", "options"),
    [("listwise", {"window": 10, "step": 8}), ("listwise", {"window": 10, "step": 10}),
     ("listwise", {"window": 10, "step": 2}), ("first", {"window": 10, "step": 9})],
)  # fmt: skip
def test_no_more_is_settled_than_one_pass_carries_to_the_head(method: str, options: dict[str, Any]) -> None:
    many = [replace(LIST[0], id=f"i{n}") for n in range(30)]
    chat = Oracle(lambda query, id: 3 * (int(id[1:]) >= 27) + (int(id[1:]) == 29))
    reranker = Reranker(method, chat, options=options)
    settled = reranker.options.settles(30)
    assert settled == 10 - options["step"]
    found = [h.id for h in reranker.rank("x", many)]
    assert set(found[: min(settled, 3)]) <= {"i27", "i28", "i29"}


def test_a_cascade_foresees_what_its_first_method_may_find() -> None:
    reranker = Reranker("cascade", Heard(), retriever=Shelf(), first="plan", then="pointwise", keep=50)
    assert reranker.options.calls(20) == 1 + 20 + 10 + 30
