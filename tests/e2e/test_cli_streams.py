"""The process when whoever started it reads no more, closed its streams, or gave it a full disk."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command import write_lines

MMRERANK = f"{shlex.quote(sys.executable)} -m mmrerank"


def shell(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {script}"], capture_output=True, text=True, timeout=120,
        check=False, env={**os.environ, "PYTHONUNBUFFERED": ""},
    )  # fmt: skip


def quoted(*arguments: Any) -> str:
    return f"{MMRERANK} {shlex.join(map(str, arguments))}"


@pytest.mark.slow
def test_a_closed_pipe_is_no_fault_of_a_table_either() -> None:
    done = shell(f"{quoted('list', 'servers')} | true")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.usefixtures("named")
def test_a_closed_pipe_costs_neither_the_files_nor_the_code(built: Path, tmp_path: Path) -> None:
    script = write_lines(tmp_path / "s.jsonl", [{"error": "down"}])
    files = [tmp_path / name for name in ("r.html", "t.json", "r.trec")]
    command = quoted(
        "search", "boat", "--index", built, "--rerank", "cotrr", "--chat", f"scripted:{script}",
        "--report", files[0], "--trace", files[1], "--run", files[2],
    )  # fmt: skip
    done = shell(f"{command} | true")
    assert done.returncode == 7
    assert "Traceback" not in done.stderr
    assert all(f.stat().st_size for f in files)


@pytest.mark.slow
def test_closed_streams_are_no_fault(tmp_path: Path) -> None:
    request = {"query": "a", "candidates": [{"id": "x", "text": "y"}]}
    rerank = quoted(
        "rerank", "--input", write_lines(tmp_path / "r.jsonl", [request]), "--rerank", "none",
        "--output", "json",
    )  # fmt: skip
    done = shell(f"{rerank} <&-")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["hits"][0]["id"] == "x"
    done = shell(f"{rerank} >&-")
    assert (done.returncode, done.stderr) == (0, "")
    assert shell(f"{quoted('info', tmp_path / 'no')} 2>&-").returncode == 4


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize(
    ("output", "unbuffered"),
    [
        ("text", ""),
        ("json", "1"),
        pytest.param("text", "1", marks=pytest.mark.slow),
        pytest.param("json", "", marks=pytest.mark.slow),
    ],
)
def test_a_full_disk_is_no_fault_of_ours(output: str, unbuffered: str) -> None:
    command = quoted("list", "servers", "--output", output)
    done = shell(f"PYTHONUNBUFFERED={unbuffered} {command} > /dev/full")
    assert done.stderr.startswith(
        "error: stdout or a file cannot be used: No space left on device; make room"
    )
    assert done.returncode == 3
