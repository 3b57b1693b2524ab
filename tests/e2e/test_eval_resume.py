"""``mmrerank eval demo`` killed in the middle and started again: the figures of one uninterrupted run."""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from command import data, run, write_lines

WORLD = ["--seed", "15", "--scenes", "100", "--queries", "12"]
PORTION = 8
CANDIDATES = 20


class Judge:
    """A server whose answer to yes or no hangs on the question alone; falls silent when told to."""

    def __init__(self) -> None:
        self.questions: Counter[str] = Counter()
        self.silent_after = math.inf
        self.silent, self.end = threading.Event(), threading.Event()
        judge, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_POST(self) -> None:
                length = int(self.headers["content-length"])
                raw = self.rfile.read(length)
                if len(raw) < length:  # the process was killed while it asked
                    self.close_connection = True
                    return
                digest = hashlib.sha256(raw).hexdigest()
                with lock:
                    judge.questions[digest] += 1
                    quiet = judge.questions.total() > judge.silent_after
                if quiet:
                    judge.silent.set()
                    judge.end.wait()
                    self.close_connection = True
                    return
                yes = (int(digest[:8], 16) + 0.5) / 2**32
                top = [{"token": "yes", "logprob": math.log(yes)},
                       {"token": "no", "logprob": math.log(1 - yes)}]  # fmt: skip
                choice = {
                    "message": {"content": "yes"},
                    "finish_reason": "stop",
                    "logprobs": {"content": [{"top_logprobs": top}]},
                }
                usage = {"prompt_tokens": 100, "completion_tokens": 1}
                body = json.dumps({"choices": [choice], "usage": usage}).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.spec = f"openai:m@http://127.0.0.1:{self.server.server_port}/v1"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def close(self) -> None:
        self.end.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def judge() -> Iterator[Judge]:
    judge = Judge()
    yield judge
    judge.close()


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "mmrerank", "eval", "demo", *WORLD, "--output", "json"]
    # a folder of its own for the pictures too, which a killed process leaves behind
    environment = {**os.environ, "TMPDIR": str(folder)}
    root = Path(__file__).resolve().parents[2]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        [*command, *arguments], cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> tuple[dict[str, Any], str]:
    out, told = process.communicate(timeout=600)
    assert process.returncode == 0, told
    return json.loads(out), told


def killed(process: subprocess.Popen[str], ready: Callable[[], bool]) -> None:
    """Ends it by SIGKILL as soon as it is ``ready``."""
    while not ready():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def queries(path: Path) -> list[str]:
    if not path.exists():
        return []
    whole = path.read_text("ascii").split("\n")[1:-1]
    return [json.loads(line)["query"] for line in whole]


def figures(body: dict[str, Any]) -> dict[str, Any]:
    """Everything but the time it took and the time it was."""
    plain: dict[str, Any] = json.loads(json.dumps(body))
    for row in (*plain["methods"].values(), plain["no_match"] or {}):
        row.get("usage", {}).pop("seconds", None)
    return plain


@pytest.mark.slow
def test_a_kill_changes_no_figure_and_costs_one_portion(
    tmp_path: Path, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--methods", "pointwise", "--chat", judge.spec, "--runs", "out"]
    journal = tmp_path / "killed/out/pointwise.journal.jsonl"
    # the probe and the first portion are answered, and a few questions of the second
    judge.silent_after = 1 + PORTION * CANDIDATES + 5
    killed(start(tmp_path / "killed", *arguments), judge.silent.is_set)
    assert len(set(queries(journal))) == PORTION
    finished = {*list(judge.questions)[1 : 1 + PORTION * CANDIDATES]}
    judge.questions, judge.silent_after = Counter(), math.inf

    body, told = ended(start(tmp_path / "killed", *arguments))
    assert "pointwise: 8 of 12 queries are finished in out/pointwise.journal.jsonl" in told
    assert "pointwise: 4 queries left: 80 calls" in told
    assert judge.questions.total() == 1 + 4 * CANDIDATES
    assert not finished & judge.questions.keys()
    assert len(queries(journal)) == len(set(queries(journal))) == 12

    (tmp_path / "whole").mkdir()
    monkeypatch.chdir(tmp_path / "whole")
    whole = data("eval", "demo", *WORLD, *arguments)
    assert figures(body) == figures(whole)
    assert body["methods"]["pointwise"]["usage"]["calls"] == 12 * CANDIDATES
    assert body["methods"]["pointwise"]["nDCG@10"] != body["methods"]["none"]["nDCG@10"]
    assert body["methods"]["pointwise"]["failed"] == 0
    for name in ("pointwise.trec", "pointwise.raw.jsonl", "none.trec", "none.raw.jsonl", "qrels.txt"):
        one, other = (tmp_path / run / "out" / name for run in ("killed", "whole"))
        assert one.read_bytes() == other.read_bytes()
    origin = json.loads((tmp_path / "whole/out/pointwise.json").read_text())
    assert origin["config"]["method"] == "pointwise"
    assert origin["models"]["chat"] == {"spec": judge.spec, "digest": None}
    assert origin["first_stage"] == body["provenance"]["first_stage"]
    raw = [json.loads(line) for line in (tmp_path / "whole/out/none.raw.jsonl").open()]
    assert all(0 < row["score"] < 1 for row in raw)  # the first stage's own


@pytest.mark.slow
def test_forecasts_pilots_and_other_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    oracle = ["eval", "demo", *WORLD, "--methods", "cotrr", "--chat", "oracle"]
    run(*oracle, "--price", "cheap", code=2)
    assert "--fresh" in run(*oracle, "--forecast", "0", "--fresh", code=2).stderr

    # nobody is there to be asked
    absent = ["--methods", "pointwise", "--chat", "openai:m@http://127.0.0.1:1/v1"]
    ahead = data("eval", "demo", *WORLD, *absent, "--forecast", "0", "--price", "1,2")["forecast"]
    assert ahead["pointwise"]["calls"] == 12 * CANDIDATES <= ahead["pointwise"]["images"]
    assert ahead["pointwise"]["money"] is ahead["pointwise"]["seconds"] is None
    assert ahead["none"]["calls"] == ahead["none"]["money"] == 0

    shown = run(*oracle, "--forecast", "3", "--price", "1,2", "--runs", "out").stdout.splitlines()
    assert [line.partition(":")[0] for line in shown] == ["none", "cotrr", "cotrr.no-match"]
    assert shown[1].startswith("cotrr: 12 queries left: 264 calls")
    assert shown[1].endswith("to pay")
    assert not Path("out").exists()
    told = run(*oracle, "--runs", "out").stderr
    assert "are finished" not in told
    assert Path("out/cotrr.trec").exists()

    # a file that knows none of the queries
    other = f"oracle:{write_lines(Path('o.jsonl'), [{'query': 'x', 'grades': {}}])}"
    refused = run(*oracle[:-1], other, "--runs", "out", code=2).stderr
    assert "chat.spec was oracle and is oracle:o.jsonl" in refused
    shown = run(*oracle[:-1], other, "--runs", "out", "--fresh", code=7).stdout
    assert "cotrr: judgements failed in 12 of 12 queries" in shown


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_bundled_model_killed_twice(tmp_path: Path) -> None:
    """Where a number hangs on what shares its batch: still no figure changes."""
    arguments = ["--methods", "cotrr"]
    folder = tmp_path / "killed"

    def journal(name: str) -> list[str]:
        found = [q for path in folder.glob(f"runs/eval/demo-*/{name}") for q in queries(path)]
        assert len(found) == len(set(found))
        return found

    killed(start(folder, *arguments), lambda: len(journal("cotrr.journal.jsonl")) >= 1)
    assert 0 < len(journal("cotrr.journal.jsonl")) < 12
    killed(start(folder, *arguments), lambda: len(journal("cotrr.no-match.journal.jsonl")) >= 1)
    assert 0 < len(journal("cotrr.no-match.journal.jsonl")) < 50
    body, told = ended(start(folder, *arguments))
    assert "cotrr: 12 of 12 queries are finished" in told
    assert len(journal("cotrr.journal.jsonl")) == 12
    assert len(journal("cotrr.no-match.journal.jsonl")) == 50
    whole, _ = ended(start(tmp_path / "whole", *arguments))
    assert figures(body) == figures(whole)
    # the very results, not only what is made of them
    (one,), (other,) = (
        [*(tmp_path / run).glob("runs/eval/demo-*/cotrr.no-match.journal.jsonl")]
        for run in ("killed", "whole")
    )
    assert untimed(one) == untimed(other)


def untimed(journal: Path) -> list[Any]:
    rows = [json.loads(line) for line in journal.open()]
    for row in rows[1:]:
        del row["result"]["usage"]["seconds"]
    return rows
