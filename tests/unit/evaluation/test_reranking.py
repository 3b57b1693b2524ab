"""Reranking by way of a journal: interrupted or not, the same results, and no finished query asked again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from mmrerank import registry
from mmrerank.budget import Price
from mmrerank.chat.fakes.scripted import Scripted
from mmrerank.chat.open import open_chat
from mmrerank.errors import ChatError, ModelError, UsageError
from mmrerank.evaluation.experiment.forecast import Forecast, forecast
from mmrerank.evaluation.experiment.journal import opened
from mmrerank.evaluation.experiment.reranking import PORTION, from_plain, rerank_all, to_plain
from mmrerank.evaluation.experiment.resume import Resumable
from mmrerank.messages import Ask, Reply
from mmrerank.ports import Chat
from mmrerank.reranker import Reranker
from mmrerank.results import SearchResult
from mmrerank.types import Candidate, Query, Ranking, Usage

WORDS = ("red", "boat", "night", "sea", "dog", "\u00e9t\u00e9")


def items(count: int) -> list[tuple[Query, Ranking]]:
    """Queries whose candidates are named for what they show, which the fake goes by."""
    found = []
    for n in range(count):
        asked = f"{WORDS[n % 6]} {WORDS[(n + 1 + n // 6) % 6]} {n}"
        names = [f"{w} {v} {m}" for m, (w, v) in enumerate(pairwise(WORDS))]
        candidates = tuple(Candidate(id=i, text=i, score=-float(m)) for m, i in enumerate(names))
        found.append((Query(id=f"q{n}", text=asked), Ranking(candidates)))
    return found


class Watched(Chat):
    """The fake that knows the truth, with a record of who was asked together; may break on a query."""

    domain = ""

    def __init__(self, broken: Callable[[str], Exception | None] = lambda _: None) -> None:
        self.inner: Chat = open_chat("oracle")
        self.spec, self.capabilities = "oracle", self.inner.capabilities
        self.broken = broken
        self.rounds: list[list[str]] = []

    def reply(self, asks: Sequence[Ask]) -> list[Reply]:
        self.rounds.append([f"{a.query.id} {a.kind} {a.shown}" for a in asks if a.query])
        replies = []
        for ask, reply in zip(asks, self.inner.reply(asks), strict=True):
            error = self.broken(ask.query.id if ask.query else "")
            if error and not isinstance(error, ChatError):
                raise error
            replies.append(Reply(error=error, finish="error") if error else reply)
        return replies

    @property
    def asked(self) -> Counter[str]:
        return Counter(ask for asks in self.rounds for ask in asks)


def rerank(path: Path, chat: Chat, count: int, method: str = "cotrr", **more: Any) -> Any:
    with opened(path, {}) as journal:
        return rerank_all(Reranker(method, chat), items(count), journal, **more)


def plain(results: Sequence[SearchResult]) -> str:
    return json.dumps([[r.to_dict(), to_plain(r)] for r in results])


def lines(path: Path) -> list[str]:
    return [json.loads(line)["query"] for line in path.read_text("ascii").splitlines()[1:]]


@pytest.mark.parametrize("method", registry.names("strategy"))
def test_results_come_back_as_they_were(method: str) -> None:
    asked = items(3)
    for result, (query, ranking) in zip(
        Reranker(method, open_chat("oracle")).rank_batch(asked), asked, strict=True
    ):
        body = json.loads(json.dumps(to_plain(result)))
        again = from_plain(body, query, ranking, method)
        assert again.to_dict() == result.to_dict()
        assert (again.hits, again.first, again.usage) == (result.hits, result.first, result.usage)
        assert (again.explanation, again.warnings) == (result.explanation, result.warnings)
        assert again.no_match == result.no_match


@pytest.mark.parametrize("stop", ["q0", "q9", "q15", "q19"])
def test_after_a_stop_the_same_results_and_nothing_asked_twice(tmp_path: Path, stop: str) -> None:
    count = 2 * PORTION + 4
    whole = Watched()
    expected = rerank(tmp_path / "whole.jsonl", whole, count)

    first = Watched(lambda id: ModelError("gone") if id == stop else None)
    path = tmp_path / "stopped.jsonl"
    with pytest.raises(ModelError):
        rerank(path, first, count)
    finished = lines(path)
    assert len(finished) == int(stop[1:]) // PORTION * PORTION
    second, told = Watched(), []
    found = rerank(path, second, count, progress=lambda done, of: told.append((done, of)))

    assert plain(found) == plain(expected)
    assert not {ask.split()[0] for ask in second.asked} & set(finished)
    # what shares a batch is what shares it without a stop, so that last bits are the same too
    assert second.rounds == whole.rounds[-len(second.rounds) :]
    assert sorted(lines(path)) == sorted(q.id for q, _ in items(count))
    assert told[0] == (len(finished), count)
    assert told[-1] == (count, count)
    assert set(whole.asked.values()) == {1}

    third = Watched()
    assert plain(rerank(path, third, count)) == plain(expected)
    assert not third.rounds


def test_failures_are_counted_and_asked_again_only_when_wanted(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    bad = {"q1", "q10"}
    down = Watched(lambda id: ChatError("busy", retryable=True) if id in bad else None)
    found = rerank(path, down, 12)
    assert {r.query.id for r in found if r.degraded} == bad
    for result in found:
        if result.degraded:
            assert result.hits == result.first
            assert any("busy" in w for w in result.warnings)

    calm = Watched()
    assert plain(rerank(path, calm, 12)) == plain(found)
    assert not calm.rounds
    mended = rerank(path, calm, 12, retry_failed=True)
    assert {ask.split()[0] for ask in calm.asked} == bad
    assert not any(r.degraded for r in mended)
    assert plain(mended) == plain(rerank(tmp_path / "whole.jsonl", Watched(), 12))


def test_queries_need_ids_of_their_own(tmp_path: Path) -> None:
    ranking = items(1)[0][1]
    with opened(tmp_path / "m.jsonl", {}) as journal:
        for ids in ("aa", ("", "b")):
            asked = [(Query(id=i, text="x"), ranking) for i in ids]
            with pytest.raises(UsageError, match="need ids"):
                rerank_all(Reranker("none"), asked, journal)


def test_an_evaluation_tells_what_it_finds_and_what_is_left(tmp_path: Path) -> None:
    told: list[str] = []

    def evaluation(**more: Any) -> Resumable:
        return Resumable(folder=tmp_path, chat=Watched(), work={"benchmark": "b"}, say=told.append, **more)

    # a forecast keeps nothing, whether it asks or not
    left = evaluation(limit=0).rerank("cotrr", items(20)).left
    assert (left.queries, left.measured, left.calls, left.images) == (20, 0, 140, 0)
    assert (left.input_tokens, left.seconds) == (None, None)
    assert told.pop() == ("cotrr: 20 queries left: 140 calls, 0 images, tokens and time not known yet")
    pilot = evaluation(limit=8, price=Price(input=1e3, output=2e3)).rerank("cotrr", items(20))
    assert [r.query.id for r in pilot.results] == [f"q{n}" for n in range(8)]
    assert (pilot.left.queries, pilot.left.measured, pilot.left.calls) == (20, 8, 140)
    assert pilot.left.input_tokens
    assert pilot.left.output_tokens
    assert pilot.left.money == pytest.approx(
        (pilot.left.input_tokens + 2 * pilot.left.output_tokens) / 1e3, abs=2e-3
    )
    three = evaluation(limit=3).rerank("cotrr", items(20))  # so many, and no more
    assert ([r.query.id for r in three.results], three.left.measured) == (["q0", "q1", "q2"], 3)
    assert [*tmp_path.iterdir()] == []
    told.clear()
    done = evaluation().rerank("cotrr", items(20))
    assert len(done.results) == 20
    assert done.left.queries == 0
    assert told[0].startswith("cotrr: 20 queries left: 140 calls")
    assert told[1].startswith("cotrr: 12 queries left: 84 calls")
    assert len(told) == 2

    assert len(evaluation().rerank("cotrr", items(4), part="others").results) == 4
    assert {p.name for p in tmp_path.iterdir()} == {
        "cotrr.journal.jsonl", "cotrr.others.journal.jsonl",
    }  # fmt: skip
    for other, difference in (
        ({"options": {"group_size": 2}}, "options.group_size was 1 and is 2"),
        ({"items": items(19)}, "first_stage was"),
    ):
        asked = other.pop("items", items(20))
        with pytest.raises(UsageError, match=difference):
            evaluation().rerank("cotrr", asked, **other)
    assert len(evaluation(fresh=True).rerank("cotrr", items(19)).results) == 19


def test_the_model_is_not_opened_when_nothing_is_left(tmp_path: Path) -> None:
    def evaluation() -> Resumable:
        return Resumable(folder=tmp_path, chat=f"scripted:{script}")

    script = tmp_path / "script.jsonl"
    script.write_text('{"logprobs": {"yes": -0.1, "no": -2.4}}\n')
    expected = evaluation().rerank("pointwise", items(3)).results
    assert plain(evaluation().rerank("pointwise", items(3)).results) == plain(expected)
    script.write_text('{"logprobs": {"yes": -0.2, "no": -2.4}}\n')
    with pytest.raises(UsageError, match="chat.digest was"):
        evaluation().rerank("pointwise", items(3))
    assert len(evaluation().rerank("none", items(3)).results) == 3


@pytest.mark.parametrize("method", registry.names("strategy"))
def test_calls_are_foreseen(method: str, tmp_path: Path) -> None:
    """Never too few, and exactly where the method does not depend on the answers."""
    asked = items(12)
    options = registry.load("strategy", method).Options()
    ahead = forecast(method, options, asked, [])
    usages = [r.usage for r in Reranker(method, Watched()).rank_batch(asked)]
    spent = sum(usages, Usage())
    adaptive = method in {"setwise", "rank_r1", "mvp", "plan", "feedback", "describe"}
    assert ahead.calls >= spent.calls if adaptive else ahead.calls == spent.calls
    assert ahead.queries == 12
    half = forecast(method, options, asked[6:], usages[:6])
    assert half.calls == pytest.approx(spent.calls / 2, rel=0.1)
    assert half.input_tokens == pytest.approx(spent.input_tokens / 2, rel=0.1)


def test_a_forecast_reads_like_one() -> None:
    row = Forecast(queries=1200, measured=8, calls=26400, images=24000, input_tokens=5_000_000,
                   output_tokens=90_000, seconds=7500, money=1.5)  # fmt: skip
    assert str(row) == (
        "1,200 queries left: 26,400 calls, 24,000 images, 5,000,000 + 90,000 tokens, "
        "about 2 h 5 min, 1.50 to pay"
    )
    assert Forecast(**row.to_dict()) == row
    none, cotrr = (registry.load("strategy", name).Options() for name in ("none", "cotrr"))
    assert "without a call" in str(forecast("none", none, items(2), []))
    assert forecast("cotrr", cotrr, [], []).calls == 0
    assert Price.parse("0.5, 2").of(2_000_000, 500_000) == 2
    for wrong in ("", "1", "a,b", "1,2,3", "-1,2", "nan,1", "inf,1"):
        with pytest.raises(UsageError, match="IN,OUT"):
            Price.parse(wrong)


def test_an_image_that_is_gone_costs_its_judgement_only(tmp_path: Path) -> None:
    from mmrerank.types import Image

    def unreadable(ask: Ask) -> Reply:
        return Reply(error=ChatError("cannot be read"), finish="error")

    gone = [Image(path=tmp_path / "gone.png"), Image(path=tmp_path / "too.png")]
    result = Reranker("pointwise", Scripted(unreadable)).rank("a boat", gone)
    assert [h.id for h in result] == ["0", "1"]
    assert result.repairs.failed == 2
