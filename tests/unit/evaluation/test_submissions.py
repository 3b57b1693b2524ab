"""Submission files are checked as a server would: every fault is an error, with counts and the first ids."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from benchmark_samples import circo, cirr, dump, fashioniq, trec
from command import run

from mmrerank.errors import InputError, UsageError
from mmrerank.evaluation.experiment.carry_out import Experiment
from mmrerank.evaluation.tasks import load_task, read_answer, write_submission
from mmrerank.rerank.methods import MethodSpec

Change = Callable[[dict[str, Any]], Any]


def written(name: str, folder: Path, split: str) -> list[Path]:
    sample = {"cirr": cirr, "circo": circo}[name](folder, split=split)
    task = load_task(name, folder, split=split)
    answer = read_answer(task, trec(folder / "r.trec", sample.lists))
    return write_submission(task, [answer], folder / "out")


def changed(path: Path, change: Change) -> Path:
    body = json.loads(path.read_text())
    change(body)
    return dump(path.with_name("changed.json"), body)


CIRR: list[tuple[str, Change]] = [
    ("queries missing: 1 of 24 ('12060')", lambda b: b.pop("12060")),
    ("queries missing: 20 of 24 ('12064', '12065', '12066', ...). Is it of another split",
     lambda b: [b.pop(k) for k in list(b)[6:]]),
    ("queries that cirr test1 does not have: 1 ('9'). Is it of another split",
     lambda b: b.update({"9": b["12060"]})),
    ("lists that name an image twice: 2 ('12061', '12063')",
     lambda b: [b[q].__setitem__(1, b[q][0]) for q in ("12061", "12063")]),
    ("lists with an image that the benchmark does not have: 1 ('12061': 'nobody')",
     lambda b: b["12061"].__setitem__(2, "nobody")),
    ("lists of other than 35 names: 2 ('12060' with 36, '12062' with 5)",
     lambda b: (b.update({"12062": b["12062"][:5]}), b["12060"].append(b["12060"][0]))),
    ("lists of other than 3 names: 24", lambda b: b.update(metric="recall_subset")),
    ("key 'version': must be 'rc2', not None", lambda b: b.pop("version")),
    ("key 'metric': must be recall or recall_subset, not None", lambda b: b.pop("metric")),
]  # fmt: skip


@pytest.mark.parametrize(("says", "change"), CIRR)
def test_a_wrong_cirr_file(says: str, change: Change, tmp_path: Path) -> None:
    path = changed(written("cirr", tmp_path, "test1")[0], change)
    with pytest.raises(InputError) as told:
        read_answer(load_task("cirr", tmp_path, split="test1"), path)
    assert says in str(told.value)
    assert str(path) in str(told.value)


CIRCO: list[tuple[str, Change]] = [
    ("queries missing: 1 of 12 ('3')", lambda b: b.pop("3")),
    ("queries that circo test does not have: 1 ('12'). Is it of another split (--split val)?",
     lambda b: b.update({"12": b["3"]})),
    ("lists that name an image twice: 1 ('3')", lambda b: b["3"].__setitem__(1, b["3"][0])),
    ("lists of other than 50 names: 1 ('3' with 49)", lambda b: b["3"].pop()),
]  # fmt: skip


@pytest.mark.parametrize(("says", "change"), CIRCO)
def test_a_wrong_circo_file(says: str, change: Change, tmp_path: Path) -> None:
    path = changed(written("circo", tmp_path, "test")[0], change)
    with pytest.raises(InputError) as told:
        read_answer(load_task("circo", tmp_path, split="test"), path)
    assert says in str(told.value)


@pytest.mark.slow
def test_sound_is_said_of_the_submission(tmp_path: Path) -> None:
    recall, subset = written("cirr", tmp_path, "test1")
    cirr_ = ("eval", "cirr", "--data", tmp_path, "--split", "test1")
    assert "the files are sound" in run(*cirr_).stdout  # the benchmark's own
    for path in (recall, subset):
        assert "the submission is sound" in run(*cirr_, "--run", path).stdout
    assert "the submission is sound" in run(*cirr_, "--run", recall, "--run", subset).stdout
    twice = run(*cirr_, "--run", recall, "--run", recall, code=2).stderr
    assert "one submission has one file of a kind" in twice
    half = changed(recall, lambda b: [b.pop(k) for k in list(b)[2:14]])
    told = run(*cirr_, "--run", half, code=3)
    assert "sound" not in told.stdout
    assert "is no sound submission for cirr test1. queries missing: 12 of 24" in told.stderr
    # a run is checked as the submission that would be made of it
    whole = tmp_path / "r.trec"
    assert "a submission can be made (--submission DIR)" in run(*cirr_, "--run", whole).stdout
    lines = whole.read_text().splitlines(keepends=True)
    (tmp_path / "part.trec").write_text("".join(li for li in lines if not li.startswith("12061")))
    told = run(*cirr_, "--run", tmp_path / "part.trec", code=3)
    assert (
        "part.trec is no sound submission for cirr test1. queries missing: 1 of 24 ('12061')" in told.stderr
    )


def test_lists_of_a_split_without_submission_files_are_complete(tmp_path: Path) -> None:
    sample = fashioniq(tmp_path)
    for name in ("dress", "shirt", "toptee"):
        rows = json.loads((tmp_path / f"captions/cap.{name}.val.json").read_text())
        dump(tmp_path / f"captions/cap.{name}.test.json", [{**r, "target": None} for r in rows])
        names = tmp_path / f"image_splits/split.{name}.val.json"
        names.with_name(f"split.{name}.test.json").write_bytes(names.read_bytes())
    path = trec(tmp_path / "r.trec", sample.lists)
    told = run("eval", "fashioniq", "--data", tmp_path, "--split", "test", "--run", path).stdout
    assert "the lists are complete" in told
    assert "--submission" not in told


def test_a_run_that_cannot_be_submitted_is_not_reranked_first(tmp_path: Path) -> None:
    sample = circo(tmp_path, split="test")
    short = trec(tmp_path / "s.trec", {q: i[:20] for q, i in sample.lists.items()})
    wanted = Experiment(
        benchmark="circo", data=tmp_path, split="test", run=[short], methods=[MethodSpec(name="none")],
        submission=tmp_path / "out", images=tmp_path, runs=tmp_path / "runs",
    )  # fmt: skip
    with pytest.raises(InputError, match=r"lists of fewer than the 50 images asked for: 12 \('0' with 20"):
        wanted.carry_out()
    assert not (tmp_path / "runs").exists()


def test_predictions_of_fashioniq(tmp_path: Path) -> None:
    sample = fashioniq(tmp_path)
    task = load_task("fashioniq", tmp_path)
    rows = json.loads((tmp_path / "captions/cap.dress.val.json").read_text())
    told = [{**r, "ranking": sample.lists[f"dress/{n}"]} for n, r in enumerate(rows)]
    good = dump(tmp_path / "dress.val.pred.json", told)
    assert len(read_answer(task, good).rows) == len(rows)
    for change, says in (
        (lambda b: b[3]["ranking"].append("nobody"), "does not have: 1 ('dress/3': 'nobody')"),
        (lambda b: b[3]["ranking"].append(b[3]["ranking"][0]), "name an image twice: 1 ('dress/3')"),
        (lambda b: b[3].update(target="else"), "column 'target'"),
        (lambda b: b.pop(), "rows, and the data"),
    ):
        body = json.loads(json.dumps(told))
        change(body)
        with pytest.raises(InputError) as wrong:
            read_answer(task, dump(good, body))
        assert says in str(wrong.value)
    other = dump(tmp_path / "dress.test.pred.json", told)
    with pytest.raises(InputError, match="is named as one of the split test, and this is val"):
        read_answer(task, other)
    with pytest.raises(UsageError, match="has no submission file"):
        write_submission(task, [], tmp_path / "out")


def test_every_part_of_a_submission_is_needed(tmp_path: Path) -> None:
    sample = fashioniq(tmp_path)
    for kind in ("captions/cap", "image_splits/split"):
        for path in list(tmp_path.glob(f"{kind}.*.val.json")):
            path.rename(path.with_name(path.name.replace(".val.", ".test.")))
    files = []
    for category in ("dress", "shirt", "toptee"):
        rows = json.loads((tmp_path / f"captions/cap.{category}.test.json").read_text())
        told = [
            {"candidate": r["candidate"], "ranking": sample.lists[f"{category}/{n}"]}
            for n, r in enumerate(rows)
        ]
        files.append(dump(tmp_path / f"{category}.test.pred.json", told))
    where = ["eval", "fashioniq", "--data", tmp_path, "--split", "test"]
    every = [a for f in files for a in ("--run", f)]
    assert "the submission is sound" in run(*where, *every).stdout
    told = run(*where, *every[:4], code=3)
    assert "queries missing: " in told.stderr
    assert "'toptee/0'" in told.stderr
    short = trec(tmp_path / "s.trec", {q: i[:20] for q, i in sample.lists.items()})
    assert "lists of fewer than 50 names: " in run(*where, "--run", short, code=3).stderr
