"""Metrics against a second implementation, intervals, and the picture book as a benchmark."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mmrerank
from mmrerank.benchmark import Run
from mmrerank.chat.fakes.oracle import Oracle
from mmrerank.cli.main import cli
from mmrerank.errors import UsageError
from mmrerank.evaluation.compare.intervals import interval, paired
from mmrerank.evaluation.measure.metrics import by_query, in_order, mean
from mmrerank.evaluation.measure.runs import read_qrels, read_run
from mmrerank.picturebook.benchmark import METRICS, UNMATCHED
from mmrerank.picturebook.export import evaluation_queries, evaluation_scenes, name_of
from mmrerank.picturebook.queries import Truth, make_unmatched
from mmrerank.picturebook.world import stream

SEED, SCENES, QUERIES = 11, 420, 7


def ranked(rows: dict[str, list[str]]) -> Run:
    return Run(rows={q: in_order(ids) for q, ids in rows.items()})


def ndcg(order: list[str], judged: dict[str, int]) -> float:
    def total(grades: list[int]) -> float:
        return sum((2**g - 1) / math.log2(n + 2) for n, g in enumerate(grades[:10]))

    ideal = total(sorted(judged.values(), reverse=True))
    return total([judged.get(i, 0) for i in order]) / ideal if ideal else 0.0


@given(
    st.lists(st.sampled_from("abcdefghijklmnop"), unique=True, max_size=14),
    st.dictionaries(st.sampled_from("abcdefghijklmnop"), st.integers(0, 3), min_size=1),
)
def test_figures_are_those_of_the_definition(order: list[str], judged: dict[str, int]) -> None:
    found = by_query(ranked({"q": order}), {"q": judged}, METRICS)
    assert found["nDCG@10"]["q"] == pytest.approx(ndcg(order, judged))
    top = order[0] if order else ""
    assert found["P@1"]["q"] == float(judged.get(top, 0) == 3)


def test_a_missing_query_counts_as_nothing() -> None:
    qrels = {"one": {"a": 3}, "two": {"a": 3}}
    found = by_query(ranked({"one": ["a"]}), qrels, METRICS)["P@1"]
    assert found == {"one": 1.0, "two": 0.0}
    assert mean(found) == 0.5
    assert mean({}) == 0
    with pytest.raises(UsageError, match="'nonsense@' is not a metric"):
        by_query(ranked({}), qrels, {"x": "nonsense@"})


def test_intervals_hold_the_mean_and_know_no_difference() -> None:
    values = list(np.random.default_rng(3).normal(0.4, 0.1, 60))
    low, high = interval(values)
    assert low < sum(values) / len(values) < high
    assert 0.02 < high - low < 0.1  # four standard errors of 0.1 / sqrt(60)
    assert interval(values) == (low, high)
    same = {str(n): v for n, v in enumerate(values)}
    assert paired(same, same) == (0.0, (0.0, 0.0))
    better = {q: v + 0.1 for q, v in same.items()}
    gain, (low, high) = paired(better, same)
    assert gain == pytest.approx(0.1)
    assert low == pytest.approx(0.1)
    with pytest.raises(ValueError, match="same queries"):
        paired(same, {"other": 1.0})


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    """Knows the world of `SEED` and answers by its truth."""
    scenes = evaluation_scenes(SEED, SCENES)
    truth = Truth(scenes)
    asked = evaluation_queries(SEED, scenes, QUERIES, truth)
    rng = stream("evaluation", SEED + 2_000_003)
    known = {q.id: q for q in (*asked, *make_unmatched(scenes, UNMATCHED, rng, "evaluation"))}
    grades = {q: truth.grades(known[q].facts) for q in known}
    places = {name_of(SEED, n): n for n in range(SCENES)}
    return Oracle(
        lambda query, id: int(grades[query.id][places[id]]),
        lambda query: [{"kind": f.kind, "text": f.text} for f in known[query.id].facts],
    )


@pytest.mark.slow
def test_the_truth_reaches_the_ceiling(oracle: Oracle, tmp_path: Path) -> None:
    found = mmrerank.evaluate(
        "demo",
        options={"seed": SEED, "scenes": SCENES, "queries": QUERIES},
        methods=["cotrr", "pointwise"],
        chat=oracle,
        runs=tmp_path / "runs",
    )
    body = found.to_dict()
    assert "(ceiling)" in str(found)
    assert "decomposed exactly" in found._repr_html_()
    assert list(found.to_pandas()["method"]) == ["none", "cotrr", "pointwise"]
    rows, ceiling = body["methods"], body["ceiling"]
    assert list(rows) == ["none", "cotrr", "pointwise"]
    for method in ("cotrr", "pointwise"):
        assert rows[method]["nDCG@10"] == ceiling["nDCG@10"]
        assert rows[method]["P@1"] == ceiling["P@1"]
        assert rows[method]["P@1_where_possible"] == 1
        assert rows[method]["failed"] == 0
    assert body["random"]["nDCG@10"] < rows["none"]["nDCG@10"] < ceiling["nDCG@10"]
    assert rows["cotrr"]["gain"]["nDCG@10"]["value"] == pytest.approx(
        ceiling["nDCG@10"] - rows["none"]["nDCG@10"], abs=2e-4
    )
    assert rows["none"]["gain"]["nDCG@10"] == {"value": 0.0, "ci": [0.0, 0.0]}
    assert body["sum_of_verdicts"]["nDCG@10"] > rows["none"]["nDCG@10"]
    assert len(rows["cotrr"]["by_category"]) == QUERIES  # one query of each category
    assert rows["cotrr"]["usage"]["calls"] == QUERIES * 22
    assert body["deconstruction"]["seen"] in (1.0, None)
    assert body["no_match"]["balanced_accuracy"] > 0.9
    assert {"all", "place"} <= body["verdicts"].keys()

    qrels = read_qrels(tmp_path / "runs/qrels.txt")
    again = by_query(read_run(tmp_path / "runs/cotrr.trec"), qrels, METRICS)
    assert round(mean(again["nDCG@10"]), 4) == rows["cotrr"]["nDCG@10"]
    told = [json.loads(line) for line in (tmp_path / "runs/cotrr.jsonl").open(encoding="utf-8")]
    assert len(told) == QUERIES
    assert all(t["components"] and t["hits"][0]["verdicts"] for t in told)


def test_a_wrong_method_is_told_before_anything_is_drawn() -> None:
    with pytest.raises(UsageError, match="cotrrr"):
        mmrerank.evaluate("demo", methods=["cotrrr"])


@pytest.mark.slow
def test_the_command_prints_figures(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # journals go below the working directory
    arguments = ["eval", "demo", "--scenes", "420", "--queries", "7", "--methods", "none"]
    runs = tmp_path / "runs-of-30"
    for extra in ([], ["--output", "json", "--candidates", "30", "--runs", str(runs)]):
        with pytest.raises(SystemExit) as end:
            cli([*arguments, *extra], prog_name="mmrerank")
        assert end.value.code == 0
        shown = capsys.readouterr().out
        if extra:
            body = json.loads(shown)
            assert body["verdicts"] is None
            assert body["candidates"] == 30
            rows = read_run(runs / "none.trec").rows
            assert {len(row) for row in rows.values()} == {30}
            assert body["methods"]["none"]["usage"]["calls"] == 0
            assert set(body["methods"]["none"]["by_category"]) >= {"binding", "composed"}
        else:
            assert "(ceiling)" in shown
            assert "demo all, seed 0, scenes 420: 7 queries; the first 20 candidates" in shown
