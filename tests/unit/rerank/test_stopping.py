"""A run ends, with the reason, when what is left would fail too; a question's own failure does not end it.

From public reports: langchain-ai/langchainjs#1929 and eth-sri/matharena#9 (a spent quota is tried for hours),
EntityProcess/agentv#974 (a dead server is asked the whole evaluation).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from command import run, write_lines

from mmrerank.chat.fakes.oracle import Oracle
from mmrerank.errors import SYSTEMIC, ChatError, FailureKind
from mmrerank.messages import Ask, Reply
from mmrerank.rerank.stopping import IN_A_ROW, PLAIN, Stopped, Watch
from mmrerank.reranker import Reranker
from mmrerank.types import Candidate, Query, Usage

Fails = Callable[[int, Ask], ChatError | None]


class Server(Oracle):
    """An oracle behind a server: ``fails`` says for each question, from 1 on, how it fails."""

    fake = False

    def __init__(self, fails: Fails, concurrency: int = 1) -> None:
        super().__init__()
        self.fails, self.concurrency = fails, concurrency
        self.asked = 0
        self._lock = threading.Lock()

    def reply(self, asks: Sequence[Ask]) -> list[Reply]:
        replies = []
        for ask, reply in zip(asks, super().reply(asks), strict=True):
            with self._lock:
                self.asked += 1
                error = self.fails(self.asked, ask)
            used = Usage(calls=1)
            replies.append(Reply(error=error, finish="error", usage=used) if error else reply)
        return replies


def after(n: int, kind: FailureKind) -> Fails:
    return lambda asked, _: ChatError(f"it is {kind}", kind=kind) if asked > n else None


def requests(count: int, k: int = 4) -> list[tuple[Query, list[Candidate]]]:
    names = [f"boat {n}" for n in range(k)]
    return [
        (Query(text=f"a boat {n}", id=f"q{n}"), [Candidate(id=i, text=i) for i in names])
        for n in range(count)
    ]


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize("kind", sorted(SYSTEMIC))
def test_a_few_failures_in_a_row_end_the_run(kind: FailureKind, concurrency: int) -> None:
    server = Server(after(6, kind), concurrency)
    reranker = Reranker("listwise", server)
    portions = [requests(40)[start : start + 4] for start in range(0, 40, 4)]
    with pytest.raises(Stopped, match=f"it is {kind}; stopped after ") as stopped:
        list(map(reranker.rank_batch, portions))
    assert stopped.value.exit_code == 6
    assert (stopped.value.kind, stopped.value.systemic) == (kind, True)
    assert server.asked <= 6 + IN_A_ROW + PLAIN + 2 * concurrency + 4


def test_what_was_complete_comes_with_the_error() -> None:
    server = Server(after(3, "quota"))
    with pytest.raises(Stopped) as stopped:
        Reranker("listwise", server).rank_batch(requests(8))
    assert sorted(stopped.value.results) == [0, 1, 2]
    assert [r.query.id for r in stopped.value.results.values()] == ["q0", "q1", "q2"]
    assert not any(r.degraded for r in stopped.value.results.values())


@pytest.mark.parametrize("kind", ["quota", "unreachable", "server", "rate_limit"])
@pytest.mark.parametrize("method", ["listwise", "pointwise"])
def test_one_search_that_got_no_answer_fails(kind: FailureKind, method: str) -> None:
    with pytest.raises(Stopped, match=f"it is {kind}"):
        Reranker(method, Server(after(0, kind))).rank_batch(requests(1))


def test_a_server_that_comes_back_goes_on() -> None:
    gone = Server(lambda n, _: ChatError("away", kind="unreachable") if 5 <= n <= 6 else None)
    results = Reranker("listwise", gone).rank_batch(requests(20))
    assert [r.degraded for r in results] == [n in (4, 5) for n in range(20)]
    assert [r.unreached for r in results] == [n in (4, 5) for n in range(20)]


def test_bad_luck_in_a_row_ends_no_run_that_had_answers() -> None:
    """A gateway that deals one question in fifty to the wrong place does so three times running as well."""
    dealt: list[FailureKind] = ["address", "web_page", "auth", "unreachable", "not_found"]
    for kind in dealt:
        # the plain questions that decide have bad luck twice, or meet a server that is only busy
        for plain, asked_more in ((kind, 3), ("server", 1)):
            fails = dict.fromkeys(range(5, 8), kind) | dict.fromkeys(range(21, 20 + asked_more), plain)
            gateway = Server(_dealing(fails))
            results = Reranker("listwise", gateway).rank_batch(requests(20))
            assert [r.degraded for r in results] == [n in (4, 5, 6) for n in range(20)]
            assert gateway.asked == 20 + asked_more


def _dealing(kinds: Mapping[int, Any]) -> Fails:
    return lambda n, _: ChatError("astray", kind=kinds[n]) if n in kinds else None


def test_what_was_given_up_unsent_is_no_further_sign() -> None:
    """A stall of seconds fails what is under way, and with it what waits in line."""
    watch = Watch(answered=True, plain=lambda: None)
    late = ChatError("late", kind="timeout", retryable=True)
    for n in range(8):
        watch.note(Reply(error=late, finish="error", usage=Usage(calls=1)), n)
    for n in range(200):
        watch.note(Reply(error=late, finish="error"), n)
    for n in range(7):
        watch.note(Reply(error=late, finish="error", usage=Usage(calls=1)), n)
    with pytest.raises(Stopped, match="stopped after 16"):
        watch.note(Reply(error=late, finish="error", usage=Usage(calls=1)), 9)


def test_a_plain_question_is_about_now_whatever_a_cache_keeps(tmp_path: Path) -> None:
    first = Server(lambda n, _: ChatError("astray", kind="address") if 5 <= n <= 7 else None)
    cache = tmp_path / "replies.sqlite"
    Reranker("listwise", first, cache=cache).rank_batch(requests(10))
    gone = Server(after(0, "unreachable"))
    with pytest.raises(Stopped, match="stopped after 3 failures"):
        Reranker("listwise", gone, cache=cache).rank_batch(requests(30))


def test_what_a_question_may_have_of_its_own_ends_nothing() -> None:
    kinds: list[FailureKind] = ["content_filter", "bad_request", "reply", "context", "other"]
    for kind in kinds:
        results = Reranker("listwise", Server(after(0, kind))).rank_batch(requests(10))
        assert all(r.degraded and not r.unreached for r in results)


def test_a_gateway_that_fails_each_of_many_queries_ends_the_run() -> None:
    server = Server(after(4, "server"))
    with pytest.raises(Stopped, match="stopped after 8 failures"):
        Reranker("listwise", server).rank_batch(requests(30))
    one = Server(lambda _, ask: ChatError("slow", kind="timeout") if "boat 3" in str(ask.query) else None)
    results = Reranker("pointwise", one).rank_batch(requests(8, k=20))
    assert [r.degraded for r in results] == [n == 3 for n in range(8)]


def test_the_last_query_that_is_slow_is_its_own_trouble() -> None:
    """Else an evaluation of which it alone is left could never end."""
    slow = Server(lambda _, ask: ChatError("slow", kind="timeout") if ask.query else None)
    (result,) = Reranker("listwise", slow).rank_batch(requests(1))
    assert (result.degraded, result.unreached) == (True, True)


def test_forbidden_ends_the_run_where_a_plain_question_is_forbidden_too() -> None:
    everything = Server(after(4, "forbidden"))
    with pytest.raises(Stopped, match="stopped after 3 failures"):
        Reranker("listwise", everything).rank_batch(requests(12))
    some = Server(
        lambda _, ask: (
            ChatError("no", kind="forbidden") if ask.query and ask.query.id in "q3 q4 q5 q6" else None
        )
    )
    results = Reranker("listwise", some).rank_batch(requests(12))
    assert [r.degraded for r in results] == [n in (3, 4, 5, 6) for n in range(12)]
    words = Server(lambda _, ask: ChatError("no", kind="forbidden") if ask.query else None)
    with pytest.raises(Stopped, match="stopped after 16 failures"):
        Reranker("listwise", words).rank_batch(requests(30))


def test_what_a_cache_answers_says_nothing_of_the_server() -> None:
    class Half(Server):
        def reply(self, asks: Sequence[Ask]) -> list[Reply]:
            replies = super().reply(asks)
            for n, ask in enumerate(asks):
                if ask.query and int(ask.query.id[1:]) % 2:
                    replies[n] = Reply(text='{"reason": "", "scores": {"A": 1, "B": 2, "C": 3, "D": 4}}')
            return replies

    with pytest.raises(Stopped):
        Reranker("listwise", Half(after(0, "quota"))).rank_batch(requests(12))


def test_reasons_stand_with_their_counts() -> None:
    class Apology(Oracle):
        def reply(self, asks: Sequence[Ask]) -> list[Reply]:
            words = "I am sorry, but I cannot help with identifying anybody in these pictures. " * 4
            return [Reply(text=words, usage=Usage(calls=1)) for _ in asks]

    (result,) = Reranker("cotrr", Apology()).rank_batch(requests(1))
    (failure,) = result.failures
    assert (failure.kind, failure.count) == ("reply", 5)
    assert "begins 'I am sorry, but I cannot help with identifying anybody" in failure.example
    assert len(failure.example) < 160
    assert any("I am sorry" in w for w in result.warnings)
    assert result.to_dict()["failures"] == [{"kind": "reply", "count": 5, "example": failure.example}]


def test_the_command_prints_what_was_complete_and_ends_with_6(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        {"query": {"text": q.text, "id": q.id}, "candidates": [{"id": c.id, "text": c.text} for c in own]}
        for q, own in requests(6)
    ]
    monkeypatch.setattr("mmrerank.cli.rerank.chat_for", lambda *_, **__: Server(after(2, "quota")))
    asked = write_lines(tmp_path / "r.jsonl", lines)
    told = run("rerank", "--input", asked, "--rerank", "listwise", "--chat", "x", "--output", "json", code=6)
    assert [json.loads(line)["query"]["id"] for line in told.stdout.splitlines()] == ["q0", "q1"]
    assert "it is quota; stopped after 3 failures" in told.stderr
