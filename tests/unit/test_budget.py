"""Budgets: never more than promised, a permutation all the same, and marked, with every method there is."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrerank import registry
from mmrerank.benchmark import NoOptions
from mmrerank.budget import Budget, Meter, Price, bound
from mmrerank.chat.fakes.oracle import Oracle
from mmrerank.errors import BudgetError, ChatError, UsageError
from mmrerank.evaluation.experiment.resume import Resumable, Surroundings
from mmrerank.evaluation.experiment.work import work_digest
from mmrerank.messages import Ask, Message, Part, Reply
from mmrerank.ports import Chat
from mmrerank.reranker import Reranker
from mmrerank.types import Candidate, Image, Query, Ranking, Usage

METHODS = registry.names("strategy")
PRICE = Price(input=2.0, output=10.0)


class Priced(Chat):
    """The oracle, whose replies cost as much as ``share`` of what a question can cost at most."""

    domain = ""

    def __init__(self, share: float = 1.0, *, tells: bool = True, concurrency: int = 1) -> None:
        self.inner = Oracle(lambda query, id: int(id) % 4)
        self.spec, self.capabilities = "priced", self.inner.capabilities
        # such methods cannot be tried with a fake that has no states
        self.share, self.tells, self.concurrency = share, tells, concurrency
        self.calls = self.tokens = 0
        self.money = 0.0

    def reply(self, asks: Sequence[Ask]) -> list[Reply]:
        replies = []
        for ask, reply in zip(asks, self.inner.reply(asks), strict=True):
            most = bound(ask)
            tokens = int(most.input_tokens * self.share), int(most.output_tokens * self.share)
            self.calls += 1
            self.tokens += sum(tokens)
            self.money += PRICE.of(*tokens)
            told = Usage(calls=1, input_tokens=tokens[0], output_tokens=tokens[1])
            replies.append(replace(reply, usage=told if self.tells else Usage(calls=1)))
        return replies


def items(count: int = 3, size: int = 7) -> list[tuple[Query, Ranking]]:
    return [
        (
            Query(text=f"search {n}"),
            Ranking(tuple(Candidate(id=str(m), image=Image(data=b"%d" % m)) for m in range(size))),
        )
        for n in range(count)
    ]


def methods() -> list[str]:
    """Methods that a backend without hidden states can carry out."""
    can = Priced().capabilities | {"retrieve"}
    return [m for m in METHODS if set(registry.load("strategy", m).NEEDS) <= can]


def test_most_methods_are_tried() -> None:
    assert {"cotrr", "pointwise", "prp", "setwise", "grouprank", "listwise"} <= set(methods())


@pytest.mark.parametrize("method", methods())
@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize("calls", [0, 1, 2, 5])
def test_calls_are_never_exceeded(method: str, calls: int, concurrency: int) -> None:
    free = Reranker(method, Priced()).rank_batch(items())
    chat = Priced(concurrency=concurrency)
    results = Reranker(method, chat, budget=Budget(calls=calls)).rank_batch(items())
    for whole, result, (_, before) in zip(free, results, items(), strict=True):
        assert sorted(h.id for h in result.hits) == sorted(before.ids)
        assert result.usage.calls <= calls
        cut = whole.usage.calls > calls
        assert result.degraded is cut
        assert any("budget" in w for w in result.warnings) is cut
        if not cut:
            assert [h.id for h in result] == [h.id for h in whole]
        if calls == 0:
            assert [h.id for h in result] == list(before.ids)


@pytest.mark.parametrize("method", methods())
@pytest.mark.parametrize("concurrency", [1, 4])
def test_the_budget_for_all_is_never_exceeded(method: str, concurrency: int) -> None:
    free = Reranker(method, Priced()).rank_batch(items())
    needed = sum(r.usage.calls for r in free)
    for calls in (0, 1, needed // 2, needed):
        chat = Priced(concurrency=concurrency)
        results = Reranker(method, chat, total=Budget(calls=calls)).rank_batch(items())
        assert chat.calls <= calls
        assert any(r.degraded for r in results) is (needed > calls)
        for result, (_, before) in zip(results, items(), strict=True):
            assert sorted(h.id for h in result.hits) == sorted(before.ids)


@settings(max_examples=60, deadline=None)
@given(
    method=st.sampled_from(methods()),
    tokens=st.integers(0, 40_000),
    share=st.sampled_from([0.02, 0.3, 1.0]),
    tells=st.booleans(),
    concurrency=st.sampled_from([1, 3]),
    whole=st.booleans(),
)
def test_tokens_and_money_are_never_exceeded(
    method: str, tokens: int, share: float, tells: bool, concurrency: int, whole: bool
) -> None:
    money = tokens * PRICE.input / 1e6
    for limit in (Budget(tokens=tokens), Budget(money=money, price=PRICE)):
        chat = Priced(share, tells=tells, concurrency=concurrency)
        given_ = {"total": limit} if whole else {"budget": limit}
        asked = items(2 if whole else 1)
        results = Reranker(method, chat, **given_).rank_batch(asked)  # type: ignore[arg-type]
        assert chat.tokens <= tokens if limit.tokens is not None else chat.money <= money * 1.0001
        for result, (_, before) in zip(results, asked, strict=True):
            assert sorted(h.id for h in result.hits) == sorted(before.ids)


def test_what_fits_is_asked_though_its_bound_does_not_fit_all_at_once() -> None:
    """Ten questions that could cost 1,000 tokens each and cost 10: all fit into 1,400, one after another."""
    chat = Priced(0.01)
    result = Reranker("pointwise", chat, budget=Budget(tokens=1400)).rank(
        "a dog", [Candidate(id=str(n), text="x" * 200) for n in range(10)]
    )
    assert result.usage.calls == 10
    assert not result.degraded


@pytest.mark.parametrize("concurrency", [1, 4])
def test_no_question_is_sent_after_the_time(concurrency: int) -> None:
    class Slow(Priced):
        def reply(self, asks: Sequence[Ask]) -> list[Reply]:
            time.sleep(0.06)
            return super().reply(asks)

    chat = Slow(concurrency=concurrency)
    results = Reranker("prp", chat, budget=Budget(seconds=0.15)).rank_batch(items(2))
    assert all(r.degraded for r in results)
    assert 0 < chat.calls < 30
    assert "0.15 seconds" in results[0].warnings[0]


def test_a_cached_answer_costs_nothing(tmp_path: Path) -> None:
    from test_reply_cache import Counting

    chat: Any = Counting()
    found = items(1)[0]
    Reranker("pointwise", chat, cache=tmp_path / "c").rank(*found)
    asked = len(chat.asked)
    again = Reranker("pointwise", chat, cache=tmp_path / "c", budget=Budget(calls=0)).rank(*found)
    assert len(chat.asked) == asked
    assert not again.degraded


def test_limits_are_read_and_refused() -> None:
    assert Budget.parse("calls=4, seconds=1.5") == Budget(calls=4, seconds=1.5)
    assert Budget.parse("money=0.5", PRICE) == Budget(money=0.5, price=PRICE)
    for wrong in ("", "calls", "calls=x", "calls=1.5", "cents=3", "calls=-1", "seconds=nan"):
        with pytest.raises(UsageError, match="budget"):
            Budget.parse(wrong)
    with pytest.raises(UsageError, match="price"):
        Budget.parse("money=1")


@pytest.mark.slow
def test_a_bound_is_one(qwen_chats: Callable[[str], Any], picture: Any) -> None:
    """No prompt of a real tokenizer and template has more tokens than its bound."""
    qwen = qwen_chats("qwen3_vl").qwen
    texts = ["", "\u00e9\u4e16\u754c" * 20, "<|im_start|>" * 9, "{}[]()#" * 20]
    for text in texts:
        for images in (0, 2):
            shown = tuple(Part(image=picture(200, 100, n)) for n in range(images))
            system = Message(role="system", parts=(Part(text=text or "x"),))
            user = Message(role="user", parts=(*shown, Part(text=text or "y")))
            ask = Ask(messages=(system, user), image_tokens=64)
            encoded = qwen.encode(ask.messages, image_tokens=64)
            assert encoded.length <= bound(ask).input_tokens


def test_a_meter_gives_back_what_was_not_spent() -> None:
    meter = Meter(Budget(tokens=100))
    most = Usage(calls=1, input_tokens=60, output_tokens=10)
    assert meter.take(most) == ""
    assert meter.take(most) == "100 tokens"
    meter.settle(most, Usage(calls=1, input_tokens=5))
    assert meter.take(most) == ""
    assert meter.spent.input_tokens == 5
    assert meter.seconds_left() is None


def test_errors_say_which_limit_it_was() -> None:
    result = Reranker("listwise", Priced(), budget=Budget(calls=0)).rank(*items(1)[0])
    assert "not asked: the budget of 0 calls is spent" in result.warnings[0]
    assert issubclass(BudgetError, ChatError)
    assert not BudgetError("x").retryable
    assert result.trace.steps[0].error


def test_an_evaluation_stops_before_what_it_cannot_finish(tmp_path: Path) -> None:
    """Two portions of eight queries, and a budget for all that ends in the second."""
    asked = [(replace(q, id=f"q{n}"), r) for n, (q, r) in enumerate(items(12, 4))]
    said: list[str] = []
    for calls, finished in ((40, 8), (8, 8), (100, 12)):
        chat = Priced()
        judging = Resumable(
            folder=tmp_path, chat=chat, say=said.append,
            around=Surroundings(total=Meter(Budget(calls=calls))),
        )  # fmt: skip
        judged = judging.rerank("pointwise", asked)
        assert chat.calls <= calls
        assert len(judged.results) == finished
        assert judged.left.queries == 12 - finished
        assert not any(r.degraded for r in judged.results)
    told = [line for line in said if "is spent" in line]
    assert len(told) == 2
    assert "the budget of 40 calls for all is spent" in told[0]
    assert "4 queries" in told[0]


def test_one_budget_bounds_all_methods_of_an_evaluation(tmp_path: Path) -> None:
    asked = [(replace(q, id=f"q{n}"), r) for n, (q, r) in enumerate(items(3, 4))]
    chat = Priced()
    judging = Resumable(folder=tmp_path, chat=chat, around=Surroundings(total=Meter(Budget(calls=14))))
    assert len(judging.rerank("pointwise", asked).results) == 3  # 12 calls
    assert len(judging.rerank("listwise", asked).results) == 0
    assert chat.calls <= 14


def test_a_budget_is_part_of_what_was_done(tmp_path: Path) -> None:
    asked = [(replace(q, id=f"q{n}"), r) for n, (q, r) in enumerate(items(2, 3))]

    def judging(budget: Budget | None) -> Resumable:
        return Resumable(folder=tmp_path, chat=Priced(), around=Surroundings(budget=budget))

    cut = judging(Budget(calls=1)).rerank("pointwise", asked).results
    assert all(r.degraded for r in cut)
    judging(Budget(calls=1, price=PRICE)).rerank("pointwise", asked)  # a price alone limits nothing
    for budget, now in ((None, "absent"), (Budget(calls=9), "9")):
        with pytest.raises(UsageError, match=f"budget.calls was 1 and is {now}"):
            judging(budget).rerank("pointwise", asked)
    paid = Surroundings(budget=Budget(money=1, price=PRICE))
    assert paid.limits == {"money": 1, "price": {"input": 2.0, "output": 10.0}}
    places = {
        work_digest(NoOptions(), 20, "oracle", around.limits)
        for around in (paid, Surroundings(), Surroundings(), Surroundings(budget=Budget(calls=1)))
    }
    assert len(places) == 3


def test_options_of_the_model_are_part_of_what_was_done(tmp_path: Path) -> None:
    asked = [(replace(q, id=f"q{n}"), r) for n, (q, r) in enumerate(items(2, 3))]

    def judging(**options: Any) -> Resumable:
        around = Surroundings(chat_options=options)
        return Resumable(folder=tmp_path, chat="openai:m@http://127.0.0.1:9/v1", around=around)

    options = {"max_retries": 0, "backoff": 0.0, "thinking": 5}
    with pytest.raises(ChatError, match="cannot be reached"):
        judging(**options).rerank("listwise", asked)
    assert judging(**options).identity["options"] == {"thinking": 5}
    with pytest.raises(ChatError, match="cannot be reached"):  # the same work
        judging(**options, timeout=3.0).rerank("listwise", asked)
    with pytest.raises(UsageError, match="thinking was 5 and is 6"):
        judging(**{**options, "thinking": 6}).rerank("listwise", asked)
