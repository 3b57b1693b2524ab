"""Scoring from the command line, as a stranger runs it: exit codes, shape of the output, what is said."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmark_samples import MAKERS, cirr, dump, folder, trec
from PIL import Image as Pillow
from typer.testing import CliRunner

from mmrerank.cli.main import cli


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(cli, [str(a) for a in arguments])


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_eval_prints_the_shape_promised(name: str, tmp_path: Path) -> None:
    sample = MAKERS[name](tmp_path / "data")
    path = trec(tmp_path / "run.trec", sample.lists)
    data = ["eval", name, "--data", sample.data, "--split", sample.split]
    told = run(*data, "--run", path, "--output", "json")
    assert told.exit_code == 0, told.output
    body = json.loads(told.stdout)
    assert list(body) == ["benchmark", "split", "metrics", "queries", "warnings", "provenance"]
    assert (body["benchmark"], body["split"]) == (name, sample.split)
    for row in body["metrics"].values():
        assert list(row) == ["value", "value_scored", "tie_rule"]
    assert set(body["queries"]) == {"expected", "scored", "missing"}
    shown = run(*data, "--run", path)
    assert shown.exit_code == 0
    assert f"{name} {sample.split}" in shown.stdout
    assert "%" in shown.stdout
    checked = run(*data)
    assert checked.exit_code == 0
    assert "the files are sound" in checked.stdout or name == "mmeb"


def test_published_figures_stand_beside_ours(tmp_path: Path) -> None:
    sample = cirr(tmp_path)
    shown = run("eval", "cirr", "--data", tmp_path, "--run", trec(tmp_path / "r.trec", sample.lists))
    assert "published, on test1 and not on val" in shown.stdout
    assert "CIReVL B/32" in shown.stdout
    assert "warning: " in shown.stderr
    assert "24 queries, but 4181 are published for cirr val" in shown.stderr


def test_a_private_split_is_checked_and_its_files_written(tmp_path: Path) -> None:
    sample = cirr(tmp_path / "data", split="test1")
    path = trec(tmp_path / "r.trec", sample.lists)
    told = run("eval", "cirr", "--data", tmp_path / "data", "--split", "test1", "--run", path,
               "--submission", tmp_path / "out")  # fmt: skip
    assert told.exit_code == 0, told.output
    assert "the labels of test1 are not public" in told.stdout
    files = sorted(tmp_path.glob("out/*.json"))
    assert [p.name for p in files] == ["recall.json", "recall_subset.json"]
    body = json.loads(files[0].read_text())
    rows = json.loads((tmp_path / "data/captions/cap.rc2.test1.json").read_text())
    for row in rows:
        assert row["reference"] not in body[str(row["pairid"])]
    both = run("eval", "cirr", "--data", tmp_path / "data", "--split", "test1", "--run", files[0],
               "--run", files[1], "--output", "json")  # fmt: skip
    assert json.loads(both.stdout)["checked"] == [str(f) for f in files]


def test_two_files_of_cirr_are_scored_together(tmp_path: Path) -> None:
    sample = cirr(tmp_path / "data")
    path = trec(tmp_path / "r.trec", sample.lists)
    run("eval", "cirr", "--data", tmp_path / "data", "--run", path, "--submission", tmp_path / "out")
    one = run("eval", "cirr", "--data", tmp_path / "data", "--run", path, "--output", "json")
    files = ["--run", tmp_path / "out/recall.json", "--run", tmp_path / "out/recall_subset.json"]
    two = run("eval", "cirr", "--data", tmp_path / "data", *files, "--output", "json")
    values = [{n: m["value"] for n, m in json.loads(t.stdout)["metrics"].items()} for t in (one, two)]
    assert values[0] == values[1]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--run", "absent.trec"], 3, "absent.trec cannot be read"),
        (["--run", "a.json"], 3, "key 'metric': must be recall or recall_subset"),
        (["--split", "vall"], 2, "cirr has no split 'vall'; it has val, test1, train. Did you mean 'val'?"),
        (["--set", "captions=all"], 2, "unknown option 'captions'"),
        (["--gallery", "union"], 2, "No such option: --gallery"),
        (["--rerank", "cotrr", "--methods", "none"], 2, "not both"),
        (["--rerank", "cotr"], 2, "Did you mean 'cotrr'?"),
    ],
)
def test_what_is_wrong_is_named(
    arguments: list[str], code: int, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cirr(tmp_path / "data")
    dump(tmp_path / "a.json", {"version": "rc2"})
    told = run("eval", "cirr", "--data", "data", *arguments)
    assert told.exit_code == code
    assert says in told.output


def test_what_a_budget_cut_short_is_judged_again(tmp_path: Path) -> None:
    sample = folder(tmp_path / "data")
    (sample.data / "pictures").mkdir()
    for n in range(40):
        Pillow.new("RGB", (24, 24), (6 * n, 90, 10)).save(sample.data / f"pictures/{n}.jpg")
    path, out = trec(tmp_path / "r.trec", sample.lists), tmp_path / "out"
    command = ["eval", "folder", "--data", sample.data, "--run", path, "--images", sample.data, "--runs", out,
               "--rerank", "pointwise", "--chat", "oracle", "--candidates", "3"]  # fmt: skip
    journal = out / "pointwise.journal.jsonl"
    for more, lines in (([], 7), ([], 7), (["--retry-failed"], 13)):
        told = run(*command, "--budget", "calls=0", *more)
        assert told.exit_code == 7, told.output
        assert len(journal.read_text().splitlines()) == lines
    origin = json.loads((out / "pointwise.json").read_text())
    assert origin["config"]["budget"] == {"calls": 0}
    lifted = run(*command)
    assert lifted.exit_code == 2
    assert "budget.calls was 0 and is absent" in lifted.output
    assert run(*command, "--fresh").exit_code == 0


@pytest.mark.slow
def test_a_picture_that_cannot_be_written_does_not_cost_the_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    command = ["eval", "demo", "--seed", "15", "--scenes", "100", "--queries", "12", "--methods",
               "pointwise", "--chat", "oracle", "--output", "json", "--picture"]  # fmt: skip
    told = run(*command, "file/p.svg")
    assert told.exit_code == 3
    assert "pointwise" in json.loads(told.stdout)["methods"]
    assert "error: file/p.svg cannot be written" in told.stderr
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    told = run(*command, "p.svg")
    assert (told.exit_code, told.stdout) == (5, "")
    assert "mmrerank[eval]" in told.stderr


def test_score_takes_any_run_and_any_metric(tmp_path: Path) -> None:
    lines = ["q1 Q0 a 1 0.5 x", "q1 Q0 b 2 0.5 x", "q1 Q0 c 3 0.1 x"]
    (tmp_path / "run.trec").write_text("\n".join(lines) + "\n")
    (tmp_path / "qrels.txt").write_text("q1 0 b 1\nq2 0 z 2\n")
    command = ["score", tmp_path / "run.trec", "--qrels", tmp_path / "qrels.txt"]
    told = run(*command, "--metrics", "RR,Hit@1,INQUIRE_AP,P(rel=2)@1", "--tie-bounds", "--output", "json")
    assert told.exit_code == 0, told.output
    body = json.loads(told.stdout)
    assert (body["benchmark"], body["split"]) == (None, None)
    assert body["queries"] == {"expected": 2, "scored": 1, "missing": 1}
    assert body["metrics"]["RR"]["value"] == 0.5  # trec_eval takes the higher id first
    assert body["metrics"]["RR"]["value_scored"] == 1
    assert body["metrics"]["Hit@1"]["value"] == 0
    assert body["metrics"]["Hit@1"]["tie_bounds"] == [0, 0.5]
    assert body["metrics"]["INQUIRE_AP"]["value"] == 0.25
    shown = run(*command)
    assert "1 of them without an answer" in " ".join(shown.stdout.split())
    wrong = run(*command, "--metrics", "nDGC@10")
    assert wrong.exit_code == 2
    assert "mmrerank list metrics" in wrong.output


def test_metrics_and_benchmarks_are_listed() -> None:
    metrics = json.loads(run("list", "metrics", "--output", "json").stdout)["metrics"]
    names = {m["name"] for m in metrics}
    assert {"INQUIRE_AP", "INQUIRE_nDCG", "INQUIRE_MRR", "AP_min", "nDCG", "RR", "R", "Success", "P"} <= names
    assert all(m["ties"] and m["about"] for m in metrics)
    benchmarks = json.loads(run("list", "benchmarks", "--output", "json").stdout)["benchmarks"]
    assert {b["name"] for b in benchmarks} == {*MAKERS, "demo"}
    shown = run("list", "metrics")
    assert "INQUIRE_AP[@k]" in shown.stdout
