"""Dedicated rerankers through the command line: a server that reranks and nothing else, and a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from openai_stub import StubServer
from typer.testing import CliRunner

from mmrerank.cli.main import cli
from mmrerank.types import Image


@pytest.fixture
def stub() -> Iterator[StubServer]:
    """Answers at ``/v1/rerank`` and nowhere else; the last document is the best."""
    server = StubServer()

    def reply(request: dict[str, Any]) -> Any:
        if server.paths[-1] != "/v1/rerank":
            return 404, {}, {"detail": "Not Found"}
        rows = range(len(request["documents"]))
        return {"results": [{"index": n, "relevance_score": n / 100} for n in rows]}

    server.answer = reply
    yield server
    server.close()


@pytest.fixture
def requests(tmp_path: Path, picture: Callable[..., Image]) -> Path:
    for n in range(20):
        (tmp_path / f"{n}.png").write_bytes(picture(64, 48, n).read())
    shown = [{"id": f"i{n}", "image": f"{n}.png", "score": 1 - n / 50} for n in range(20)]
    file = tmp_path / "requests.jsonl"
    file.write_text(json.dumps({"query": {"text": "a red boat"}, "candidates": shown}) + "\n")
    return file


def run(*arguments: Any) -> Any:
    result = CliRunner().invoke(cli, [*map(str, arguments), "--output", "json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_server_with_rerank_only_reranks_twenty_images(stub: StubServer, requests: Path) -> None:
    found = run("rerank", "--input", requests, "--rerank", "scorer", "--chat", f"rerank:m@{stub.url}")
    assert [h["id"] for h in found["hits"]] == [f"i{n}" for n in reversed(range(20))]
    assert [h["relevance"] for h in found["hits"]] == [n / 100 for n in reversed(range(20))]
    assert (found["usage"]["images"], found["warnings"], stub.paths) == (20, [], ["/v1/rerank"])


@pytest.mark.slow
def test_doctor_and_recommend_know_rerankers(stub: StubServer) -> None:
    stub.answer = lambda request: {
        "results": [{"index": n, "score": 0.9 - n / 50} for n in range(len(request["documents"]))]
    }
    found = run("doctor", "--chat", f"rerank:m@{stub.url}")
    states = {c["name"]: c["status"] for c in found["checks"]} if found["ok"] else found
    assert states["twenty images"] == states["images"] == "ok"
    assert states["looks at them"] == "off"  # its scores are places: red before blue whatever is asked
    assert run("recommend", "--chat", f"rerank:m@{stub.url}")["recommended"] == "scorer"


@pytest.mark.slow
def test_a_checkpoint_reranks_twenty_images(tiny_qwen: Callable[[str], Path], requests: Path) -> None:
    spec = f"qwen3_vl_reranker:{tiny_qwen('qwen3_vl')}"
    found = run("rerank", "--input", requests, "--rerank", "scorer", "--chat", spec, "--device", "cpu")
    relevance = [h["relevance"] for h in found["hits"]]
    assert relevance == sorted(relevance, reverse=True)
    assert len(set(relevance)) == 20
    assert found["usage"]["input_tokens"] > 20 * 60
