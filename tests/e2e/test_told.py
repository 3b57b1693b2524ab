"""``benchmarks/told.py``: what it counts of a faultless run, and of the same with mistakes put in."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import data

from mmrerank.demo.export import evaluation_scenes, name_of
from mmrerank.demo.queries import Truth, make_queries
from mmrerank.demo.world import stream

TOLD = Path(__file__).resolve().parents[2] / "benchmarks/told.py"
SEED, SCENES, QUERIES = 15, 300, 12


@pytest.fixture(scope="module")
def faultless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ``eval demo`` in which every part, verdict and sentence is the world's truth."""
    runs = tmp_path_factory.mktemp("told")
    data("eval", "demo", "--seed", SEED, "--scenes", SCENES, "--queries", QUERIES, "--methods", "cotrr",
         "--chat", "oracle", "--runs", runs)  # fmt: skip
    scenes = evaluation_scenes(SEED, SCENES)
    named = {name_of(SEED, n): scene for n, scene in enumerate(scenes)}
    rng = stream("evaluation", SEED + 1_000_003)
    asked = make_queries(scenes, QUERIES, rng, "evaluation", truth=Truth(scenes))
    facts_of = {q.id: q.facts for q in asked}
    results = [json.loads(x) for x in (runs / "cotrr.jsonl").read_text("utf-8").splitlines()]
    for result in results:
        facts = facts_of[result["query"]["id"]]
        parts = [{"id": f"c{n}", "kind": f.kind, "text": f.text} for n, f in enumerate(facts)]
        for hit in result["hits"]:
            judged = [f.judge(named[hit["id"]]) for f in facts]
            hit["verdicts"] = [
                {"component": part["id"], "verdict": j.verdict, "note": j.note}
                for part, j in zip(parts, judged, strict=True)
            ]
        result["hits"].sort(key=met, reverse=True)
        first = result["hits"][0]
        result["reason"] = f"{first['id']} comes closest: {met(first)} of {len(facts)} parts met"
        result["components"] = parts
        result["no_match"] = met(first) < len(facts)
    lines = "".join(json.dumps(r) + "\n" for r in results)
    (runs / "cotrr.jsonl").write_text(lines, "utf-8")
    return runs


def met(hit: dict[str, Any]) -> int:
    return [v["verdict"] for v in hit["verdicts"]].count("met")


def told(runs: Path) -> str:
    done = subprocess.run(
        [sys.executable, TOLD, runs], capture_output=True, text=True, timeout=300, check=True
    )
    return done.stdout


def changed(faultless: Path, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of the run in ``folder`` with its first result changed."""
    for file in faultless.glob("*.*"):
        (folder / file.name).write_bytes(file.read_bytes())
    first, *rest = (folder / "cotrr.jsonl").read_text("utf-8").splitlines()
    result = json.loads(first)
    change(result)
    (folder / "cotrr.jsonl").write_text("\n".join([json.dumps(result), *rest]), "utf-8")
    return folder


def test_a_run_without_mistakes_has_none(faultless: Path) -> None:
    said = told(faultless)
    assert "wrong" not in said
    lines = [line for line in said.splitlines() if " of " in line]
    (nothing,) = [line for line in lines if line.startswith("'nothing matches'")]
    counts = [line.split(": ")[1].split(" of ") for line in lines if line != nothing]
    assert (
        len(counts) == 4
    )  # first places, sentences, searches taken apart in practised and new wordings
    for right, of in counts:
        assert int(right) == int(of.split()[0]) > 0
    count = nothing.split(": ")[1].split()[0]
    assert f"of which {count} have no match" in nothing


def test_a_wrong_verdict_is_shown_with_its_note(faultless: Path, tmp_path: Path) -> None:
    def lie(result: dict[str, Any]) -> None:
        verdict = result["hits"][-1]["verdicts"][0]
        wrong = "missed" if verdict["verdict"] == "met" else "met"
        verdict.update(verdict=wrong, note="a thing of my own making")

    said = told(changed(faultless, tmp_path, lie))
    assert ": 1 of " in said
    assert "1  a thing of my own making: " in said


def test_a_search_taken_apart_wrongly_is_shown(faultless: Path, tmp_path: Path) -> None:
    def confuse(result: dict[str, Any]) -> None:
        result["components"][0]["text"] = "three blind mice"

    assert "three blind mice" in told(changed(faultless, tmp_path, confuse))


@pytest.mark.parametrize("claim", ["{} fits best: every part is met", "{} comes closest: 1 of 9 parts met",
                                   "x fits best: every part is met", "because"])  # fmt: skip
def test_a_sentence_is_held_against_the_first_picture(
    faultless: Path, tmp_path: Path, claim: str
) -> None:
    def boast(result: dict[str, Any]) -> None:
        first = result["hits"][0]
        result["reason"] = claim.format(first["id"])
        first["verdicts"][0]["verdict"] = "missed"

    said = told(changed(faultless, tmp_path, boast))
    silent = int(claim == "because")
    assert f"is right: {QUERIES - 1} of {QUERIES} ({silent} say nothing" in said
