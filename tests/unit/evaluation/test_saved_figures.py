"""Figures are saved beside runs, by query too, and provenance tells runs of different settings apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from benchmark_samples import MAKERS, fashioniq, figures, folder, trec, visdial
from command import data, run
from index_world import paint
from test_first_stage import WordEmbedder, indexed

import mmrerank
from mmrerank.evaluation.experiment.carry_out import Experiment
from mmrerank.evaluation.experiment.settings import chat_options
from mmrerank.evaluation.per_query import lines, per_query
from mmrerank.evaluation.tasks import load_task, score_files


def origin(*arguments: Any) -> dict[str, Any]:
    found: dict[str, Any] = data("eval", *arguments)["provenance"]
    return found


def test_settings_tell_scored_runs_apart(tmp_path: Path) -> None:
    sample = fashioniq(tmp_path / "data")
    path = trec(tmp_path / "r.trec", sample.lists)
    where = ["fashioniq", "--data", sample.data, "--run", path]
    one, other = origin(*where), origin(*where, "--gallery", "union")
    assert one["config"]["set"] == {"gallery": "original"}
    assert other["config"]["set"] == {"gallery": "union"}
    assert one["data"] == other["data"]
    assert len(one["data"]["files"]) == 6
    assert one["config"]["runs"][0]["longest"] == 90
    assert origin(*where) == one  # no date: what is printed is the same for the same figures
    caption = sample.data / "captions/cap.dress.val.json"
    caption.write_text(caption.read_text().replace("is red", "is blue"))
    changed = origin(*where)["data"]["files"]
    assert [n for n, d in changed.items() if d != one["data"]["files"][n]] == ["captions/cap.dress.val.json"]
    trec(path, {q: ids[:20] for q, ids in sample.lists.items()})
    assert origin(*where)["config"]["runs"] != one["config"]["runs"]


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_every_file_that_is_read_has_a_digest(name: str, tmp_path: Path) -> None:
    sample = MAKERS[name](tmp_path / "data")
    task = load_task(name, sample.data, split=sample.split)
    there = {p for p in sample.data.rglob("*") if p.is_file()}
    assert set(task.sources) == there


def test_a_first_stage_alone_says_where_it_came_from(tmp_path: Path) -> None:
    folder(tmp_path / "data")
    index, _ = indexed(tmp_path, [f"pictures/{n}.jpg" for n in range(40)])
    bodies = []
    for depth in (0, 7):
        found = Experiment(
            benchmark="folder", data=tmp_path / "data", index=index.path, embedder=WordEmbedder(),
            depth=depth, runs=tmp_path / f"out{depth}", per_query=True, options={"metrics": "R@10,P@1"},
        ).carry_out()  # fmt: skip
        body = json.loads((tmp_path / f"out{depth}/first-stage.json").read_text())
        assert body["config"]["depth"] == (depth or 10)
        assert body["config"]["set"] == {"metrics": "R@10,P@1"}
        assert body["models"]["index"]["images"] == 43
        assert body["models"]["embedder"]["spec"] == WordEmbedder().spec
        assert body["data"]["files"].keys() == {"queries.jsonl", "gallery.txt"}
        assert "date" in body
        assert found.to_dict()["provenance"] == {k: v for k, v in body.items() if k != "date"}
        metrics = json.loads((tmp_path / f"out{depth}/first-stage.metrics.json").read_text())
        assert found.scores is not None
        assert {n: m["value"] for n, m in metrics["metrics"].items()} == figures(found.scores)
        assert ("short" in metrics["metrics"]["R@10"]) is bool(depth)
        assert (tmp_path / f"out{depth}/first-stage.per-query.tsv").read_text().count("\n") == 2 * (6 + 1)
        bodies.append(body)
    assert bodies[0]["config"] != bodies[1]["config"]


def test_methods_have_figures_and_every_setting_beside_them(tmp_path: Path) -> None:
    sample = folder(tmp_path / "data")
    paint(sample.data, [f"pictures/{n}.jpg" for n in range(40)])
    path = trec(tmp_path / "r.trec", sample.lists)
    found = mmrerank.evaluate(
        "folder", methods=["pointwise"], data=sample.data, run=path, images=sample.data, chat="oracle",
        candidates=3, runs=tmp_path / "out", per_query=True,
    )  # fmt: skip
    for label, one in found.methods.items():
        body = json.loads((tmp_path / f"out/{label}.metrics.json").read_text())
        assert one.scores is not None
        assert {n: m["value"] for n, m in body["metrics"].items()} == figures(one.scores)
        config = json.loads((tmp_path / f"out/{label}.json").read_text())["config"]
        assert config["set"]["metrics"].startswith("nDCG@10")
        assert config["images"] == str(sample.data)
        assert config["candidates"] == 3
        assert config["runs"][0]["path"] == str(path)
        assert config["method"] == label
        text = (tmp_path / f"out/{label}.per-query.tsv").read_text()
        assert text == "".join(f"{line}\n" for line in lines(one.scores, digits=None))
    assert config["options"]["alpha"] == 1  # defaults are filled in
    printed = list(found.per_query_lines)
    assert printed[0].split("\t")[:3] == ["none", "nDCG@10", "q%200"]
    assert found.to_dict()["methods"]["none"]["per_query"]["RR"].keys() == sample.right.keys()
    # compare sees by the files beside them that two runs are not of one work
    other = mmrerank.evaluate(
        "folder", methods=["pointwise"], data=sample.data, run=path, images=sample.data, chat="oracle",
        candidates=5, runs=tmp_path / "other",
    )  # fmt: skip
    assert other.scores
    runs = {"a": tmp_path / "out/pointwise.trec", "b": tmp_path / "other/pointwise.trec"}
    warnings = mmrerank.compare(runs, benchmark="folder", data=sample.data).warnings
    assert "the runs were made with different settings, candidates: a 3; b 5" in warnings
    same = {"a": tmp_path / "out/pointwise.trec", "b": tmp_path / "out/none.trec"}
    assert not any(
        "settings" in w for w in mmrerank.compare(same, benchmark="folder", data=sample.data).warnings
    )


def test_options_of_a_model_have_their_defaults_and_no_key() -> None:
    found = chat_options("openai:m@http://127.0.0.1:1/v1", {"api_key": "secret", "timeout": 7.0})
    assert found["timeout"] == 7.0
    assert "max_retries" in found
    assert "secret" not in json.dumps(found)
    assert chat_options("", {}) == {}


def test_values_of_each_query_are_printed_as_trec_eval_prints_them(tmp_path: Path) -> None:
    (tmp_path / "q.txt").write_text("a 0 x 1\na 0 y 1\nb%20c 0 z 1\nd 0 z 1\n")
    (tmp_path / "r.trec").write_text("a Q0 x 1 2 t\na Q0 w 2 1 t\nb%20c Q0 z 1 1 t\n")
    score = ("score", tmp_path / "r.trec", "--qrels", tmp_path / "q.txt", "--metrics", "P@1,R@1")
    shown = run(*score, "--per-query").stdout.splitlines()
    assert shown[:8] == [
        "P@1\ta\t1.0000", "R@1\ta\t0.5000", "P@1\tb%20c\t1.0000", "R@1\tb%20c\t1.0000",
        "P@1\td\t0.0000", "R@1\td\t0.0000", "P@1\tall\t0.6667", "R@1\tall\t0.5000",
    ]  # fmt: skip
    assert "P@1\ta" not in run(*score).stdout
    body = data(*score, "--per-query")
    assert body["per_query"] == {"P@1": {"a": 1, "b c": 1, "d": 0}, "R@1": {"a": 0.5, "b c": 1, "d": 0}}
    assert body["missing_queries"] == ["d"]
    assert "per_query" not in data(*score)
    assert mmrerank.score(tmp_path / "r.trec", tmp_path / "q.txt", "P@1").per_query == {
        "P@1": {"a": 1, "b c": 1, "d": 0}
    }


def test_parts_are_not_given_twice_and_dialogues_are_units(tmp_path: Path) -> None:
    sample = fashioniq(tmp_path / "f")
    scores = score_files("fashioniq", sample.data, [trec(tmp_path / "f.trec", sample.lists)])
    assert set(per_query(scores)) == {"R@10", "R@50"}
    assert per_query(scores)["R@10"].keys() == sample.right.keys()
    sample = visdial(tmp_path / "v", dialogues=2)
    scores = score_files("visdial", sample.data, [trec(tmp_path / "v.trec", sample.lists)])
    assert {len(v) for v in per_query(scores).values()} == {2}
    assert "Hits@10.round3" in per_query(scores)


def test_a_scored_run_is_saved_where_a_folder_is_named(tmp_path: Path) -> None:
    sample = folder(tmp_path / "data")
    path = trec(tmp_path / "mine.trec", sample.lists)
    where = ("eval", "folder", "--data", sample.data, "--run", path)
    run(*where)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "mine.trec"]
    shown = run(*where, "--runs", tmp_path / "out", "--per-query").stdout
    assert "RR\tall\t" in shown
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "mine.metrics.json", "mine.per-query.tsv",
    ]  # fmt: skip
    body = json.loads((tmp_path / "out/mine.metrics.json").read_text())
    assert body["provenance"]["config"]["set"]
    assert len(body["sha256"]) == 64
