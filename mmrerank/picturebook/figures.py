"""The figures of the picture book: what methods got right, by their results and the truth of the scenes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmrerank.benchmark import Run, Scored
from mmrerank.evaluation.compare.intervals import interval, paired
from mmrerank.evaluation.measure.metrics import by_query, in_order, mean
from mmrerank.picturebook.export import World
from mmrerank.picturebook.facts import (
    CountFact,
    ExclusionFact,
    Fact,
    PlaceFact,
    RelationFact,
    SubjectFact,
    WeatherFact,
)
from mmrerank.picturebook.queries import DemoQuery
from mmrerank.picturebook.world import Scene, is_seen
from mmrerank.rerank.aggregate import by_value, verdict_sum
from mmrerank.results import SearchResult
from mmrerank.search import ImageSearch
from mmrerank.types import Query, Usage

METRICS = {
    "nDCG@10": "nDCG(gains={1:1,2:3,3:7})@10",
    "P@1": "P(rel=3)@1",
    "R@20": "R(rel=3)@20",
}
"""R@20 is the share of all fully matching pictures of the world: no order of the first 20 changes it."""
_SHUFFLES = 20


@dataclass(frozen=True, kw_only=True)
class Book:
    """An indexed world with its queries as users would ask them, and their truth."""

    world: World
    search: ImageSearch
    queries: tuple[Query, ...]
    unmatched: tuple[Query, ...]
    qrels: Mapping[str, Mapping[str, int]]

    @property
    def asked(self) -> dict[str, DemoQuery]:
        """The queries by id."""
        return {q.id: q for q in self.world.queries}

    @property
    def scenes(self) -> dict[str, Scene]:
        """The scenes by picture."""
        return dict(zip(self.world.names, self.world.scenes, strict=True))


def run_of(results: Sequence[SearchResult], tag: str, *, first_stage: bool = False) -> Run:
    """With ``first_stage``, hits have the first stage's scores; else an order that has none counts down."""
    rows = {}
    for r in results:
        scored = [Scored(h.id, h.score) for h in r.hits if h.score is not None]
        plain = first_stage and len(scored) == len(r.hits)
        rows[r.query.id] = tuple(scored) if plain else in_order([h.id for h in r.hits])
    return Run(rows=rows, tag=tag)


def figures(
    book: Book,
    results: Sequence[SearchResult],
    values: Mapping[str, Mapping[str, float]],
    baseline: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """A method's means with intervals, its gain over ``baseline``, and what it cost."""
    categories: dict[str, list[str]] = defaultdict(list)
    for query in book.world.queries:
        categories[query.category].append(query.id)
    reachable = [
        r.query.id for r in results if any(book.qrels[r.query.id].get(h.id) == 3 for h in r.hits)
    ]
    gains = {m: paired(values[m], baseline[m]) for m in METRICS}
    return {
        **{m: round(mean(values[m]), 4) for m in METRICS},
        "P@1_where_possible": round(mean({q: values["P@1"][q] for q in reachable}), 4),
        "ci": {m: _rounded(interval(list(values[m].values()))) for m in METRICS},
        "gain": {m: {"value": round(g, 4), "ci": _rounded(ci)} for m, (g, ci) in gains.items()},
        "by_category": {
            c: {m: round(mean({q: values[m][q] for q in ids}), 4) for m in METRICS}
            for c, ids in sorted(categories.items())
        },
        "usage": used(results),
        "failed": sum(r.repairs.failed for r in results),
        "repaired": sum(r.repairs.repaired for r in results),
        "queries_degraded": sum(r.degraded for r in results),
    }


def used(results: Sequence[SearchResult]) -> dict[str, Any]:
    """What all of ``results`` cost together."""
    total = sum((r.usage for r in results), Usage())
    return {
        "calls": total.calls,
        "input_tokens": total.input_tokens,
        "output_tokens": total.output_tokens,
        "images": total.images,
        "seconds": round(total.seconds, 1),
    }


def _rounded(pair: tuple[float, float]) -> list[float]:
    return [round(v, 4) for v in pair]


def bounds(book: Book, first: Sequence[SearchResult], seed: int) -> dict[str, Any]:
    """The same candidates in random orders, and in the best one."""
    rng = np.random.default_rng([seed, 5])
    shuffled: dict[str, list[float]] = {m: [] for m in METRICS}
    for _ in range(_SHUFFLES):
        rows = {
            r.query.id: in_order([r.hits[int(n)].id for n in rng.permutation(len(r.hits))])
            for r in first
        }
        for metric, values in by_query(Run(rows=rows), book.qrels, METRICS).items():
            shuffled[metric].append(mean(values))
    best = {
        r.query.id: in_order(
            [h.id for h in sorted(r.hits, key=lambda h: -book.qrels[r.query.id].get(h.id, 0))]
        )
        for r in first
    }
    ideal = by_query(Run(rows=best), book.qrels, METRICS)
    return {
        "random": {m: round(sum(v) / len(v), 4) for m, v in shuffled.items()},
        "ceiling": {m: round(mean(v), 4) for m, v in ideal.items()},
    }


def kind_of(fact: Fact) -> str:
    """Which of the report's rows a fact belongs to."""
    match fact:
        case CountFact():
            return "count"
        case RelationFact():
            return "relation"
        case PlaceFact():
            return "place"
        case WeatherFact():
            return "weather"
        case ExclusionFact():
            return "exclusion"
        case SubjectFact(noun=noun):
            return "colour" if noun.colour else "size" if noun.size else "thing"
    return "unknown"


def kinds_named(fact: Fact) -> set[str]:
    """The kinds of thing that a judgement of ``fact`` looks for; none for a place or a weather."""
    match fact:
        case SubjectFact(noun=noun) | CountFact(noun=noun):
            return {noun.kind}
        case RelationFact(one=one, other=other):
            return {one.kind, other.kind}
        case ExclusionFact(absent=SubjectFact(noun=noun)):
            return {noun.kind}
    return set()


def looks_practised(fact: Fact, scene: Scene) -> bool:
    """Whether training had every combination of thing, colour and place that this judgement looks at."""
    kinds = kinds_named(fact) or {g.kind for g in scene.groups}
    return all(is_seen(g.kind, g.colour, scene.place) for g in scene.groups if g.kind in kinds)


def summed(
    book: Book, results: Sequence[SearchResult], baseline: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:
    """The ablation that costs nothing: the same verdicts, ordered by their sum."""
    rows = {}
    for result in results:
        first = [h.id for h in result.first]
        told = result.explanation.assessments
        sums = {i: v for i in first if i in told and (v := verdict_sum(told[i])) is not None}
        rows[result.query.id] = in_order(by_value(first, sums))
    values = by_query(Run(rows=rows), book.qrels, METRICS)
    gains = {m: paired(values[m], baseline[m]) for m in METRICS}
    return {
        **{m: round(mean(values[m]), 4) for m in METRICS},
        "gain": {m: {"value": round(g, 4), "ci": _rounded(ci)} for m, (g, ci) in gains.items()},
    }


def verdicts(book: Book, results: Sequence[SearchResult]) -> dict[str, Any]:
    """Balanced accuracy by kind of component, on practised and on new combinations."""
    right: dict[tuple[str, str, str], list[bool]] = defaultdict(list)
    for result in results:
        facts = {(f.kind, f.text): f for f in book.asked[result.query.id].facts}
        named = {c.id: facts.get((c.kind, c.text)) for c in result.explanation.components}
        for hit in result.hits:
            scene = book.scenes[hit.id]
            for verdict in hit.assessment.verdicts if hit.assessment else ():
                fact = named.get(verdict.component)
                if fact is None:
                    continue
                truth = fact.judge(scene).verdict
                seen = "seen" if looks_practised(fact, scene) else "unseen"
                for kind in (kind_of(fact), "all"):
                    right[kind, seen, truth].append(verdict.verdict == truth)
    table: dict[str, Any] = {}
    for kind in sorted({k for k, _, _ in right}):
        row: dict[str, Any] = {}
        for seen in ("seen", "unseen"):
            classes = {t: right[kind, seen, t] for k, s, t in list(right) if (k, s) == (kind, seen)}
            row[seen] = (
                round(float(np.mean([np.mean(v) for v in classes.values()])), 4)
                if classes
                else None
            )
            row[f"{seen}_count"] = sum(map(len, classes.values()))
        table[kind] = row
    return table


def deconstruction(book: Book, results: Sequence[SearchResult]) -> dict[str, Any]:
    """Share of queries taken apart exactly: the same components, in any order."""
    exact: dict[str, list[bool]] = {"seen": [], "unseen": []}
    for result in results:
        query = book.asked[result.query.id]
        wanted = {(f.kind, f.text) for f in query.facts}
        found = {(c.kind, c.text) for c in result.explanation.components}
        exact["seen" if query.practised else "unseen"].append(found == wanted)
    return {
        **{k: round(float(np.mean(v)), 4) if v else None for k, v in exact.items()},
        **{f"{k}_count": len(v) for k, v in exact.items()},
    }


def no_match(without: Sequence[SearchResult], matched: Sequence[SearchResult]) -> dict[str, Any]:
    """How often a method says rightly that nothing matches, over queries without and with a match."""
    said = float(np.mean([r.no_match for r in without]))
    quiet = float(np.mean([not r.no_match for r in matched]))
    return {
        "balanced_accuracy": round((said + quiet) / 2, 4),
        "without_a_match": {"queries": len(without), "right": round(said, 4)},
        "with_a_match": {"queries": len(matched), "right": round(quiet, 4)},
        "usage": used(without),
    }
