"""The help texts, word for word, at 80 columns.

``MMRERANK_UPDATE_GOLDEN=1 pytest tests/golden/test_help.py`` writes them anew. A missing one fails.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mmrerank.cli.main import cli

FOLDER = Path(__file__).parent / "help"
VERBS = [
    "",
    "app",
    "cache",
    "cache info",
    "cache prune",
    "cache clear",
    "compare",
    "demo",
    "demo app",
    "demo ask",
    "demo export",
    "demo mistakes",
    "demo train",
    "doctor",
    "eval cirr",
    "eval mmeb",
    "eval demo",
    "index",
    "info",
    "list",
    "prompts",
    "rerank",
    "score",
    "search",
    "setup",
    "usage",
    "recommend",
    "verify",
]


@pytest.mark.parametrize("verb", VERBS)
def test_help(verb: str) -> None:
    result = CliRunner().invoke(cli, [*verb.split(), "--help"], prog_name="mmrerank")
    assert result.exit_code == 0, result.output
    assert verb == "" or "Example:" in result.output
    golden = FOLDER / f"{verb.replace(' ', '-') or 'mmrerank'}.txt"
    if os.environ.get("MMRERANK_UPDATE_GOLDEN"):
        FOLDER.mkdir(exist_ok=True)
        golden.write_text(result.output, "utf-8")
    assert golden.is_file(), f"no {golden}; MMRERANK_UPDATE_GOLDEN=1 writes it"
    assert result.output == golden.read_text("utf-8")
