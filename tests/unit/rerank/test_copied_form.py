"""A weak model copies the form that it is shown instead of filling it in: that is no judgement."""

from __future__ import annotations

from mmrerank.messages import Ask, Reply
from mmrerank.reply_shape import reply_shape
from mmrerank.rerank import comparisons, judgements
from mmrerank.types import Candidate, Component, Query

QUERY = Query(text="a red boat")
PARTS = (Component(id="c1", kind="subject", text="a boat"), Component(id="c2", kind="detail", text="red"))
GROUP = [Candidate(id=n, text=n) for n in ("one", "two", "three")]


def copied(ask: Ask) -> Reply:
    return Reply(text=reply_shape(ask.schema or {}))


def test_a_copied_form_says_nothing() -> None:
    ask = judgements.deconstruct(QUERY)
    assert judgements.read_deconstruct(copied(ask)).status == "failed"
    ask = judgements.evaluate(QUERY, PARTS, GROUP[:1])
    assert judgements.read_evaluate(copied(ask), ask).status == "failed"
    ask = judgements.order(QUERY, PARTS, GROUP, {})
    assert judgements.read_order(copied(ask), ask).status == "failed"
    ask = judgements.single(QUERY, GROUP)
    read = judgements.read_single(copied(ask), ask)
    assert (read.status, read.components, read.assessments) == ("failed", (), {})
    ask = comparisons.grade(QUERY, GROUP)
    assert comparisons.read_grade(copied(ask), ask)[1].status == "failed"
    for ask in (comparisons.choose(QUERY, GROUP), comparisons.written(comparisons.pick(QUERY, GROUP))):
        assert comparisons.read_best(copied(ask), ask)[0] is None
