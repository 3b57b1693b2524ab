"""Numbers for a person: 0 to 1, never rising, and what each function makes of known values."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrerank.chat.fakes.oracle import Oracle
from mmrerank.chat.fakes.scripted import Scripted
from mmrerank.messages import Ask, Judging, Outcome
from mmrerank.rerank.orders import label_scores
from mmrerank.rerank.relevance import (
    chained,
    chance,
    falling,
    log_sum,
    numbers,
    parts,
    placed,
    shares,
    stacked,
)
from mmrerank.reranker import Reranker
from mmrerank.types import Explanation, Query, Ranking

IDS = list("abcdefgh")
values = st.dictionaries(st.sampled_from(IDS), st.floats(allow_nan=True, allow_infinity=True))


def never_rises(ids: list[str], found: dict[str, float]) -> bool:
    known = [found[i] for i in ids if i in found]
    return all(one >= other for one, other in pairwise(known))


@given(values)
def test_falling_keeps_to_the_laws(scores: dict[str, float]) -> None:
    found = falling(IDS, scores)
    assert never_rises(IDS, found)
    assert all(0 <= v <= 1 for v in found.values())
    assert found.keys() == {i for i, v in scores.items() if not math.isnan(v)}


@given(values)
def test_scores_stay_as_they_are_and_can_be_written(scores: dict[str, float]) -> None:
    order = sorted((i for i in IDS if i in scores), key=lambda i: -scores[i])
    told = numbers(order, scores, chance)
    assert all(math.isfinite(v) for v in told["scores"].values())
    small = {i: v for i, v in scores.items() if abs(v) < 1e30}
    assert {i: told["scores"][i] for i in small} == small


@given(st.lists(st.dictionaries(st.sampled_from(IDS), st.floats(-50, 50)), max_size=4))
def test_one_scale_of_several_windows_never_rises(rounds: list[dict[str, float]]) -> None:
    found = chained(IDS, rounds)
    assert never_rises(IDS, found)
    assert found.keys() == {i for r in rounds for i in r}


def test_windows_that_overlap_keep_their_distances() -> None:
    # d and e were 2 apart in the first window, c and d 3 in the second, a and b 1 in the last
    first, second, last = {"d": 7.0, "e": 5.0}, {"c": 4.0, "d": 1.0}, {"a": 9.0, "b": 8.0, "c": 8.0}
    assert chained(list("abcde"), [first, second, last]) == {"a": 9, "b": 8, "c": 8, "d": 5, "e": 3}
    alike = [dict.fromkeys("cde", 0.5), dict.fromkeys("abc", 0.1)]
    assert chained(list("abcde"), alike) == dict.fromkeys("abcde", 0.1)


def test_known_values() -> None:
    assert chance(0) == 0.5
    assert chance(-1000) == 0
    assert chance(1000) == 1
    assert chance(math.log(3)) == pytest.approx(0.75)
    assert shares({"a": math.log(3), "b": 0.0}) == pytest.approx({"a": 0.75, "b": 0.25})
    assert log_sum([]) == 0
    assert parts({"a": 3.0, "b": 1.0, "c": -5.0}) == {"a": 0.75, "b": 0.25, "c": 0}
    assert parts({"a": 0.0, "b": -1.0}) == {"a": 0.5, "b": 0.5}
    assert placed(["a"]) == {}
    assert placed(list("abc")) == {"a": 1, "b": 0.5, "c": 0}
    both = stacked({"a": 2.0, "b": 1.0}, {"b": 9.0, "c": 7.0, "d": 6.5})
    assert both == {"a": 2, "b": 1, "c": 0, "d": -0.5}


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ({"A": 90, "B": 45}, {"A": 90, "B": 45}),
        ({"A": "90%", "B": "50%"}, {"A": 89.1, "B": 49.5}),
        ({"A": "8/10", "B": "4/10"}, {"A": 79.2, "B": 39.6}),
        ({"A": {"score": 9}, "B": {"score": 3}}, {"A": 9, "B": 3}),
        ({"A": 45, "B": 90}, {}),  # not the order that it was read as
        ({"A": 90}, {}),
        (["A", "B"], {}),
        ("A > B", {}),
    ],
)
def test_scores_behind_an_order(answer: object, found: dict[str, float]) -> None:
    assert label_scores(answer, ["A", "B"]) == pytest.approx(found)


TEXTS = [{"id": i, "text": i} for i in IDS[:4]]


def relevance(answer: object, method: str = "listwise") -> dict[str, float | None]:
    def reply(ask: Ask) -> object:
        return answer

    result = Reranker(method, Scripted(reply)).rank("a boat", TEXTS)  # type: ignore[arg-type]
    return {h.id: h.relevance for h in result}


def test_listwise_tells_scores_where_it_has_them_and_else_places() -> None:
    scored = {"reason": "", "scores": {"A": 0, "B": 99, "C": 33, "D": 33}}
    assert relevance(scored) == pytest.approx({"b": 1, "c": 1 / 3, "d": 1 / 3, "a": 0})
    assert relevance("C > A > D > B") == pytest.approx({"c": 1, "a": 2 / 3, "d": 1 / 3, "b": 0})
    assert relevance("C > A") == {"c": 1, "a": pytest.approx(2 / 3), "b": None, "d": None}  # two were dropped
    assert set(relevance("I cannot say").values()) == {None}


def test_first_tells_the_share_of_the_answer() -> None:
    grades = dict(zip(IDS, (0, 1, 2, 3), strict=False))
    result = Reranker("first", Oracle(lambda query, id: grades[id])).rank(Query(text="x"), TEXTS)
    known = [h.relevance for h in result if h.relevance is not None]
    assert sum(known) == pytest.approx(1)
    assert [h.id for h in result] == ["d", "c", "b", "a"]


def test_a_method_of_ones_own_keeps_to_the_laws() -> None:
    def own(query: Query, ranking: Ranking) -> Judging:
        yield from ()
        told = Explanation(
            scores={"0": math.inf, "1": math.nan, "x": 1.0},
            relevance={"0": 0.5, "1": 7.0, "2": -1.0, "x": 1.0},
        )
        return Outcome(ranking=ranking, explanation=told)

    result = Reranker(own).rank("a boat", ["one", "two", "three"])
    assert [h.relevance for h in result] == [0.5, 0.5, 0]
    assert result.explanation.scores == {"0": 1e30}
