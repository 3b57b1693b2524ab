"""What holds for every benchmark: runs are scored whole, and what cannot be scored is told."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from benchmark_samples import (
    MAKERS,
    Sample,
    circo,
    cirr,
    dump,
    fashioniq,
    figures,
    folder,
    inquire,
    karpathy,
    mmeb,
    trec,
)
from command import run

from mmrerank.errors import InputError, UsageError
from mmrerank.evaluation.measure.runs import read_run
from mmrerank.evaluation.tasks import load_task, names, score_files


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_every_benchmark_scores_a_run_and_counts_what_is_missing(name: str, tmp_path: Path) -> None:
    sample: Sample = MAKERS[name](tmp_path / "data")
    run = trec(tmp_path / "run.trec.gz", sample.lists)
    scores = score_files(name, sample.data, [run], split=sample.split)
    assert scores.benchmark == name
    assert scores.split == sample.split
    assert not scores.missing
    for measured in scores.metrics.values():
        assert measured.value == pytest.approx(measured.value_scored)
        assert measured.tie_rule
        assert measured.lower_is_better or 0 <= measured.value <= 1
    lost = list(sample.lists)[::3]
    part = trec(tmp_path / "part.trec", {q: ids for q, ids in sample.lists.items() if q not in lost})
    body = score_files(name, sample.data, [part], split=sample.split).to_dict()
    assert body["queries"] == {
        "expected": len(sample.right),
        "scored": len(sample.right) - len(lost),
        "missing": len(lost),
    }
    assert list(body) == ["benchmark", "split", "metrics", "queries", "warnings"]
    assert any(m["value"] != m["value_scored"] for m in body["metrics"].values())


def test_names_are_those_of_the_files() -> None:
    assert {*MAKERS, "demo"} == set(names())


def test_ids_with_spaces_and_percent_come_back(tmp_path: Path) -> None:
    lists = {"a b/1": ["x y.jpg", "100%.jpg", "tab\tbed", "ü  ü"]}
    path = trec(tmp_path / "r.trec", lists)
    text = path.read_text()
    assert "x%20y.jpg" in text
    assert "100%25.jpg" in text
    assert all(len(line.split(" ")) == 6 for line in text.splitlines())
    assert {q: [r.id for r in rows] for q, rows in read_run(path).rows.items()} == lists


def test_a_run_of_another_benchmark_is_told(tmp_path: Path) -> None:
    sample = cirr(tmp_path / "cirr")
    other = karpathy(tmp_path / "coco")
    run = trec(tmp_path / "r.trec", other.lists)
    with pytest.raises(InputError, match="has no query of cirr val: its ids are like '0'"):
        score_files("cirr", sample.data, [run])
    mixed = trec(tmp_path / "m.trec", {q: ["nobody.jpg", *ids] for q, ids in sample.lists.items()})
    scores = score_files("cirr", sample.data, [mixed])
    assert "1 ids are no image of cirr val" in scores.warnings[-1]
    assert figures(scores)["R@1"] == 0  # a stranger holds the first place


@pytest.mark.parametrize("name", sorted({*MAKERS}))
def test_missing_data_says_how_to_get_it(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="How to get"):
        load_task(name, tmp_path)
    with pytest.raises(InputError, match="there is no folder"):
        load_task(name, tmp_path / "nowhere")
    with pytest.raises(UsageError, match="has no split 'tset'"):
        load_task(name, tmp_path, split="tset")


def test_images_go_by_their_files_too(tmp_path: Path) -> None:
    for name, maker, spelt in (
        ("cirr", cirr, lambda i: f"./dev/{i}.png"),
        ("cirr", cirr, lambda i: f"{i}.png"),
        ("fashioniq", fashioniq, lambda i: f"images/{i}.jpg"),
        ("circo", circo, lambda i: f"{int(i):012d}.jpg"),
    ):
        sample = maker(tmp_path / name)
        want = figures(score_files(name, sample.data, [trec(tmp_path / "a.trec", sample.lists)]))
        lists = {q: [spelt(i) for i in ids] for q, ids in sample.lists.items()}
        assert figures(score_files(name, sample.data, [trec(tmp_path / "b.trec", lists)])) == want
        twice = {q: [*ids, spelt(ids[0])] for q, ids in sample.lists.items()}
        with pytest.raises(InputError, match="twice, under two of its names"):
            score_files(name, sample.data, [trec(tmp_path / "c.trec", twice)])


def test_candidates_of_some_queries_are_not_the_gallery(tmp_path: Path) -> None:
    rows = [{"id": "a", "text": "x", "relevant": ["1.jpg"], "candidates": ["1.jpg", "2.jpg"]},
            {"id": "b", "text": "y", "relevant": ["7.jpg"]}]  # fmt: skip
    (tmp_path / "queries.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    scores = score_files("folder", tmp_path, [trec(tmp_path / "r.trec", {"b": ["8.jpg", "7.jpg", "9.jpg"]})])
    assert figures(scores)["RR"] == 0.25
    assert not scores.warnings


def test_a_folder_is_searched_as_deep_as_its_metrics_look(tmp_path: Path) -> None:
    sample = folder(tmp_path)
    for metrics, depth in (("nDCG@10,R@200,P(rel=2)@5", 200), ("AP,R@5", 1000), ("nDCG,P@2000", 2000)):
        assert load_task("folder", tmp_path, options={"metrics": metrics}).depth == depth
    cut = trec(tmp_path / "r.trec", {q: ids[:3] for q, ids in sample.lists.items()})
    told = score_files("folder", tmp_path, [cut], options={"metrics": "AP,R@5"}).warnings
    assert told[0].startswith("AP: 6 of 6 lists are too short, such as 'q 0' with 3 of the 40 names")
    assert told[1].startswith("R@5: 6 of 6 lists are too short, such as 'q 0' with 3 of the 5 names")
    assert not score_files("folder", tmp_path, [cut], options={"metrics": "R@3"}).warnings
    (tmp_path / "gallery.txt").unlink()
    told = score_files("folder", tmp_path, [cut], options={"metrics": "AP,R@3"}).warnings
    assert "of 6 lists lack some right image" in told[0]
    assert "found in AP; longer lists" in told[0]


def test_a_broken_archive_is_told(tmp_path: Path) -> None:
    sample = cirr(tmp_path)
    for name in ("r.trec.gz", "r.json.gz"):
        whole = gzip.compress(b"x" * 5000)
        (tmp_path / name).write_bytes(whole[:12] + b"\xff" * 9 + whole[21:])
        with pytest.raises(InputError, match="cannot be read"):
            score_files("cirr", sample.data, [tmp_path / name])


def test_a_run_without_answers_is_no_run(tmp_path: Path) -> None:
    cirr(tmp_path)
    (tmp_path / "empty.trec").write_text("")
    bare = dump(tmp_path / "bare.json", {"version": "rc2", "metric": "recall"})
    for path in (tmp_path / "empty.trec", bare):
        with pytest.raises(InputError, match="answers no query"):
            score_files("cirr", tmp_path, [path])


def test_ids_of_another_kind_are_told_where_no_gallery_is_known(tmp_path: Path) -> None:
    for name, maker in (("inquire-fullrank", inquire), ("circo", circo)):
        sample = maker(tmp_path / name)
        strange = {q: [f"photo {i}" for i in ids] for q, ids in sample.lists.items()}
        scores = score_files(name, sample.data, [trec(tmp_path / "s.trec", strange)])
        assert "none of its ids is a right answer" in scores.warnings[-1]
    sample = mmeb(tmp_path / "mmeb")
    strange = {q: [f"photo {i}" for i in ids] for q, ids in sample.lists.items()}
    with pytest.raises(InputError, match="has no image of mmeb test"):
        score_files("mmeb", sample.data, [trec(tmp_path / "m.trec", strange)])


def test_an_option_said_in_two_ways_must_be_the_same(tmp_path: Path) -> None:
    sample = MAKERS["fashioniq"](tmp_path)
    words = ["fashioniq", "--data", sample.data, "--set", "gallery=union", "--gallery"]
    assert "contradict each other" in run("eval", *words, "original", code=2).stderr
    run("eval", *words, "union")
    pair = [trec(tmp_path / f"{n}.trec", sample.lists) for n in "ab"]
    told = run("compare", *pair, "--benchmark", *words, "original", code=2).stderr
    assert "--set gallery=union and --gallery original contradict each other" in told


def test_a_comparison_is_told_once_what_is_right(tmp_path: Path) -> None:
    sample = MAKERS["circo"](tmp_path)
    pair = [trec(tmp_path / f"{n}.trec", sample.lists) for n in "ab"]
    words = ["compare", *pair, "--qrels", tmp_path / "qrels.txt"]
    told = run(*words, "--benchmark", "circo", "--data", sample.data, code=2).stderr
    assert "--qrels and --benchmark both say what is right; give one of them" in told
    told = run(*words, "--data", sample.data, "--split", "val", code=2).stderr
    assert "--data, --split: of a benchmark's files; give --benchmark NAME as well" in told


def test_a_wrong_metric_is_refused_before_a_model_is_asked(tmp_path: Path) -> None:
    sample = MAKERS["folder"](tmp_path)
    words = ["eval", "folder", "--data", sample.data, "--run", trec(tmp_path / "r.trec", sample.lists)]
    words += ["--rerank", "listwise", "--chat", "transformers:/nowhere", "--set"]
    assert "'gnarl@5' is not a metric" in run(*words, "metrics=RR,gnarl@5", code=2).stderr
    assert "ir-measures[pyndeval]" in run(*words, "metrics=alpha_nDCG@5", code=2).stderr
