"""Answers whose labels hold too little of the probability are asked for again as text; the result says so."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mmrerank.budget import Budget
from mmrerank.errors import ChatError
from mmrerank.evaluation.experiment.degraded import written_line
from mmrerank.messages import Ask, Reply
from mmrerank.ports import LEAST_SHARE, Chat
from mmrerank.rerank.written import named
from mmrerank.reranker import Reranker
from mmrerank.results import SearchResult
from mmrerank.types import Candidate, Ranking, Usage

FITS = {"a": 0.1, "b": 0.9, "c": 0.2, "d": 0.8}
"""How well each candidate fits, as the judge below sees it."""
FOUND = Ranking(tuple(Candidate(id=i, text=f"picture {i}", score=0.5) for i in FITS))


def shown(ask: Ask) -> list[str]:
    return [i for i in FITS if f"picture {i}" in ask.transcript]


class Judge(Chat):
    """A stub, not a model: its labels hold ``share``, the wrong way round; what it writes is right."""

    spec = "judge"
    capabilities = frozenset({"generate", "choice_logprobs"})

    def __init__(self, share: Callable[[str], float], says: Callable[[str, float], str]) -> None:
        self.share, self.says = share, says
        self.asks: list[Ask] = []

    def reply(self, asks: Sequence[Ask]) -> list[Reply]:
        self.asks += asks
        return [self.one(a) for a in asks]

    def one(self, ask: Ask) -> Reply:
        usage = Usage(calls=1, input_tokens=10, output_tokens=1)
        who = shown(ask)
        if not ask.choices:
            return Reply(text=self.says(who[0], FITS[who[0]]), usage=usage)
        held = self.share(who[0])
        if not held:
            return Reply(error=ChatError("none of the choices is listed", kind="labels"), finish="error")
        fits = FITS[who[0]] if held >= LEAST_SHARE else 1 - FITS[who[0]]
        values = {"yes": math.log(fits), "no": math.log(1 - fits)}
        return Reply(logprobs=values, mass=math.log(held), usage=usage)


def plainly(_: str, fits: float) -> str:
    return "Yes." if fits > 0.5 else "**No**, it does not."


@pytest.mark.parametrize("share", [math.exp(-9), 0.019, 0.0])
def test_the_written_answer_decides(share: float) -> None:
    judge = Judge(lambda _: share, plainly)
    result = Reranker("pointwise", judge).rank("a boat", FOUND)
    assert [h.id for h in result] == ["b", "d", "a", "c"]
    assert not result.degraded
    assert result.repairs.written == 4
    told = "4 of 4 answers were asked for again as text, since the labels held too little of the probability"
    assert any(told in w for w in result.warnings)
    again = judge.asks[4]
    assert (again.choices, again.max_tokens) == ((), 512)
    assert "Answer with one of these and nothing else: yes, no. Write it as JSON" in again.transcript
    assert again.schema is not None


def test_only_those_that_hold_too_little_are_asked_again() -> None:
    judge = Judge(lambda i: 0.001 if i in "bc" else 0.9, plainly)
    result = Reranker("pointwise", judge).rank("a boat", FOUND)
    assert [h.id for h in result][:2] == ["b", "d"]
    assert len(judge.asks) == 6
    assert result.repairs.written == 2
    assert any("2 of 4 answers" in w for w in result.warnings)
    # both turns are one question, and both are paid for
    assert (result.usage.calls, result.usage.input_tokens) == (4, 60)


def test_labels_that_hold_enough_are_believed() -> None:
    judge = Judge(lambda _: LEAST_SHARE, plainly)
    result = Reranker("pointwise", judge).rank("a boat", FOUND)
    assert [h.id for h in result] == ["b", "d", "c", "a"]
    assert (len(judge.asks), result.repairs.written, result.warnings) == (4, 0, ())


def test_a_judge_that_says_neither_gives_no_judgement_and_the_result_says_why() -> None:
    judge = Judge(lambda i: 0.001 if i in "ab" else 0.9, lambda *_: "A boat on a lake")
    result = Reranker("pointwise", judge).rank("a boat", FOUND)
    assert result.degraded
    assert result.repairs.failed == 2
    said = " ".join(result.warnings)
    assert "2 of 4 answers" in said
    assert "2 of these gave no label either" in said
    assert "the labels yes, no hold 0.001 of the probability, less than 0.02; asked again as text" in said
    assert "it begins 'A boat on a lake'" in said
    assert result.failures[0].kind == "labels"


def test_the_share_is_an_option_of_the_model() -> None:
    judge = Judge(lambda _: 0.001, plainly)
    judge.label_share = 0.0
    assert [h.id for h in Reranker("pointwise", judge).rank("a boat", FOUND)] == ["a", "c", "d", "b"]
    assert len(judge.asks) == 4
    judge = Judge(lambda _: 0.3, plainly)
    judge.label_share = 0.5
    assert Reranker("pointwise", judge).rank("a boat", FOUND).repairs.written == 4


def test_what_was_written_is_kept_and_costs_nothing_again(tmp_path: Path) -> None:
    judge = Judge(lambda _: 0.001, plainly)
    for calls in (4, 0):
        result = Reranker("pointwise", judge, cache=tmp_path / "kept").rank("a boat", FOUND)
        assert [h.id for h in result] == ["b", "d", "a", "c"]
        assert (result.usage.calls, result.repairs.written) == (calls, 4)
    assert len(judge.asks) == 8


def test_a_budget_bounds_both_turns() -> None:
    judge = Judge(lambda _: 0.001, plainly)
    result = Reranker("pointwise", judge, budget=Budget(calls=6)).rank("a boat", FOUND)
    assert len(judge.asks) == 6
    assert result.degraded
    assert any("budget" in w for w in result.warnings)


def test_letters_and_pairs() -> None:
    def one(ask: Ask) -> Reply:
        if ask.choices:
            values = {n: math.log(0.7 if n == "A" else 0.1) for n in ask.choices}
            return Reply(logprobs=values, mass=-7.0, usage=Usage(calls=1))
        return Reply(text="Answer: B", usage=Usage(calls=1))

    judge = Judge(lambda _: 0.0, plainly)
    judge.one = one  # type: ignore[method-assign]
    result = Reranker("first", judge).rank("a boat", FOUND)
    assert [h.id for h in result] == ["b", "a", "c", "d"]
    assert result.repairs.written == 1


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("yes", "yes"), ("Yes.", "yes"), ("**No**", "no"), ('"no"', "no"), ("NO!", "no"),
        ("The answer is yes.", "yes"), ("Yes, it shows a boat.", "yes"), ("No - there is none.", "no"),
        ("I looked.\n\nYes", "yes"), ("There is a boat, so yes.", "yes"), ("Yes\nbecause of the boat", "yes"),
        ("No boat can be seen", None), ("yes and no", None), ("Not sure", None), ("", None), ("maybe", None),
        ("Yes, but the answer is no", "no"),
    ],
)  # fmt: skip
def test_which_label_a_text_gives(text: str, label: Any) -> None:
    assert named(text, ("yes", "no")) == label


def test_letters_and_digits_stand_alone() -> None:
    told = ("B", "B.", "Answer: B", "A boat is shown", "(A)", "I")
    assert [named(t, ("A", "B")) for t in told] == ["B", "B", "B", None, "A", None]
    assert named("7", tuple("0123456789")) == "7"


def test_an_evaluation_sums_them_up_and_files_keep_them(tmp_path: Path) -> None:
    results = [Reranker("pointwise", Judge(lambda _: 0.001, plainly)).rank("a boat", FOUND) for _ in range(3)]
    line = "pointwise: 12 answers in 3 of 3 queries were asked for again as text"
    assert written_line("pointwise", results).startswith(line)
    good = Reranker("pointwise", Judge(lambda _: 0.9, plainly)).rank("a boat", FOUND)
    assert written_line("pointwise", [good]) == ""
    results[0].save(tmp_path / "one.json")
    assert SearchResult.load(tmp_path / "one.json").repairs.written == 4
