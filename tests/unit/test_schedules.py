"""Methods that compare images: with a backend that knows, one that knows nothing and one that fails."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrerank import registry
from mmrerank.chat.oracle import Oracle
from mmrerank.errors import ChatError, UsageError
from mmrerank.messages import Ask, Reply
from mmrerank.rerank import comparisons
from mmrerank.rerank.schedule import windows
from mmrerank.reranker import Reranker
from mmrerank.types import Candidate, Image, Query

PICTURE = Image(data=b"not decoded here")
# how many of the first places each setting promises
METHODS: list[tuple[str, dict[str, Any], int]] = [
    ("prp", {"schedule": "allpairs"}, 1000),
    ("prp", {"schedule": "sliding"}, 10),
    ("prp", {"schedule": "heap", "top": 4}, 4),
    ("setwise", {}, 10),
    ("setwise", {"children": 9, "top": 100}, 100),
    ("grouprank", {}, 1000),
    ("grouprank", {"group_size": 3, "repeats": 1}, 1000),
    ("listwise", {}, 10),
    ("listwise", {"window": 6, "step": 2}, 4),
]
NAMES = [f"{m}-{'-'.join(map(str, o.values())) or 'default'}" for m, o, _ in METHODS]


class Failing(Oracle):
    """An oracle that fails on a share of the calls."""

    def __init__(self, grades: Sequence[int], share: float, seed: int = 0) -> None:
        super().__init__(grades=lambda query, id: grades[int(id[1:])])
        self.share, self.rng, self.asked, self.broken = share, random.Random(seed), 0, 0

    def reply(self, asks: Sequence[Ask]) -> list[Reply]:
        self.asked += len(asks)
        replies = super().reply(asks)
        for n in range(len(replies)):
            if self.rng.random() < self.share:
                replies[n] = Reply(error=ChatError("out of order"), finish="error")
                self.broken += 1
        return replies


def candidates(n: int) -> list[Candidate]:
    return [Candidate(id=f"i{k}", image=PICTURE) for k in range(n)]


def ideal(grades: Sequence[int]) -> list[str]:
    return [f"i{k}" for k in sorted(range(len(grades)), key=lambda k: -grades[k])]


@pytest.mark.parametrize(("method", "options", "top"), METHODS, ids=NAMES)
@settings(deadline=None, max_examples=12)
@given(grades=st.lists(st.integers(0, 3), max_size=45))
def test_a_model_that_knows_gives_the_ideal_order(
    method: str, options: dict[str, Any], top: int, grades: list[int]
) -> None:
    result = Reranker(method, Failing(grades, 0), **options).rank("x", candidates(len(grades)))
    assert [h.id for h in result][:top] == ideal(grades)[:top]
    assert sorted(h.id for h in result) == sorted(ideal(grades))
    assert result.repairs.failed == 0


@pytest.mark.parametrize(("method", "options", "top"), METHODS, ids=NAMES)
@pytest.mark.parametrize("k", [0, 1, 2, 7, 20, 50])
def test_calls_are_what_the_method_says(
    method: str, options: dict[str, Any], top: int, k: int
) -> None:
    grades = [random.Random(k).randrange(4) for _ in range(k)]
    chat = Failing(grades, 0)
    reranker = Reranker(method, chat, **options)
    reranker.rank("x", candidates(k))
    promised = reranker.module.calls(k, reranker.options)
    exact = options.get("schedule") != "heap" and method != "setwise"
    assert chat.asked == promised if exact else chat.asked <= promised
    if k < 2:
        assert chat.asked == 0


def test_calls_at_twenty_are_those_of_the_papers() -> None:
    def calls(method: str, **options: Any) -> int:
        module = registry.load("strategy", method)
        return int(module.calls(20, module.Options(**options)))

    assert calls("prp", schedule="allpairs") == 380
    assert calls("prp", schedule="sliding") == 290
    assert calls("prp", schedule="sliding", top=1) == 38
    assert calls("grouprank") == 4
    assert calls("listwise") == 1
    assert calls("setwise", children=19) <= 10


@pytest.mark.parametrize(("method", "options", "top"), METHODS, ids=NAMES)
@settings(deadline=None, max_examples=8)
@given(grades=st.lists(st.integers(0, 3), max_size=30), seed=st.integers(0, 9))
def test_failures_are_counted_and_lose_nothing(
    method: str, options: dict[str, Any], top: int, grades: list[int], seed: int
) -> None:
    chat = Failing(grades, 1 / 3, seed)
    result = Reranker(method, chat, **options).rank("x", candidates(len(grades)))
    assert sorted(h.id for h in result) == sorted(ideal(grades))
    assert result.repairs.failed == chat.broken
    silent = Reranker(method, Failing(grades, 1), **options).rank("x", candidates(len(grades)))
    assert [h.id for h in silent] == [f"i{n}" for n in range(len(grades))]


def test_a_preference_for_a_letter_says_nothing() -> None:
    class Stubborn(Oracle):
        def reply(self, asks: Sequence[Ask]) -> list[Reply]:
            return [Reply(logprobs={"A": -0.01, "B": -4.6}) for _ in asks]

    for schedule in ("allpairs", "sliding", "heap"):
        result = Reranker("prp", Stubborn(), schedule=schedule).rank("x", candidates(9))
        assert [h.id for h in result] == [f"i{n}" for n in range(9)]


@given(st.integers(1, 200), st.integers(1, 30), st.data())
def test_windows_cover_every_place_and_end_at_the_head(
    k: int, size: int, data: st.DataObject
) -> None:
    step = data.draw(st.integers(1, size))
    found = windows(k, size, step)
    assert {n for a, b in found for n in range(a, b)} == set(range(k))
    assert found[-1][0] == 0
    assert all(0 <= a < b <= k and b - a == min(size, k) for a, b in found)
    assert len(set(found)) == len(found)


def test_wrong_options_are_refused() -> None:
    for method, options in (
        ("prp", {"top": 0}),
        ("prp", {"schedule": "quick"}),
        ("setwise", {"children": 26}),
        ("grouprank", {"repeats": 0}),
        ("listwise", {"window": 4, "step": 5}),
    ):
        with pytest.raises(UsageError):
            Reranker(method, Oracle(), **options)
    with pytest.raises(ValueError, match="2 to 26"):
        comparisons.pick(Query(text="x"), candidates(27))


def test_grades_are_read_tolerantly() -> None:
    ask = comparisons.grade(Query(text="x"), candidates(4))
    text = '{"A": {"note": "a boat", "grade": 7}, "B": "3", "C": {"grade": 99}, "D": {"grade": "high"}}'
    marks, read = comparisons.read_grade(Reply(text=text), ask)
    assert marks == {"i0": 7, "i1": 3}
    assert read.status == "repaired"
    assert read.assessments["i0"].reason == "7 of 10: a boat"
    marks, read = comparisons.read_grade(Reply(text="no idea"), ask)
    assert (marks, read.status) == ({}, "failed")
