"""Completion in a shell: commands, their options, and those of benchmarks. Loads nothing else."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from mmrerank.cli.main import cli


def completed(words: str) -> list[str]:
    env = {
        "_MMRERANK_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    return CliRunner().invoke(cli, [], env=env, prog_name="mmrerank").stdout.split()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("mmrerank se", ["search", "setup"]),
        ("mmrerank search --rer", ["--rerank"]),
        ("mmrerank eval ci", ["circo", "cirr"]),
        ("mmrerank eval fashioniq --ga", ["--gallery"]),
        ("mmrerank compare --ga", ["--gallery"]),
        ("mmrerank eval fashioniq --gallery u", ["union"]),
        ("mmrerank compare --concept wi", ["without", "with"]),
        ("mmrerank search --output js", ["json"]),
        ("mmrerank nothing-of-the-kind", []),
    ],
)
def test_words_are_completed(words: str, found: list[str]) -> None:
    assert completed(words) == found


def test_completion_can_be_installed() -> None:
    shown = CliRunner().invoke(cli, ["--help"]).output
    assert "--install-completion" in shown
    assert "--show-completion" in shown
