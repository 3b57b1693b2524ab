"""`mmrerank.evaluate`, `score` and `compare`: the figures of the verbs, as objects with tables."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmark_samples import MAKERS, folder, trec
from command import data
from index_world import paint

import mmrerank
from mmrerank.benchmark import Run, Scored
from mmrerank.errors import InputError, MissingExtraError, ModelError, UsageError
from mmrerank.evaluation.tabular import Tabular

QRELS = {"q1": {"b": 1}, "q2": {"a": 2, "c": 1}, "q3": {"z": 1}}
OLD = {"q1": {"a": 0.9, "b": 0.5}, "q2": {"a": 0.8, "b": 0.7, "c": 0.6}}
NEW = {"q1": {"b": 3.0, "a": 1.0}, "q2": {"c": 0.8, "b": 0.7, "a": 0.6}, "q3": {"z": 1.0}}
MODELS = ("torch", "transformers", "gradio", "openai", "open_clip", "faiss")


def written(path: Path, run: dict[str, dict[str, float]]) -> Path:
    from mmrerank.evaluation.measure.runs import write_run

    rows = {q: [Scored(d, s) for d, s in sorted(own.items(), key=lambda p: -p[1])]
            for q, own in run.items()}  # fmt: skip
    write_run(path, Run(rows=rows))
    return path


def qrels_file(path: Path) -> Path:
    path.write_text("".join(f"{q} 0 {d} {g}\n" for q, own in QRELS.items() for d, g in own.items()))
    return path


def shows(found: Tabular, words: str) -> None:
    assert words in str(found)
    assert words in found._repr_html_()
    assert len(found.to_pandas()) == len(found.records) > 0
    assert found.tables


def test_score_takes_files_objects_and_plain_data(tmp_path: Path) -> None:
    path, qrels = written(tmp_path / "r.trec", OLD), qrels_file(tmp_path / "q.txt")
    wanted = data("score", path, "--qrels", qrels, "--metrics", "RR,nDCG@10,P(rel=2)@1")
    names = ["RR", "nDCG@10", "P(rel=2)@1"]
    run = mmrerank.score(OLD, QRELS, names)
    assert mmrerank.score(path, qrels, "RR,nDCG@10,P(rel=2)@1").to_dict() == wanted
    assert run.to_dict() == wanted
    assert run.metrics["RR"].value == 0.5
    assert list(run.to_pandas()["metric"]) == names
    shows(run, "1 of them without an answer")
    bounds = mmrerank.score({"q": {"a": 1, "b": 1}}, {"q": {"b": 1}}, ["Hit@1"], tie_bounds=True)
    assert bounds.metrics["Hit@1"].bounds == (0, 1)
    with pytest.raises(UsageError, match="is not a metric"):
        mmrerank.score(OLD, QRELS, ["nDGC@10"])
    with pytest.raises(InputError, match="judge no query"):
        mmrerank.score(OLD, {})
    with pytest.raises(InputError, match="finite scores"):
        mmrerank.score({"q1": {"a": float("nan")}}, QRELS)


def test_compare_is_the_verb(tmp_path: Path) -> None:
    paths = [written(tmp_path / f"{n}.trec", r) for n, r in (("old", OLD), ("new", NEW))]
    qrels = qrels_file(tmp_path / "q.txt")
    wanted = data("compare", *paths, "--qrels", qrels, "--metrics", "RR", "--all-pairs")
    found = mmrerank.compare({"old": OLD, "new": NEW}, qrels=QRELS, metrics=["RR"], all_pairs=True)
    assert {**found.to_dict(), "warnings": []} == {**wanted, "warnings": []}
    assert mmrerank.compare(paths, qrels=qrels, metrics="RR", all_pairs=True).to_dict() == wanted
    assert found.records[1]["difference"] == pytest.approx(0.5)
    shows(found, "new - old")
    page = found.save_html(tmp_path / "c.html").read_text()
    assert "new" in page
    with pytest.raises(UsageError, match="at least two runs"):
        mmrerank.compare([paths[0]], qrels=qrels)
    with pytest.raises(UsageError, match="say what is right"):
        mmrerank.compare(paths)


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_evaluate_scores_a_run_as_the_verb_does(name: str, tmp_path: Path) -> None:
    sample = MAKERS[name](tmp_path / "data")
    path = trec(tmp_path / "run.trec", sample.lists)
    where = {"data": sample.data, "split": sample.split}
    found = mmrerank.evaluate(name, run=path, **where)  # type: ignore[arg-type]
    verb = data("eval", name, "--data", sample.data, "--split", sample.split, "--run", path)
    assert found.to_dict() == verb
    plain = {q: {d: -float(n) for n, d in enumerate(ids)} for q, ids in sample.lists.items()}
    assert found.scores
    same = mmrerank.evaluate(name, run=plain, **where).scores  # type: ignore[arg-type]
    assert same
    assert {n: m.value for n, m in same.metrics.items()} == {
        n: m.value for n, m in found.scores.metrics.items()
    }
    shows(found, f"{name} {sample.split}")


def reranked(tmp_path: Path) -> tuple[Any, dict[str, Any], list[Any]]:
    sample = folder(tmp_path / "data")
    paint(sample.data, [f"pictures/{n}.jpg" for n in range(40)])
    path = trec(tmp_path / "r.trec", sample.lists)
    options = {"data": sample.data, "run": path, "images": sample.data, "chat": "oracle",
               "candidates": 3}  # fmt: skip
    verb = ["eval", "folder", "--data", sample.data, "--run", path, "--images", sample.data,
            "--chat", "oracle", "--candidates", "3"]  # fmt: skip
    return sample, options, verb


def test_methods_side_by_side_on_any_benchmark(tmp_path: Path) -> None:
    _, options, verb = reranked(tmp_path)
    methods = ["pointwise", "pointwise(alpha=0.5)"]
    found = mmrerank.evaluate("folder", methods=methods, runs=tmp_path / "one", **options)
    body = found.to_dict()
    assert list(body["methods"]) == ["none", *methods]
    row = body["methods"]["pointwise"]
    assert row["gain"]["RR"]["value"] == pytest.approx(row["RR"] - body["methods"]["none"]["RR"], abs=2e-4)
    low, high = row["ci"]["nDCG@10"]
    assert low <= row["nDCG@10"] <= high <= body["ceiling"]["nDCG@10"] + 1
    assert row["usage"]["calls"] == 3 * body["queries"]
    for stem in ("none", "pointwise", "pointwise.alpha-0.5"):
        for ending in ("trec", "raw.jsonl", "jsonl", "json", "journal.jsonl"):
            assert (tmp_path / f"one/{stem}.{ending}").is_file()
    listed = ["--methods", ",".join(methods), "--runs", tmp_path / "two"]
    told = data(*verb, *listed)
    assert untimed(told) == untimed(body)
    again = mmrerank.evaluate("folder", methods=methods, runs=tmp_path / "one", **options)
    assert again.to_dict() == body  # out of the journals, time and all
    shows(found, "gain, 95% interval")
    alone = data(*verb, "--rerank", "pointwise(alpha=0.5)", "--runs", tmp_path / "three")
    values = {n: m["value"] for n, m in alone["metrics"].items()}
    row = body["methods"]["pointwise(alpha=0.5)"]
    assert {n: round(v, 4) for n, v in values.items()} == {n: row[n] for n in values}
    assert alone["first_stage"]["metrics"]["RR"] == pytest.approx(body["methods"]["none"]["RR"], abs=1e-4)


def untimed(body: dict[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(body))
    for row in plain["methods"].values():
        del row["usage"]["seconds"]
    return plain


def test_a_forecast_and_what_is_missing(tmp_path: Path) -> None:
    _, options, _ = reranked(tmp_path)
    found = mmrerank.evaluate("folder", methods=["pointwise"], forecast=0, runs=tmp_path / "o", **options)
    assert list(found.forecast) == ["none", "pointwise"]
    assert found.forecast["pointwise"].calls == 3 * len(found.task.queries)
    assert not (tmp_path / "o").exists()  # neither a journal nor anything else
    assert "queries left" in str(found)
    with pytest.raises(ModelError, match="--chat"):
        mmrerank.evaluate("folder", methods=["pointwise"], runs=tmp_path / "p", **{**options, "chat": ""})
    with pytest.raises(UsageError, match="--data DIR is needed"):
        mmrerank.evaluate("cirr")
    with pytest.raises(UsageError, match="Did you mean 'cirr'"):
        mmrerank.evaluate("cir")
    with pytest.raises(UsageError, match="unknown option 'colour'"):
        mmrerank.evaluate("folder", options={"colour": "red"}, data=options["data"])


def test_a_forecast_looks_at_a_journal_and_leaves_it(tmp_path: Path) -> None:
    _, options, _ = reranked(tmp_path)
    home = tmp_path / "o"
    mmrerank.evaluate("folder", methods=["pointwise"], runs=home, **options)
    before = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in home.iterdir()}
    found = mmrerank.evaluate("folder", methods=["pointwise"], forecast=0, runs=home, **options)
    assert found.forecast["pointwise"].queries == 0
    told: list[str] = []
    other = {**options, "candidates": 2}
    found = mmrerank.evaluate(
        "folder", methods=["pointwise"], forecast=0, runs=home, say=told.append, **other
    )
    assert found.forecast["pointwise"].calls == 2 * len(found.task.queries)
    assert any("candidates was 3 and is 2" in line and "--fresh" in line for line in told)
    assert {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in home.iterdir()} == before


def test_a_forecast_needs_a_method(tmp_path: Path) -> None:
    _, options, _ = reranked(tmp_path)
    with pytest.raises(UsageError, match="--rerank METHOD"):
        mmrerank.evaluate("folder", forecast=0, **options)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"methods": ["pointwise(colour=red)"]}, "unknown option 'colour'"),
        ({"methods": ["pointwise(alpha=9)"]}, "alpha"),
        ({"methods": ["pointwise"], "chat_options": {"colour": "red"}}, "chat 'oracle' takes no 'colour'"),
        ({"methods": ["pointwise"], "chat": "nobody:x"}, "there is no chat 'nobody:x'"),
    ],
)
def test_what_is_wrong_is_reported_before_any_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, Any], told: str
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("a model is loaded")

    monkeypatch.setattr("mmrerank.embed.open.open_embedder", never)
    monkeypatch.setattr("mmrerank.evaluation.experiment.make_first_stage.open_embedder", never)
    monkeypatch.setattr("mmrerank.evaluation.experiment.resume.open_chat", never)
    with pytest.raises(UsageError, match=told):
        mmrerank.evaluate("folder", **{"data": tmp_path, "index": "x", "chat": "oracle", **wrong})


def test_pandas_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match="pip install pandas"):
        mmrerank.score(OLD, QRELS).to_pandas()


@pytest.mark.parametrize(
    "call",
    [
        "mmrerank.score(OLD, QRELS)",
        "mmrerank.score(OLD, QRELS, ['P(rel=2)@1']).to_pandas()",
        "str(mmrerank.compare({'a': OLD, 'b': OLD}, qrels=QRELS))",
        "mmrerank.compare(['a=r.trec', 'b=r.trec'], benchmark='folder', data='data').to_dict()",
    ],
)
def test_scoring_imports_no_model_code(call: str, tmp_path: Path) -> None:
    sample = folder(tmp_path / "data")
    trec(tmp_path / "r.trec", sample.lists)
    code = f"import sys, mmrerank\nOLD, QRELS = {OLD}, {QRELS}\n{call}\n"
    code += f"print([m for m in {MODELS} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize("arguments", [["eval"], ["eval", "cirr"], ["eval", "demo"], ["score"], ["compare"]])
def test_help_imports_neither_numpy_nor_yaml_nor_a_benchmark(arguments: list[str]) -> None:
    code = (
        f"import sys; sys.argv = ['mmrerank', *{arguments}, '--help']\n"
        "from mmrerank.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = [m for m in sys.modules if m in ('numpy', 'yaml') or m.startswith("
        "('mmrerank.evaluation.benchmarks.', 'mmrerank.picturebook.'))]\n"
        "print(heavy, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]", done.stderr


def test_options_of_a_benchmark_are_flags(tmp_path: Path) -> None:
    from mmrerank.cli._benchmark_options import own_options

    found = {o.name: o for o in own_options("demo")}
    assert list(found) == ["seed", "scenes", "queries"]
    assert found["scenes"].about == "How many pictures are drawn (default: 2000)."
    assert [(o.name, o.form) for o in own_options("flickr30k")] == [("captions", "all|first5|merged")]
    sample = MAKERS["fashioniq"](tmp_path / "data")
    where = ["eval", "fashioniq", "--data", sample.data, "--split", sample.split]
    run = trec(tmp_path / "r.trec", sample.lists)
    one = data(*where, "--run", run, "--gallery", "union")
    assert one == data(*where, "--run", run, "--set", "gallery=union")
