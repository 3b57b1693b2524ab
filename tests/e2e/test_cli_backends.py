"""What stands around a backend, on the command line: cache, budget, record, ledger, forecast, probe."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import data, run, write_lines
from fault_server import MODEL, FaultServer

KEY = "sk-never-print-this-0123456789"


@pytest.fixture
def server() -> Iterator[FaultServer]:
    made = FaultServer()
    yield made
    made.close()


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    rows = [
        {
            "query": {"text": f"search number {n}", "id": f"q{n}"},
            "candidates": [{"id": f"{m}", "text": f"text {m}"} for m in range(4)],
        }
        for n in range(3)
    ]
    return write_lines(tmp_path / "requests.jsonl", rows)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def rerank(server: FaultServer, requests: Path, *more: Any, code: int = 0) -> list[Any]:
    result = run(
        "rerank", "--input", requests, "--rerank", "pointwise",
        "--chat", f"openai:{MODEL}@{server.url}", *more, "--output", "json", code=code,
    )  # fmt: skip
    assert KEY not in result.stdout + result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def sent(server: FaultServer) -> int:
    return sum(server.requests.values())


def test_a_second_run_asks_nothing(server: FaultServer, requests: Path, tmp_path: Path) -> None:
    cache = tmp_path / "replies.sqlite"
    first = rerank(server, requests, "--cache", cache)
    before = sent(server)
    second = rerank(server, requests, "--cache", cache)
    assert sent(server) == before + 1  # the probe at the start
    for one, two in zip(first, second, strict=True):
        assert one["hits"] == two["hits"]
        assert (one["usage"]["calls"], two["usage"]["calls"]) == (4, 0)
    told = data("cache", "info", "--cache", cache, "--check")
    assert (told["replies"], told["whole"]) == (12, True)
    assert list(told["models"]) == [f"openai:{MODEL}@{server.url}"]
    assert "12 replies" in run("cache", "info", "--cache", cache).stdout
    assert data("cache", "prune", "--cache", cache, "--older-than", "1h")["dropped"] == 0
    assert data("cache", "prune", "--cache", cache, "--largest", "1KB")["dropped"] == 12
    assert data("cache", "clear", "--cache", cache) == {"path": str(cache), "deleted": True}
    assert not cache.exists()
    run("cache", "info", "--cache", cache, code=3)


def test_the_environment_names_a_cache_and_off_is_off(
    server: FaultServer, requests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "replies.sqlite"
    monkeypatch.setenv("MMRERANK_CACHE", str(cache))
    rerank(server, requests, "--cache", "off")
    assert not cache.exists()
    rerank(server, requests)
    assert data("cache", "info")["replies"] == 12


def test_a_damaged_cache_is_told(server: FaultServer, requests: Path, tmp_path: Path) -> None:
    cache = tmp_path / "replies.sqlite"
    rerank(server, requests, "--cache", cache)
    with sqlite3.connect(cache) as db:
        db.execute("UPDATE replies SET body = replace(body, '-', '+')")
    db.close()
    result = run(
        "rerank", "--input", requests, "--rerank", "pointwise",
        "--chat", f"openai:{MODEL}@{server.url}", "--cache", cache, code=3,
    )  # fmt: skip
    assert f"mmrerank cache clear --cache {cache}" in result.stderr
    run("cache", "info", "--cache", cache, "--check", code=3)
    run("cache", "clear", "--cache", cache)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["info"], "no cache is named"),
        (["prune", "--cache", "x"], "give --older-than"),
        (["prune", "--cache", "x", "--older-than", "3"], "with its unit"),
        (["prune", "--cache", "x", "--largest", "many"], "500MB"),
    ],
)
def test_wrong_words(arguments: list[str], said: str) -> None:
    assert said in run("cache", *arguments, code=2).stderr


def test_budgets(server: FaultServer, requests: Path) -> None:
    rows = rerank(server, requests, "--budget", "calls=2", code=7)
    assert [r["usage"]["calls"] for r in rows] == [2, 2, 2]
    assert all("budget of 2 calls" in r["warnings"][0] for r in rows)
    rows = rerank(server, requests, "--total-budget", "calls=5", code=7)
    assert sum(r["usage"]["calls"] for r in rows) == 5
    rows = rerank(server, requests, "--total-budget", "money=0.5", "--price", "1,2")
    assert sum(r["usage"]["calls"] for r in rows) == 12
    for wrong in (["--budget", "cents=1"], ["--budget", "money=1"], ["--price", "x", "--budget", "calls=1"]):
        rerank(server, requests, *wrong, code=2)


def test_record_and_replay(server: FaultServer, requests: Path, tmp_path: Path) -> None:
    record = tmp_path / "run.jsonl"
    first = rerank(server, requests, "--record", record)
    assert KEY not in record.read_text()
    before = sent(server)
    result = run(
        "rerank", "--input", requests, "--rerank", "pointwise", "--chat", f"replay:{record}",
        "--output", "json",
    )  # fmt: skip
    assert [json.loads(line) for line in result.stdout.splitlines()] == first
    assert sent(server) == before


def test_the_ledger(
    server: FaultServer, requests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = tmp_path / "usage.jsonl"
    monkeypatch.setenv("MMRERANK_LEDGER", str(ledger))
    assert "nothing was spent yet" in run("usage").stdout
    rerank(server, requests)
    (entry,) = data("usage", "--price", "10,100")["entries"]
    assert (entry["calls"], entry["failed"]) == (12, 0)
    assert entry["money"] == pytest.approx((12 * 50 * 10 + 12 * 9 * 100) / 1e6, abs=1e-3)
    assert MODEL in run("usage", "--by", "model").stdout
    run("usage", "--by", "week", code=2)
    monkeypatch.setenv("MMRERANK_LEDGER", "off")
    assert "off" in run("usage", code=2).stderr
    assert len(ledger.read_text().splitlines()) > 0


def test_a_dry_run_asks_nobody(server: FaultServer, requests: Path) -> None:
    (told,) = rerank(server, requests, "--dry-run")
    assert (told["forecast"]["calls"], told["forecast"]["queries"]) == (12, 3)
    assert sent(server) == 0


def test_doctor_asks_the_model(server: FaultServer) -> None:
    told = data("doctor", "--chat", f"openai:{MODEL}@{server.url}")
    found = {c["name"]: c for c in told["checks"]}
    assert told["ok"]
    assert found["json_schema"]["detail"] == "obeyed"
    assert found["images"]["status"] == "ok"
    text = run("doctor", "--chat", f"openai:{MODEL}@{server.url}").stdout
    assert "obeyed" in text
    assert KEY not in text
    broken = data("doctor", "--chat", "ollama:m@127.0.0.1:9", "--chat-option", "max_retries=0", code=5)
    assert not broken["ok"]
    assert "cannot be reached" in json.dumps(broken)


def test_servers_are_listed() -> None:
    rows = {r["name"]: r for r in data("list", "servers")["servers"]}
    assert rows["ollama"]["form"] == "ollama:MODEL[@HOST]"
    assert rows["gemini"]["key"] == "GEMINI_API_KEY"
    assert set(rows) == {"vllm", "sglang", "ollama", "lmstudio", "llamacpp", "openai", "gemini"}


def test_options_of_the_backend(server: FaultServer, requests: Path) -> None:
    rerank(server, requests, "--chat-option", "stream=true", "--chat-option", "thinking=10")
    rerank(server, requests, "--chat-option", "stream=perhaps", code=2)
    rerank(server, requests, "--chat-option", 'extra={"top_k": 3}')


@pytest.mark.slow  # draws three worlds
def test_an_evaluation_stops_when_all_is_spent_and_goes_on(server: FaultServer, tmp_path: Path) -> None:
    command = (
        "eval", "demo", "--scenes", "400", "--queries", "9", "--methods", "pointwise",
        "--chat", f"openai:{MODEL}@{server.url}", "--runs", tmp_path / "runs",
    )  # fmt: skip
    result = run(*command, "--total-budget", "calls=170")
    assert "the budget of 170 calls for all is spent" in result.stderr
    # eight queries enter the journal together; what was spent on the ninth is lost without a cache
    assert "1 queries left" in result.stdout
    assert sent(server) <= 171
    before = sent(server)
    told = data(*command, "--cache", tmp_path / "replies.sqlite")
    assert told["methods"]["pointwise"]["failed"] == 0
    assert sent(server) > before
    again = data(*command, "--fresh", "--cache", tmp_path / "replies.sqlite")
    assert again["methods"]["pointwise"]["nDCG@10"] == told["methods"]["pointwise"]["nDCG@10"]
