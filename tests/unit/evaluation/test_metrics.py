"""Every metric against a second computation: pytrec_eval, ranx, scikit-learn, or the definition itself."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrerank.benchmark import Ranked, Run, Scored
from mmrerank.errors import InputError, UsageError
from mmrerank.evaluation.measure.metrics import METRICS, in_order, measure, parse, split_names
from mmrerank.evaluation.measure.runs import read_run, write_qrels
from mmrerank.evaluation.score import score

Rows = dict[str, list[tuple[str, float]]]
Qrels = dict[str, dict[str, int]]


def a_run(seed: int, *, ties: bool = True, queries: int = 40) -> tuple[Rows, Qrels]:
    """Random lists of 1 to 60 documents; one query in five is not answered, one in eight has nothing right
    in its list, grades are 0 to 3, and not every right document is listed."""
    rng = np.random.default_rng(seed)
    rows: Rows = {}
    qrels: Qrels = {}
    for n in range(queries):
        docs = [f"d{i}" for i in rng.permutation(90)]
        length = int(rng.integers(1, 61))
        judged = {d: int(rng.integers(0, 4)) for d in rng.choice(docs, int(rng.integers(1, 30)))}
        if n % 8 == 0:
            judged = {d: g for d, g in judged.items() if d not in docs[:length]}
        judged[docs[-1]] = 1
        qrels[f"q{n}"] = judged
        if n % 5 == 0:
            continue
        scores = rng.integers(-3, 4, length).astype(float) / 2 if ties else rng.permutation(length) / 64 - 0.3
        rows[f"q{n}"] = list(zip(docs[:length], map(float, scores), strict=True))
    return rows, qrels


def write(path: Path, rows: Rows) -> Path:
    """As a run of another tool: unsorted lines, ties kept."""
    lines = []
    for query, docs in rows.items():
        order = sorted(range(len(docs)), key=lambda n: (-docs[n][1], n))
        ranks = {n: place + 1 for place, n in enumerate(order)}
        lines += [f"{query} Q0 {d} {ranks[n]} {s!r} x\n" for n, (d, s) in enumerate(docs)]
    path.write_text("".join(lines))
    return path


def sorted_docs(docs: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    return sorted(docs, key=lambda pair: -pair[1])  # stable: the order of the lines


def expected_means(values: Mapping[str, float], qrels: Qrels) -> tuple[float, float]:
    return sum(values.values()) / len(qrels), sum(values.values()) / len(values)


TREC = {
    "nDCG": "ndcg", "nDCG@5": "ndcg_cut_5", "nDCG@10": "ndcg_cut_10", "AP": "map", "AP@10": "map_cut_10",
    "RR": "recip_rank", "R@5": "recall_5", "R@20": "recall_20", "P@1": "P_1", "P@10": "P_10",
    "Success@1": "success_1", "Success@5": "success_5", "Rprec": "Rprec",
}  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_trec_metrics_are_pytrec_evals(tmp_path: Path, seed: int) -> None:
    import pytrec_eval

    rows, qrels = a_run(seed)
    judge = pytrec_eval.RelevanceEvaluator(
        qrels, {"ndcg", "ndcg_cut.5,10", "map", "map_cut.10", "recip_rank", "recall.5,20", "P.1,10",
                "success.1,5", "Rprec"},
    )  # fmt: skip
    told = judge.evaluate({q: dict(docs) for q, docs in rows.items()})
    scores = score(write(tmp_path / "run.trec", rows), qrels, list(TREC)).scores
    assert scores.expected == 40
    assert len(scores.missing) == 8
    for name, key in TREC.items():
        want = {q: told[q][key] for q in rows}
        assert scores.metrics[name].values == pytest.approx(want, abs=1e-9), name
        whole, answered = expected_means(want, qrels)
        assert scores.metrics[name].value == pytest.approx(whole, abs=1e-9)
        assert scores.metrics[name].value_scored == pytest.approx(answered, abs=1e-9)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_metrics_without_ties_are_ranxs(tmp_path: Path) -> None:
    import ranx

    rows, qrels = a_run(7, ties=False)
    names = {
        "ndcg@10": "nDCG@10", "map": "AP", "map@10": "AP@10", "mrr": "RR", "mrr@5": "RR@5",
        "recall@20": "R@20", "precision@10": "P@10", "hit_rate@5": "Success@5", "r-precision": "Rprec",
    }  # fmt: skip
    only = {q: {d: g for d, g in qrels[q].items() if g > 0} for q in rows}
    told = ranx.evaluate(
        ranx.Qrels(only),
        ranx.Run({q: dict(docs) for q, docs in rows.items()}),
        list(names),
        return_mean=False,
    )
    order = ranx.Qrels(only).qrels.keys()
    scores = score(write(tmp_path / "run.trec", rows), qrels, list(names.values())).scores
    for theirs, ours in names.items():
        want = dict(zip(order, map(float, told[theirs]), strict=True))
        assert scores.metrics[ours].values == pytest.approx(want, abs=1e-9), ours


def sklearn_ap(y_true: list[int], y_score: list[float], positives: int, k: int) -> float:
    from sklearn.metrics import average_precision_score

    labels, scores = np.array(y_true[:k]), np.array(y_score[:k])
    raw = average_precision_score(labels, scores) if labels.sum() else 0.0
    return float(raw * labels.sum() / min(positives, k))


def sklearn_ndcg(y_true: list[int], y_score: list[float], positives: int) -> float:
    from sklearn.metrics import ndcg_score

    unlisted = positives - sum(y_true)
    lowest = min(y_score) - 1  # INQUIRE has -100, which our scores need not respect
    if len(y_true) + unlisted < 2:
        return float(sum(y_true))  # scikit-learn refuses a single document
    return float(ndcg_score([y_true + [1] * unlisted], [y_score + [lowest] * unlisted], k=len(y_true)))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("k", [None, 5, 50])
def test_inquire_metrics_are_scikit_learns(tmp_path: Path, seed: int, k: int | None) -> None:
    rows, qrels = a_run(seed)
    binary = {q: {d: int(g > 0) for d, g in judged.items()} for q, judged in qrels.items()}
    at = "" if k is None else f"@{k}"
    names = [f"INQUIRE_AP{at}", f"INQUIRE_nDCG{at}", f"INQUIRE_MRR{at}"]
    scores = score(write(tmp_path / "run.trec", rows), binary, names).scores
    for query, docs in rows.items():
        listed = sorted_docs(docs)[:k]
        labels = [binary[query].get(d, 0) for d, _ in listed]
        values = [s for _, s in listed]
        positives = sum(binary[query].values())
        ap = sklearn_ap(labels, values, positives, k or len(labels))
        assert scores.metrics[names[0]].values[query] == pytest.approx(ap, abs=1e-9)
        if k is None or len(labels) == k:  # the benchmark's own k is the length of the list
            ndcg = sklearn_ndcg(labels, values, positives)
            assert scores.metrics[names[1]].values[query] == pytest.approx(ndcg, abs=1e-9)
        first = next((1 / r for r, hit in enumerate(labels, 1) if hit), 0.0)
        assert scores.metrics[names[2]].values[query] == pytest.approx(first, abs=1e-9)


def by_hand(name: str, docs: list[str], judged: dict[str, int], k: int) -> float:
    """The other metrics by their definitions, with a set of the right ones and a loop."""
    right = {d for d, g in judged.items() if g > 0}
    head = docs[:k]
    fresh = [d not in docs[:n] for n, d in enumerate(head)]
    precision = len(right & set(head)) / k
    recall = len(right & set(head)) / len(right)
    if name == "Hit":
        return float(bool(right & set(head)))
    if name == "Precision":
        return precision
    if name == "Recall":
        return recall
    if name == "F1":
        return 0.0 if not precision + recall else 2 * precision * recall / (precision + recall)
    if name == "MRR":
        return max((1 / (head.index(d) + 1) for d in right & set(head)), default=0.0)
    if name == "AP_min":
        hits = [n for n, d in enumerate(head) if d in right and fresh[n]]
        total = sum((i + 1) / (n + 1) for i, n in enumerate(hits))
        return total / min(len(right), k)
    gain: Callable[[int], float] = (lambda g: g) if name.endswith("linear") else (lambda g: 2**g - 1)
    got = sum(gain(judged.get(d, 0)) / math.log2(n + 2) for n, d in enumerate(head) if fresh[n])
    best = sorted((gain(g) for g in judged.values()), reverse=True)[:k]
    return got / sum(g / math.log2(n + 2) for n, g in enumerate(best))


@given(
    st.lists(st.sampled_from("abcdefghij"), max_size=14),
    st.dictionaries(st.sampled_from("abcdefghijkl"), st.integers(0, 3), min_size=1).filter(
        lambda judged: any(judged.values())
    ),
    st.integers(1, 15),
)
def test_list_metrics_are_their_definitions(docs: list[str], judged: dict[str, int], k: int) -> None:
    own = [n for n, m in METRICS.items() if m.compute and not n.startswith("INQUIRE")]
    assert len(own) == 8
    run = Run(rows={"q": in_order(docs)})  # documents may be listed again, and lists be empty
    for name in own:
        found = measure(run, {"q": judged}, [f"{name}@{k}"])[f"{name}@{k}"]
        assert found.values["q"] == pytest.approx(by_hand(name, docs, judged, k), abs=1e-9), name
        assert 0 <= found.value <= 1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 2), min_size=1, max_size=6),
    st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 2), min_size=1),
)
def test_tie_bounds_are_those_of_every_order(scores: list[int], judged: dict[str, int]) -> None:
    judged["z"] = 1
    docs = "abcdef"[: len(scores)]
    rows = {"q": [Scored(d, float(s)) for d, s in zip(docs, scores, strict=True)]}
    rows["q"].sort(key=lambda row: -row.score)
    names = ["nDCG@3", "AP", "RR", "R@2", "P@2", "INQUIRE_AP", "INQUIRE_nDCG", "AP_min@3", "Hit@1"]
    found = measure(Run(rows=rows), {"q": judged}, names, tie_bounds=True)
    groups = [list(g) for _, g in itertools.groupby(rows["q"], key=lambda row: row.score)]
    orders = [
        in_order([row.id for group in order for row in group])
        for order in itertools.product(*(itertools.permutations(g) for g in groups))
    ]
    for name in names:
        every = [measure(Run(rows={"q": o}), {"q": judged}, [name])[name].values["q"] for o in orders]
        bounds = found[name].bounds
        assert bounds == pytest.approx((min(every), max(every)), abs=1e-9), name
        if name != "INQUIRE_AP":  # right ones that enter together may beat every order of them
            assert min(every) - 1e-9 <= found[name].value <= max(every) + 1e-9, name


def test_scores_below_minus_100_are_scores() -> None:
    ranked = Ranked(["a", "b"], [-200.0, -300.0])
    found = measure(Run(rows={"q": ranked}), {"q": {"b": 1, "c": 1}}, ["INQUIRE_nDCG"])
    ideal = 1 + 1 / math.log2(3)
    assert found["INQUIRE_nDCG"].values["q"] == pytest.approx((1 / math.log2(3)) / ideal)


def test_r_is_counted_outside_the_list() -> None:
    """Counting positives inside the list alone would flatter a short list."""
    qrels = {"q": {f"d{n}": 1 for n in range(10)}}
    found = measure(Run(rows={"q": in_order(["d0", "x", "d1"])}), qrels, ["INQUIRE_AP", "AP"])
    assert found["INQUIRE_AP"].value == pytest.approx((1 + 2 / 3) / 3)  # min(R, k) is the list's length
    assert found["AP"].value == pytest.approx((1 + 2 / 3) / 10)


def test_a_list_and_a_missing_query_differ() -> None:
    qrels = {"one": {"a": 1}, "two": {"a": 1}, "three": {"a": 1}}
    run = Run(rows={"one": in_order(["a"]), "two": in_order([])})
    for name in ("nDCG@10", "Hit@1", "INQUIRE_AP", "P(rel=1)@1"):
        found = measure(run, qrels, [name])[name]
        assert (found.value, found.value_scored) == (pytest.approx(1 / 3), pytest.approx(1 / 2)), name


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("R", "needs a cut-off"),
        ("Rprec@5", "takes no cut-off"),
        ("nDCG@0", "at least 1"),
        ("nDGC@10", "Did you mean nDCG"),
        ("nonsense(", "is not a metric"),
    ],
)
def test_a_wrong_metric_is_named(name: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        measure(Run(rows={"q": in_order(["a"])}), {"q": {"a": 1}}, [name])


def test_names_are_split_outside_brackets() -> None:
    assert split_names("nDCG@10, P(rel=2, judged_only=True)@5 RR") == [
        "nDCG@10", "P(rel=2, judged_only=True)@5", "RR",
    ]  # fmt: skip
    assert parse("P(rel=2)@5") is None


def test_a_run_of_other_queries_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "run.trec", {"x1": [("a", 1.0)]})
    with pytest.raises(InputError, match=r"no query of the qrels.*'x1'.*'q1'"):
        score(path, {"q1": {"a": 1}}, ["RR"])
    more = write(tmp_path / "more.trec", {"x1": [("a", 1.0)], "q1": [("a", 1.0)]})
    scores = score(more, {"q1": {"a": 1}}, ["RR"]).scores
    assert "1 queries are not in the qrels" in scores.warnings[0]


def test_raw_scores_keep_ties_that_a_run_cannot_say(tmp_path: Path) -> None:
    from mmrerank.evaluation.measure.runs import write_run

    rows = {"q": (*in_order(["a"]), Scored("b", 0.5), Scored("c", 0.5))}
    write_run(tmp_path / "run.trec", Run(rows=rows), raw=tmp_path / "raw.jsonl")
    qrels = {"q": {"c": 1}}
    strict = score(tmp_path / "run.trec", qrels, ["INQUIRE_AP"]).scores
    tied = score(tmp_path / "raw.jsonl", qrels, ["INQUIRE_AP"]).scores
    assert strict.metrics["INQUIRE_AP"].value == pytest.approx(1 / 3)
    assert tied.metrics["INQUIRE_AP"].value == pytest.approx(1 / 3)
    assert tied.metrics["INQUIRE_AP"].values.keys() == {"q"}
    half = score(tmp_path / "raw.jsonl", {"q": {"b": 1}}, ["INQUIRE_AP", "RR"]).scores
    assert half.metrics["INQUIRE_AP"].value == pytest.approx(1 / 3)  # with c, not before it
    (tmp_path / "bad.jsonl").write_text('{"query": "q", "id": "a", "score": NaN}\n')
    with pytest.raises(InputError, match="line 1: the score nan is not finite"):
        score(tmp_path / "bad.jsonl", qrels, ["RR"])


def test_what_is_written_is_scored_in_our_order_by_trec_eval(tmp_path: Path) -> None:
    """Equal scores, and scores that only double precision tells apart, must not be reordered by id."""
    from mmrerank.evaluation.measure.runs import write_run

    near = [Scored("a", 1.0 + 1e-12), Scored("b", 1.0), Scored("c", 1.0), Scored("d", 1.0 - 1e-12)]
    write_run(tmp_path / "run.trec", Run(rows={"q": near}))
    write_qrels(tmp_path / "qrels.txt", {"q": {"b": 1}})
    scores = score(tmp_path / "run.trec", {"q": {"b": 1}}, ["RR", "MRR"]).scores
    assert scores.metrics["RR"].value == scores.metrics["MRR"].value == 0.5
    assert [r.id for r in read_run(tmp_path / "run.trec").rows["q"]] == ["a", "b", "c", "d"]


FOREIGN = {
    # name: value, rule for equal scores, whether it is a fraction (by hand, or by `ir_measures` itself)
    "ERR@10": (0.234375, "descending document id (gdeval)", True),
    "NumRel": (1.5, "the order does not count", False),
    "NumRet": (2.0, "the order does not count", False),
    "SetP": (2 / 3, "the order does not count", True),
    "Judged@10": (2.5 / 3, "ascending document id", True),
    "RR(rel=2)@10": (0.5, "ascending document id", True),
    "Compat(p=0.9)": (None, "ascending document id", True),
    "infAP": (0.5, "(trec_eval)", True),
}


@pytest.fixture
def tied(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A run with equal scores, its qrels, and qrels with a grade that gdeval does not take."""
    run, qrels, high = (tmp_path / n for n in ("run.trec", "qrels.txt", "high.txt"))
    run.write_text("q1 Q0 b 1 2 t\nq1 Q0 a 2 2 t\nq1 Q0 z 3 1 t\nq2 Q0 c 1 1 t\n")
    qrels.write_text("q1 0 a 1\nq1 0 b 0\nq2 0 c 3\nq2 0 d 1\n")
    high.write_text("q1 0 a 5\nq2 0 c 3\n")
    return run, qrels, high


def test_metrics_of_other_tools_with_their_own_rules(tied: tuple[Path, Path, Path]) -> None:
    found = score(tied[0], tied[1], list(FOREIGN)).metrics
    for name, (value, rule, fraction) in FOREIGN.items():
        assert value is None or found[name].value == pytest.approx(value, abs=1e-4), name
        assert rule in found[name].tie_rule, name
        assert found[name].is_fraction is fraction, name
    shown = str(score(tied[0], tied[1], ["NumRel", "SetP"]))
    assert "1.5000" in shown
    assert "150" not in shown
    assert "66.67 %" in shown


def test_an_error_of_one_tool_is_an_error_of_one_metric(tied: tuple[Path, Path, Path]) -> None:
    run, _, high = tied
    found = score(run, high, "nDCG@10,ERR@10")
    assert list(found.metrics) == ["nDCG@10"]
    assert found.scores.failed == {
        "ERR@10": "gdeval cannot compute it: it takes grades up to 4, and the qrels have 5"
    }
    assert any(w.startswith("ERR@10 is left out: gdeval") for w in found.warnings)
    assert found.to_dict()["failed_metrics"].keys() == {"ERR@10"}
    with pytest.raises(InputError, match="ERR@10: gdeval cannot compute it"):
        score(run, high, "ERR@10")


def test_whatever_a_tool_raises_is_named(
    tied: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import ir_measures

    def broken(*_: object) -> None:
        raise AssertionError("something inside")

    monkeypatch.setattr(ir_measures.providers.registry["judged"], "iter_calc", broken)
    found = score(tied[0], tied[1], "RR,Judged@10")
    assert found.scores.failed == {"Judged@10": "judged cannot compute it: AssertionError: something inside"}
    nothing = [ir_measures.Metric("q1", ir_measures.parse_measure("Judged@10"), math.nan)]
    monkeypatch.setattr(ir_measures.providers.registry["judged"], "iter_calc", lambda *_: nothing)
    failed = score(tied[0], tied[1], "RR,Judged@10").scores.failed
    assert failed == {"Judged@10": "judged gives no number for 1 of 2 queries, such as 'q1'"}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("P(rel=2)@0", "the cut-off of P(rel=2)@0 must be from 1"),  # its tool would end the process
        ("P(rel=0)@1", "rel of P(rel=0)@1 must be from 1"),
        ("alpha_nDCG@10", "pip install ir-measures[pyndeval]"),
        ("SDCG@10", "'SDCG@10' is not a metric: the parameter max_rel must be given"),
        ("RBP(p=0.8)", "with these parameters; cwl_eval computes RBP(rel=REQUIRED"),
        ("P(foo=1)@1", "unsupported params"),
        ("nothing@3", "is not a metric"),
    ],
)
def test_wrong_metrics_of_other_tools_are_refused(
    tied: tuple[Path, Path, Path], name: str, told: str
) -> None:
    with pytest.raises(UsageError) as caught:
        score(tied[0], tied[1], ["RR", name])
    assert told in str(caught.value)


def test_a_tool_whose_installation_is_broken_is_named(
    tied: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import ir_measures

    def broken() -> bool:
        raise ValueError("numpy.dtype size changed")

    monkeypatch.setattr(ir_measures.providers.registry["judged"], "is_available", broken)
    with pytest.raises(
        UsageError, match=r"judged \(its installation is broken: ValueError: numpy.dtype size"
    ):
        score(tied[0], tied[1], "RR,Judged@10")


def test_a_count_without_answers_is_no_percentage(tied: tuple[Path, Path, Path]) -> None:
    from typer.testing import CliRunner

    from mmrerank.cli.main import cli

    run, _, high = tied
    done = CliRunner().invoke(cli, ["score", str(run), "--qrels", str(high), "--metrics", "NumRet,ERR@10"])
    assert done.exit_code == 7
    assert "2.0000" in done.output
    assert "200.00 %" not in done.output
    assert "ERR@10 is left out" in done.output
