"""Rankings over a server that goes wrong in every way: permutations, failures shown, nothing leaks."""

from __future__ import annotations

import gc
import logging
import os
import random
import re
import resource
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from fault_server import FAULTS, MODEL, FaultServer

from mmrerank.chat.around import Around
from mmrerank.chat.open import open_chat
from mmrerank.messages import Ask, Reply
from mmrerank.ports import Chat
from mmrerank.reranker import Reranker
from mmrerank.types import Candidate, Query, Ranking, Repairs

KEY = "sk-never-print-this-0123456789"
RETRIES = 3
METHODS: dict[str, dict[str, Any]] = {
    "listwise": {},
    "pointwise": {},
    "cotrr": {"mode": "single"},
    "setwise": {},
    "grouprank": {},
    "prp": {"schedule": "sliding"},
}


class Watch(logging.Handler):
    """Remembers whether any record of any logger held the key."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if KEY in f"{record.getMessage()} {record.args}":
            self.seen.append(record.name)


@pytest.fixture
def watch(request: pytest.FixtureRequest) -> Iterator[Watch]:
    root = logging.getLogger()
    level = root.level
    handler = Watch()
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if request.node.get_closest_marker("slow") is None else logging.INFO)
    yield handler
    root.removeHandler(handler)
    root.setLevel(level)


def requests(count: int, start: int) -> list[tuple[Query, Ranking]]:
    """Queries whose every question is a request of its own, so that repetitions can be counted."""
    dice = random.Random(start)
    made = []
    for n in range(start, start + count):
        size = dice.randint(2, 6)
        found = [Candidate(id=f"{n}/{m}", text=f"picture {m} of {n}") for m in range(size)]
        made.append((Query(text=f"search number {n}"), Ranking(tuple(found))))
    return made


def files() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0


class Counted(Around):
    """Counts the questions that got no answer, or none that can be read, apart from what the driver does."""

    def __init__(self, inner: Chat) -> None:
        super().__init__(inner)
        self.lost = 0
        self._lock = threading.Lock()

    def reply_within(self, asks: Sequence[Ask], seconds: float | None) -> list[Reply]:
        replies = self.inner.reply_within(asks, seconds)
        with self._lock:
            for ask, reply in zip(asks, replies, strict=True):
                # labels that are not in the reply are asked for again as text, and count by that answer
                again = bool(ask.choices) and reply.error is not None and reply.error.kind == "labels"
                if ask.query is not None and not again:
                    self.lost += reply.error is not None or not (ask.useful and ask.useful(reply))
        return replies


def memory() -> int:
    """Bytes of this process that lie in memory now; 0 where the system does not say."""
    gc.collect()
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * resource.getpagesize() if statm.is_file() else 0


def carry_out(
    total: int, portion: int, watch: Watch, capfd: pytest.CaptureFixture[str], seed: int = 0
) -> Counter[str]:
    threads, opened = threading.active_count(), files()
    server = FaultServer(seed)
    chat: Any = open_chat(
        f"openai:{MODEL}@{server.url}",
        api_key=KEY, max_retries=RETRIES, backoff=0.002, timeout=1.5, concurrency=32,
    )  # fmt: skip
    counts: Counter[str] = Counter()
    try:
        assert "choice_logprobs" in chat.capabilities
        server.sound = False
        chat = Counted(chat)
        done = 0
        again: dict[int, int] = {}
        settled = opened_then = 0
        while done < total:
            method = list(METHODS)[done // portion % len(METHODS)]
            batch = requests(min(portion, total - done), done)
            chat.lost = told_lost = 0
            for (query, before), result in zip(
                batch, Reranker(method, chat, **METHODS[method]).rank_batch(batch), strict=True
            ):
                assert result.query == query
                assert sorted(h.id for h in result.hits) == sorted(before.ids)
                same = Counter(s.digest for s in result.trace.steps)
                again[int(query.text.split()[-1])] = max(same.values())
                failed = [s for s in result.trace.steps if s.error]
                counts["rankings"] += 1
                counts["questions"] += len(result.trace.steps)
                counts["questions failed"] += len(failed)
                told_lost += sum(f.count for f in result.failures)
                lost = sum(f.count for f in result.failures)
                assert len(failed) <= lost <= len(result.trace.steps), (method, result.failures)
                counts[f"asked {method}"] += len(result.trace.steps)
                counts[f"read {method}"] += len(result.trace.steps) - lost
                counts[f"rankings {method}"] += 1
                backward = before.ids[::-1]
                counts[f"moved {method}"] += [h.id for h in result.hits] != list(before.ids)
                if not lost and result.repairs == Repairs():
                    counts[f"clean {method}"] += 1
                    assert tuple(h.id for h in result.hits) == backward, method
                counts["rankings degraded"] += result.degraded
                if failed:
                    assert result.degraded, (method, [s.error for s in failed])
                    assert any("failed" in w for w in result.warnings)
                told = f"{result.to_dict()} {result.trace} {result.warnings} {result!r}"
                assert KEY not in told
            # every question that failed, or that nobody could read, is counted under its reason
            assert told_lost == chat.lost, (method, told_lost, chat.lost)
            done += len(batch)
            if done >= total // 4 and not settled:
                settled, opened_then = memory(), files()
        # no request was repeated more often than promised; some methods ask the same question again
        for name, times in server.requests.items():
            assert times <= (RETRIES + 1) * again.get(server.about[name], 1)
        # later batches hold on to nothing: what grows are the notes of this test
        assert memory() - settled < 100 * 2**20
        assert files() <= opened_then + 32
        for method in METHODS if total >= 300 else ():
            assert counts[f"read {method}"] >= counts[f"asked {method}"] / 3, (method, counts)
            assert counts[f"moved {method}"] >= counts[f"rankings {method}"] / 3, (method, counts)
            assert counts[f"clean {method}"], (method, counts)
        counts["requests"] = sum(server.requests.values())
        assert server.most_open <= 32 + 1  # a connection that was reset may still be closing
        dealt = server.dealt
    finally:
        chat.close()
        deadline = time.monotonic() + 5
        while server.open and time.monotonic() < deadline:
            time.sleep(0.02)
        still_open = server.open
        server.close()
    counts.update({f"dealt {k}": v for k, v in dealt.items()})
    assert still_open == 0
    assert threading.active_count() <= threads
    assert files() <= opened + 2
    said = capfd.readouterr()
    assert KEY not in said.out + said.err
    assert watch.seen == []
    assert not re.search(r"Traceback", said.err)
    return counts


@pytest.mark.slow
def test_three_hundred_rankings(watch: Watch, capfd: pytest.CaptureFixture[str]) -> None:
    counts = carry_out(300, 50, watch, capfd)
    assert counts["rankings"] == 300
    assert 0 < counts["questions failed"] < counts["questions"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_thousand_rankings(watch: Watch, capfd: pytest.CaptureFixture[str]) -> None:
    start = time.monotonic()
    counts = carry_out(10_000, 500, watch, capfd)
    assert counts["rankings"] == 10_000
    assert all(counts[f"dealt {fault}"] for fault in FAULTS)
    with capfd.disabled():
        logging.getLogger(__name__).warning("%s", counts)
        told = ", ".join(f"{v} {k}" for k, v in counts.items() if not k.startswith("dealt"))
        os.write(1, f"\n{told} in {time.monotonic() - start:.0f} s\n".encode())
