"""A package outside the tree, with one file of each kind, comes in by entry points and is used by every verb.

`tests/support/stranger_package` is written from `mmrerank.ports` alone. Beside it stands a package whose
plug-ins are all broken: each costs one warning, and no other command.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "tests/support/stranger_package"
KINDS = {
    "strategies": "NEEDS = ()\nFAMILY = PAPER = ''\n",  # lacks Options and rank
    "chats": "import no_such_package_at_all\n",
    "scorers": "import no_such_package_either\n",
    "embedders": "1 / 0\n",
    "stores": "def open(:\n",
    "corpora": "FORM = 'x'\n",
    "benchmarks": "BENCHMARK = 3\n",
    "verbs": "raise RuntimeError('not today')\n",
    "models": "CARDS = ['not a card']\n",
}


def install(place: Path, package: str, entry_points: str) -> None:
    """Puts the metadata of an installed distribution beside a package."""
    info = place / f"{package}-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(entry_points)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stranger's package, installed in a folder of its own, with three colour cards."""
    place = tmp_path_factory.mktemp("site")
    shutil.copytree(SOURCE / "stranger", place / "stranger")
    install(place, "stranger", (SOURCE / "entry_points.txt").read_text())
    cards = place / "cards"
    cards.mkdir()
    for name, colour in (("red", (250, 0, 0)), ("green", (0, 250, 0)), ("blue", (0, 0, 250))):
        PIL.Image.new("RGB", (32, 32), colour).save(cards / f"{name}.png")
    (cards / "list.txt").write_text("red.png\ngreen.png\nblue.png\n")
    (place / "requests.jsonl").write_text(
        '{"query": "a boat", "candidates": [{"id": "a", "text": "x"}, {"id": "b", "text": "y"}]}\n'
    )
    (cards / "queries.jsonl").write_text(
        '{"id": "q1", "text": "a red card", "relevant": ["red.png"]}\n'
        '{"id": "q2", "text": "a blue card", "relevant": ["blue.png"]}\n'
    )
    return place


@pytest.fixture(scope="module")
def broken(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of the name ``wreck`` whose plug-ins, one of each kind, do not work."""
    folder = tmp_path_factory.mktemp("wreck")
    (folder / "wreck").mkdir()
    (folder / "wreck/__init__.py").write_text("")
    points = ""
    for kind, text in KINDS.items():
        (folder / f"wreck/{kind}.py").write_text(text)
        target = f"wreck.{kind}:CARDS" if kind == "models" else f"wreck.{kind}"
        points += f"[mmrerank.{kind}]\nwreck-{kind} = {target}\n"
    install(folder, "wreck", points)
    return folder


def run(*arguments: Any, path: list[Path], cwd: Path, code: int = 0) -> tuple[str, str]:
    site = os.pathsep.join([*map(str, path), str(ROOT), str(ROOT / "app")])
    done = subprocess.run(
        [sys.executable, "-m", "mmrerank", *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, timeout=180, check=False,
        env={**os.environ, "PYTHONPATH": site, "MMRERANK_LEDGER": "off"},
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def index(place: Path) -> Path:
    """An index by the stranger's corpus, embedder and store."""
    out, _ = run(
        "index", f"catalogue:{place / 'cards/list.txt'}", "--index", place / "made", "--embedder", "tint",
        "--store", "plain", "--output", "json", path=[place], cwd=place,
    )  # fmt: skip
    assert json.loads(out)["added"] == 3
    return place / "made"


def test_everything_is_listed(place: Path) -> None:
    out, err = run("list", "--output", "json", path=[place], cwd=place)
    listed = json.loads(out)
    for what, name in (("methods", "brightest"), ("chats", "parrot"), ("scorers", "longest"),
                       ("embedders", "colours"), ("stores", "plain"), ("corpora", "catalogue"),
                       ("benchmarks", "cards"), ("models", "polly")):  # fmt: skip
        assert name in [row["name"] for row in listed[what]], what
    assert err == ""
    (method,) = [m for m in listed["methods"] if m["name"] == "brightest"]
    assert method["options"] == [{"name": "backwards", "type": "bool", "default": False}]
    help_text, _ = run("--help", path=[place], cwd=place)
    assert "greet" in help_text
    assert "Greet somebody" in help_text


@pytest.mark.slow
def test_search_rerank_and_dry_run(place: Path, index: Path) -> None:
    common = ("a blue card", "--index", index, "--output", "json")
    out, _ = run("search", *common, path=[place], cwd=place)
    assert json.loads(out)["hits"][0]["id"] == "blue.png"
    out, _ = run(
        "search", *common, "--rerank", "brightest", "--chat", "parrot:polly", "-o", "backwards=yes",
        path=[place], cwd=place,
    )  # fmt: skip
    found = json.loads(out)
    assert found["method"] == "brightest"
    assert found["usage"]["calls"] == 3
    out, _ = run("search", *common, "--rerank", "brightest", "--dry-run", path=[place], cwd=place)
    assert json.loads(out)["forecast"]["calls"] == 3
    out, _ = run("search", *common, "--rerank", "scorer", "--chat", "longest:900", path=[place], cwd=place)
    found = json.loads(out)
    assert [h["relevance"] for h in found["hits"]] == [1024 / 1924] * 3  # all cards are of one size
    assert found["usage"]["calls"] == 3
    # every built-in method that needs no more than this model has runs over it
    out, _ = run("search", *common, "--rerank", "pointwise", "--chat", "polly", path=[place], cwd=place)
    assert json.loads(out)["usage"]["calls"] == 3


@pytest.mark.slow
def test_recommend_and_doctor(place: Path) -> None:
    out, _ = run("recommend", "--chat", "parrot:polly", "--output", "json", path=[place], cwd=place)
    rows = json.loads(out)
    rows = rows["methods"] if isinstance(rows, dict) else rows
    assert next(r for r in rows if r["method"] == "brightest")["calls"] == 20
    out, _ = run("doctor", "--chat", "parrot:polly", "--output", "json", path=[place], cwd=place)
    assert "answers" in out


@pytest.mark.slow
def test_a_verb_and_a_misspelt_one(place: Path) -> None:
    out, _ = run("greet", "Ada", "--loudly", path=[place], cwd=place)
    assert out.startswith("HELLO ADA, THERE ARE ")
    _, err = run("gret", "Ada", path=[place], cwd=place, code=2)
    assert "greet" in err
    _, err = run(
        "rerank", "--input", "requests.jsonl", "--rerank", "brigthest", "--chat", "parrot:x", path=[place],
        cwd=place, code=2,
    )  # fmt: skip
    assert "Did you mean 'brightest'?" in err


@pytest.mark.slow
def test_a_benchmark(place: Path, index: Path) -> None:
    out, _ = run(
        "eval", "cards", "--data", place / "cards", "--index", index, "--methods", "none,brightest",
        "--chat", "parrot:polly", "--runs", place / "runs", "--output", "json", path=[place], cwd=place,
    )  # fmt: skip
    body = json.loads(out)
    assert set(body["methods"]) == {"none", "brightest"}
    helped, _ = run("eval", "--help", path=[place], cwd=place)
    assert "cards" in helped


@pytest.mark.slow
def test_it_passes_the_contract_tests(place: Path) -> None:
    specs = {
        "chat": {"parrot": "parrot:polly"},
        "scorer": {"longest": "longest:900"},
        "embedder": {"colours": "colours:"},
        "corpus": {"catalogue": "catalogue:{folder}/list.txt"},
        "benchmark": {"cards": str(place / "cards")},
    }
    site = os.pathsep.join([str(place), str(ROOT), str(ROOT / "app")])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist",
         str(ROOT / "tests/contract"), "-k", "brightest or parrot or longest or colours or plain or "
         "catalogue or cards or greet or covered"],
        cwd=ROOT, capture_output=True, text=True, timeout=280, check=False,
        env={**os.environ, "PYTHONPATH": site, "MMRERANK_CONTRACT": json.dumps(specs)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        pytest.param(["list", "--output", "json"], marks=pytest.mark.slow),
        pytest.param(["list", "methods"], marks=pytest.mark.slow),
        pytest.param(["search", "a red card", "--index", "{index}"], marks=pytest.mark.slow),
        pytest.param(
            ["search", "a red card", "--index", "{index}", "--rerank", "pointwise", "--chat", "polly"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["index", "{cards}", "--index", "{other}", "--embedder", "colours:"], marks=pytest.mark.slow
        ),
        pytest.param(["recommend", "--chat", "parrot:x"], marks=pytest.mark.slow),
        ["eval", "--help"],
        pytest.param(["info", "{index}"], marks=pytest.mark.slow),
    ],
    ids=lambda a: "-".join(a[:2]),
)
def test_broken_plug_ins_cost_a_warning_each(
    place: Path, broken: Path, index: Path, tmp_path: Path, arguments: list[str]
) -> None:
    names = {"index": index, "cards": place / "cards", "other": tmp_path / "other"}
    given = [a.format(**names) for a in arguments]
    _, err = run(*given, path=[place, broken], cwd=place)
    assert "Traceback" not in err
    lines = err.splitlines()
    assert len(lines) == len(set(lines)), err  # never the same twice


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["rerank", "--input", "requests.jsonl", "--rerank", "wreck-strategies", "--chat", "parrot:x"], 2),
        (["search", "x", "--index", "{index}", "--rerank", "pointwise", "--chat", "wreck-chats:x"], 2),
        (["index", "{cards}", "--index", "{other}", "--embedder", "wreck-embedders:x"], 2),
        (["index", "{cards}", "--index", "{other}", "--embedder", "tint", "--store", "wreck-stores"], 2),
        (["eval", "wreck-benchmarks", "--data", "{cards}"], 2),
        (["wreck-verbs"], 2),
    ],
    ids=lambda a: a[0] if isinstance(a, list) else "",
)
def test_a_broken_plug_in_that_is_named_says_file_and_reason(
    place: Path, broken: Path, index: Path, tmp_path: Path, arguments: list[str], code: int
) -> None:
    names = {"index": index, "cards": place / "cards", "other": tmp_path / "other"}
    _, err = run(*(a.format(**names) for a in arguments), path=[place, broken], cwd=place, code=code)
    assert "Traceback" not in err
    assert "wreck." in err
    assert len(err.strip().splitlines()) <= 3, err


@pytest.mark.slow
def test_options_that_derive_from_nothing_are_named(place: Path, tmp_path: Path) -> None:
    (tmp_path / "loose").mkdir()
    (tmp_path / "loose/__init__.py").write_text(
        "NEEDS, FAMILY, PAPER = (), 'x', ''\nclass Options: pass\n"
        "def rank(query, ranking, options): yield []\n"
    )
    install(tmp_path, "loose", "[mmrerank.strategies]\nloose = loose\n")
    _, err = run("list", "methods", path=[tmp_path], cwd=place)
    assert "its Options lacks needs, calls, settles, hands_on" in err
    assert "derive it from mmrerank.ports.StrategyOptions" in err


def test_vectors_of_a_foreign_embedder_are_those_of_its_own(place: Path, index: Path) -> None:
    vectors = sorted((index / "vectors").glob("*.npy"))
    assert np.load(vectors[0]).shape[1] == 4
