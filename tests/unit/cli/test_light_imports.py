"""Help and imports answer at once: no heavy package and no plug-in is loaded for them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mmrerank import discovery

HEAVY = (
    "numpy", "yaml", "PIL", "rich", "jinja2", "torch", "torchvision", "transformers", "open_clip", "faiss",
    "gradio", "pandas", "openai", "xgrammar", "ir_measures", "matplotlib", "filelock",
    "mmrerank.ports", "mmrerank.registry",
)  # fmt: skip
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
verbs = [m for m in sys.modules if m in {{verbs}}]
assert len(verbs) <= {{most}}, verbs
sys.exit(code)
"""
VERBS = discovery.names("verb")


def probe(statement: str, *arguments: str, most: int = 0) -> str:
    """Runs a statement in a process, which may import at most so many of the verbs' files."""
    verbs = [discovery.place("verb", v) for v in VERBS]
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(statement=statement, verbs=verbs, most=most), *arguments],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package() -> None:
    probe("import mmrerank; dir(mmrerank); mmrerank.__version__; assert 'typing' not in sys.modules")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_the_command_itself(arguments: list[str]) -> None:
    assert probe("from mmrerank.cli.main import main; main()", *arguments)


@pytest.mark.parametrize("verb", [*VERBS, "demo export", "cache info"])
def test_the_help_of_a_verb_imports_that_verb_alone(verb: str) -> None:
    arguments = [*verb.split(), "--help"]
    assert "Usage:" in probe("from mmrerank.cli.main import main; main()", *arguments, most=1)


def test_all_verbs_are_there() -> None:
    expected = (
        "app cache compare demo doctor eval index info list prompts recommend rerank score search setup"
    )
    assert [*expected.split(), "usage", "verify"] == VERBS
