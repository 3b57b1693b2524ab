"""The figures of the picture book: what methods got right, by their results and the truth of the scenes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmrerank.benchmark import Run, Task
from mmrerank.evaluation.compare.intervals import paired
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
from mmrerank.types import Usage

METRICS = {"nDCG@10": "nDCG(gains={1:1,2:3,3:7})@10", "P@1": "P(rel=3)@1", "R@20": "R(rel=3)@20"}
"""R@20 is the share of all fully matching pictures of the world: no order of the first 20 changes it."""
_SHUFFLES = 20


@dataclass(frozen=True, kw_only=True)
class BookTask(Task):
    """A drawn world with its queries and their truth; ``seed`` is the world's."""

    world: World
    seed: int = 0

    @property
    def asked(self) -> dict[str, DemoQuery]:
        """The queries by id."""
        return {q.id: q for q in self.world.queries}

    @property
    def scenes(self) -> dict[str, Scene]:
        """The scenes by picture."""
        return dict(zip(self.world.names, self.world.scenes, strict=True))


def orders(results: Sequence[SearchResult]) -> Run:
    """The hits of each result as a run without ties."""
    return Run(rows={r.query.id: in_order([h.id for h in r.hits]) for r in results})


def possible(book: BookTask, results: Sequence[SearchResult]) -> dict[str, Any]:
    """P@1 over the queries of which a full match is among the candidates."""
    reachable = [r.query.id for r in results if any(book.qrels[r.query.id].get(h.id) == 3 for h in r.hits)]
    values = by_query(orders(results), book.qrels, METRICS)["P@1"]
    return {"P@1_where_possible": round(mean({q: values[q] for q in reachable}), 4)}


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


def random_order(book: BookTask, first: Sequence[SearchResult]) -> dict[str, Any]:
    """The figures of the same candidates in random orders."""
    rng = np.random.default_rng([book.seed, 5])
    shuffled: dict[str, list[float]] = {m: [] for m in METRICS}
    for _ in range(_SHUFFLES):
        rows = {
            r.query.id: in_order([r.hits[int(n)].id for n in rng.permutation(len(r.hits))]) for r in first
        }
        for metric, values in by_query(Run(rows=rows), book.qrels, METRICS).items():
            shuffled[metric].append(mean(values))
    return {m: round(sum(v) / len(v), 4) for m, v in shuffled.items()}


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


def summed(book: BookTask, results: Sequence[SearchResult], none: Sequence[SearchResult]) -> dict[str, Any]:
    """The ablation that costs nothing: the same verdicts, ordered by their sum."""
    rows = {}
    for result in results:
        first = [h.id for h in result.first]
        known = result.explanation.assessments
        sums = {i: v for i in first if i in known and (v := verdict_sum(known[i])) is not None}
        rows[result.query.id] = in_order(by_value(first, sums))
    values = by_query(Run(rows=rows), book.qrels, METRICS)
    baseline = by_query(orders(none), book.qrels, METRICS)
    gains = {m: paired(values[m], baseline[m]) for m in METRICS}
    return {
        **{m: round(mean(values[m]), 4) for m in METRICS},
        "gain": {m: {"value": round(g, 4), "ci": _rounded(ci)} for m, (g, ci) in gains.items()},
    }


def gain_text(row: Mapping[str, Any]) -> str:
    """A gain in nDCG@10 with its interval, as tables show it."""
    gain = row["gain"]["nDCG@10"]
    return f"{gain['value']:+.3f} [{gain['ci'][0]:+.3f}, {gain['ci'][1]:+.3f}]"


def verdicts(book: BookTask, results: Sequence[SearchResult]) -> dict[str, Any]:
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
            row[seen] = round(float(np.mean([np.mean(v) for v in classes.values()])), 4) if classes else None
            row[f"{seen}_count"] = sum(map(len, classes.values()))
        table[kind] = row
    return table


def decomposed(book: BookTask, results: Sequence[SearchResult]) -> dict[str, Any]:
    """Share of queries decomposed exactly: the same components, in any order."""
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
    reported = float(np.mean([r.no_match for r in without]))
    quiet = float(np.mean([not r.no_match for r in matched]))
    return {
        "balanced_accuracy": round((reported + quiet) / 2, 4),
        "without_a_match": {"queries": len(without), "right": round(reported, 4)},
        "with_a_match": {"queries": len(matched), "right": round(quiet, 4)},
        "usage": used(without),
    }
