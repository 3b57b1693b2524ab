"""Whatever a model says under a schema, the reply is whole, valid, and an order is a permutation.

The logits are noise that changes with every token, or a model's with random weights; temperature 3.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import tiny_qwen
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrerank.chat.transformers.grammar import SPACE, Grammars
from mmrerank.chat.transformers.room import Allowance, shape_of
from mmrerank.messages import Ask, Message, Part, Room
from mmrerank.ports import Chat
from mmrerank.rerank import comparisons
from mmrerank.rerank import judgements as j
from mmrerank.rerank.replies import object_of
from mmrerank.rerank.rooms import within
from mmrerank.types import Candidate, Component, Query, Repairs

QUERY = Query(text="a red dog")


class Brief(Chat):
    """A model of few words: what noise fills up is short."""

    room = Room(brief=True)


def asks(count: int) -> list[tuple[Ask, Callable[[Any, Ask], Any]]]:
    """Questions about 2 to 26 candidates of every kind whose reply has a schema, and their readers."""
    with within(Brief()):
        return _made(count)


def _made(count: int) -> list[tuple[Ask, Callable[[Any, Ask], Any]]]:
    draw = random.Random(0)
    made: list[tuple[Ask, Callable[[Any, Ask], Any]]] = []
    for n in range(count):
        found = [Candidate(id=f"{i}.png", text=f"picture {i}") for i in range(2 + n // 4 % 25)]
        parts = [Component(id=f"c{i}", kind="detail", text="red") for i in range(1, 2 + n % 5)]
        kind = n % 4
        if kind == 0:
            made.append((j.order(QUERY, parts, found, {}), j.read_order))
        elif kind == 1:
            made.append((comparisons.grade(QUERY, found), lambda r, a: comparisons.read_grade(r, a)[1]))
        elif kind == 2:
            group = found[: draw.randint(1, 4)]
            made.append((j.evaluate(QUERY, parts, group), j.read_evaluate))
        else:
            made.append((j.deconstruct(QUERY), lambda r, a: j.read_deconstruct(r)))
    return made


@pytest.fixture(params=["noise"])
def hostile(
    request: pytest.FixtureRequest, qwen_chats: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> Any:
    """The tiny chat: its model replaced by noise, or as it is."""
    import torch

    chat = qwen_chats("qwen3_vl")
    if request.param != "noise":
        return chat
    noise = torch.Generator().manual_seed(0)

    def drawn(rows: int) -> Any:
        return 6 * torch.randn(rows, chat.qwen.vocabulary, generator=noise)

    monkeypatch.setattr(chat.qwen, "forward", lambda batch, cache: drawn(len(batch.ids)))
    monkeypatch.setattr(chat.qwen, "step", lambda ids, mask, positions, cache: drawn(len(ids)))
    monkeypatch.setattr(chat._prefixes, "keep", lambda *_: None)
    # the cache stays empty: nothing runs that would fill it
    monkeypatch.setattr(chat._prefixes, "groups", lambda prompts, limits: _one(prompts))
    monkeypatch.setattr(chat._prefixes, "cache", lambda start, rows: _Nothing())
    return chat


class _Nothing:
    def batch_select_indices(self, keep: Any) -> None:
        pass


def _one(prompts: Any) -> Any:
    from mmrerank.vl.prefix import PromptGroup

    return [PromptGroup(places=tuple(range(len(prompts))))]


@pytest.mark.parametrize(
    ("hostile", "count"),
    [
        ("noise", 20),
        pytest.param("noise", 1000, marks=[pytest.mark.slow, pytest.mark.timeout(3000)]),
        pytest.param("random weights", 100, marks=[pytest.mark.slow, pytest.mark.timeout(3000)]),
    ],
    indirect=["hostile"],
)
def test_every_reply_is_whole_and_every_order_a_permutation(
    hostile: Any, count: int, capfd: pytest.CaptureFixture[str]
) -> None:
    questions = asks(count)
    replies = hostile.reply([replace(a, temperature=3.0) for a, _ in questions])
    longest = 0
    for (question, read), reply in zip(questions, replies, strict=True):
        assert reply.error is None
        assert reply.finish == "stop"
        body = json.loads(reply.text)
        longest = max(longest, reply.usage.output_tokens / question.max_tokens)
        if question.kind == "deconstruct":
            assert body["components"]  # a part without words is valid, and is left out and counted
            continue
        found = read(reply, question)
        assert found.status == "ok", (question.kind, body)
        assert found.repairs == Repairs()
        if question.kind == "order":
            assert sorted(found.order) == sorted(question.shown)
        elif question.kind == "evaluate":
            assert set(found.assessments) == set(question.shown)
    assert 0.8 < longest <= 1  # some of them did run out
    assert capfd.readouterr().err == ""  # xgrammar warns there about tokens it must not be asked


@pytest.mark.slow
def test_single_and_real_weights_too(qwen_chats: Callable[[str], Any], picture: Any) -> None:
    chat = qwen_chats("qwen2_5_vl")
    found = [Candidate(id=f"{n}.png", image=picture(60, 60, n)) for n in range(3)]
    question = replace(j.single(QUERY, found), temperature=3.0)
    (reply,) = chat.reply([question])
    assert reply.finish == "stop"
    read = j.read_single(reply, question)
    assert sorted(read.order) == sorted(question.shown)


def test_a_limit_that_is_enough_for_the_shortest_reply_is_enough(qwen_chats: Any) -> None:
    chat = qwen_chats("qwen3_vl")
    schema = {
        "type": "object",
        "properties": {"note": {"type": "string"}, "fits": {"type": "boolean"}},
        "required": ["note", "fits"],
        "additionalProperties": False,
    }
    shape = shape_of(schema)
    assert shape is not None
    assert shape.room == len('{"note":"","fits":false}')
    message = Message(role="user", parts=(Part(text="Well?"),))
    for extra in range(1, 6):
        question = Ask(messages=(message,), schema=schema, max_tokens=shape.room + extra, temperature=3.0)
        (reply,) = chat.reply([question])
        assert reply.finish == "stop"
        assert set(json.loads(reply.text)) == {"note", "fits"}
    (short,) = chat.reply([Ask(messages=(message,), schema=schema, max_tokens=5)])
    assert short.finish == "length"  # cannot be finished: it is said, not hidden


VALUES = st.recursive(
    st.sampled_from(
        [
            {"type": "string"},
            {"type": "string", "maxLength": 5},
            {"type": "boolean"},
            {"type": "integer", "minimum": 0, "maximum": 12},
            {"enum": ["met", "missed", "partly"]},
            {"enum": [0, 1, 10]},
        ]
    ),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(
            lambda items: {
                "type": "object",
                "properties": {f"k{n}": v for n, v in enumerate(items)},
                "required": [f"k{n}" for n in range(len(items))],
                "additionalProperties": False,
            }
        ),
        st.tuples(inner, st.integers(0, 2)).map(
            lambda t: {"type": "array", "items": t[0], "minItems": t[1], "maxItems": t[1] + 2}
        ),
    ),
    max_leaves=6,
)


def example(schema: dict[str, Any], draw: random.Random) -> Any:
    """Some value under ``schema``."""
    if "enum" in schema:
        return draw.choice(schema["enum"])
    kind = schema["type"]
    if kind == "string":
        return "".join(draw.choice('a"\\é🙂\n') for _ in range(draw.randint(0, 4)))
    if kind == "boolean":
        return draw.random() < 0.5
    if kind == "integer":
        return draw.randint(schema["minimum"], schema["maximum"])
    if kind == "array":
        length = draw.randint(schema["minItems"], schema["maxItems"])
        return [example(schema["items"], draw) for _ in range(length)]
    return {k: example(v, draw) for k, v in schema["properties"].items()}


@pytest.mark.slow
@settings(deadline=None, max_examples=60, derandomize=True)
@given(VALUES, st.integers(0, 1000), st.booleans(), st.sampled_from([None, 0, 3]))
def test_the_room_of_every_beginning_suffices(
    schema: dict[str, Any], seed: int, ascii_only: bool, indent: int | None
) -> None:
    shape = shape_of(schema)
    assert shape is not None
    value = example(schema, random.Random(seed))
    signs = (",", ":") if indent is None else (" ,", " : ")
    whole = json.dumps(value, separators=signs, indent=indent, ensure_ascii=ascii_only).encode()
    assert shape.rest(b"", 0) == (0, shape.room)
    for end in range(len(whole) + 1):
        found = shape.rest(whole[:end], 0)
        assert found is not None, whole[:end]
        at, missing = found
        assert at == end
        assert missing <= shape.room + shape.more
        if missing:  # some byte brings it nearer
            nearer = [
                r for b in range(256) if (r := shape.rest(whole[:end] + bytes([b]), 0)) and r[0] == end + 1
            ]
            assert min(r[1] for r in nearer) < missing
    assert missing == 0 or whole[-1:].isdigit()
    assert shape.rest(b"?", 0) is None


def test_white_space_is_taken_where_it_is_allowed_and_bounded() -> None:
    grammars = Grammars(tiny_qwen.tokenizer(), width=1024, stop=[0])
    schema = object_of(
        {"best": {"enum": ["A", "B"]}, "parts": {"type": "array", "items": {"type": "string"}}}
    )

    def takes(text: str, *, spaced: bool) -> bool:
        return bool(grammars.writing(schema, 200, spaced=spaced).matcher.accept_string(text))

    tight, pretty = (
        json.dumps({"best": "A", "parts": ["x", "y"]}, **form)
        for form in ({"separators": (",", ":")}, {"indent": 2})
    )
    assert takes(tight, spaced=False)
    assert takes(tight, spaced=True)
    assert takes(pretty, spaced=True)
    assert takes(pretty.replace("\n", " "), spaced=True)
    assert not takes(pretty, spaced=False)
    assert not takes(tight.replace(":", ":" + " " * (SPACE + 1)), spaced=True)


def test_schemas_of_other_shapes_are_left_alone() -> None:
    assert shape_of({"type": "object"}) is None
    assert shape_of({"type": "number"}) is None
    assert shape_of({"anyOf": [{"type": "string"}]}) is None
    assert shape_of({"type": "string", "pattern": "a+"}) is None
    assert shape_of({"enum": ["é"]}) is None
    optional = {"type": "object", "properties": {"a": {"type": "string"}}, "required": [],
                "additionalProperties": False}  # fmt: skip
    assert shape_of(optional) is None


def test_a_budget_says_what_it_can_afford() -> None:
    shape = shape_of({"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 3})
    assert shape is not None
    spelling = [b'["', b"abc", b'","', b'"]']
    budget = Allowance(shape, spelling, 8)
    budget.take(0)
    assert budget.allows(1)
    budget.take(1)
    assert [budget.allows(n) for n in (1, 2, 3)] == [True, True, True]
    for token in (1, 1, 1):
        budget.take(token)
    assert [budget.allows(n) for n in (1, 2, 3)] == [False, False, True]
