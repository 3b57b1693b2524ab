"""The picture book as a benchmark: a world nobody trained on, its queries, and its graded truth.

Everything runs through the public search object on picture files with opaque names. The truth of the scenes
enters only afterwards, as qrels. nDCG@10 has the gains 0, 1, 3, 7 and the ideal over the whole world; P@1
asks for grade 3 on top; both are means over all queries. Verdicts are compared where a component was named
as the truth names it, by class (met, partly, missed), and averaged over the classes.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmrerank import registry
from mmrerank.corpus.folder import open as open_folder
from mmrerank.demo.export import World, export
from mmrerank.demo.facts import (
    CountFact,
    ExclusionFact,
    Fact,
    PlaceFact,
    RelationFact,
    SubjectFact,
    WeatherFact,
)
from mmrerank.demo.queries import DemoQuery, Truth, make_unmatched
from mmrerank.demo.run import DOMAIN
from mmrerank.demo.world import Scene, is_seen, stream
from mmrerank.embed._open import open_embedder
from mmrerank.evaluate.compare import interval, paired
from mmrerank.evaluate.metrics import by_query, in_order, mean
from mmrerank.evaluate.runs import Run, Scored, read_qrels, write_qrels, write_run
from mmrerank.index.index import ImageIndex
from mmrerank.ports import Chat
from mmrerank.rerank.aggregate import by_value, verdict_sum
from mmrerank.results import SearchResult
from mmrerank.search import ImageSearch
from mmrerank.types import Image, Query, Usage

METRICS = {"nDCG@10": "nDCG(gains={1:1,2:3,3:7})@10", "P@1": "P(rel=3)@1"}
CANDIDATES = 20
UNMATCHED = 50
_SHUFFLES = 20
Progress = Callable[[str, int, int], None]
"""Called with (what is being done, how much is done, of how much)."""


@dataclass(frozen=True, kw_only=True)
class _Book:
    """An indexed world with its queries as users would ask them, and their truth."""

    world: World
    search: ImageSearch
    queries: tuple[Query, ...]
    unmatched: tuple[Query, ...]
    qrels: Mapping[str, Mapping[str, int]]

    @property
    def asked(self) -> dict[str, DemoQuery]:
        return {q.id: q for q in self.world.queries}

    @property
    def scenes(self) -> dict[str, Scene]:
        return dict(zip(self.world.names, self.world.scenes, strict=True))


def evaluate_demo(
    *,
    seed: int = 0,
    scenes: int = 2000,
    queries: int = 200,
    methods: Sequence[str] = ("none", "cotrr"),
    chat: str | Chat = "bundled",
    runs: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Draws the world of ``seed``, searches it with every method and returns the figures as plain data.

    ``none`` is always among the methods, since the others are compared with it. With ``runs``, also
    writes ``METHOD.trec``, ``METHOD.jsonl`` (components and verdicts) and ``qrels.txt`` there. Raises
    `UsageError` for an unknown method or too few scenes for the queries.
    """
    wanted = tuple(dict.fromkeys(("none", *methods)))
    for method in wanted:  # a wrong name is told before anything is drawn
        registry.load("strategy", method)
    with tempfile.TemporaryDirectory(prefix="mmrerank-demo-") as folder:
        book = _prepare(Path(folder), seed, scenes, queries, chat, progress)
        results = {m: _ranked(book, book.queries, m, progress) for m in wanted}
        if runs is not None:
            write_qrels(runs / "qrels.txt", book.qrels)
        values: dict[str, dict[str, dict[str, float]]] = {}
        for method, found in results.items():
            run = _run(found, method)
            values[method] = by_query(run, book.qrels, METRICS)
            if runs is not None:
                write_run(runs / f"{method}.trec", run)
                lines = [json.dumps(r.to_dict()) + "\n" for r in found]
                (runs / f"{method}.jsonl").write_text("".join(lines), "utf-8")
        judged = next((m for m in ("cotrr", *wanted) if m in results and _judges(results[m])), None)
        body = {
            "seed": seed,
            "scenes": scenes,
            "queries": len(book.queries),
            "candidates": CANDIDATES,
            "chat": chat if isinstance(chat, str) else chat.spec,
            "methods": {m: _figures(book, results[m], values[m], values["none"]) for m in wanted},
            **_bounds(book, results["none"], seed),
            "verdicts": _verdicts(book, results[judged]) if judged else None,
            "deconstruction": _deconstruction(book, results[judged]) if judged else None,
            "sum_of_verdicts": _summed(book, results[judged], values["none"]) if judged else None,
            "no_match": None,
        }
        if judged:
            without = _ranked(book, book.unmatched, judged, progress)
            body["no_match"] = _no_match(without, results[judged])
        return body


def _prepare(
    folder: Path, seed: int, scenes: int, queries: int, chat: str | Chat, progress: Progress | None
) -> _Book:
    def tell(name: str) -> Callable[[int, int | None], None] | None:
        return None if progress is None else lambda n, of: progress(name, n, of or 0)

    world = export(
        folder / "world", seed=seed, scenes=scenes, queries=queries, progress=tell("drawing")
    )
    embedder = open_embedder("bundled")
    ImageIndex.build(
        folder / "index",
        open_folder(str(world.images)),
        embedder,
        domain=DOMAIN,
        progress=tell("indexing"),
    )
    truth = Truth(world.scenes)
    rng = stream("evaluation", seed + 2_000_003)
    unmatched = make_unmatched(world.scenes, UNMATCHED, rng, "evaluation", truth=truth)
    return _Book(
        world=world,
        search=ImageSearch(ImageIndex.open(folder / "index"), chat=chat, embedder=embedder),
        queries=tuple(_query(q, world) for q in world.queries),
        unmatched=tuple(_query(q, world) for q in unmatched),
        qrels=read_qrels(world.folder / "qrels.txt"),
    )


def _query(query: DemoQuery, world: World) -> Query:
    file = world.references.get(query.id)
    images = (Image(path=world.folder / file),) if file else ()
    return Query(id=query.id, text=query.text, turns=query.turns, images=images)


def _ranked(
    book: _Book, queries: Sequence[Query], method: str, progress: Progress | None
) -> list[SearchResult]:
    """In portions, so that progress shows and what a model keeps in memory stays small."""
    found: list[SearchResult] = []
    for start in range(0, len(queries), 8):
        part = queries[start : start + 8]
        found += book.search.search_batch(part, k=CANDIDATES, rerank=method, candidates=CANDIDATES)
        if progress:
            progress(method, len(found), len(queries))
    return found


def _judges(results: Sequence[SearchResult]) -> bool:
    return any(r.explanation.components for r in results)


def _run(results: Sequence[SearchResult], tag: str) -> Run:
    rows = {
        r.query.id: tuple(Scored(id=h.id, score=float(-h.rank)) for h in r.hits) for r in results
    }
    return Run(rows=rows, tag=tag)


def _figures(
    book: _Book,
    results: Sequence[SearchResult],
    values: Mapping[str, Mapping[str, float]],
    baseline: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    categories: dict[str, list[str]] = defaultdict(list)
    for query in book.world.queries:
        categories[query.category].append(query.id)
    reachable = [
        r.query.id for r in results if any(book.qrels[r.query.id].get(h.id) == 3 for h in r.hits)
    ]
    used = sum((r.usage for r in results), Usage())
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
        "usage": {
            "calls": used.calls,
            "input_tokens": used.input_tokens,
            "output_tokens": used.output_tokens,
            "images": used.images,
            "seconds": round(used.seconds, 1),
        },
        "failed": sum(r.repairs.failed for r in results),
        "repaired": sum(r.repairs.repaired for r in results),
    }


def _rounded(pair: tuple[float, float]) -> list[float]:
    return [round(v, 4) for v in pair]


def _bounds(book: _Book, first: Sequence[SearchResult], seed: int) -> dict[str, Any]:
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


def _practised(fact: Fact, scene: Scene) -> bool:
    """Whether training had every combination of thing, colour and place that this judgement looks at."""
    kinds: set[str] = set()
    match fact:
        case SubjectFact(noun=noun) | CountFact(noun=noun):
            kinds = {noun.kind}
        case RelationFact(one=one, other=other):
            kinds = {one.kind, other.kind}
        case ExclusionFact(absent=SubjectFact(noun=noun)):
            kinds = {noun.kind}
        case _:
            kinds = {g.kind for g in scene.groups}
    return all(is_seen(g.kind, g.colour, scene.place) for g in scene.groups if g.kind in kinds)


def _summed(
    book: _Book, results: Sequence[SearchResult], baseline: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:
    """The ablation that costs nothing: the same verdicts, ordered by their sum."""
    rows = {}
    for result in results:
        first = [h.id for h in sorted(result.hits, key=lambda h: h.first_rank)]
        told = result.explanation.assessments
        sums = {i: v for i in first if i in told and (v := verdict_sum(told[i])) is not None}
        rows[result.query.id] = in_order(by_value(first, sums))
    values = by_query(Run(rows=rows), book.qrels, METRICS)
    gains = {m: paired(values[m], baseline[m]) for m in METRICS}
    return {
        **{m: round(mean(values[m]), 4) for m in METRICS},
        "gain": {m: {"value": round(g, 4), "ci": _rounded(ci)} for m, (g, ci) in gains.items()},
    }


def _verdicts(book: _Book, results: Sequence[SearchResult]) -> dict[str, Any]:
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
                seen = "seen" if _practised(fact, scene) else "unseen"
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


def _deconstruction(book: _Book, results: Sequence[SearchResult]) -> dict[str, Any]:
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


def _no_match(without: Sequence[SearchResult], matched: Sequence[SearchResult]) -> dict[str, Any]:
    said = float(np.mean([r.no_match for r in without]))
    quiet = float(np.mean([not r.no_match for r in matched]))
    return {
        "balanced_accuracy": round((said + quiet) / 2, 4),
        "without_a_match": {"queries": len(without), "right": round(said, 4)},
        "with_a_match": {"queries": len(matched), "right": round(quiet, 4)},
    }
