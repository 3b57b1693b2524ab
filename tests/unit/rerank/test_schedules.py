"""Windows over lists, options that are refused, and replies that are read tolerantly."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrerank.chat.fakes.oracle import Oracle
from mmrerank.errors import UsageError
from mmrerank.messages import Ask, Reply
from mmrerank.rerank import comparisons
from mmrerank.rerank.schedules import windows
from mmrerank.reranker import Reranker
from mmrerank.types import Candidate, Image, Query

PICTURE = Image(data=b"not decoded here")


def candidates(n: int) -> list[Candidate]:
    return [Candidate(id=f"i{k}", image=PICTURE) for k in range(n)]


def test_a_preference_for_a_letter_says_nothing() -> None:
    class Stubborn(Oracle):
        def reply(self, asks: Sequence[Ask]) -> list[Reply]:
            return [Reply(logprobs={"A": -0.01, "B": -4.6}) for _ in asks]

    for schedule in ("allpairs", "sliding", "heap"):
        result = Reranker("prp", Stubborn(), schedule=schedule).rank("x", candidates(9))
        assert [h.id for h in result] == [f"i{n}" for n in range(9)]


@given(st.integers(1, 200), st.integers(1, 30), st.data())
def test_windows_cover_every_place_and_end_at_the_head(k: int, size: int, data: st.DataObject) -> None:
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
        ("first", {"window": 27}),
        ("first", {"window": 4, "step": 4}),
        ("grouprank", {"anchors": 10}),
        ("pointwise", {"alpha": 2}),
        ("pointwise", {"beta": -1}),
        ("judge", {"weight": 1.5}),
        ("cascade", {"keep": 0}),
        ("vote", {"method": "vote"}),
        ("feedback", {"found": -1}),
        ("plan", {"plans": 0}),
        ("e2rank", {"temperature": 0}),
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


def test_digits_are_weighed_by_their_probability() -> None:
    import math

    def reply(chances: dict[str, float]) -> Reply:
        full = {d: chances.get(d, 1e-12) for d in comparisons.DIGITS}
        return Reply(logprobs={d: math.log(p) for d, p in full.items()})

    assert comparisons.read_mark(reply({"9": 0.5, "3": 0.5})) == pytest.approx(6.0)
    assert comparisons.read_mark(reply({"9": 0.6, "3": 0.4}), "top") == pytest.approx(5.4)
    assert comparisons.read_mark(Reply(logprobs={"9": 0.0})) is None


def test_the_yes_alone_is_its_share_of_all_tokens() -> None:
    reply = Reply(logprobs={"yes": -0.5, "no": -1.0}, mass=-2.0)
    assert comparisons.read_alone(reply) == pytest.approx(-2.5)
    # among the two where that is not known
    assert comparisons.read_alone(Reply(logprobs={"yes": -0.5, "no": -1.0})) == pytest.approx(-0.5)


def test_a_thoughtful_question_says_so_last() -> None:
    ask = comparisons.score(Query(text="x"), candidates(1)[0])
    thoughtful = comparisons.thinking(ask)
    assert thoughtful.think
    last = thoughtful.messages[-1].text.splitlines()[-1]
    assert last.startswith("Think it through in a few sentences before you answer: ")
    assert thoughtful.digest() != ask.digest()
    assert comparisons.thinking(ask, think=False) is ask
