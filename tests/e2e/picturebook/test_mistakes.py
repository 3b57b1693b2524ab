"""``mmrerank demo mistakes``: what it counts of a faultless run, and of the same with mistakes put in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import data, run

from mmrerank.picturebook.export import evaluation_queries, evaluation_scenes, name_of
from mmrerank.picturebook.queries import Truth

pytestmark = pytest.mark.slow
SEED, SCENES, QUERIES = 15, 300, 12


@pytest.fixture(scope="module")
def faultless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ``eval demo`` in which every part, verdict and sentence is the world's truth."""
    runs = tmp_path_factory.mktemp("runs")
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


def found(runs: Path) -> dict[str, Any]:
    body: dict[str, Any] = data("demo", "mistakes", runs)
    return body


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
    body = found(faultless)
    assert body["verdicts"] == {}
    right = [body["first_place"], body["sentence"], *body["decomposed"].values()]
    assert all(row["right"] == row["of"] > 0 for row in right)
    assert body["no_match"] == {"reported": 0, "of": QUERIES, "without_match": 0}
    text = run("demo", "mistakes", faultless).stdout
    assert "wrong" not in text
    assert f"sentence over the order right: {QUERIES} of {QUERIES} (0 claim nothing" in text


def test_a_wrong_verdict_is_shown_with_its_note(faultless: Path, tmp_path: Path) -> None:
    def lie(result: dict[str, Any]) -> None:
        verdict = result["hits"][-1]["verdicts"][0]
        wrong = "missed" if verdict["verdict"] == "met" else "met"
        verdict.update(verdict=wrong, note="a thing of my own making")

    runs = changed(faultless, tmp_path, lie)
    ((_, row),) = found(runs)["verdicts"].items()
    assert row["wrong"] == 1
    assert [e["note"] for e in row["examples"]] == ["a thing of my own making"]
    text = run("demo", "mistakes", runs).stdout
    assert f": 1 of {row['of']} verdicts are wrong" in text
    assert "1  a thing of my own making: " in text
    assert "of my own making" not in run("demo", "mistakes", runs, "--show", 0).stdout


def test_a_search_decomposed_wrongly_is_shown(faultless: Path, tmp_path: Path) -> None:
    def confuse(result: dict[str, Any]) -> None:
        result["components"][0]["text"] = "three blind mice"

    assert "three blind mice" in run("demo", "mistakes", changed(faultless, tmp_path, confuse)).stdout


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
        result["reason"] = claim.format(id=first["id"], met=met(first), all=len(result["components"]))

    sentence = found(changed(faultless, tmp_path, boast))["sentence"]
    assert (sentence["right"], sentence["unverifiable"]) == (QUERIES - 1, silent)
    assert len(sentence["examples"]) == 1


def test_every_part_met_is_held_against_every_part(faultless: Path, tmp_path: Path) -> None:
    def boast(result: dict[str, Any]) -> None:
        first = result["hits"][0]
        result["reason"] = f"{first['id']} fits best: every part is met"
        first["verdicts"][0]["verdict"] = "missed"

    assert found(changed(faultless, tmp_path, boast))["sentence"]["right"] == QUERIES - 1


def test_a_false_nothing_matches_is_counted(faultless: Path, tmp_path: Path) -> None:
    runs = changed(faultless, tmp_path, lambda result: result.update(no_match=True))
    assert found(runs)["no_match"] == {"reported": 1, "of": QUERIES, "without_match": 0}


def test_a_wrong_first_place_is_counted(faultless: Path, tmp_path: Path) -> None:
    runs = changed(faultless, tmp_path, lambda result: result["hits"].reverse())
    assert found(runs)["first_place"]["right"] == QUERIES - 1


def test_a_folder_without_a_run_is_an_error(faultless: Path, tmp_path: Path) -> None:
    assert "mmrerank eval demo" in run("demo", "mistakes", tmp_path, code=3).stderr
    (tmp_path / "cotrr.json").write_text("{}")
    (tmp_path / "cotrr.jsonl").write_text("")
    assert "holds no run" in run("demo", "mistakes", tmp_path, code=3).stderr
