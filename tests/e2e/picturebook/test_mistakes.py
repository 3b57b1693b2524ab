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

from mmrerank.picturebook.export import evaluation_queries, evaluation_scenes, name_of
from mmrerank.picturebook.queries import Truth

TOLD = Path(__file__).resolve().parents[3] / "mmrerank/picturebook/mistakes.py"
SEED, SCENES, QUERIES = 15, 300, 12


@pytest.fixture(scope="module")
def faultless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ``eval demo`` in which every part, verdict and sentence is the world's truth."""
    runs = tmp_path_factory.mktemp("told")
    data("eval", "demo", "--seed", SEED, "--scenes", SCENES, "--queries", QUERIES, "--methods", "cotrr",
         "--chat", "oracle", "--runs", runs)  # fmt: skip
    scenes = evaluation_scenes(SEED, SCENES)
    named = {name_of(SEED, n): scene for n, scene in enumerate(scenes)}
    facts_of = {q.id: q.facts for q in evaluation_queries(SEED, scenes, QUERIES, Truth(scenes))}
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
    # first places, sentences, searches taken apart in practised and in new wordings
    assert len(counts) == 4
    for right, of in counts:
        assert int(right) == int(of.split()[0]) > 0
    assert f": 0 of {QUERIES} searches" in nothing


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


@pytest.mark.parametrize(
    ("claim", "silent"),
    [
        ("{id} comes closest: 0 of {all} parts met", 0),
        ("{id} comes closest: {met} of 9 parts met", 0),
        ("x comes closest: {met} of {all} parts met", 0),
        ("because", 1),
    ],
)
def test_a_sentence_is_held_against_the_first_picture(
    faultless: Path, tmp_path: Path, claim: str, silent: int
) -> None:
    def boast(result: dict[str, Any]) -> None:
        first = result["hits"][0]
        result["reason"] = claim.format(
            id=first["id"], met=met(first), all=len(result["components"])
        )

    said = told(changed(faultless, tmp_path, boast))
    assert f"is right: {QUERIES - 1} of {QUERIES} ({silent} say nothing" in said


def test_every_part_met_is_held_against_every_part(faultless: Path, tmp_path: Path) -> None:
    def boast(result: dict[str, Any]) -> None:
        first = result["hits"][0]
        result["reason"] = f"{first['id']} fits best: every part is met"
        first["verdicts"][0]["verdict"] = "missed"

    assert f"is right: {QUERIES - 1} of {QUERIES} (0 say" in told(
        changed(faultless, tmp_path, boast)
    )


def test_a_false_nothing_matches_is_counted(faultless: Path, tmp_path: Path) -> None:
    said = told(changed(faultless, tmp_path, lambda result: result.update(no_match=True)))
    assert f"though something does: 1 of {QUERIES} searches, of which 0 have no match" in said


def test_a_wrong_first_place_is_counted(faultless: Path, tmp_path: Path) -> None:
    said = told(changed(faultless, tmp_path, lambda result: result["hits"].reverse()))
    assert f"the first place is right: {QUERIES - 1} of {QUERIES} " in said
