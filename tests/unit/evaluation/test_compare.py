"""Comparing runs: tests against second implementations, stated error rates, and laws."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mmrerank.benchmark import Measured, Scores
from mmrerank.errors import InputError, UsageError
from mmrerank.evaluation.compare.comparison import Comparison, Difference
from mmrerank.evaluation.compare.compute import compare
from mmrerank.evaluation.compare.intervals import interval, paired
from mmrerank.evaluation.compare.significance import holm, randomisation

FINITE = st.floats(-1, 1, allow_nan=False, width=16)
PS = st.lists(st.floats(0, 1), min_size=1, max_size=8)


def scores(*, missing: tuple[str, ...] = (), **metrics: dict[str, float]) -> Scores:
    return Scores(
        metrics={
            name: Measured(
                name=name,
                values={q: v for q, v in values.items() if q not in missing},
                expected=list(values),
                tie_rule="none",
            )
            for name, values in metrics.items()
        },
        expected=max(map(len, metrics.values())),
        missing=missing,
    )


def ndcg(values: np.ndarray) -> Scores:
    return scores(ndcg={f"q{n:04d}": float(v) for n, v in enumerate(values)})


def only(result: Comparison) -> Difference:
    (difference,) = result.differences
    return difference


# --- the randomisation test ------------------------------------------------------------------------------


@given(st.lists(FINITE, min_size=2, max_size=9))
def test_exact_p_is_scipys_and_that_of_every_sign_pattern(values: list[float]) -> None:
    p = randomisation(values)
    if any(values):
        told = stats.permutation_test(
            (np.asarray(values),), np.sum, permutation_type="samples", n_resamples=2**9, vectorized=True
        )
        assert p == pytest.approx(told.pvalue)
    seen = abs(sum(values)) - 1e-9
    patterns = list(itertools.product((1, -1), repeat=len(values)))
    sums = [abs(sum(s * v for s, v in zip(signs, values, strict=True))) for signs in patterns]
    assert p == pytest.approx(sum(s >= seen for s in sums) / len(patterns))


def test_drawn_p_approaches_the_exact_one() -> None:
    values = np.random.default_rng(5).normal(0.25, 0.5, 12)
    exact = randomisation(values)
    drawn = randomisation(values, draws=4000, seed=1)
    assert 0.02 < exact < 0.6
    assert drawn == pytest.approx(exact, abs=4 * (exact * (1 - exact) / 4000) ** 0.5)
    assert drawn != exact
    assert drawn == randomisation(values, draws=4000, seed=1)


def test_p_has_its_edges() -> None:
    assert randomisation([]) == 1
    assert randomisation([0.0, 0.0]) == 1
    assert randomisation([0.5]) == 1  # both signs are as far from nothing
    assert randomisation([0.1] * 6) == 2 / 64
    assert randomisation(np.ones(100), draws=999) == 1 / 1000  # never 0
    with pytest.raises(ValueError, match="finite"):
        randomisation([float("nan")])
    with pytest.raises(ValueError, match="draws"):
        randomisation([1.0], draws=0)


@given(st.lists(FINITE, min_size=1, max_size=30), st.booleans())
def test_p_does_not_know_the_side(values: list[float], many: bool) -> None:
    draws = 50 if many else 10_000
    p = randomisation(values, draws=draws)
    assert 0 < p <= 1
    assert p == randomisation([-v for v in values], draws=draws)


# --- Holm ------------------------------------------------------------------------------------------------


def rejected_by_steps(ps: list[float], level: float) -> set[int]:
    """Holm's procedure as it is defined: step down until the first p that is too large."""
    out: set[int] = set()
    for place, n in enumerate(sorted(range(len(ps)), key=lambda n: ps[n])):
        if ps[n] > level / (len(ps) - place):
            break
        out.add(n)
    return out


@given(PS, st.sampled_from([0.01, 0.05, 0.2]))
def test_holm_rejects_what_its_definition_rejects(ps: list[float], level: float) -> None:
    corrected = holm(ps)
    if min(abs(c - level) for c in corrected) > 1e-12:  # where rounding cannot decide
        assert {n for n, p in enumerate(corrected) if p <= level} == rejected_by_steps(ps, level)


@given(PS)
def test_holm_keeps_the_order_and_only_raises(ps: list[float]) -> None:
    corrected = holm(ps)
    assert all(p <= c <= 1 for p, c in zip(ps, corrected, strict=True))
    for (a, ca), (b, cb) in itertools.combinations(zip(ps, corrected, strict=True), 2):
        assert (ca <= cb) if a <= b else (cb <= ca)
    assert all(c <= min(1, len(ps) * p) for p, c in zip(ps, corrected, strict=True))


def test_holm_by_hand() -> None:
    assert holm([]) == []
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


# --- what is found, and what is not ----------------------------------------------------------------------


def per_query(rng: np.random.Generator, queries: int, gain: float = 0.0) -> tuple[Scores, Scores]:
    """nDCG as runs have it: spread from 0 to 1, both systems alike, most queries changed by reranking."""
    truth = rng.beta(1.2, 1.1, queries)
    one = np.clip(truth + rng.normal(0, 0.1, queries), 0, 1)
    # the second gains before it is cut off at 1, so that the true difference is a little below `gain`
    other = np.clip(truth + gain + rng.normal(0, 0.1, queries), 0, 1)
    return ndcg(one), ndcg(other)


def test_a_planted_difference_of_two_hundredths_is_found() -> None:
    for seed in range(5):
        rng = np.random.default_rng([seed, 1])
        # a little more before the cut at 0 and 1 gives 0.02 after it
        one, other = per_query(rng, 1000, 0.0225)
        found = only(compare({"old": one, "new": other}, seed=seed))
        assert found.value == pytest.approx(0.02, abs=0.012)
        assert found.verdict == "better"
        assert found.interval[0] > 0
        assert only(compare({"new": other, "old": one}, seed=seed)).verdict == "worse"


def test_false_alarms_stay_within_the_level() -> None:
    level, pairs, alarms = 0.05, 1000, 0
    rng = np.random.default_rng(8)
    for n in range(pairs):
        one, other = (next(iter(s.metrics.values())) for s in per_query(rng, 40))
        gaps = [one.values[q] - other.values[q] for q in one.values]
        alarms += randomisation(gaps, draws=199, seed=n) <= level
    # a rate of exactly 0.05 stays in these bounds with probability 0.999
    low, high = stats.binom.ppf([0.0005, 0.9995], pairs, level)
    assert low <= alarms <= high


@pytest.mark.slow
def test_verdicts_over_null_pairs_keep_the_level() -> None:
    # ten metrics of two equal systems: any false alarm among them is one
    rng = np.random.default_rng(4)
    families, alarms = 60, 0
    for n in range(families):
        one, other = (
            scores(**{f"m{k}": dict(zip("abcdefghijklmnopqrst", row, strict=True))
                      for k, row in enumerate(rng.normal(0.5, 0.2, (10, 20)).tolist())})
            for _ in range(2)
        )  # fmt: skip
        result = compare({"one": one, "other": other}, seed=n, draws=999)
        alarms += any(d.verdict != "not different" for d in result.differences)
    assert alarms <= stats.binom.ppf(0.9995, families, 0.05)


def test_two_equal_runs_are_not_different() -> None:
    one, _ = per_query(np.random.default_rng(0), 50)
    found = only(compare({"a": one, "b": one}))
    assert (found.value, found.interval, found.p, found.p_corrected) == (0.0, (0.0, 0.0), 1.0, 1.0)
    assert found.verdict == "not different"
    assert (found.wins, found.losses, found.ties) == (0, 0, 50)


def test_two_runs_that_do_not_differ_are_called_so() -> None:
    called = []
    for seed in range(12):
        one, other = per_query(np.random.default_rng([seed, 2]), 200)
        called.append(only(compare({"a": one, "b": other}, draws=1000)).verdict)
    assert called.count("not different") >= 10


# --- laws ------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(st.lists(st.tuples(FINITE, FINITE), min_size=2, max_size=25), st.randoms())
def test_order_of_queries_and_sides_change_nothing(rows: list[tuple[float, float]], random: object) -> None:
    names = [f"q{n}" for n in range(len(rows))]
    left = {q: a for q, (a, _) in zip(names, rows, strict=True)}
    right = {q: b for q, (_, b) in zip(names, rows, strict=True)}
    random.shuffle(names)  # type: ignore[attr-defined]
    plain = only(compare({"a": scores(m=left), "b": scores(m=right)}, draws=99))
    mixed = {q: left[q] for q in names}
    again = only(compare({"a": scores(m=mixed), "b": scores(m=right)}, draws=99))
    assert (again.p, again.interval, again.verdict) == (plain.p, plain.interval, plain.verdict)
    back = only(compare({"b": scores(m=right), "a": scores(m=left)}, draws=99))
    assert back.value == pytest.approx(-plain.value)
    assert back.interval == pytest.approx((-plain.interval[1], -plain.interval[0]))
    assert back.p == plain.p
    swap = {"better": "worse", "worse": "better", "not different": "not different"}
    assert back.verdict == swap[plain.verdict]
    assert (back.wins, back.losses) == (plain.losses, plain.wins)


def test_lower_is_better_turns_the_verdict() -> None:
    ranks = {str(n): 10.0 + n % 3 for n in range(40)}
    fewer = {q: v - 2 for q, v in ranks.items()}

    def rank(values: dict[str, float]) -> Scores:
        one = Measured(
            name="MR", values=values, expected=list(ranks), tie_rule="", absent=100.0, lower_is_better=True
        )
        return Scores(metrics={"MR": one}, expected=40)

    result = compare({"old": rank(ranks), "new": rank(fewer)})
    found = only(result)
    assert (found.value, found.verdict, found.wins) == (-2, "better", 40)
    assert set(result.gains("MR", "new").values()) == {2}
    del fewer["0"]  # an absent query counts as the worst
    found = only(compare({"old": rank(ranks), "new": rank(fewer)}))
    assert found.value == pytest.approx((100 - 10 - 2 * 39) / 40)
    assert (found.wins, found.losses) == (39, 1)


def test_absent_queries_count_as_nothing_on_both_sides() -> None:
    values = {"a": 0.5, "b": 0.25, "c": 1.0}
    result = compare({"all": scores(m=values), "some": scores(m=values, missing=("c",))})
    found = only(result)
    assert found.value == pytest.approx(-1 / 3)
    assert (found.wins, found.losses, found.ties) == (0, 1, 2)
    one = result.value("m", "some")
    assert (one.missing, one.value, one.value_scored) == (1, 0.25, 0.375)
    assert one.by_query == {"a": 0.5, "b": 0.25, "c": 0.0}
    both = {n: scores(m=values, missing=("c",)) for n in "xy"}
    assert only(compare(both)).value == 0
    assert any("3 queries and 1 comparison(s)" in w for w in result.warnings)


def test_parts_weigh_the_same_whatever_their_size() -> None:
    base = {f"q{n}": 0.5 for n in range(30)}
    new = {q: v + (0.3 if n < 10 else -0.15) for n, (q, v) in enumerate(base.items())}
    parts = {"few": [f"q{n}" for n in range(10)], "many": [f"q{n}" for n in range(10, 30)]}

    def split(values: dict[str, float]) -> Scores:
        one = Measured(name="m", values=values, expected=list(base), tie_rule="", parts=parts)
        return Scores(metrics={"m": one}, expected=30)

    found = only(compare({"old": split(base), "new": split(new)}))
    assert found.value == pytest.approx((0.3 - 0.15) / 2)
    # within a part all differences are the same: nothing is uncertain about the means
    assert found.interval == pytest.approx((0.075, 0.075))
    gaps = [0.3 / 10] * 10 + [-0.15 / 20] * 20
    assert found.p == pytest.approx(randomisation(gaps), abs=0.02)


def test_all_pairs_groups_and_plain_data() -> None:
    rng = np.random.default_rng(1)
    queries = [f"q{n}" for n in range(24)]
    runs = {
        name: scores(**{m: dict(zip(queries, rng.random(24), strict=True)) for m in ("x", "y")})
        for name in ("a", "b", "c")
    }
    kinds = {q: "count" if n % 2 else "place" for n, q in enumerate(queries[:20])}
    result = compare(
        runs,
        baseline="b",
        metrics=["y", "x"],
        categories={"kind": kinds},
        seen={q: n < 6 for n, q in enumerate(queries)},
        all_pairs=True,
    )
    assert result.metrics == ("y", "x")
    assert [(d.baseline, d.run) for d in result.differences[:3]] == [
        ("b", "a"), ("b", "c"), ("a", "c"),
    ]  # fmt: skip
    assert len(result.differences) == 6
    assert [d.p_corrected for d in result.differences] == holm([d.p for d in result.differences])
    assert result.groupings == ("kind", "seen")
    assert result.challengers == ("a", "c")
    told = {(g.grouping, g.name): g.queries for g in result.groups}
    assert told == {("kind", "count"): 10, ("kind", "place"): 10, ("seen", "seen"): 6, ("seen", "novel"): 18}
    assert next(g.name for g in result.groups if g.grouping == "seen") == "seen"
    for group in result.groups:
        values = result.value(group.metric, group.run).by_query
        base = result.value(group.metric, "b").by_query
        if group.name == "place":
            asked = queries[0:20:2]
            assert group.value == pytest.approx(np.mean([values[q] for q in asked]))
            assert group.difference == pytest.approx(np.mean([values[q] - base[q] for q in asked]))
            assert group.interval[0] <= group.difference <= group.interval[1]
    assert "kind: 4 of 24 queries are in no group" in result.warnings
    body = json.loads(json.dumps(result.to_dict()))
    assert (body["baseline"], body["comparisons"], len(body["groups"])) == ("b", 6, 24)
    assert result.difference("x", "b") is None
    assert result.difference("x", "a") == next(
        d for d in result.differences if (d.metric, d.run) == ("x", "a")
    )


def test_what_cannot_be_compared_is_told() -> None:
    one = scores(m={"a": 1.0, "b": 0.0})
    with pytest.raises(UsageError, match="at least two runs, not 1"):
        compare({"x": one})
    with pytest.raises(UsageError, match="one of x, y, not 'z'"):
        compare({"x": one, "y": one}, baseline="z")
    with pytest.raises(UsageError, match="metrics m, not 'n'"):
        compare({"x": one, "y": one}, metrics=["n"])
    with pytest.raises(UsageError, match="between 0 and 1"):
        compare({"x": one, "y": one}, level=5)
    with pytest.raises(InputError, match="different queries"):
        compare({"x": one, "y": scores(m={"a": 1.0})})
    with pytest.raises(InputError, match="no metric in common"):
        compare({"x": one, "y": scores(n={"a": 1.0})})
    with pytest.raises(InputError, match="no query"):
        compare({"x": scores(m={}), "y": scores(m={})})
    other = dataclasses.replace(one.metrics["m"], absent=3.0)
    with pytest.raises(InputError, match="different ways"):
        compare({"x": one, "y": Scores(metrics={"m": other}, expected=2)})
    parted = dataclasses.replace(one.metrics["m"], parts={"p": ["a", "b"]})
    with pytest.raises(InputError, match="different parts"):
        compare({"x": one, "y": Scores(metrics={"m": parted}, expected=2)})
    ties = dataclasses.replace(one.metrics["m"], tie_rule="by id")
    told = compare({"x": one, "y": Scores(metrics={"m": ties}, expected=2)}).warnings
    assert any("ties were ordered differently: by id, none" in w for w in told)


def test_many_comparisons_get_the_draws_they_need() -> None:
    one = scores(**{f"m{n}": {"a": 0.0, "b": 1.0} for n in range(300)})
    assert compare({"x": one, "y": one}).draws == 12_000
    # and no more than end in a minute: then that is said
    rng = np.random.default_rng(0)
    less = compare({"x": ndcg(rng.random(60)), "y": ndcg(rng.random(60))}, level=1e-5, draws=9999)
    assert "with 9,999 draws and 1 comparison(s) no difference can reach" in less.warnings[0]
    assert compare({"x": one, "y": one}, level=1e-9).draws == 1_000_000


def test_intervals_are_scipys() -> None:
    values = np.random.default_rng(3).beta(2, 3, 40)
    told = stats.bootstrap((values,), np.mean, method="percentile", rng=1).confidence_interval
    assert interval(values) == pytest.approx(tuple(told), abs=0.004)


@given(st.lists(FINITE, min_size=1, max_size=20))
@settings(max_examples=20)
def test_intervals_lie_within_the_values(values: list[float]) -> None:
    low, high = interval(values, resamples=200)
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9
    same = dict(enumerate(values))
    assert paired(same, same)[0] == 0  # type: ignore[arg-type]
