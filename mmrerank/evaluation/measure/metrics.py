"""Metrics by query over runs and qrels: trec_eval's, those of image-search benchmarks that differ, any other.

`METRICS` holds every metric by its plain name, with its tie rule; a name may carry a cut-off (``nDCG@10``).
trec_eval's are computed by pytrec_eval, expressions with arguments (``P(rel=3)@1``) by ir-measures, the
rest here. A query of the qrels that a run lacks has no value: see `mmrerank.benchmark.Measured`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mmrerank.benchmark import Measured, Qrels, Ranked, Run, Scored
from mmrerank.errors import InputError, UsageError
from mmrerank.evaluation.measure.foreign import TREC_TIES, expression, foreign
from mmrerank.evaluation.measure.list_metrics import (
    LIST_TIES,
    Judged,
    Listed,
    ap_min,
    hit,
    inquire_ap,
    inquire_ndcg,
    list_f1,
    list_ndcg,
    list_precision,
    list_recall,
    reciprocal_rank,
)
from mmrerank.evaluation.measure.short import Room, by_metric

Values = Mapping[str, float]
"""A metric's value by query id."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric by name. ``cutoff`` says whether ``@k`` is needed, allowed or absent.

    Ours have ``compute(listed, k)``, with k None for the whole list; trec_eval's have its names, ``trec``
    without a cut-off and ``trec_cut`` with one.
    """

    name: str
    about: str
    tie_rule: str
    cutoff: str = "allowed"
    trec: str = ""
    trec_cut: str = ""
    compute: Callable[[Listed, int | None], float] | None = None


_INQUIRE = "scikit-learn's"
METRICS: Mapping[str, Metric] = {
    m.name: m
    for m in (
        Metric(name="nDCG", about="normalised discounted cumulative gain, linear gains",
               tie_rule=TREC_TIES, trec="ndcg", trec_cut="ndcg_cut"),
        Metric(name="AP", about="average precision over all R relevant documents",
               tie_rule=TREC_TIES, trec="map", trec_cut="map_cut"),
        Metric(name="RR", about="one over the rank of the first relevant document",
               tie_rule=TREC_TIES, trec="recip_rank", trec_cut="recip_rank"),
        Metric(name="R", about="share of the relevant documents within k", cutoff="needed",
               tie_rule=TREC_TIES, trec_cut="recall"),
        Metric(name="P", about="share of relevant documents among the first k", cutoff="needed",
               tie_rule=TREC_TIES, trec_cut="P"),
        Metric(name="Success", about="whether a relevant document is within k", cutoff="needed",
               tie_rule=TREC_TIES, trec_cut="success"),
        Metric(name="Rprec", about="precision at R", cutoff="absent",
               tie_rule=TREC_TIES, trec="Rprec"),
        Metric(name="INQUIRE_AP", about="INQUIRE's average precision, over min(R, k)",
               tie_rule=f"{_INQUIRE}: documents of one score enter together", compute=inquire_ap),
        Metric(name="INQUIRE_nDCG", about="INQUIRE's nDCG, binary gains",
               tie_rule=f"{_INQUIRE}: documents of one score share their mean gain",
               compute=inquire_ndcg),
        Metric(name="INQUIRE_MRR", about="INQUIRE's reciprocal rank",
               tie_rule=f"{LIST_TIES} (INQUIRE's own order of ties is not defined)",
               compute=reciprocal_rank),
        Metric(name="AP_min", about="precision at each hit over min(R, k): CIRCO, MMEB",
               tie_rule=LIST_TIES, compute=ap_min),
        Metric(name="Hit", about="whether a relevant candidate is within k", cutoff="needed",
               tie_rule=LIST_TIES, compute=hit),
        Metric(name="Recall", about="R@k in list order, each candidate counted once: MMEB",
               cutoff="needed", tie_rule=LIST_TIES, compute=list_recall),
        Metric(name="Precision", about="P@k in list order, each candidate counted once: MMEB",
               cutoff="needed", tie_rule=LIST_TIES, compute=list_precision),
        Metric(name="F1", about="harmonic mean of Precision@k and Recall@k: MMEB",
               cutoff="needed", tie_rule=LIST_TIES, compute=list_f1),
        Metric(name="MRR", about="reciprocal rank in list order: MMEB",
               tie_rule=LIST_TIES, compute=reciprocal_rank),
        Metric(name="nDCG_linear", about="nDCG in list order, gain = grade: MMEB",
               tie_rule=LIST_TIES, compute=list_ndcg(float)),
        Metric(name="nDCG_exponential", about="nDCG in list order, gain = 2^grade - 1: MMEB",
               tie_rule=LIST_TIES, compute=list_ndcg(lambda g: float(2**g - 1))),
    )
}  # fmt: skip

_NAME = re.compile(r"([A-Za-z_]\w*)(?:@(\d+))?")


def parse(name: str) -> tuple[Metric, int | None] | None:
    """A metric of `METRICS` and its cut-off; None when ``name`` has another form. Raises `UsageError`."""
    match = _NAME.fullmatch(name)
    if not match or match[1] not in METRICS:
        return None
    metric, k = METRICS[match[1]], int(match[2]) if match[2] else None
    if k is None and metric.cutoff == "needed":
        raise UsageError(f"{name} needs a cut-off, such as {name}@10")
    if k is not None and metric.cutoff == "absent":
        raise UsageError(f"{metric.name} takes no cut-off, so not {name}")
    if k == 0:
        raise UsageError(f"the cut-off of {name} must be at least 1")
    return metric, k


def split_names(text: str) -> list[str]:
    """Names out of ``nDCG@10, P(rel=2)@5``: commas and spaces part them, but not within brackets."""
    return [n for n in re.split(r"[,\s]+(?![^(]*\))", text.strip()) if n]


def check_names(names: Sequence[str]) -> list[str]:
    """Raises `UsageError` for a name that nothing computes; returns those that other tools compute."""
    others = [n for n in dict.fromkeys(names) if parse(n) is None]
    for name in others:
        expression(name, list(METRICS))
    return others


def measure(
    run: Run, qrels: Qrels, names: Sequence[str], *, tie_bounds: bool = False, room: Room = lambda _: None
) -> dict[str, Measured]:
    """Every metric of ``names`` over the queries of ``qrels``; those that ``run`` lacks have no value.

    ``room`` says how many names a query's list could hold, where that is known: see `short`. With
    ``tie_bounds`` also under the worst and the best order of documents that have one score. Raises
    `UsageError` for a name that neither `METRICS` nor ir-measures knows; one that its tool cannot compute has
    an ``error`` and no values.
    """
    lists = {q: Ranked.of(rows) for q, rows in run.rows.items() if q in qrels}
    others = check_names(names)
    values = _values(lists, qrels, names)
    given = {n: foreign(n, lists, qrels) for n in others}
    bounds: list[dict[str, Mapping[str, float]]] = []
    for best in (False, True) if tie_bounds else ():
        settled = {q: untied(r, qrels[q], best=best) for q, r in lists.items()}
        further = {n: foreign(n, settled, qrels).values for n in others}
        bounds.append({**_values(settled, qrels, names), **further})
    short = by_metric(names, lists, qrels, room)
    return {
        name: Measured(
            name=name,
            values=given[name].values if name in given else values[name],
            expected=tuple(qrels),
            tie_rule=known[0].tie_rule if (known := parse(name)) else given[name].tie_rule,
            lowest=bounds[0][name] if bounds else None,
            highest=bounds[1][name] if bounds else None,
            short=short[name],
            is_fraction=name not in given or given[name].is_fraction,
            error=given[name].error if name in given else "",
        )
        for name in names
    }


def relisted(
    run: Run, qrels: Qrels, names: Mapping[str, str], *, room: Room = lambda _: None
) -> dict[str, Measured]:
    """`measure` under the names that a benchmark uses: ``{"R@50": "Recall@50"}``."""
    found = measure(run, qrels, list(names.values()), room=room)
    return {own: replace(found[name], name=own) for own, name in names.items()}


def untied(ranked: Ranked, judged: Judged, *, best: bool) -> Ranked:
    """The list with documents of one score (in single precision) by relevance, and no ties left."""
    single = np.asarray(ranked.scores, np.float32)
    sign = -1 if best else 1
    gains = [judged.get(i, 0) for i in ranked.ids]
    order = sorted(range(len(ranked)), key=lambda n: (-single[n], sign * gains[n]))
    return Ranked([ranked.ids[n] for n in order], range(len(order), 0, -1))


def _values(lists: Mapping[str, Ranked], qrels: Qrels, names: Sequence[str]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    trec: dict[str, tuple[Metric, int | None]] = {}
    own: dict[str, tuple[Callable[[Listed, int | None], float], int | None]] = {}
    for name in dict.fromkeys(names):
        known = parse(name)
        if known is None:
            continue
        if known[0].compute is None:
            trec[name] = known
        else:
            own[name] = known[0].compute, known[1]
    if own:
        found |= {name: {} for name in own}
        for query, ranked in lists.items():
            listed = Listed.of(ranked, qrels[query])
            for name, (compute, k) in own.items():
                found[name][query] = compute(listed, k)
    if trec:
        found |= _trec(lists, qrels, trec)
    return found


_PORTION = 2000  # queries: trec_eval wants a dictionary for each, which for all at once is a lot


def _trec(
    lists: Mapping[str, Ranked], qrels: Qrels, wanted: Mapping[str, tuple[Metric, int | None]]
) -> dict[str, dict[str, float]]:
    import pytrec_eval

    cuts: dict[str, set[int]] = {}
    for metric, k in wanted.values():
        plain = k is None or metric.trec_cut == metric.trec
        cuts.setdefault(metric.trec if plain else metric.trec_cut, set()).update(
            () if plain or k is None else (k,)
        )
    measures = {f"{n}.{','.join(map(str, sorted(ks)))}" if ks else n for n, ks in cuts.items()}
    found: dict[str, dict[str, float]] = {name: {} for name in wanted}
    ids = list(lists)
    for start in range(0, len(ids), _PORTION):
        part = ids[start : start + 2000]
        judge = pytrec_eval.RelevanceEvaluator({q: dict(qrels[q]) for q in part}, measures)
        values = judge.evaluate({q: dict(zip(lists[q].ids, lists[q].scores, strict=True)) for q in part})
        for name, (metric, k) in wanted.items():
            plain = k is None or metric.trec_cut == metric.trec
            key = metric.trec if plain else f"{metric.trec_cut}_{k}"
            for q in part:
                # trec_eval says nothing of an empty list
                value = values[q][key] if len(lists[q]) and q in values else 0.0
                if plain and k is not None and value < 1 / k - 1e-12:
                    value = 0.0  # a reciprocal rank beyond the cut-off
                found[name][q] = float(value)
    return found


def by_query(run: Run, qrels: Qrels, metrics: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """Values by metric and query. Every query of ``qrels`` has one: a query that ``run`` lacks gets 0.

    ``metrics`` maps the names wanted to expressions of ir-measures. Raises `UsageError` for one that
    it does not know, and `InputError` for one that its tool cannot compute.
    """
    lists = {q: Ranked.of(rows) for q, rows in run.rows.items()}
    found: dict[str, dict[str, float]] = {}
    for name, text in metrics.items():
        one = foreign(text, lists, qrels, known=list(METRICS))
        if one.error:
            raise InputError(f"{text}: {one.error}")
        found[name] = {**dict.fromkeys(qrels, 0.0), **one.values}
    return found


def in_order(ids: Sequence[str]) -> tuple[Scored, ...]:
    """A list without scores as rows of a run: each scores less than the one before it."""
    return tuple(Scored(i, float(len(ids) - n)) for n, i in enumerate(ids))


def mean(values: Values) -> float:
    """The mean over queries; 0 without any."""
    return sum(values.values()) / len(values) if values else 0.0
