"""Help and imports answer at once: none of the heavy packages is loaded for them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mmrerank.cli.main import cli

HEAVY = (
    "torch",
    "torchvision",
    "transformers",
    "open_clip",
    "faiss",
    "gradio",
    "pandas",
    "openai",
    "xgrammar",
    "ir_measures",
    "matplotlib",
)
PROBE = f"""
import sys
sys.argv = ["mmrerank", *sys.argv[1:]]
code = 0
try:
    {{statement}}
except SystemExit as end:
    code = end.code or 0
loaded = sorted(set({HEAVY}) & set(sys.modules))
assert not loaded, loaded
sys.exit(code)
"""
VERBS = sorted(
    [c.name or "" for c in cli.registered_commands] + [g.name or "" for g in cli.registered_groups]
)


def probe(statement: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(statement=statement), *arguments],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package() -> None:
    probe("import mmrerank; dir(mmrerank); mmrerank.__version__")


def test_every_help() -> None:
    # one process: the heavy packages must be absent after the last of them
    statement = (
        "from typer.testing import CliRunner; from mmrerank.cli.main import cli; r = CliRunner(); "
        "[print(r.invoke(cli, [*a.split(), '--help'], catch_exceptions=False).output) for a in sys.argv[1:]]"
    )
    out = probe(statement, "", "demo export", *VERBS)
    assert out.count("Usage:") == len(VERBS) + 2


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["search", "--help"], ["list", "models"]]
)
def test_the_command_itself(arguments: list[str]) -> None:
    assert probe("from mmrerank.cli.main import main; main()", *arguments)


def test_all_verbs_are_there() -> None:
    expected = (
        "app cache compare demo doctor eval index info list recommend rerank score search train "
        "usage verify"
    )
    assert expected.split() == VERBS
