"""CoTRR over fakes that enter by the ordinary door: order, failures, ablations, every kind of query."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrerank.chat.fakes.oracle import Oracle
from mmrerank.chat.fakes.scripted import Scripted
from mmrerank.errors import CapabilityError, ChatError, ModelError, UsageError
from mmrerank.messages import Ask, Reply
from mmrerank.ports import Chat
from mmrerank.rerank import judgements
from mmrerank.reranker import Reranker
from mmrerank.types import Candidate, Image, Query

PICTURE = Image(data=b"not decoded here")


def candidates(n: int) -> list[Candidate]:
    return [Candidate(id=f"i{k}", image=PICTURE, score=1 - k / 100) for k in range(n)]


def graded(grades: Sequence[int]) -> Oracle:
    return Oracle(grades=lambda query, id_: grades[int(id_[1:])])


def ideal(grades: Sequence[int]) -> list[str]:
    return [f"i{k}" for k in sorted(range(len(grades)), key=lambda k: -grades[k])]


MODES: list[dict[str, Any]] = [
    {},
    {"mode": "single"},
    {"order": "sum"},
    {"group_size": 3},
    {"deconstruct": False},
    {"evaluate": False},
    {"order_images": True},
    {"mode": "single", "evaluate": False},
]


@pytest.mark.parametrize("options", MODES, ids=str)
@settings(deadline=None, max_examples=15)
@given(grades=st.lists(st.integers(0, 3), max_size=30))
def test_a_model_that_knows_gives_the_ideal_order(options: dict[str, Any], grades: list[int]) -> None:
    result = Reranker("cotrr", graded(grades), **options).rank("x", candidates(len(grades)))
    if options.get("order") == "sum":
        # over one component, grades 1 and 2 are both "partly"
        grades = [{0: 0, 1: 1, 2: 1, 3: 2}[g] for g in grades]
    assert [h.id for h in result] == ideal(grades)
    assert result.repairs.failed == 0


@pytest.mark.parametrize(
    ("query", "images"),
    [
        (Query(text="a boat"), 0),
        (Query(images=(PICTURE,)), 1),
        (Query(text="the same at night", images=(PICTURE,)), 1),
        (Query(text="at night", turns=("a boat", "make it red")), 0),
        (Query(text="a boat", exclude=("people",)), 0),
    ],
    ids=["text", "image", "composed", "dialogue", "exclude"],
)
@pytest.mark.parametrize("mode", ["staged", "single"])
def test_every_kind_of_query(query: Query, images: int, mode: str) -> None:
    chat = Scripted(Oracle(grades=lambda q, i: 3 if i == "i2" else 0)._answer)  # type: ignore[arg-type]
    result = Reranker("cotrr", chat, mode=mode).rank(query, candidates(3))
    assert result.hits[0].id == "i2"
    prompt = chat.asks[0].messages[-1].text
    for words in (query.text, *query.turns):
        assert words in prompt
    # what is not wanted is a part as it stands, and not for the model to take apart
    assert all(words in chat.asks[-1].messages[-1].text for words in query.exclude)
    for ask in chat.asks:
        shown = sum(p.image is not None for m in ask.messages for p in m.parts)
        assert shown == images + (0 if ask.kind == "deconstruct" else len(ask.shown))


@pytest.mark.parametrize(
    ("unwanted", "part"),
    [
        ("dogs", "no dogs"),
        ("a dog", "no dog"),
        ("any dog ", "no dog"),
        ("indoor dog", "no indoor dog"),
        ("on a dog", "not on a dog"),
    ],
)
def test_what_is_excluded_is_a_part_of_its_own(unwanted: str, part: str) -> None:
    parts = [{"kind": "subject", "text": "a boat"}, {"kind": "subject", "text": "a boat"}]
    chat = Scripted(
        lambda ask: {
            "deconstruct": {"components": parts},
            "evaluate": {"A": {"c1": {"verdict": "met"}, "c2": {"verdict": "met"}, "grade": 3}},
            "order": {"reason": "A", "scores": {"A": 9, "B": 5}},
        }[ask.kind]
    )
    result = Reranker("cotrr", chat).rank(Query(text="a boat", exclude=(unwanted,)), candidates(2))
    assert "dog" not in chat.asks[0].messages[-1].text
    told = [(c.id, c.kind, c.text) for c in result.explanation.components]
    assert told == [("c1", "subject", "a boat"), ("c2", "exclusion", part)]


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("B fits best: every part is met", "i1 fits best: every part is met"),
        ("image B beats image A", "i1 beats i0"),
        ("sails are seen", "sails are seen"),
        ("A fits best: every part is met", "i1 comes first: 1 of 2 parts met"),
    ],
)
def test_the_sentence_is_about_the_image_in_first_place(said: str, shown: str) -> None:
    chat = Scripted(
        lambda ask: {
            "deconstruct": {
                "components": [{"kind": "subject", "text": "a boat"}, {"kind": "subject", "text": "a dog"}]
            },
            "evaluate": {"A": {"c1": {"verdict": "met"}, "c2": {"verdict": "missed"}, "grade": 1}},
            "order": {"reason": said, "scores": {"A": 5, "B": 9}},
        }[ask.kind]
    )
    result = Reranker("cotrr", chat).rank("a boat", candidates(2))
    assert result.hits[0].id == "i1"
    assert result.explanation.reason == shown


def test_ids_that_are_numbers_are_no_part_of_a_sentence() -> None:
    order = [Candidate(id=n, image=PICTURE) for n in ("2", "1")]
    ask = judgements.order(Query(text="a boat"), (), order, {})
    reply = Reply(text='{"reason":"B comes closest: 2 of 3 parts met","scores":{"A":1,"B":9}}')
    assert judgements.read_order(reply, ask).reason == "1 comes closest: 2 of 3 parts met"


def test_the_stages_build_on_each_other() -> None:
    chat = Scripted(
        lambda ask: {
            "deconstruct": {"components": [{"kind": "subject", "text": "a boat"}]},
            "evaluate": {"A": {"c1": {"note": f"saw {ask.shown}", "verdict": "partly"}, "grade": 2}},
            "order": {"reason": "B, since it floats", "scores": {"A": 1, "B": 90, "C": 40}},
        }[ask.kind]
    )
    result = Reranker("cotrr", chat).rank("a boat", candidates(3))
    assert [a.kind for a in chat.asks] == ["deconstruct", *["evaluate"] * 3, "order"]
    assert "c1 (subject): a boat" in chat.asks[1].messages[-1].text
    assert (
        "Noted of it: grade 2; c1 partly (saw ('i1',));\nImage C: [image]" in chat.asks[-1].messages[-1].text
    )
    # the order is the model's own, not computed from the equal verdicts
    assert [h.id for h in result] == ["i1", "i2", "i0"]
    assert result.explanation.reason == "B, since it floats"
    assert result.no_match
    assert result.usage.calls == 5
    assert [s.kind for s in result.trace.steps] == [a.kind for a in chat.asks]


def failing(on: Any) -> Any:
    oracle = graded([0, 1, 2, 3, 0, 3])

    def answer(ask: Ask) -> Any:
        if on(ask):
            return Reply(error=ChatError("server down", retryable=True), finish="error")
        return oracle.reply([ask])[0]

    return Scripted(answer)


def test_an_image_that_was_not_judged_keeps_its_rank() -> None:
    chat = failing(lambda ask: ask.kind == "evaluate" and ask.shown == ("i1",))
    result = Reranker("cotrr", chat).rank("x", candidates(6))
    assert [h.id for h in result] == ["i3", "i1", "i5", "i2", "i0", "i4"]
    assert result.repairs.failed == 1
    assert result.degraded
    assert "server down" in result.warnings[0]
    assert result.hits[1].assessment is None


@pytest.mark.parametrize("kind", ["evaluate", "order", "single", ""])
@pytest.mark.parametrize("mode", ["staged", "single"])
def test_where_judging_fails_the_first_order_stands(kind: str, mode: str) -> None:
    chat = failing(lambda ask: ask.kind == kind or not kind)
    result = Reranker("cotrr", chat, mode=mode).rank("x", candidates(6))
    asked = {"staged": ("evaluate", "order", ""), "single": ("single", "")}[mode]
    if kind in asked:
        assert [h.id for h in result] == [c.id for c in candidates(6)]
        assert result.degraded
        assert result.warnings


def test_a_failed_deconstruction_still_judges_the_whole_query() -> None:
    chat = failing(lambda ask: ask.kind == "deconstruct")
    result = Reranker("cotrr", chat).rank("a red boat", candidates(6))
    assert [h.id for h in result] == ["i3", "i5", "i2", "i1", "i0", "i4"]
    assert [c.text for c in result.explanation.components] == ["a red boat"]
    assert result.repairs.failed == 1


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(max_size=80), min_size=1, max_size=8), st.integers(0, 6))
def test_whatever_the_model_says_nothing_is_lost(texts: list[str], n: int) -> None:
    for options in ({}, {"mode": "single"}, {"order": "sum"}, {"group_size": 2}):
        result = Reranker("cotrr", Scripted(texts), **options).rank("q", candidates(n))
        assert sorted(h.id for h in result) == sorted(c.id for c in candidates(n))


def test_repeated_missing_and_invented_ids_are_counted() -> None:
    oracle = graded([1, 1, 1, 1])

    def answer(ask: Ask) -> Any:
        if ask.kind == "order":
            return json.dumps({"ranking": ["C", "C", "Z", "A"]})
        return oracle.reply([ask])[0]

    result = Reranker("cotrr", Scripted(answer)).rank("x", candidates(4))
    assert [h.id for h in result] == ["i2", "i0", "i1", "i3"]
    repairs = result.repairs
    assert (repairs.unknown, repairs.repeated, repairs.missing) == (1, 1, 2)
    assert repairs.repaired == 1
    assert not result.degraded


def test_many_queries_share_rounds() -> None:
    rounds: list[int] = []
    oracle = graded([0, 3, 1])

    class Counting(Chat):
        spec, domain, capabilities = "counting", "", frozenset({"generate"})

        def reply(self, asks: Sequence[Ask]) -> list[Reply]:
            rounds.append(len(asks))
            return oracle.reply(asks)

    results = Reranker("cotrr", Counting()).rank_batch([(f"q{n}", candidates(3)) for n in range(5)])
    assert rounds == [5, 15, 5]
    assert all([h.id for h in r] == ["i1", "i2", "i0"] for r in results)


def test_a_backend_that_gives_too_few_replies_costs_judgements_not_results() -> None:
    class Short(Chat):
        spec, domain, capabilities = "short", "", frozenset({"generate"})

        def reply(self, asks: Sequence[Ask]) -> list[Reply]:
            return []

    result = Reranker("cotrr", Short()).rank("x", candidates(3))
    assert [h.id for h in result] == ["i0", "i1", "i2"]
    assert result.degraded


def test_a_missing_model_is_raised() -> None:
    class Gone(Chat):
        spec, domain, capabilities = "gone", "", frozenset({"generate"})

        def reply(self, asks: Sequence[Ask]) -> list[Reply]:
            raise ModelError("no such model")

    with pytest.raises(ModelError, match="no such model"):
        Reranker("cotrr", Gone()).rank("x", candidates(3))


def test_clear_errors_before_any_call() -> None:
    with pytest.raises(UsageError, match="no method 'cottr'.*Did you mean 'cotrr'"):
        Reranker("cottr", Oracle())
    with pytest.raises(UsageError, match="unknown option 'mod'.*Did you mean 'mode'"):
        Reranker("cotrr", Oracle(), mod="single")
    with pytest.raises(UsageError, match="mode must be one of staged, single"):
        Reranker("cotrr", Oracle(), mode="twice")
    with pytest.raises(UsageError, match="sums verdicts"):
        Reranker("cotrr", Oracle(), mode="single", order="sum")
    with pytest.raises(CapabilityError, match="needs a language model"):
        Reranker("cotrr")


def test_pointwise_orders_by_margin_and_keeps_what_failed() -> None:
    margins = {"i0": 0.1, "i1": None, "i2": 2.0}

    def answer(ask: Ask) -> Any:
        margin = margins[ask.shown[0]]
        if margin is None:
            return Reply(error=ChatError("no"), finish="error")
        return Reply(logprobs={"yes": margin, "no": 0.0})

    result = Reranker("pointwise", Scripted(answer)).rank("x", candidates(3))
    assert [h.id for h in result] == ["i2", "i1", "i0"]
    assert result.repairs.failed == 1
