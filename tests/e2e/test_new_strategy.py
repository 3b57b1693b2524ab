"""A new method is one code file and one prompt file: then it is listed, runs, and stands in the app."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mmrerank

ROOT = Path(mmrerank.__file__).resolve().parents[1]

CODE = '''"""Toy: asks for one word about each image and sorts by it."""

from dataclasses import dataclass

from mmrerank.messages import Ask
from mmrerank.ports import Outcome, StrategyOptions
from mmrerank.rerank.prompting import render
from mmrerank.types import Assessment, Explanation

NEEDS = ("generate",)
FAMILY = "pointwise"
PAPER = "nobody et al."


@dataclass(frozen=True, kw_only=True)
class Options(StrategyOptions):
    """``backwards`` turns the order around."""

    backwards: bool = False


def rank(query, ranking, options):
    """One question an image."""
    asks = [
        Ask(messages=render("toy", query=query, candidates=[c]), kind="toy", query=query, shown=(c.id,))
        for c in ranking
    ]
    replies = yield asks
    words = {c.id: r.text for c, r in zip(ranking, replies, strict=True)}
    order, _ = ranking.reorder(sorted(words, key=words.get, reverse=options.backwards))
    why = {i: Assessment(reason=w) for i, w in words.items()}
    return Outcome(ranking=order, explanation=Explanation(assessments=why))
'''
PROMPT = """---
version: 1
variables: [query, candidates]
source: ours
---
## user
One word for this, please, thinking of "{{ query.text }}":
{% for c in candidates %}{{ show(c) }}
{% endfor %}
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of both packages with the two files added; nothing else is touched."""
    folder = tmp_path_factory.mktemp("copy")
    leave = shutil.ignore_patterns("__pycache__", "*.safetensors", "*.pt")
    for package in ("mmrerank", "app"):
        shutil.copytree(ROOT / package, folder / package, ignore=leave)
    (folder / "mmrerank/rerank/strategies/toy.py").write_text(CODE, "utf-8")
    (folder / "mmrerank/rerank/prompts/toy.md").write_text(PROMPT, "utf-8")
    return folder


def python(copy: Path, *arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=copy, capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": f"{copy}{os.pathsep}{copy / 'app'}"}, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done.stdout


@pytest.mark.slow
def test_it_is_listed(copy: Path) -> None:
    listed = json.loads(python(copy, "-m", "mmrerank", "list", "methods", "--output", "json"))
    assert Path(python(copy, "-c", "import mmrerank; print(mmrerank.__file__)")).is_relative_to(copy)
    toy = next(m for m in listed["methods"] if m["name"] == "toy")
    assert toy["needs"] == ["generate"]
    assert toy["options"] == [{"name": "backwards", "type": "bool", "default": False}]


@pytest.mark.parametrize(
    ("options", "order"),
    [pytest.param([], ["b", "a"], marks=pytest.mark.slow), (["-o", "backwards=yes"], ["a", "b"])],
)
def test_it_reranks(copy: Path, options: list[str], order: list[str]) -> None:
    script = [
        {"kind": "toy", "match": "a ship", "reply": "zebra"},
        {"kind": "toy", "match": "a boat", "reply": "apple"},
    ]
    (copy / "script.jsonl").write_text("".join(json.dumps(line) + "\n" for line in script))
    candidates = [{"id": "a", "text": "a ship"}, {"id": "b", "text": "a boat"}]
    request = {"query": {"text": "water"}, "candidates": candidates}
    (copy / "requests.jsonl").write_text(json.dumps(request) + "\n")
    out = python(
        copy, "-m", "mmrerank", "rerank", "--input", "requests.jsonl", "--rerank", "toy",
        "--chat", "scripted:script.jsonl", "--output", "json", *options,
    )  # fmt: skip
    result = json.loads(out)
    assert [h["id"] for h in result["hits"]] == order
    assert result["method"] == "toy"
    assert {h["id"]: h["reason"] for h in result["hits"]} == {"a": "zebra", "b": "apple"}


def test_the_app_offers_it(copy: Path) -> None:
    names = python(copy, "-c", "from mmrerank_app.launch import method_names; print(*method_names())")
    assert "toy" in names.split()
