"""The method of dedicated rerankers: what is asked, groups and windows, logits, thrift, and failures."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

import pytest

from mmrerank import cancel
from mmrerank.budget import Budget
from mmrerank.chat.fakes.oracle import Oracle
from mmrerank.chat.scoring import ScorerChat
from mmrerank.errors import CancelledError, CapabilityError, ChatError
from mmrerank.messages import Ask, Message, Part, Scoring
from mmrerank.ports import Scorer
from mmrerank.rerank import scoring
from mmrerank.reranker import Reranker
from mmrerank.types import Candidate, Image, Query

PICTURE = Image(data=b"not decoded here")


class Known(Scorer):
    """Scores a candidate by the number that is its text; NaN of one without."""

    spec = "known"

    def __init__(self, group: int = 1, logits: bool = False) -> None:
        self.group, self.logits = group, logits
        self.asked: list[tuple[Query, list[str], str]] = []

    def score(self, query: Query, candidates: Sequence[Candidate], instruction: str = "") -> Sequence[float]:
        self.asked.append((query, [c.text or "" for c in candidates], instruction))
        return [float(c.text or "nan") for c in candidates]


def numbers(*values: float) -> list[Candidate]:
    return [Candidate(id=f"i{n}", text=str(v), score=1 - n / 50) for n, v in enumerate(values)]


# ---------------------------------------------------------------- the question


def test_a_question_says_what_the_model_is_shown() -> None:
    query = Query(text="at night", turns=("a boat", "red"), exclude=("people",), images=(PICTURE,))
    group = [Candidate(id="a", image=PICTURE, text="one"), Candidate(id="b", text="two"),
             Candidate(id="c", image=PICTURE)]  # fmt: skip
    ask = scoring.fit(query, group, instruction="find it")
    assert (ask.needs, ask.instruction, ask.shown) == ("score", "find it", ("a", "b", "c"))
    assert ask.asked == Query(text="a boat\nred\nat night, without people", images=(PICTURE,))
    assert [(c.image, c.text) for c in ask.candidates] == [(PICTURE, "one"), (None, "two"), (PICTURE, None)]
    assert ask.stripped().candidates == ask.candidates
    own = scoring.fit(Query(text="x", instruction="its own"), group, instruction="find it")
    assert own.instruction == "its own"
    assert scoring.fit(Query(text="x"), group).instruction == ""


def test_its_digest_holds_everything_and_is_no_chats() -> None:
    query, one, two = Query(text="x"), Candidate(id="a", text="1"), Candidate(id="a", text="2")
    other = Candidate(id="a", image=Image(data=b"another"))
    asks = [scoring.fit(query, [one]), scoring.fit(query, [two]), scoring.fit(query, [other]),
            scoring.fit(query, [one], instruction="i"), scoring.fit(query, [one, two]),
            scoring.fit(Query(text="y"), [one])]  # fmt: skip
    plain = Ask(messages=asks[0].messages, max_tokens=1)
    assert len({a.digest() for a in [*asks, plain]}) == 7
    assert scoring.fit(query, [Candidate(id="other", text="1")]).digest() == asks[0].digest()
    with pytest.raises(ValueError, match="a query and a candidate"):
        Scoring(messages=(Message(role="user", parts=(Part(text="x"),)),))


# ---------------------------------------------------------------- orders


def test_one_call_for_all_and_relevance_is_the_score() -> None:
    scorer = Known()
    result = Reranker("scorer", ScorerChat(scorer), instruction="find it").rank("x", numbers(0.2, 0.9, 0.5))
    assert [(h.id, h.relevance) for h in result] == [("i1", 0.9), ("i2", 0.5), ("i0", 0.2)]
    assert [(len(texts), told) for _, texts, told in scorer.asked] == [(3, "find it")]
    assert (result.usage.calls, result.degraded) == (3, False)


def test_many_queries_do_not_mix() -> None:
    scorer = Known()
    reranker = Reranker("scorer", ScorerChat(scorer))
    results = reranker.rank_batch([(f"q{n}", numbers(0.1 * n, 0.5)) for n in range(3)])
    assert [r[0].id for r in map(list, results)] == ["i1", "i1", "i1"]
    assert [q.text for q, _, _ in scorer.asked] == ["q0", "q1", "q2"]


def test_logits_and_ties() -> None:
    result = Reranker("scorer", ScorerChat(Known(logits=True))).rank("x", numbers(-2, 3, 3))
    assert [h.id for h in result] == ["i1", "i2", "i0"]
    assert dict(result.explanation.scores) == {"i0": -2, "i1": 3, "i2": 3}
    assert [h.relevance for h in result] == pytest.approx([1 / (1 + math.exp(-v)) for v in (3, 3, -2)])


def test_what_has_no_score_keeps_its_place() -> None:
    result = Reranker("scorer", ScorerChat(Known())).rank("x", [*numbers(0.1, math.nan, 0.3)])
    assert [(h.id, h.relevance) for h in result] == [("i2", 0.3), ("i1", None), ("i0", 0.1)]
    assert result.degraded
    assert result.repairs.failed == 1


def test_thrift_and_weight() -> None:
    scorer = Known()
    many = numbers(*(n / 30 for n in range(20)))
    result = Reranker("scorer", ScorerChat(scorer), alpha=0.2, top=5).rank("x", many)
    assert 5 <= result.usage.calls < 20
    assert "were not asked about" in result.explanation.reason
    mixed = Reranker("scorer", ScorerChat(scorer), weight=0.5).rank("x", numbers(0.5, 0.51))
    assert [h.id for h in mixed] == ["i0", "i1"]
    relevance = [h.relevance or 0.0 for h in mixed]
    assert relevance == sorted(relevance, reverse=True)


@pytest.mark.parametrize(("window", "calls"), [(0, 4), (5, 9)])
def test_groups_go_through_windows(window: int, calls: int) -> None:
    scorer = Known(group=9)
    given = numbers(*((n * 7) % 20 / 20 for n in range(20)))
    result = Reranker("scorer", ScorerChat(scorer), window=window).rank("x", given)
    assert result.usage.calls == len(scorer.asked) == calls
    assert max(len(texts) for _, texts, _ in scorer.asked) == (window or 9)
    best = max(given, key=lambda c: float(c.text or 0))
    assert next(iter(result)).id == best.id
    relevance = [h.relevance for h in result]
    assert relevance[0] == 1.0
    assert relevance == sorted(relevance, reverse=True)  # type: ignore[type-var] # each has one


def test_one_group_keeps_the_scores() -> None:
    result = Reranker("scorer", ScorerChat(Known(group=9))).rank("x", numbers(0.1, 0.7, 0.2))
    assert [(h.id, h.relevance) for h in result] == [("i1", 0.7), ("i2", 0.2), ("i0", 0.1)]
    assert result.usage.calls == 1


def test_a_group_of_which_one_has_no_score() -> None:
    result = Reranker("scorer", ScorerChat(Known(group=9))).rank("x", numbers(0.1, math.nan, 0.2))
    assert [(h.id, h.relevance) for h in result] == [("i2", 0.2), ("i1", None), ("i0", 0.1)]


# ---------------------------------------------------------------- as a chat


def test_a_method_of_chats_is_refused_and_a_chat_by_this_method() -> None:
    with pytest.raises(CapabilityError, match=r"needs choice_logprobs.*known.*offers score"):
        Reranker("pointwise", ScorerChat(Known()))

    class Plain(Oracle):
        def __init__(self) -> None:
            super().__init__()
            self.capabilities = frozenset({"generate"})

    with pytest.raises(CapabilityError, match="--chat rerank:MODEL@URL"):
        Reranker("scorer", Plain())


def test_a_budget_of_calls_is_held() -> None:
    chat = ScorerChat(Known())
    result = Reranker("scorer", chat, budget=Budget(calls=2)).rank("x", numbers(0.1, 0.2, 0.3))
    assert result.usage.calls == 2
    assert result.degraded
    bound = chat.bound(scoring.fit(Query(text="x"), numbers(0.1)))
    assert (bound.calls, bound.output_tokens) == (1, 1)


def test_a_scorer_that_raises_or_miscounts_costs_judgements_not_results() -> None:
    class Odd(Known):
        def score(
            self, query: Query, candidates: Sequence[Candidate], instruction: str = ""
        ) -> Sequence[float]:
            if query.text == "raise":
                raise ChatError("out of order")
            return [0.5]

    for text, why in (("raise", "out of order"), ("count", "gave 1 scores to 2 candidates")):
        result = Reranker("scorer", ScorerChat(Odd())).rank(text, numbers(0.1, 0.2))
        assert [h.id for h in result] == ["i0", "i1"]
        assert why in result.warnings[0]


def test_cancel_ends_between_batches() -> None:
    flag = threading.Event()

    class Stopping(Known):
        def score(
            self, query: Query, candidates: Sequence[Candidate], instruction: str = ""
        ) -> Sequence[float]:
            flag.set()
            return super().score(query, candidates, instruction)

    scorer = Stopping()
    asks = [scoring.fit(Query(text="x"), [c]) for c in numbers(*([0.5] * 200))]
    with cancel.heeding(flag), pytest.raises(CancelledError):
        ScorerChat(scorer).reply(asks)
    assert len(scorer.asked) == 1


def test_each_score_comes_with_its_batch() -> None:
    scorer = Known()
    scorer.batch = 2
    asks = [scoring.fit(Query(text="x"), [c]) for c in numbers(0.1, 0.2, 0.3)]
    found = dict(ScorerChat(scorer).reply_each(asks))
    assert [found[n].scores for n in range(3)] == [(0.1,), (0.2,), (0.3,)]
    assert [len(texts) for _, texts, _ in scorer.asked] == [2, 1]


def test_a_plain_question_shows_whether_it_is_there() -> None:
    chat = ScorerChat(Known())
    asked = Ask(messages=(Message(role="user", parts=(Part(text="1"),)),))
    assert chat.reply([asked])[0].error is None
