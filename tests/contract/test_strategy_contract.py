"""What every reranking method must do, whatever the model says: lose nothing, invent nothing, be honest."""

from __future__ import annotations

import dataclasses
import inspect
import random
from collections.abc import Sequence
from typing import get_args

import pytest
from relevance_laws import check_numbers

from mmrerank import discovery, registry
from mmrerank.chat.fakes.oracle import Oracle
from mmrerank.errors import ChatError
from mmrerank.messages import Ask, Reply
from mmrerank.ports import Capability, Chat, StrategyOptions
from mmrerank.reranker import Reranker
from mmrerank.types import Candidate, Image, Query, Usage

NAMES = registry.names("strategy")
PICTURE = Image(data=b"not decoded here")
every = pytest.mark.parametrize("name", NAMES)


class Noise(Chat):
    """A model that fails on some questions and babbles on the others; knows no kind of question."""

    spec = "noise"
    fake = True

    def __init__(self, seed: int, failing: float) -> None:
        self.capabilities = frozenset(get_args(Capability))
        self.random, self.failing, self.asked = random.Random(seed), failing, 0

    def reply(self, asks: Sequence[Ask]) -> list[Reply]:
        self.asked += len(asks)
        return [self._one(ask) for ask in asks]

    def _one(self, ask: Ask) -> Reply:
        usage = Usage(calls=1, input_tokens=1, output_tokens=1)
        if ask.read or self.random.random() < self.failing:
            return Reply(error=ChatError("out of order"), finish="error", usage=usage)
        if ask.choices:
            return Reply(logprobs={c: -self.random.uniform(0, 9) for c in ask.choices}, usage=usage)
        words = ["A", "i3", "{", '"order"', "[1, 2]", "B > A", "yes", "```json", "}"]
        return Reply(text=" ".join(self.random.choices(words, k=9)), usage=usage)


def candidates(count: int) -> list[Candidate]:
    return [Candidate(id=f"i{n}", image=PICTURE, score=1 - n / 50) for n in range(count)]


@every
def test_the_file_says_what_it_is(name: str) -> None:
    found = registry.load("strategy", name)
    assert set(found.NEEDS) <= set(get_args(Capability))
    assert isinstance(found.FAMILY, str)
    assert isinstance(found.PAPER, str)
    assert issubclass(found.Options, StrategyOptions)
    options = found.Options()  # every field has a default
    assert dataclasses.is_dataclass(options)
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.anything = 1  # type: ignore[attr-defined]
    assert set(registry.needs_of(found, options)) <= set(get_args(Capability))
    assert registry.about("strategy", name)


@every
@pytest.mark.parametrize("failing", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_the_result_is_a_permutation(name: str, failing: float, count: int) -> None:
    chat = Noise(count, failing)
    given = candidates(count)
    result = Reranker(name, chat).rank(Query(text="a red boat"), given)
    assert sorted(h.id for h in result) == [c.id for c in given]
    assert [h.id for h in result.first] == [c.id for c in given]
    check_numbers(result)
    if chat.asked and failing == 1.0:  # no information keeps the first stage's order, and says so
        assert [h.id for h in result] == [c.id for c in given]
        assert result.degraded
        assert result.warnings
        assert not result.explanation.relevance
        assert not result.explanation.scores


WITHOUT_NUMBERS = {"none", "describe"}
"""Methods that judge nothing."""


@every
def test_every_hit_has_a_relevance_of_a_model_that_knows(name: str) -> None:
    ids = ["x", "red", "a red boat", "red boat"]
    result = Reranker(name, Oracle()).rank("a red boat", [Candidate(id=i, image=PICTURE) for i in ids])
    check_numbers(result)
    # a method of somebody's own may give none
    if name not in WITHOUT_NUMBERS and discovery.place("strategy", name).startswith("mmrerank."):
        shown = [h.relevance for h in result if h.relevance is not None]
        assert len(shown) == len(ids)
        assert shown[0] > shown[-1]
        # what the number means is said in the file
        assert "elevance" in inspect.getsource(registry.load("strategy", name))


@every
def test_no_more_is_asked_than_was_said(name: str) -> None:
    found = registry.load("strategy", name)
    chat = Noise(7, 0.0)
    Reranker(name, chat).rank("a red boat", candidates(9))
    most = found.Options().calls(9)
    if most is not None and name not in ("listwise", "reasonrank", "dear", "vote", "cascade"):
        assert chat.asked <= most  # those ask again where a reply cannot be read
    assert 0 <= found.Options().settles(9) <= 9
    assert found.Options().hands_on(9) >= 9


@every
def test_the_same_replies_give_the_same_order(name: str) -> None:
    one, two = (Reranker(name, Noise(3, 0.2)).rank("a red boat", candidates(7)).to_dict() for _ in range(2))
    assert [h["id"] for h in one["hits"]] == [h["id"] for h in two["hits"]]
    assert one["repairs"] == two["repairs"]
