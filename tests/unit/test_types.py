from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrerank.types import Assessment, Candidate, Explanation, Query, Ranking, Repairs, Usage

ids = st.lists(st.text(max_size=5), unique=True, max_size=30)


def ranking(names: list[str]) -> Ranking:
    return Ranking(tuple(Candidate(id=n, text="t", score=1.0 - i) for i, n in enumerate(names)))


@given(ids, st.lists(st.text(max_size=5), max_size=60))
def test_reorder_is_a_permutation_whatever_is_asked(names: list[str], wanted: list[str]) -> None:
    before = ranking(names)
    after, repairs = before.reorder(wanted)
    assert sorted(after.ids) == sorted(names)
    known = [w for w in dict.fromkeys(wanted) if w in names]
    assert list(after.ids[: len(known)]) == known
    rest = [n for n in names if n not in known]
    assert list(after.ids[len(known) :]) == rest
    assert repairs.missing == len(rest)
    assert repairs.unknown == sum(w not in names for w in wanted)
    assert repairs.unknown + repairs.repeated + len(known) == len(wanted)


@given(ids.filter(bool), st.randoms())
def test_reorder_by_a_permutation_needs_no_repair(names: list[str], random: object) -> None:
    shuffled = list(names)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    after, repairs = ranking(names).reorder(shuffled)
    assert list(after.ids) == shuffled
    assert repairs == Repairs()


def test_a_ranking_refuses_repeated_ids() -> None:
    with pytest.raises(ValueError, match="'b' occurs more than once"):
        ranking(["a", "b", "b"])


def test_query_kinds_and_words() -> None:
    assert Query(text="a boat").kind == "text"
    assert Query(text="red", turns=("a boat", "at sea")).kind == "dialogue"
    assert Query(text="red", turns=("a boat", "at sea")).words == "a boat, at sea, red"
    with pytest.raises(ValueError, match="needs a text, an image"):
        Query(text="  ")


def test_no_match_needs_grades() -> None:
    assert not Explanation().no_match
    assert not Explanation(assessments={"a": Assessment()}).no_match
    assert Explanation(assessments={"a": Assessment(grade=2)}).no_match
    assert not Explanation(assessments={"a": Assessment(grade=2), "b": Assessment(grade=3)}).no_match


def test_usage_adds_up() -> None:
    total = Usage(calls=1, seconds=0.5) + Usage(calls=2, input_tokens=7, seconds=1.0)
    assert total == Usage(calls=3, input_tokens=7, seconds=1.5)
