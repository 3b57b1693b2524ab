"""The command line as a user meets it: results, shapes, messages and exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import NAMES, data, run, write_lines
from typer.testing import CliRunner

from mmrerank.cli.main import cli

# --- rerank ------------------------------------------------------------------------------------------


@pytest.fixture
def requests(source: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes requests over the images, whose folder paths are relative to."""

    def write(*rows: Any) -> Path:
        return write_lines(source / "images" / f"{tmp_path.name}.jsonl", list(rows))

    return write


def candidates(*names: str) -> list[dict[str, Any]]:
    return [{"id": n, "image": n, "score": 1 - i / 10} for i, n in enumerate(names)]


def test_rerank_gives_one_result_line_each(requests: Callable[..., Path]) -> None:
    path = requests(
        {"query": {"text": "red boat", "id": "q1", "exclude": ["night"]}, "candidates": candidates(*NAMES)},
        {"query": "green tree", "candidates": candidates(*NAMES[:4])},
    )  # fmt: skip
    out = run("rerank", "--input", path, "--rerank", "cotrr", "--chat", "oracle", "--output", "json").stdout
    one, two = map(json.loads, out.splitlines())
    assert one["query"] == {"text": "red boat", "id": "q1", "exclude": ["night"]}
    assert one["hits"][0]["id"] == "red boat.jpg"
    assert one["no_match"] is False
    assert [h["rank"] for h in one["hits"]] == [1, 2, 3, 4, 5]
    assert set(one) >= {"query", "no_match", "components", "hits", "usage", "repairs", "warnings"}
    assert set(one["usage"]) == {"calls", "input_tokens", "output_tokens", "images", "seconds"}
    assert one["usage"]["images"] >= 5
    first = two["hits"][0]
    assert (first["id"], first["rank"], first["first_rank"], first["grade"]) == (
        "sub/green tree.jpg",
        1,
        4,
        3,
    )
    assert first["score"] == pytest.approx(0.7)
    assert [(c["id"], c["kind"]) for c in two["components"]] == [("c1", "subject")]
    assert first["verdicts"] == [{"component": "c1", "verdict": "met", "note": "as asked"}]


def test_rerank_as_text(requests: Callable[..., Path]) -> None:
    path = requests({"query": "green tree", "candidates": candidates(*NAMES[:4])})
    out = run("rerank", "--input", path, "--chat", "oracle").stdout
    assert "4 ▲" in out
    assert "met: green tree" in out


def test_rerank_reads_stdin(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(source / "images")
    line = json.dumps({"query": "green tree", "candidates": candidates(*NAMES)})
    told = data("rerank", "--input", "-", "--chat", "oracle", input=line)
    assert told["hits"][0]["id"] == "sub/green tree.jpg"


def test_failed_judgements_keep_the_order_and_end_with_7(
    requests: Callable[..., Path], tmp_path: Path
) -> None:
    script = write_lines(tmp_path / "script.jsonl", [{"error": "the server is down"}])
    path = requests({"query": "green tree", "candidates": candidates(*NAMES)})
    told = data("rerank", "--input", path, "--rerank", "cotrr", "--chat", f"scripted:{script}", code=7)
    assert [h["id"] for h in told["hits"]] == NAMES
    assert told["repairs"]["failed"] > 0
    assert "the server is down" in told["warnings"][0]


GOOD = {"query": "a", "candidates": [{"id": "x", "text": "y"}]}


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("{nonsense", "line 2 is not JSON"),
        ([], "line 2: a request must be a JSON object, not a list"),
        ({"query": "a"}, "line 2: a request needs 'candidates'"),
        ({"query": "a", "candidates": {}}, "'candidates' must be a list, not an object"),
        ({**GOOD, "k": 3}, "has no 'k'"),
        ({**GOOD, "query": {"txt": "a"}}, "line 2, query: a query has no 'txt'"),
        ({**GOOD, "query": {"text": " "}}, "line 2, query: a query needs a text"),
        ({**GOOD, "query": {"text": "a", "images": ["no.jpg"]}}, "there is no image file"),
        ({"query": "a", "candidates": [{"text": "y"}]}, "line 2, candidate 1 needs an id"),
        ({"query": "a", "candidates": [{"id": "x"}]}, "neither an image nor a text"),
        ({"query": "a", "candidates": [{"id": "x", "image": "no.jpg"}]}, "candidate 1: there is no image"),
        ({"query": "a", "candidates": [{"id": "x", "text": "y", "score": "1"}]}, "score must be a number"),
        ({"query": "a", "candidates": [{"id": "x", "text": "y", "score": float("nan")}]}, "must be finite"),
        ({"query": "a", "candidates": [{"id": "x", "text": "y", "score": 10**400}]}, "must be finite"),
        ({"query": "a", "candidates": [{"id": "x", "image": "i" * 5000}]}, "too long"),
        ({"query": "a", "candidates": [{"id": "x", "text": "y"}] * 2}, "'x' occurs more than once"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_named_before_any_call(tmp_path: Path, row: Any, told: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n{row if isinstance(row, str) else json.dumps(row)}\n")
    # the backend does not exist: it must not even be opened
    result = run("rerank", "--input", path, "--chat", "scripted:/nowhere", "--output", "json", code=3)
    assert told in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--rerank", "cotr"], 2, "Did you mean 'cotrr'?"),
        (["--chat", "telepathy"], 2, "there is no chat 'telepathy'"),
        (["--chat", "oracle", "-o", "mode=fast"], 2, "mode must be one of staged, single"),
        (["--chat", "oracle", "-o", "mode"], 2, "-o takes NAME=VALUE"),
        (["--chat", "openai:m@http://127.0.0.1:9/v1", "--chat-option", "timeout=soon"], 2, "a number"),
        (["--chat", "transformers:/no/such/folder"], 5, "/no/such/folder"),
        (["--chat", "scripted:/nowhere.jsonl"], 3, "/nowhere.jsonl"),
        (["--output", "xml"], 2, "xml"),
    ],
)  # fmt: skip
def test_each_class_of_failure_has_its_code(
    tmp_path: Path, arguments: list[str], code: int, told: str
) -> None:
    path = write_lines(tmp_path / "r.jsonl", [GOOD])
    result = run("rerank", "--input", path, *arguments, code=code)
    assert told in result.stderr
    assert result.stdout == ""


def test_a_path_that_cannot_be_looked_at_is_no_fault_of_ours(tmp_path: Path) -> None:
    long, run_ = "n" * 300, write_lines(tmp_path / "a.trec", [])
    for asked, code in (
        (["search", "--image", long], 3),
        (["compare", run_, f"b={long}"], 3),
        (["compare", run_, run_.with_name("b"), "--images", long, "--html", "x"], 3),
        (["info", long], 4),
        (["index", long, "--index", "x"], 3),
    ):
        told = run(*asked, code=code).stderr
        assert "cannot be looked at: File name too long" in told
        assert len(told) < 300


# --- list, doctor ------------------------------------------------------------------------------------


def test_list_names_what_there_is() -> None:
    told = data("list")
    assert list(told) == [
        "methods", "chats", "scorers", "embedders", "models", "servers", "prompts", "stores", "corpora",
        "metrics", "benchmarks", "indexes",
    ]  # fmt: skip
    calls = {m["name"]: m["calls"] for m in told["methods"]}
    assert (calls["pointwise"], calls["first"], calls["tsprank"], calls["none"]) == (20, 1, 380, 0)
    cotrr = next(m for m in told["methods"] if m["name"] == "cotrr")
    assert {"name": "mode", "type": "choice", "default": "staged", "choices": ["staged", "single"]} in cotrr[
        "options"
    ]
    assert {"openai", "oracle", "scripted", "transformers"} <= {c["name"] for c in told["chats"]}
    assert {"bundled"} <= {m["name"] for m in told["models"]}
    assert "folder" in run("list", "corpora").stdout
    assert "cotrr" not in run("list", "chats").stdout


def test_doctor_never_shows_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hush")
    result = CliRunner().invoke(cli, ["doctor", "--output", "json"])
    told = json.loads(result.stdout)
    assert "sk-hush" not in result.output
    checks = {c["name"]: c for c in told["checks"]}
    assert checks["OPENAI_API_KEY"]["detail"] == "set"
    assert checks["torch"]["status"] == "ok"
    assert all(c["fix"] for c in told["checks"] if c["status"] in ("missing", "broken"))
    needed = [c for c in told["checks"] if c["needed"] and c["status"] != "ok"]
    assert (result.exit_code, told["ok"]) == ((5, False) if needed else (0, True))
    text = run("doctor", code=result.exit_code).stdout
    assert "OK" in text


# --- the process -------------------------------------------------------------------------------------


def process(*arguments: Any, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "mmrerank", *map(str, arguments)], capture_output=True, timeout=120,
        env={**os.environ, **environment}, check=False,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("named")
def test_a_real_search_keeps_its_streams_apart(built: Path) -> None:
    done = process("search", "red boat", "--index", built, "--output", "json")
    assert done.returncode == 0
    assert len(json.loads(done.stdout)["hits"]) == 5
    assert done.stderr == b""


def test_errors_are_one_message_unless_asked(tmp_path: Path) -> None:
    done = process("info", tmp_path / "no")
    assert (done.returncode, done.stdout) == (4, b"")
    assert done.stderr.startswith(b"error: there is no index")
    assert b"Traceback" not in done.stderr


@pytest.mark.slow
def test_a_traceback_is_there_for_the_asking(tmp_path: Path) -> None:
    assert b"Traceback" in process("--debug", "info", tmp_path / "no").stderr
    assert b"Traceback" in process("info", tmp_path / "no", MMRERANK_DEBUG="1").stderr


def test_a_closed_pipe_is_no_fault() -> None:
    shell = f"set -o pipefail; {sys.executable} -m mmrerank list --output json | head -c 10"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_narrow_terminal_gets_escapes() -> None:
    done = process("list", "nonsense", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
