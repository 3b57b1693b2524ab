"""Events as replies come, cancelling within a batch, and rankings for asynchronous programs."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from openai_stub import StubServer, completion

from mmrerank import Reranker
from mmrerank.budget import Budget
from mmrerank.chat.around import around
from mmrerank.chat.around.ledger import entries
from mmrerank.chat.openai import OpenAIChat
from mmrerank.chat.openai import open as open_server
from mmrerank.errors import CancelledError, ChatError
from mmrerank.events import Done, Event, Failed, Judged, OrderChanged, PartsFound
from mmrerank.messages import Ask, Message, Outcome, Part, Reply, Said
from mmrerank.ports import Chat
from mmrerank.types import Usage

TEXTS = [{"id": f"i{n}", "text": f"text {n}"} for n in range(8)]


class Judge(Chat):
    """Answers CoTRR's questions: the last image is best. ``calls`` are the numbers of questions at a time."""

    spec, fake = "judge", True
    capabilities = frozenset({"generate", "choice_logprobs"})

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.running = threading.Event()
        self.seconds = 0.0

    def reply(self, asks: Sequence[Ask]) -> list[Reply]:
        self.calls.append(len(asks))
        self.running.set()
        time.sleep(self.seconds)
        self.running.clear()
        return [Reply(text=_answer(ask.schema), usage=Usage(calls=1, input_tokens=5)) for ask in asks]


def _answer(schema: Any) -> str:
    """A reply that follows ``schema``."""
    keys = list(schema["properties"])
    if "components" in keys:
        return json.dumps({"components": [{"kind": "subject", "text": t} for t in ("a dog", "a ball")]})
    if "scores" in keys:
        scores = {k: n for n, k in enumerate(schema["properties"]["scores"]["properties"])}
        return json.dumps({"reason": "it fits", "scores": scores})
    one = {"note": "", "verdict": "met"}
    return json.dumps({k: {"c1": one, "c2": one, "grade": 3} for k in keys})


def names(events: Sequence[Event]) -> list[str]:
    return [e.name for e in events]


def test_every_reply_is_told_as_it_comes_with_what_its_reader_reads() -> None:
    told: list[Event] = []
    result = Reranker("cotrr", Judge()).rank("a dog, a ball", TEXTS, on_event=told.append)
    assert names(told) == ["parts", *["judged"] * 8, "order", "done"]
    parts, first, done = told[0], told[1], told[-1]
    assert isinstance(parts, PartsFound)
    assert isinstance(first, Judged)
    assert isinstance(done, Done)
    assert [c.text for c in parts.components] == ["a dog", "a ball"]
    assert (first.id, first.score, first.done, first.of) == ("i0", 1.0, 1, 8)
    assert first.assessment == result.explanation.assessments["i0"]
    assert isinstance(told[-2], OrderChanged)
    assert told[-2].ids == tuple(h.id for h in result)
    assert done.result == result
    json.dumps([e.to_dict() for e in told])


def test_the_order_so_far_is_told_for_numbers_and_for_words() -> None:
    texts = [{"id": name, "text": name} for name in ("a house", "a cat", "a red boat")]
    stream = Reranker("pointwise", "oracle").stream("a red boat", texts)
    *_, order, done = list(stream)
    assert isinstance(order, OrderChanged)
    assert isinstance(done, Done)
    assert order.ids[0] == "a red boat"
    assert order.scores["a red boat"] == max(order.scores.values())
    assert order.relevance == stream.result.explanation.relevance
    assert [h.id for h in stream.result] == list(order.ids) == [h.id for h in done.result]


def test_events_name_their_request() -> None:
    told: list[Event] = []
    Reranker("cotrr", Judge()).rank_batch([("a", TEXTS[:2]), ("b", TEXTS[2:5])], on_event=told.append)
    judged = [(e.request, e.id) for e in told if isinstance(e, Judged)]
    assert sorted(judged) == [(0, "i0"), (0, "i1"), (1, "i2"), (1, "i3"), (1, "i4")]
    assert [e.request for e in told if isinstance(e, Done)] == [0, 1]


def test_a_method_of_ones_own_tells_what_its_replies_say() -> None:
    def method(query: Any, ranking: Any) -> Any:
        message = Message(role="user", parts=(Part(text="how good?"),))
        yield [
            Ask(messages=(message,), schema={"properties": {}}, shown=(c.id,), says=lambda r, c=c: Said(
                judged={c.id: float(c.id[1:])}
            ))
            for c in ranking
        ]  # fmt: skip
        return Outcome(ranking=ranking)

    told = list(Reranker(method, Judge()).stream("x", TEXTS[:3]))
    assert [(e.id, e.score) for e in told if isinstance(e, Judged)] == [("i0", 0), ("i1", 1), ("i2", 2)]
    assert [e.ids for e in told if isinstance(e, OrderChanged)][-1] == ("i2", "i1", "i0")


def test_a_failed_question_is_told_with_its_images() -> None:
    class Failing(Judge):
        def reply(self, asks: Sequence[Ask]) -> list[Reply]:
            broken = Reply(error=ChatError("no luck"), finish="error")
            return [broken if "i1" in a.shown else r for a, r in zip(asks, super().reply(asks), strict=True)]

    told: list[Event] = []
    Reranker("cotrr", Failing()).rank("a dog", TEXTS[:3], on_event=told.append)
    assert [(e.ids, e.why) for e in told if isinstance(e, Failed)] == [(("i1",), "no luck")]


def test_nobody_who_watches_means_whole_batches() -> None:
    judge = Judge()
    Reranker("cotrr", judge).rank("a dog", TEXTS)
    assert judge.calls == [1, 8, 1]
    judge.calls.clear()
    judge.batch = 3
    Reranker("cotrr", judge).rank("a dog", TEXTS, on_event=lambda e: None)
    assert judge.calls == [1, 3, 3, 2, 1]


def test_cancelling_stops_before_the_next_batch_and_waits_for_this_one() -> None:
    judge = Judge()
    judge.seconds, judge.batch = 0.01, 2
    with Reranker("cotrr", judge).stream("a dog", TEXTS) as stream:
        for event in stream:
            if event.name == "judged":
                break
    assert sum(judge.calls) <= 1 + 2 + 2
    assert not judge.running.is_set()
    with pytest.raises(CancelledError):
        _ = stream.result
    assert list(stream) == []


def test_who_cancels_in_an_event_gets_no_further_question() -> None:
    judge, token = Judge(), threading.Event()

    def heard(event: Event) -> None:
        if event.name == "judged":
            token.set()

    with pytest.raises(CancelledError):
        Reranker("cotrr", judge).rank("a dog", TEXTS, on_event=heard, cancel=token)
    assert judge.calls == [1, 1]


def test_what_a_watcher_raises_ends_the_ranking() -> None:
    judge = Judge()

    def heard(event: Event) -> None:
        raise RuntimeError("the page is gone")

    with pytest.raises(RuntimeError, match="the page is gone"):
        Reranker("cotrr", judge).rank("a dog", TEXTS, on_event=heard)
    assert sum(judge.calls) == 1


def test_an_error_of_the_ranking_is_raised_where_the_stream_is_read() -> None:
    class Broken(Judge):
        def reply(self, asks: Sequence[Ask]) -> list[Reply]:
            raise ChatError("no such key", kind="auth")

    with pytest.raises(ChatError, match="no such key"):
        list(Reranker("cotrr", Broken()).stream("a dog", TEXTS))


def test_a_time_limit_holds_within_a_round() -> None:
    judge = Judge()
    judge.seconds = 0.05
    result = Reranker("cotrr", judge, budget=Budget(seconds=0.12)).rank("a dog", TEXTS)
    assert sum(judge.calls) < 6
    assert result.degraded
    assert "time" in " ".join(result.warnings) or "seconds" in " ".join(result.warnings)


def test_what_was_answered_before_the_end_is_counted_and_kept(tmp_path: Any) -> None:
    judge = Judge()
    judge.fake = False
    chat = around(
        judge, cache=tmp_path / "c.sqlite", ledger=tmp_path / "l.jsonl", record=tmp_path / "r.jsonl"
    )
    with Reranker("cotrr", chat).stream("a dog", TEXTS) as stream:
        for event in stream:
            if event.name == "judged":
                break
    asked = sum(judge.calls)
    (entry,) = entries(tmp_path / "l.jsonl")
    assert entry.usage.calls == asked < 9
    assert len((tmp_path / "r.jsonl").read_text("utf-8").splitlines()) == 1 + asked
    result = Reranker("cotrr", chat).rank("a dog", TEXTS)
    assert result.usage.calls == 10 - asked
    assert sum(judge.calls) == 10
    told = list(Reranker("cotrr", chat).stream("a dog", TEXTS))
    assert names(told).count("judged") == 8
    assert sum(judge.calls) == 10


@pytest.fixture
def stub() -> Iterator[StubServer]:
    server = StubServer()
    server.later = lambda body: completion(_answer(body["response_format"]["json_schema"]["schema"]))
    yield server
    server.close()


@pytest.fixture
def chat(stub: StubServer) -> Iterator[OpenAIChat]:
    opened = open_server(f"m@{stub.url}", api_key="k", concurrency=2)
    opened.capabilities = frozenset({"generate"})
    yield opened
    opened.close()


def test_a_server_is_left_within_one_batch_and_no_call_goes_on(stub: StubServer, chat: OpenAIChat) -> None:
    stub.delay = 0.1
    with Reranker("cotrr", chat).stream("a dog", TEXTS) as stream:
        for event in stream:
            if event.name == "judged":
                break
        asked = len(stub.requests)
    sent = len(stub.requests)
    assert sent <= asked + 2
    assert sent <= 1 + 2 + 2
    assert not chat._loop._under_way
    time.sleep(0.15)
    assert len(stub.requests) == sent
    assert stub.under_way == 0


def test_a_server_tells_each_reply_and_their_seconds_add_up(stub: StubServer, chat: OpenAIChat) -> None:
    stub.delay = 0.02
    began = time.perf_counter()
    told = list(Reranker("cotrr", chat).stream("a dog", TEXTS))
    took = time.perf_counter() - began
    assert names(told) == ["parts", *["judged"] * 8, "order", "done"]
    assert isinstance(told[-1], Done)
    # waiting is counted once, however many wait
    assert 0 < told[-1].result.usage.seconds <= took


def test_asynchronous_programs_go_on_and_end_what_they_cancel() -> None:
    judge = Judge()
    judge.seconds = 0.01

    async def main() -> None:
        reranker, ticks = Reranker("cotrr", judge), 0
        task = asyncio.create_task(reranker.arank("a dog", TEXTS))
        while not task.done():
            await asyncio.sleep(0.002)
            ticks += 1
        assert len(task.result()) == 8
        assert ticks > 3
        judge.calls.clear()
        task = asyncio.create_task(reranker.arank("a dog", TEXTS))
        while len(judge.calls) < 2:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sum(judge.calls) < 6
        assert not judge.running.is_set()
        assert [e.name async for e in reranker.astream("a dog", TEXTS[:2])][-1] == "done"
        judge.calls.clear()
        found = reranker.astream("a dog", TEXTS)
        async for event in found:
            if event.name == "judged":
                break
        await found.aclose()
        assert sum(judge.calls) < 6
        assert not judge.running.is_set()

    asyncio.run(main())
