"""Every method, with a backend that knows, one that fails on a third of the calls, and one that only fails.

The settings below are all methods with their defaults, and those whose options change how they go about it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise, permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from relevance_laws import check_numbers

from mmrerank import registry
from mmrerank.chat.fakes.oracle import Oracle
from mmrerank.errors import CapabilityError, ChatError, UsageError
from mmrerank.messages import Ask, Reply, Retrieve
from mmrerank.ports import Retriever
from mmrerank.rerank.aggregate import bradley_terry, copeland, mean_preference
from mmrerank.rerank.path import best_path, held_karp, worth
from mmrerank.reranker import Reranker
from mmrerank.types import Candidate, Image, Query

PICTURE = Image(data=b"not decoded here")
MORE: list[tuple[str, dict[str, Any]]] = [
    ("cotrr", {"mode": "single"}),
    ("cotrr", {"order": "sum", "group_size": 3}),
    ("cotrr", {"deconstruct": False, "evaluate": False}),
    ("cotrr", {"order": "sum", "beta": 2, "top": 5}),
    ("cotrr", {"alpha": 0.5}),
    ("pointwise", {"formula": "yes", "think": True}),
    ("pointwise", {"alpha": 0.5, "beta": 2}),
    ("pointwise", {"weight": 0.5}),
    ("erank", {"think": False, "read": "top"}),
    ("prp", {"schedule": "allpairs"}),
    ("prp", {"schedule": "heap", "top": 4}),
    ("prp", {"read": "written"}),
    ("tsprank", {"aggregate": "path"}),
    ("tsprank", {"aggregate": "borda"}),
    ("tsprank", {"aggregate": "bradley_terry"}),
    ("setwise", {"children": 9, "top": 100}),
    ("setwise", {"schedule": "insertion"}),
    ("setwise", {"schedule": "insertion", "children": 1, "top": 3}),
    ("setwise", {"read": "written"}),
    ("rank_r1", {"children": 3, "votes": 3}),
    ("grouprank", {"group_size": 3, "repeats": 1}),
    ("grouprank", {"group_size": 5, "anchors": 2}),
    ("listwise", {"window": 6, "step": 2}),
    ("listwise", {"full": True}),
    ("first", {"calibrate": True, "shifts": 3}),
    ("first", {"window": 6, "step": 3}),
    ("icr", {"calibrate": False, "pool": "sum"}),
    ("unime_reranker", {"mode": "score"}),
    ("unime_reranker", {"weight": 0.5}),
    ("e2rank", {"mode": "rocchio"}),
    ("multivector", {"alpha": 0.5, "beta": 2}),
    ("mvp", {"deconstruct": False}),
    ("cascade", {"first": "setwise", "then": "tsprank", "keep": 5}),
    ("vote", {"method": "grouprank", "votes": 2}),
    ("plan", {"write": True}),
    ("feedback", {"rounds": 2, "found": 3}),
    ("feedback", {"judge": "verdicts"}),
]
METHODS = [*((m, {}) for m in registry.names("strategy")), *MORE]
NAMES = [f"{m}-{'-'.join(f'{k}={v}' for k, v in o.items()) or 'defaults'}" for m, o in METHODS]
every = pytest.mark.parametrize(("method", "options"), METHODS, ids=NAMES)
# methods whose number of calls depends on what they hear
ADAPTIVE = {"prp", "setwise", "rank_r1", "mvp", "cascade", "plan", "feedback", "describe"}
# methods that ask nothing about a query in words alone
SILENT = {"none", "describe"}


class Knowing(Oracle):
    """An oracle over grades by number, which may fail; it counts."""

    def __init__(self, grades: Sequence[int], share: float = 0.0, seed: int = 0) -> None:
        def grade(query: Query, id: str) -> int:
            if query.text == "N/A":
                return 0
            return grades[int(id[1:])] if id[0] == "i" else 3

        # as many parts as there are grades, so that verdicts tell grades apart
        parts = [{"kind": "detail", "text": f"part {n}"} for n in range(3)]
        super().__init__(grade, lambda query: parts)
        self.share, self.rng, self.asked, self.broken = share, random.Random(seed), 0, 0

    def reply(self, asks: Sequence[Ask]) -> list[Reply]:
        self.asked += len(asks)
        replies = super().reply(asks)
        for n in range(len(replies)):
            assert replies[n].error is None, replies[n].error
            if self.rng.random() < self.share:
                replies[n] = Reply(error=ChatError("out of order"), finish="error")
                self.broken += 1
        return replies


class Shelf(Retriever):
    """A first stage that always finds the same images besides."""

    def __init__(self, more: Sequence[str] = ()) -> None:
        self.more = [Candidate(id=i, image=PICTURE, score=0.1) for i in more]
        self.requests: list[Retrieve] = []

    def retrieve(self, requests: Sequence[Retrieve]) -> list[tuple[Candidate, ...]]:
        self.requests += requests
        return [tuple(self.more) for _ in requests]


def candidates(n: int) -> list[Candidate]:
    return [Candidate(id=f"i{k}", image=PICTURE, score=1 - k / 200) for k in range(n)]


def ideal(grades: Sequence[int]) -> list[str]:
    return [f"i{k}" for k in sorted(range(len(grades)), key=lambda k: -grades[k])]


def opened(method: str, options: dict[str, Any], chat: Oracle) -> Reranker:
    return Reranker(method, chat, retriever=Shelf(), **options)


def agrees(method: str, options: dict[str, Any], grades: Sequence[int]) -> None:
    chat = Knowing(grades)
    reranker = opened(method, options, chat)
    result = reranker.rank("a boat", candidates(len(grades)))
    top = reranker.options.settles(len(grades))
    check_numbers(result)
    assert [h.id for h in result][:top] == ideal(grades)[:top]
    assert sorted(h.id for h in result) == sorted(ideal(grades))
    assert result.repairs.failed == 0
    assert result.warnings == ()


@every
@settings(deadline=None, max_examples=10)
@given(grades=st.lists(st.integers(0, 3), max_size=40))
def test_a_model_that_knows_gives_the_ideal_order(
    method: str, options: dict[str, Any], grades: list[int]
) -> None:
    agrees(method, options, grades)


@every
@pytest.mark.parametrize("k", [1, 26, 27, pytest.param(100, marks=pytest.mark.slow)])
def test_the_order_is_ideal_for_long_lists_too(method: str, options: dict[str, Any], k: int) -> None:
    agrees(method, options, [random.Random(k).randrange(4) for _ in range(k)])


def test_methods_that_promise_everything_say_so() -> None:
    def top(method: str, k: int, **options: Any) -> int:
        module = registry.load("strategy", method)
        return int(module.Options(**options).settles(k))

    whole = {m for m in registry.names("strategy") if top(m, 20) == 20}
    # the others sort the best ten out, read lists of nine, or leave the order to the index
    others = {"none", "describe", "prp", "setwise", "rank_r1", "unime_reranker"}
    assert set(registry.names("strategy")) - whole == others
    assert top("prp", 20) == top("setwise", 20) == top("rank_r1", 20) == 10
    assert top("listwise", 50) == top("first", 50) == top("reasonrank", 50) == 10


@every
@pytest.mark.parametrize("k", [0, 1, 2, 7, 20, *(pytest.param(k, marks=pytest.mark.slow) for k in (50, 100))])
def test_calls_are_what_the_method_says(method: str, options: dict[str, Any], k: int) -> None:
    chat = Knowing([random.Random(k).randrange(4) for _ in range(k)])
    reranker = opened(method, options, chat)
    result = reranker.rank("a boat", candidates(k))
    promised = reranker.options.calls(k)
    saves = bool({"alpha", "beta"} & options.keys())
    if method in ADAPTIVE or saves:
        assert chat.asked <= promised
    else:
        assert chat.asked == promised
    assert result.usage.calls == chat.asked
    if k < 2:
        assert chat.asked == 0
        assert promised == 0 or method in SILENT


def test_calls_at_twenty_are_those_of_the_papers() -> None:
    def calls(method: str, **options: Any) -> int:
        module = registry.load("strategy", method)
        return int(module.Options(**options).calls(20))

    assert calls("cotrr", mode="single") == 1
    assert calls("cotrr") == 1 + 20 + 1
    assert calls("cotrr", group_size=5) == 1 + 4 + 1
    for method in ("pointwise", "judge", "erank", "prorank"):
        assert calls(method) == 20
    assert calls("unime_reranker") == 4  # windows of nine
    assert calls("unime_reranker", mode="score") == 20
    assert calls("prp", schedule="allpairs") == calls("tsprank") == 380
    assert calls("prp", schedule="sliding") == 290
    assert calls("prp", schedule="sliding", top=1) == 38
    assert calls("setwise", children=19) == calls("rank_r1") == 10
    assert calls("grouprank") == 4
    assert calls("first") == calls("listwise") == calls("reasonrank") == 1
    assert calls("listwise", window=10, step=5) == 3
    assert calls("icr") == 2
    assert calls("dear") == 20 + 1
    # the 20 vectors of the images do not depend on the query
    assert calls("e2rank") == calls("multivector") == 20 + 1
    assert calls("none") == 0


@every
@settings(deadline=None, max_examples=8)
@given(grades=st.lists(st.integers(0, 3), max_size=30), seed=st.integers(0, 9))
def test_failures_are_counted_and_lose_nothing(
    method: str, options: dict[str, Any], grades: list[int], seed: int
) -> None:
    chat = Knowing(grades, 1 / 3, seed)
    result = opened(method, options, chat).rank("a boat", candidates(len(grades)))
    assert sorted(h.id for h in result) == sorted(ideal(grades))
    assert result.repairs.failed == chat.broken
    silent = opened(method, options, Knowing(grades, 1)).rank("a boat", candidates(len(grades)))
    assert [h.id for h in silent] == [f"i{n}" for n in range(len(grades))]
    if len(grades) > 1 and method not in SILENT:
        assert silent.degraded
        assert "judgement(s) failed" in silent.warnings[0]


@every
def test_every_method_says_what_it_did(method: str, options: dict[str, Any]) -> None:
    result = opened(method, options, Knowing([0, 3, 1, 2])).rank("a boat", candidates(4))
    if method in SILENT:
        return
    assert result.explanation.reason
    assert result.trace.steps
    for step in result.trace.steps:
        assert step.prompt
        assert step.kind


QUERIES = [
    Query(text="a boat"),
    Query(images=(PICTURE,)),
    Query(text="the same at night", images=(PICTURE,)),
    Query(text="at night", turns=("a boat", "make it red"), exclude=("people",)),
]


@every
@pytest.mark.parametrize("query", QUERIES, ids=lambda q: q.kind)
def test_every_kind_of_query_is_taken(method: str, options: dict[str, Any], query: Query) -> None:
    reranker = opened(method, options, Knowing([0, 3, 1, 2]))
    result = reranker.rank(query, candidates(4))
    top = reranker.options.settles(4)
    assert sorted(h.id for h in result) == ["i0", "i1", "i2", "i3"]
    assert [h.id for h in result][:top] == ["i1", "i3", "i2", "i0"][:top]


class Deaf(Oracle):
    """Offers nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.capabilities = frozenset()


def test_a_method_says_early_what_its_backend_lacks() -> None:
    with pytest.raises(CapabilityError, match="icr needs attention"):
        Reranker("icr", Deaf())
    with pytest.raises(CapabilityError, match="erank needs generate, choice_logprobs"):
        Reranker("erank", Deaf())
    with pytest.raises(CapabilityError, match="prp needs generate,"):
        Reranker("prp", Deaf(), read="written")
    assert Reranker("feedback", judge="first").chat is None
    with pytest.raises(UsageError, match="no method 'nonesuch'"):
        Reranker("cascade", Oracle(), first="nonesuch")


# --- methods that search again -----------------------------------------------------------------------


@pytest.mark.parametrize("method", ["feedback", "plan"])
def test_images_found_on_the_way_join_the_order(method: str) -> None:
    shelf = Shelf(["i1", "new1", "new2"])
    chat = Knowing([0, 2, 3])
    result = Reranker(method, chat, retriever=shelf).rank("a boat", candidates(3))
    # new ones are worth 3, and come after what was there among equals
    assert [h.id for h in result] == ["i2", "new1", "new2", "i1", "i0"]
    assert [h.first_rank for h in result] == [3, None, None, 2, 1]
    assert [h.id for h in result.first] == ["i0", "i1", "i2"]
    assert "2 images are new" in result.explanation.reason or "2 found" in result.explanation.reason
    assert shelf.requests


def test_feedback_moves_towards_what_is_liked() -> None:
    shelf = Shelf()
    Reranker("feedback", Knowing([3, 0]), retriever=shelf, move=1.0, away=0.5).rank("a boat", candidates(2))
    (request,) = shelf.requests
    assert request.toward["i0"] > 0 > request.toward["i1"]
    assert sum(request.toward.values()) == pytest.approx(0.5)


def test_without_an_index_to_search_the_candidates_are_ordered_all_the_same() -> None:
    for method in ("feedback", "plan"):
        result = Reranker(method, Knowing([0, 3])).rank("a boat", candidates(2))
        assert [h.id for h in result] == ["i1", "i0"]
        assert not result.degraded
        assert "no index here" in result.warnings[0]


def test_plan_searches_with_different_parts() -> None:
    shelf = Shelf()
    parts = [{"kind": "subject", "text": "a boat"}, {"kind": "exclusion", "text": "people"},
             {"kind": "environment", "text": "the sea"}]  # fmt: skip
    chat = Oracle(lambda query, id: 1, lambda query: parts)
    Reranker("plan", chat, retriever=shelf).rank("a boat at sea", candidates(2))
    texts = [r.query.text for r in shelf.requests if r.query]
    assert texts == ["a boat, the sea", "a boat", "the sea"]


# --- order out of comparisons ------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 7), st.integers(0, 10_000))
def test_the_best_path_is_that_of_trying_all(n: int, seed: int) -> None:
    edges = np.random.default_rng(seed).normal(size=(n, n))
    brute = max(worth(edges, p) for p in permutations(range(n)))
    assert worth(edges, held_karp(edges)) == pytest.approx(brute, abs=1e-9)
    assert sorted(best_path(edges)) == list(range(n))


@pytest.mark.parametrize("n", [8, 9])
def test_the_best_path_of_nine_is_that_of_trying_all(n: int) -> None:
    edges = np.random.default_rng(n).normal(size=(n, n))
    brute = max(sum(edges[a, b] for a, b in pairwise(p)) for p in permutations(range(n)))
    assert worth(edges, held_karp(edges)) == pytest.approx(brute, abs=1e-9)


@settings(deadline=None, max_examples=20)
@given(st.integers(13, 30), st.integers(0, 1000))
def test_long_paths_are_at_least_as_good_as_their_start(n: int, seed: int) -> None:
    edges = np.random.default_rng(seed).normal(size=(n, n))
    start = list(np.random.default_rng(seed + 1).permutation(n))
    found = best_path(edges, start)
    assert sorted(found) == list(range(n))
    assert worth(edges, found) >= worth(edges, start) - 1e-9


def test_a_mended_path_comes_near_the_best_one() -> None:
    from mmrerank.rerank import path

    shares = []
    for seed in range(20):
        edges = np.random.default_rng(seed).normal(size=(11, 11))
        exact = worth(edges, held_karp(edges))
        shares.append(worth(edges, path._mended(edges, path._inserted(edges))) / exact)
    assert np.mean(shares) > 0.9


def consistent(strengths: Sequence[float]) -> np.ndarray[Any, Any]:
    s = np.array(strengths)
    p: np.ndarray[Any, Any] = 1 / (1 + np.exp(s[None] - s[:, None]))
    return p


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(-3, 3), min_size=2, max_size=10, unique_by=lambda x: round(x, 1)))
def test_rules_agree_where_the_model_is_consistent(strengths: list[float]) -> None:
    p = consistent(strengths)
    best = sorted(range(len(p)), key=lambda n: -strengths[n])
    for rule in (copeland, mean_preference, bradley_terry):
        values = rule(p)
        assert sorted(range(len(p)), key=lambda n: -(values[n] or 0)) == best
    assert best_path(np.log(p)) == best


def test_bradley_terry_recovers_strengths() -> None:
    strengths = [2.0, 1.0, 0.0, -1.0, -2.0]
    found = np.array([v or 0.0 for v in bradley_terry(consistent(strengths))])
    assert np.corrcoef(found, strengths)[0, 1] > 0.999


def test_unknown_pairs_are_no_information() -> None:
    p = np.full((3, 3), np.nan)
    p[0, 1], p[1, 0] = 0.2, 0.8
    assert mean_preference(p) == [0.2, 0.8, None]
    assert copeland(p) == [0.0, 1.0, None]
    strengths = bradley_terry(p)
    assert strengths[2] is None
    assert (strengths[1] or 0) > (strengths[0] or 0)
