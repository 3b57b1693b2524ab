"""The order step by looking: all images, the finalists or windows, one pass or two, and what is told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from mmrerank import catalog
from mmrerank.chat.fakes.oracle import Oracle
from mmrerank.chat.fakes.scripted import Scripted
from mmrerank.errors import ChatError, UsageError
from mmrerank.messages import Ask, Reply, Room
from mmrerank.ports import Chat
from mmrerank.rerank.rooms import settled, within
from mmrerank.rerank.strategies import cotrr
from mmrerank.reranker import Reranker
from mmrerank.results import SearchResult
from mmrerank.types import Candidate, Image, Query

REFERENCE = Image(data=b"the reference")
QUERIES = {
    "text": Query(text="a boat"),
    "composed": Query(text="the same at night", images=(REFERENCE,)),
    "dialogue": Query(text="at night", turns=("a boat", "make it red")),
}
BEST = 19  # the best image, at rank 20
ANY = Room()


def pictures(n: int) -> list[Candidate]:
    return [Candidate(id=f"i{k}", image=Image(data=b"picture %d" % k), score=1 - k / 100) for k in range(n)]


def looked_at(ask: Ask) -> list[int]:
    """The candidates whose pictures stand in a question, in their order."""
    images = [p.image.data for m in ask.messages for p in m.parts if p.image is not None]
    return [int(d.split()[1]) for d in images if d and d.startswith(b"picture")]


class Judge(Scripted):
    """Finds every part met in every image (but those that ``missed`` says), and side by side knows the best.

    Refuses a question with more than ``most`` images, as servers do; ``said`` is how it puts that.
    """

    def __init__(
        self, *, room: Room = ANY, most: int = 0, limit: int | None = None, missed: Sequence[int] = ()
    ) -> None:
        super().__init__(self._say)
        self.room, self.most, self.limit, self.missed = room, most, limit, missed

    def _say(self, ask: Ask) -> Any:
        shown = looked_at(ask)
        count = sum(p.image is not None for m in ask.messages for p in m.parts)
        if self.most and count > self.most:
            kind = "too_many_images" if self.limit else "context"
            return Reply(error=ChatError("too much", kind=kind, limit=self.limit), finish="error")  # type: ignore[arg-type]
        if ask.kind == "deconstruct":
            return {"components": [{"kind": "subject", "text": "a boat"}]}
        if ask.kind == "evaluate":
            good = shown[0] not in self.missed
            row = {"c1": {"note": "a boat", "verdict": "met" if good else "missed"}, "grade": 3 * good}
            return {"A": row}
        # two images of a question are compared where they are seen
        best = {n: 99 if int(i[1:]) == BEST and int(i[1:]) in shown else 50 for n, i in labels(ask)}
        judged = {n: {"note": "", "verdicts": ["met"], "grade": 3} for n, _ in labels(ask)}
        answer = {"reason": "side by side", "scores": best}
        return answer if ask.kind == "order" else {"components": [BOAT], "images": judged, **answer}


BOAT = {"kind": "subject", "text": "a boat"}


def labels(ask: Ask) -> list[tuple[str, str]]:
    return list(zip(ask.labels, ask.shown, strict=True))


def orders(judge: Judge) -> list[list[int]]:
    return [looked_at(a) for a in judge.asks if a.kind == "order"]


def falls(result: SearchResult) -> bool:
    told = [h.relevance for h in result if h.relevance is not None]
    return len(told) == len(result) and all(1 >= a >= b >= 0 for a, b in pairwise(told))


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
@pytest.mark.parametrize("switch", ["auto", "true", True, False, "false"])
def test_the_best_of_equals_is_found_by_looking(query: Query, switch: Any) -> None:
    judge = Judge()
    result = Reranker("cotrr", judge, order_images=switch).rank(query, pictures(20))
    seen = str(switch).lower() != "false"
    assert result.hits[0].id == (f"i{BEST}" if seen else "i0")
    assert orders(judge) == [list(range(20)) if seen else []]
    # equals keep the first stage's order, and stay equal in the method's own numbers
    assert [h.id for h in result][1:5] == (["i0", "i1", "i2", "i3"] if seen else ["i1", "i2", "i3", "i4"])
    assert result.explanation.scores["i0"] == result.explanation.scores["i1"] == 50
    assert falls(result)
    assert not result.warnings
    (ask,) = (a for a in judge.asks if a.kind == "order")
    text = ask.messages[-1].text
    assert "a boat" in text  # what was noted of a part that is met stands there too
    assert all(words in text for words in (query.text, *query.turns))
    reference = [p.image for m in ask.messages for p in m.parts if p.image == REFERENCE]
    assert len(reference) == len(query.images)


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_only_finalists_are_shown_where_not_all_fit(query: Query) -> None:
    judge = Judge(room=Room(images=12), missed=[0, 1, 2, 3, 4, 5, 6, 7, 8])
    result = Reranker("cotrr", judge).rank(query, pictures(20))
    assert result.hits[0].id == f"i{BEST}"
    assert orders(judge) == [list(range(9, 20))]  # all that are tied with place ten, and no other
    assert [h.id for h in result][11:] == [f"i{k}" for k in range(9)]
    assert falls(result)
    assert result.hits[11].relevance == 0
    assert "candidates: the order is by a look" in result.warnings[0]
    assert "best 11 of 20" in result.warnings[0]
    assert not result.degraded


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
@pytest.mark.parametrize("room", [Room(images=8), Room(tokens=6000)])
def test_equals_that_do_not_fit_are_seen_in_windows(query: Query, room: Room) -> None:
    judge = Judge(room=room)
    result = Reranker("cotrr", judge).rank(query, pictures(20))
    assert result.hits[0].id == f"i{BEST}"
    shown = orders(judge)
    assert len(shown) > 1
    assert all(len(s) + len(query.images) <= (room.images or 20) for s in shown)
    assert all(room.holds(a) for a in judge.asks if a.kind == "order")
    assert falls(result)
    assert "at once" in result.warnings[0]
    scores = [result.explanation.scores[h.id] for h in result]
    assert all(a >= b for a, b in pairwise(scores))


@pytest.mark.parametrize(("limit", "tried"), [(7, [20, 7]), (None, [20, 10, 5])])
def test_a_refusal_teaches_how_many_fit(limit: int | None, tried: list[int]) -> None:
    judge = Judge(most=7, limit=limit)
    result = Reranker("cotrr", judge).rank("a boat", pictures(20))
    assert result.hits[0].id == f"i{BEST}"
    assert list(dict.fromkeys(map(len, orders(judge)))) == tried
    assert result.repairs.failed == 0
    assert any("too much" in w for w in result.warnings)
    assert any(f"{tried[-1]} at once" in w for w in result.warnings)


def test_where_no_two_images_fit_the_notes_decide() -> None:
    judge = Judge(most=1, missed=[0])
    result = Reranker("cotrr", judge).rank("a boat", pictures(4))
    assert orders(judge) == [[0, 1, 2, 3], [1, 2], []] or orders(judge)[-1] == []
    assert "not looked at side by side" in " ".join(result.warnings)
    assert result.repairs.failed == 0
    single = Reranker("cotrr", Judge(most=1), mode="single").rank("a boat", pictures(4))
    assert [h.id for h in single] == ["i0", "i1", "i2", "i3"]
    assert single.degraded


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_single_asks_about_twenty_at_once_and_in_windows_where_they_do_not_fit(query: Query) -> None:
    judge = Judge()
    result = Reranker("cotrr", judge, mode="single").rank(query, pictures(20))
    assert result.hits[0].id == f"i{BEST}"
    (ask,) = judge.asks
    assert ask.max_tokens == 9024
    assert list(ask.schema["properties"]) == ["components", "images", "reason", "scores"]  # type: ignore[index]
    few = Judge(room=Room(images=8))
    result = Reranker("cotrr", few, mode="single").rank(query, pictures(20))
    assert result.hits[0].id == f"i{BEST}"
    assert len(few.asks) > 1
    assert falls(result)


def test_the_models_row_settles_auto() -> None:
    judge = Judge(room=Room(auto={"order_images": "false"}))
    assert Reranker("cotrr", judge).rank("a boat", pictures(20)).hits[0].id == "i0"
    assert Reranker("cotrr", judge, order_images="true").rank("a boat", pictures(20)).hits[0].id == f"i{BEST}"
    # a method inside a method too
    inner = Reranker("vote", judge, method="cotrr", votes=1)
    assert inner.rank("a boat", pictures(20)).hits[0].id == "i0"
    assert catalog.resolve("chat", "bundled").auto == {"order_images": "false"}
    assert catalog.resolve("chat", "bundled").brief
    with within(judge):
        assert settled("order_images", "auto") == "false"
    assert settled("order_images", "auto") == "auto"
    with pytest.raises(UsageError, match="order_images must be one of auto, true, false"):
        Reranker("cotrr", judge, order_images="maybe")


# ---------------------------------------------------------------- two passes


class Early(Chat):
    """Knows how good each image is, a little, and likes those that it is shown early."""

    spec, capabilities = "early", frozenset({"generate"})

    def __init__(self, worth: Sequence[int], liking: float, *, listed: bool = False) -> None:
        self.worth, self.liking, self.listed = worth, liking, listed

    def reply(self, asks: Sequence[Ask]) -> list[Reply]:
        return [self._one(a) if a.kind == "order" else Oracle().reply([a])[0] for a in asks]

    def _one(self, ask: Ask) -> Reply:
        n = len(ask.shown)
        scores = {
            label: round(20 + 15 * self.worth[int(id_[1:])] + self.liking * (n - 1 - place))
            for place, (label, id_) in enumerate(labels(ask))
        }
        body: Any = {"reason": "", "scores": scores}
        if self.listed:
            body = {"ranking": sorted(scores, key=lambda s: -scores[s])}
        return Reply(text=__import__("json").dumps(body))


def ndcg(order: Sequence[str], worth: Sequence[int], k: int = 10) -> float:
    gains = [2 ** worth[int(i[1:])] - 1 for i in order]
    best = sorted((2**w - 1 for w in worth), reverse=True)
    total = lambda row: sum(g / math.log2(n + 2) for n, g in enumerate(row[:k]))  # noqa: E731
    return total(gains) / total(best)


@pytest.mark.parametrize("listed", [False, True])
def test_a_second_pass_undoes_a_liking_for_early_places(listed: bool) -> None:
    worth = [0, 0, 1, 0, 2, 0, 1, 0, 0, 1, 0, 2, 0, 1, 0, 3, 0, 2, 1, 3]
    judge = Early(worth, 2.0, listed=listed)
    one, two = (
        Reranker("cotrr", judge, evaluate=False, deconstruct=False, passes=p).rank("a boat", pictures(20))
        for p in (1, 2)
    )
    before, after = (ndcg([h.id for h in r], worth) for r in (one, two))
    assert before < 0.8
    assert after > 0.99
    assert (one.usage.calls, two.usage.calls) == (0, 0)  # this judge counts nothing
    assert len(two.trace.steps) == len(one.trace.steps) + 1
    assert falls(two)


def test_two_passes_need_not_both_be_answered() -> None:
    options = {"evaluate": False, "deconstruct": False, "passes": 2}
    good = Early([0, 3, 0, 0], 0.0)

    def answer(ask: Ask) -> Any:
        if ask.shown[0] == "i3":
            return Reply(error=ChatError("lost"), finish="error")
        return replace(good.reply([ask])[0])

    result = Reranker("cotrr", Scripted(answer), options=options).rank("x", pictures(4))
    assert [h.id for h in result] == ["i1", "i0", "i2", "i3"]
    assert result.repairs.failed == 1
    both = Reranker("cotrr", good, options=options).rank("x", pictures(4))
    assert [h.id for h in both] == ["i1", "i0", "i2", "i3"]  # equals keep the first stage's order


def test_what_it_costs() -> None:
    assert [cotrr.Options(passes=p).calls(20) for p in (1, 2)] == [22, 23]
    assert [cotrr.Options(passes=p, mode="single").calls(20) for p in (1, 2)] == [1, 2]


def test_a_model_that_thinks_may_think_before_the_order() -> None:
    judge = Judge()
    Reranker("cotrr", judge, think=4096).rank("a boat", pictures(3))
    *others, last = judge.asks
    assert not any(a.think for a in others)
    assert last.think
    assert last.max_tokens > 4096
    assert next(iter(last.schema["properties"])) == "thought"  # type: ignore[index]
