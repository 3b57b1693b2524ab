"""Replies that are meant to do harm: read in no time, no exception, and one odd reply spoils no other."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrerank.chat.fakes.oracle import Oracle
from mmrerank.chat.fakes.scripted import Scripted
from mmrerank.messages import Ask, Reply
from mmrerank.rerank import comparisons, judgements, orders, parse, tables, verdicts, wording
from mmrerank.rerank.parse import MAX_REPLY_CHARS
from mmrerank.rerank.taken import LEAST_LOG, MOST_LOG
from mmrerank.reranker import Reranker
from mmrerank.types import Candidate, Component, Query, Usage

SIZE = 1_000_000
QUERY = Query(text="a boat")
CANDIDATES = [Candidate(id=f"i{n}", text=f"picture {n}") for n in range(6)]
PARTS = tuple(Component(id=f"c{n}", kind="detail", text=f"word {n}") for n in (1, 2))
EVALUATE = judgements.evaluate(QUERY, PARTS, CANDIDATES)
ORDER = judgements.order(QUERY, PARTS, CANDIDATES, {})
SINGLE = judgements.single(QUERY, CANDIDATES)
CHOOSE = comparisons.choose(QUERY, CANDIDATES)
GRADE = comparisons.grade(QUERY, CANDIDATES)
READERS: dict[str, Callable[[Reply], Any]] = {
    "deconstruct": judgements.read_deconstruct,
    "evaluate": lambda r: judgements.read_evaluate(r, EVALUATE),
    "order": lambda r: judgements.read_order(r, ORDER),
    "single": lambda r: judgements.read_single(r, SINGLE),
    "best": lambda r: comparisons.read_best(r, CHOOSE),
    "grade": lambda r: comparisons.read_grade(r, GRADE),
    "object": parse.json_object,
    "rows": parse.top_rows,
    "lines": lambda r: parse.lines_object(r, parse.labelled("ABC")),
    "parts": verdicts.parts_in_words,
    "labels": lambda r: orders.labels_in_order(r.text, "ABCDEF"),
    "label": lambda r: wording.label_of(r.text, wording.known_labels("ABC")),
    "last label": lambda r: orders.last_label(r.text, "ABCDEF"),
    "number": lambda r: wording.number_of(r.text),
    "verdict": lambda r: wording.verdict_of(r.text, PARTS[0]),
    "part": lambda r: verdicts.component_match(PARTS)(r.text),
    "table": lambda r: tables.table_rows(r.text),
    "items": lambda r: tables.list_items(r.text),
}
UNITS = [
    "{", "[", '"', "\\", "'\"", '{"a":1}', '{"A":"', '{"A":{"', "[{", "<think>", "<think></think>", "```",
    "7", "1,", "A > B > ", "A: 1\n", "- A\n", "c1: met\n", "| A |\n|-|\n", "|---", "|", " ", "\n", " \n", ",",
    ", \"", '"//', "/*", "# ", '\\"', "\ufdfa", "\U0001f600{", "\\boxed{", "~ ", "(", "\u201c", "\ud800",
    "\x00", "a:b ",
]  # fmt: skip
FEW = ["{", '{"a":1}', '{"A":"', '"//', "<think></think>", "A > B > ", "- A\n", "\ufdfa", "7", "|", ', "']
ANSWER = '{"scores":{"A":1,"B":2,"C":3,"D":4,"E":5,"F":6}}'


def big(unit: str, end: str = "") -> Reply:
    return Reply(text=(unit * (SIZE // len(unit) + 1))[: SIZE - len(end)] + end)


def read_by_all(reply: Reply) -> None:
    for name, read in READERS.items():
        start = time.process_time()
        read(reply)
        took = time.process_time() - start
        assert took < 0.2, (name, ascii(reply.text[:20]), took)


@pytest.mark.parametrize("unit", FEW, ids=ascii)
def test_a_megabyte_of_anything_is_read_in_no_time(unit: str) -> None:
    read_by_all(big(unit))


@pytest.mark.slow
@pytest.mark.parametrize("unit", UNITS, ids=ascii)
def test_a_megabyte_of_everything_is_read_in_no_time(unit: str) -> None:
    read_by_all(big(unit))
    read_by_all(big(unit, ANSWER))
    read_by_all(Reply(text='{"scores": {"A": ' + unit * (SIZE // len(unit))))
    read_by_all(Reply(text=" " * (SIZE // 2) + unit + " " * (SIZE // 2) + "x"))


@pytest.mark.parametrize(
    "text",
    [
        "[" + ",".join(f'{{"image":"A","score":{n}}}' for n in range(40_000)) + "]",
        '{"x":[' + ",".join(f'{{"A":{n}}}' for n in range(100_000)) + "]}",
        "{" + ",".join(f'"k{n}":{n}' for n in range(80_000)) + "}",
        '{"components":[' + ",".join(f'"t{n}"' for n in range(90_000)) + "]}",
        '{"a":' * 500 + "1" + "}" * 500,
        ('{"A":"' + "x" * 1_000) * 900,
        '{"A":"' + '"//' * 300_000,
        '{"scores":{"A":' + "9" * SIZE + "}}",
        '{"scores":{"A":' + "9" * 4_000 + ',"B":1e400,"C":NaN,"D":-1e308,"E":0.' + "9" * 4_000 + "}}",
    ],
    ids=["rows", "objects", "keys", "parts", "deep", "begun", "comments", "digits", "numbers"],
)
def test_large_data_are_read_in_no_time(text: str) -> None:
    read_by_all(Reply(text=text))


def test_an_answer_at_the_end_of_a_megabyte_is_found() -> None:
    for before in (
        "thoughts about a { b } and so on. " * 30_000,
        "\n" * SIZE,
        "<think>" + "x" * SIZE + "</think>",
    ):
        found = judgements.read_order(Reply(text=before + ANSWER), ORDER)
        assert found.order == ("i5", "i4", "i3", "i2", "i1", "i0")


METHODS: dict[str, dict[str, Any]] = {
    "listwise": {},
    "cotrr": {},
    "grouprank": {},
    "setwise": {},
    "pointwise": {},
}


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(METHODS)),
    st.lists(st.sampled_from([*UNITS, ANSWER, "A", "1e999", ":", "}", "]"]), max_size=12).map("".join)
    | st.text(),
    st.floats() | st.integers(-(10**400), 10**400),
)
def test_any_reply_gives_a_permutation(method: str, text: str, number: Any) -> None:
    def answer(ask: Ask) -> Reply:
        return Reply(text=text, logprobs=dict.fromkeys(ask.choices, number), usage=Usage(calls=1))

    result = Reranker(method, Scripted(answer), **METHODS[method]).rank(QUERY, CANDIDATES)
    assert sorted(h.id for h in result.hits) == [c.id for c in CANDIDATES]
    json.dumps(result.to_dict()).encode("utf-8")
    f"{result}".encode()


class Odd(Oracle):
    """A backend of somebody else's: ``make`` says what comes in place of the good reply to ``picture 3``."""

    def __init__(self, make: Callable[[Reply], Any]) -> None:
        super().__init__()
        self.make = make

    def reply(self, asks: Sequence[Ask]) -> list[Reply]:
        good = super().reply(asks)
        return [self.make(r) if "i3" in a.shown else r for a, r in zip(asks, good, strict=True)]


def _raises(error: Exception) -> Callable[[Reply], Any]:
    def make(_: Reply) -> Any:
        raise error

    return make


@pytest.mark.parametrize(
    "make",
    [
        _raises(OverflowError("int too large to convert to float")),
        _raises(ValueError("Exceeds the limit (4300 digits)")),
        _raises(KeyError("choices")),
        _raises(RecursionError("too deep")),
        lambda _: None,
        lambda _: {"text": "yes"},
        lambda _: SimpleNamespace(text="yes", error=None),
        lambda _: Reply(text=None),  # type: ignore[arg-type]
        lambda _: Reply(logprobs={"yes": "-1", "no": "-2"}),  # type: ignore[dict-item]
        lambda _: Reply(logprobs=None),  # type: ignore[arg-type]
        lambda _: Reply(error="broken"),  # type: ignore[arg-type]
        lambda _: Reply(finish="eos"),  # type: ignore[arg-type]
    ],
)
def test_one_odd_reply_of_a_backend_costs_one_judgement(make: Callable[[Reply], Any]) -> None:
    result = Reranker("pointwise", Odd(make)).rank(QUERY, CANDIDATES)
    assert sorted(h.id for h in result.hits) == [c.id for c in CANDIDATES]
    (failure,) = result.failures
    assert (failure.kind, failure.count) == ("reply", 1)
    assert all(len(w) < 600 and w.isprintable() for w in result.warnings)


@pytest.mark.parametrize("value", [10**400, -(10**400), math.inf, -math.inf, 1e308, -1e308, 0.0])
@pytest.mark.parametrize("method", ["pointwise", "prp", "setwise"])
def test_numbers_past_all_bounds_are_cut(method: str, value: Any) -> None:
    def make(reply: Reply) -> Reply:
        names = list(reply.logprobs) or ["yes"]
        huge = Usage(calls=10**400, input_tokens=-5, seconds=math.inf)
        return Reply(logprobs=dict.fromkeys(names, value), usage=huge, mass=value)

    result = Reranker(method, Odd(make)).rank(QUERY, CANDIDATES)
    assert sorted(h.id for h in result.hits) == [c.id for c in CANDIDATES]
    assert 0 <= result.usage.calls < 100
    assert result.usage.input_tokens >= 0
    assert math.isfinite(result.usage.seconds)
    assert all(LEAST_LOG <= v <= MOST_LOG for s in result.trace.steps for v in s.logprobs.values())
    json.dumps(result.to_dict(), allow_nan=False)


def test_a_digit_that_no_float_holds_gives_a_mark_all_the_same() -> None:
    for value in (-1e4, 1e4):
        reply = Reply(logprobs=dict.fromkeys(comparisons.DIGITS, value))
        assert comparisons.read_mark(reply) == pytest.approx(4.5)


def test_a_long_reply_is_cut_and_that_is_reported() -> None:
    def make(reply: Reply) -> Reply:
        return Reply(text="\ud800" * SIZE + reply.text, logprobs=reply.logprobs, usage=Usage(calls=1))

    result = Reranker("listwise", Odd(make)).rank(QUERY, CANDIDATES)
    assert not result.degraded
    assert any(f"last {MAX_REPLY_CHARS:,} characters" in w for w in result.warnings)
    assert max(len(s.reply) for s in result.trace.steps) == MAX_REPLY_CHARS
    json.dumps(result.to_dict(), ensure_ascii=False).encode()
