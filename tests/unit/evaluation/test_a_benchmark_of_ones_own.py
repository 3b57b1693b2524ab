"""A benchmark of another package: `load` alone is enough, and a broken one costs nobody anything."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import data, run

from mmrerank import discovery
from mmrerank.errors import UsageError
from mmrerank.evaluation import tasks

LOAD_ALONE = '''
"""Boats of one's own, found by their colour."""
from mmrerank.ports import Benchmark, BenchmarkQuery, Task

class Boats(Benchmark):
    def load(self, data, split, options):
        right = {"q1": {"red.jpg": 1}, "q2": {"blue.jpg": 2, "sea.jpg": 1}}
        queries = {q: BenchmarkQuery(text=f"the boat of {q}") for q in right}
        return Task(queries=queries, qrels=right, removed={"q2": frozenset({"left-out.jpg"})})

BENCHMARK = Boats()
'''
BROKEN = {
    "raises": "1 / 0",
    "lacks": "SPLITS = ()",
    "a_class": "from mmrerank.ports import Benchmark\nclass BENCHMARK(Benchmark):\n    pass",
    "no_benchmark": "BENCHMARK = 3",
}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of plug-ins: every file in it is found by its name, as an installed package's are."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    found = discovery.entry_points

    def entry_points(group: str) -> list[tuple[str, str]]:
        own = [(f.stem.removeprefix("own_"), f.stem) for f in folder.glob("*.py")]
        return [*found(group), *(own if group == "mmrerank.benchmarks" else ())]

    monkeypatch.setattr(discovery, "entry_points", entry_points)

    def forget() -> None:
        discovery._places.cache_clear()
        discovery._loaded.cache_clear()
        discovery.about.cache_clear()
        tasks.facts_of.cache_clear()
        discovery._warned.clear()
        for name in [n for n in sys.modules if n.startswith("own_")]:
            del sys.modules[name]

    forget()
    yield folder
    monkeypatch.undo()
    forget()


def runs(folder: Path) -> Path:
    lines = ["q1 Q0 red.jpg 1 2 x", "q1 Q0 sea.jpg 2 1 x", "q2 Q0 left-out.jpg 1 9 x"]
    lines += ["q2 Q0 red.jpg 2 8 x", "q2 Q0 blue.jpg 3 7 x"]
    path = folder / "r.trec"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_load_alone_is_enough(installed: Path, tmp_path: Path) -> None:
    (installed / "own_my_boats.py").write_text(LOAD_ALONE)
    assert "my-boats" in tasks.names()
    body = data("eval", "my-boats", "--data", tmp_path, "--run", runs(tmp_path))
    assert (body["benchmark"], body["split"]) == ("my-boats", "test")
    values = {n: m["value"] for n, m in body["metrics"].items()}
    assert list(values) == ["nDCG@10", "AP", "RR", "R@1", "R@10"]
    assert values["RR"] == 0.75  # what the protocol removes is left out before the list is judged
    assert values["R@1"] == 0.5
    listed = data("list", "benchmarks")["benchmarks"]
    (row,) = [b for b in listed if b["name"] == "my-boats"]
    assert row["about"] == "Boats of one's own, found by their colour."
    assert (row["splits"], row["options"], row["published"]) == (["test"], [], 0)
    told = run("eval", "my-boats", "--data", tmp_path / "absent", code=3)
    assert "does not say how to get its files" in told.stderr
    assert "has no submission file" in run(
        "eval", "my-boats", "--data", tmp_path, "--run", runs(tmp_path), "--submission", tmp_path,
        code=2,
    ).stderr  # fmt: skip


def test_its_yaml_says_what_is_published(installed: Path, tmp_path: Path) -> None:
    (installed / "own_my_boats.py").write_text(LOAD_ALONE)
    row = {"system": "Sailor", "split": "test", "metric": "RR", "value": 0.9}
    (installed / "own_my_boats.yaml").write_text(
        json.dumps({"source": "the harbour", "get": "row out", "published": [row]})
    )
    shown = run("eval", "my-boats", "--data", tmp_path, "--run", runs(tmp_path)).stdout
    assert "published (the harbour)" in shown
    assert "Sailor" in shown
    told = run("eval", "my-boats", "--data", tmp_path / "absent", code=3).stderr
    assert "How to get my-boats: row out" in told
    tasks.facts_of.cache_clear()
    (installed / "own_my_boats.yaml").write_text("colour: red")
    with pytest.raises(UsageError, match="must be a mapping of about, counts"):
        tasks.facts_of("my-boats")


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_one_costs_one_warning(
    name: str, installed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (installed / f"own_{name}.py").write_text(BROKEN[name])
    (installed / "own_my_boats.py").write_text(LOAD_ALONE)
    shown = name.replace("_", "-")
    with caplog.at_level(logging.WARNING, "mmrerank"):
        known = [n for n, _ in tasks.every()]
        assert [n for n, _ in tasks.every()] == known
    assert "my-boats" in known
    assert "cirr" in known
    assert shown not in known
    (told,) = [r.message for r in caplog.records if r.name.startswith("mmrerank")]
    assert f"own_{name}" in told
    assert run("eval", "my-boats", "--data", tmp_path, "--run", runs(tmp_path)).exit_code == 0
    assert f"own_{name}" in run("eval", shown, "--data", tmp_path, code=2).stderr
