"""The parser of replies: whatever a model says, the result is data of the promised shape."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrerank.errors import ChatError
from mmrerank.messages import Reply
from mmrerank.rerank import judgements
from mmrerank.rerank.orders import labels_in_order
from mmrerank.rerank.parse import json_object
from mmrerank.types import VERDICTS, Candidate, Component, Query, Ranking, Repairs

LABELS = ("A", "B", "C", "D")
COMPONENTS = (
    Component(id="c1", kind="subject", text="a boat"),
    Component(id="c2", kind="exclusion", text="no people"),
)
GROUP = [Candidate(id=f"i{n}", text="x") for n in range(4)]
QUERY = Query(text="a boat, no people")

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=6), inner, max_size=5),
    max_leaves=20,
)
words = st.sampled_from(
    ["A", "B", "Image C:", "[D]", ">", ",", "{", "}", '"scores"', ":", "9", "```json", "<think>", "</think>",
     '{"scores": {"A": 1}}', '{"ranking": ["B", "B", "Z"]}', "\n", "null", "\\", '"', "[", "]", "1e999"]
)  # fmt: skip
replies = (
    st.text(max_size=200)
    | st.lists(words, max_size=30).map(" ".join)
    | json_values.map(lambda v: json.dumps(v))
    | st.dictionaries(
        st.sampled_from(["scores", "ranking", "order", "components", "images", "reason", "A", "B"]),
        json_values,
    ).map(json.dumps)
)


@settings(deadline=None)
@given(replies)
def test_any_reply_gives_a_permutation(text: str) -> None:
    before = Ranking(tuple(GROUP))
    ask = judgements.order(QUERY, COMPONENTS, GROUP, {})
    whole = judgements.single(QUERY, GROUP)
    for read in (
        judgements.read_order(Reply(text=text), ask),
        judgements.read_single(Reply(text=text), whole),
    ):
        assert sorted(before.reorder(read.order)[0].ids) == sorted(before.ids)
        assert len(set(read.order)) == len(read.order)
        assert (read.status == "failed") == (not read.order)
        assert read.repairs.failed == int(read.status == "failed")


@settings(deadline=None)
@given(replies)
def test_any_reply_gives_lawful_verdicts_and_components(text: str) -> None:
    ask = judgements.evaluate(QUERY, COMPONENTS, GROUP)
    read = judgements.read_evaluate(Reply(text=text), ask)
    assert set(read.assessments) <= {c.id for c in GROUP}
    for told in read.assessments.values():
        assert [v.component for v in told.verdicts] == ["c1", "c2"]
        assert all(v.verdict in VERDICTS for v in told.verdicts)
        assert told.grade in (None, 0, 1, 2, 3)
    parts = judgements.read_deconstruct(Reply(text=text)).components
    assert [c.id for c in parts] == [f"c{n}" for n in range(1, len(parts) + 1)]
    assert len(parts) <= judgements.MAX_COMPONENTS


@given(st.dictionaries(st.sampled_from(LABELS), st.integers(0, 99), min_size=4, max_size=4))
def test_scores_order_with_ties_as_shown(scores: dict[str, int]) -> None:
    order, repairs = labels_in_order(scores, LABELS)
    assert order == sorted(LABELS, key=lambda n: (-scores[n], LABELS.index(n)))
    assert repairs == Repairs()


@pytest.mark.parametrize(
    ("answer", "order", "repairs"),
    [
        ("C > A > B > D", "CABD", Repairs()),
        ("[C] > [A]", "CA", Repairs(missing=2)),
        ("Image D, Image B", "DB", Repairs(missing=2)),
        (["c", "C", "Z", "A"], "CA", Repairs(unknown=1, repeated=1, missing=2)),
        ([{"label": "B"}, {"image": "Image D"}], "BD", Repairs(missing=2)),
        ({"A": 1, "B": "7", "Q": 9}, "BA", Repairs(unknown=1, missing=2)),
        ({"A": float("nan"), "B": 2}, "B", Repairs(missing=3)),
        ("the 3 dogs and A cat", "", Repairs()),
        ("My ranking: C > A > Z > B", "CAB", Repairs(unknown=1, missing=1)),
        ("B > A\nas A, C and D show a house", "BA", Repairs(missing=2)),
        ("A, D, because both show a house", "", Repairs()),
        (None, "", Repairs()),
        (True, "", Repairs()),
    ],
)
def test_orders_in_other_shapes(answer: Any, order: str, repairs: Repairs) -> None:
    assert labels_in_order(answer, LABELS) == (list(order), repairs)


def test_numbers_in_prose_are_not_candidates() -> None:
    assert labels_in_order("I see 3 dogs, 12 cats", tuple("123456789"))[0] == []


@pytest.mark.parametrize(
    ("text", "found", "dug"),
    [
        ('{"a": 1}', {"a": 1}, False),
        ('Sure!\n```json\n{"a": 1}\n```', {"a": 1}, True),
        ('{"a": 0} no, better: {"a": 2}', {"a": 2}, True),
        ('<think>{"a": 0}</think>{"a": 3}', {"a": 3}, True),
        ('{"scores": {"A": 5, "B": 3}, "x": [1, 2', {"scores": {"A": 5, "B": 3}, "x": [1]}, True),
        ('{"a": "cut in the mid', {}, True),
        ("no json", {}, True),
        ("[" * 5000, {}, True),
        ("{" * 40_000, {}, True),
    ],
)
def test_digging_out_json(text: str, found: dict[str, Any], dug: bool) -> None:
    assert json_object(Reply(text=text)) == (found, dug)


@pytest.mark.parametrize("key", ["thought", "reason"])
def test_labels_in_what_was_cut_off_before_the_order_are_no_order(key: str) -> None:
    ask = judgements.order(QUERY, (), GROUP, {}, show_images=True, think=500)
    text = f'{{"{key}": "Images A, D, and B show no boat, so they come last. Image C shows'
    assert judgements.read_order(Reply(text=text, finish="length"), ask).status == "failed"


def test_an_error_reply_says_nothing() -> None:
    reply = Reply(text='{"scores": {"A": 1}}', error=ChatError("down"), finish="error")
    ask = judgements.order(QUERY, COMPONENTS, GROUP, {})
    assert judgements.read_order(reply, ask).status == "failed"


def test_one_unreadable_verdict_is_cannot_tell() -> None:
    ask = judgements.evaluate(QUERY, COMPONENTS, GROUP[:1])
    body = {"A": {"c1": {"note": "boat", "verdict": "met"}, "c2": {"verdict": "perhaps"}, "grade": 9}}
    read = judgements.read_evaluate(Reply(text=json.dumps(body)), ask)
    assert read.status == "repaired"
    told = read.assessments["i0"]
    assert [v.verdict for v in told.verdicts] == ["met", "cannot_tell"]
    assert told.grade is None


def test_a_reason_speaks_of_images_by_their_ids() -> None:
    from mmrerank.rerank.judgements import in_ids

    ids = {"A": "dog.png", "B": "cat.png"}
    assert in_ids("A fits best: every part is met", ids) == "dog.png fits best: every part is met"
    assert in_ids("Image B shows it, image A does not", ids) == "cat.png shows it, dog.png does not"
    # a letter may be a word, and a label that was not given out is none
    for left in ("A red boat", "best is the boat of plan B", "C fits best", "", "a is small"):
        assert in_ids(left, ids) == left
