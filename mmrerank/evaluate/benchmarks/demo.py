"""The picture book as a benchmark: a world nobody trained on, its queries, and its graded truth.

Everything runs through the public search object on picture files with opaque names. The truth of the scenes
enters only afterwards, as qrels. nDCG@10 has the gains 0, 1, 3, 7 and the ideal over the whole world; P@1
asks for grade 3 on top; both are means over all queries. Verdicts are compared where a component was named
as the truth names it, by class (met, partly, missed), and averaged over the classes.
"""

from __future__ import annotations

import dataclasses
import hashlib
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
from mmrerank.evaluate.benchmark import Answer, Task, one_run
from mmrerank.evaluate.benchmark import NoOptions as Options
from mmrerank.evaluate.benchmarks import _folder
from mmrerank.evaluate.compare import interval, paired
from mmrerank.evaluate.forecast import Price, rehearsed
from mmrerank.evaluate.metrics import by_query, in_order, mean, relisted
from mmrerank.evaluate.provenance import (
    candidates_digest,
    chat_identity,
    code_digest,
    prompt_digests,
    provenance,
)
from mmrerank.evaluate.reranking import PORTION, Item
from mmrerank.evaluate.resume import Progress, Resumable, Surroundings
from mmrerank.evaluate.runs import Run, Scored, read_qrels, write_qrels, write_run
from mmrerank.evaluate.scores import Measured
from mmrerank.evaluate.two_stage import write
from mmrerank.index.index import ImageIndex
from mmrerank.ports import Chat
from mmrerank.rerank.aggregate import by_value, verdict_sum
from mmrerank.results import SearchResult
from mmrerank.search import ImageSearch
from mmrerank.types import Image, Query, Usage

SPLITS = ("all",)
METRICS = {"nDCG@10": "nDCG(gains={1:1,2:3,3:7})@10", "P@1": "P(rel=3)@1"}
CANDIDATES = 20
UNMATCHED = 50
_SHUFFLES = 20


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


def load(data: Path, split: str, options: Options) -> Task:
    """A world that ``mmrerank demo export`` wrote: its queries and graded truth."""
    content = _folder.read(data, "demo")
    return Task(
        benchmark="demo",
        split=split,
        queries=content.asked,
        qrels=content.qrels,
        categories=content.categories,
        depth=CANDIDATES,
    )


def score(task: Task, answers: Sequence[Answer]) -> dict[str, Measured]:
    """nDCG@10 with the gains 0, 1, 3, 7, and P@1 for grade 3, as `evaluate_demo` has them."""
    run = Run(rows=one_run(task, answers).rows)
    return relisted(run, task.qrels, METRICS)


def evaluate_demo(
    *,
    seed: int = 0,
    scenes: int = 2000,
    queries: int = 200,
    methods: Sequence[str] = ("none", "cotrr"),
    chat: str | Chat = "bundled",
    runs: Path | None = None,
    journals: Path | None = None,
    fresh: bool = False,
    retry_failed: bool = False,
    stop_after: int | None = None,
    price: Price | None = None,
    around: Surroundings | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Draws the world of ``seed``, searches it with every method and returns the figures as plain data.

    ``none`` is always among the methods, since the others are compared with it. Finished queries are kept
    in ``journals`` (default: ``runs``, or else nowhere) and are not judged again when the same call is
    made after a kill; the figures are those of one uninterrupted run. ``fresh`` starts over,
    ``retry_failed`` judges queries again of which a judgement failed.

    With ``runs``, also writes ``METHOD.trec``, ``METHOD.raw.jsonl`` (scores as they were),
    ``METHOD.jsonl`` (components and verdicts), ``METHOD.json`` (provenance) and ``qrels.txt`` there.

    With ``stop_after``, judges no more than so many queries of each list (rounded up to portions) and
    returns what the others will take instead of figures; so it does when the budget for all (``around``) is
    spent before the end. Raises `UsageError` for an unknown method, too
    few scenes for the queries, or a journal of other work.
    """
    wanted = tuple(dict.fromkeys(("none", *methods)))
    options: dict[str, Any] = {}
    for method in wanted:  # a wrong name is told before anything is drawn
        options[method] = dataclasses.asdict(registry.load("strategy", method).Options())
    with tempfile.TemporaryDirectory(prefix="mmrerank-demo-") as temporary:
        folder = Path(temporary)
        judging = Resumable(
            folder=journals or runs or folder / "journals",
            chat=chat,
            work={"benchmark": "demo", "seed": seed, "scenes": scenes, "candidates": CANDIDATES},
            fresh=fresh,
            retry_failed=retry_failed,
            limit=stop_after,
            price=price,
            around=around or Surroundings(),
            progress=progress,
            say=say,
        )
        book = _prepare(folder, seed, scenes, queries, progress)
        asked = _first_stage(book, book.queries)
        told = {m: judging.rerank(m, asked) for m in wanted}
        judged = next((m for m in ("cotrr", *wanted) if m in wanted and _judges(m, asked[0])), None)
        without = None
        if judged:
            unmatched = _first_stage(book, book.unmatched)
            without = judging.rerank(judged, unmatched, part="no-match")
        heading = {
            "seed": seed,
            "scenes": scenes,
            "queries": len(book.queries),
            "candidates": CANDIDATES,
            "chat": chat if isinstance(chat, str) else chat.spec,
        }
        lists = [*told.values(), *([without] if without else [])]
        if stop_after is not None or any(t.left.queries for t in lists):
            left = {m: t.left.to_dict() for m, t in told.items()}
            if judged and without:
                left[f"{judged}.no-match"] = without.left.to_dict()
            return {**heading, "forecast": left}

        results = {m: t.results for m, t in told.items()}
        values = {m: by_query(_run(r, m), book.qrels, METRICS) for m, r in results.items()}
        origin = provenance(
            config={**heading, "benchmark": "demo", "methods": options},
            models={
                "embedder": {
                    "spec": book.search.embedder.spec,
                    "fingerprint": book.search.embedder.fingerprint,
                },
                "chat": judging.identity,
            },
            seed=seed,
            first_stage=candidates_digest(asked),
        )
        if runs is not None:
            write_qrels(runs / "qrels.txt", book.qrels)
            for method, found in results.items():
                config = {**heading, "benchmark": "demo", "method": method}
                config["options"] = options[method]
                _save(runs, method, found, {**origin, "config": config})
        return {
            **heading,
            "methods": {m: _figures(book, results[m], values[m], values["none"]) for m in wanted},
            **_bounds(book, results["none"], seed),
            "verdicts": _verdicts(book, results[judged]) if judged else None,
            "deconstruction": _deconstruction(book, results[judged]) if judged else None,
            "sum_of_verdicts": _summed(book, results[judged], values["none"]) if judged else None,
            "no_match": _no_match(without.results, results[judged]) if judged and without else None,
            # what is printed is the same for the same figures; the files say the date as well
            "provenance": {k: v for k, v in origin.items() if k != "date"},
        }


def journal_folder(*, seed: int, scenes: int, queries: int, chat: str) -> Path:
    """Where the command keeps journals: ``runs/eval/demo-XXXXXXXX``, another one for other work.

    Other weights, prompts or code are other work too: an update begins a folder instead of failing.
    """
    work = [seed, scenes, queries, CANDIDATES, chat_identity(chat), prompt_digests(), code_digest()]
    digest = hashlib.sha256(json.dumps(work).encode()).hexdigest()
    return Path("runs") / "eval" / f"demo-{digest[:8]}"


def _save(
    runs: Path, method: str, results: Sequence[SearchResult], origin: Mapping[str, Any]
) -> None:
    raw = _run(results, method, first_stage=method == "none")
    write_run(runs / f"{method}.trec", raw, raw=runs / f"{method}.raw.jsonl")
    lines = [json.dumps(r.to_dict()) + "\n" for r in results]
    write(runs / f"{method}.jsonl", "".join(lines))
    write(runs / f"{method}.json", json.dumps(origin, indent=2) + "\n")


def _prepare(
    folder: Path, seed: int, scenes: int, queries: int, progress: Progress | None
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
        search=ImageSearch(ImageIndex.open(folder / "index"), embedder=embedder),
        queries=tuple(_query(q, world) for q in world.queries),
        unmatched=tuple(_query(q, world) for q in unmatched),
        qrels=read_qrels(world.folder / "qrels.txt"),
    )


def _query(query: DemoQuery, world: World) -> Query:
    file = world.references.get(query.id)
    images = (Image(path=world.folder / file),) if file else ()
    return Query(id=query.id, text=query.text, turns=query.turns, images=images)


def _first_stage(book: _Book, queries: Sequence[Query]) -> list[Item]:
    """Each query with its candidates, in portions, so that what a model keeps in memory stays small."""
    found: list[Item] = []
    for start in range(0, len(queries), PORTION):
        part = queries[start : start + PORTION]
        found += zip(part, book.search.first_stage(part, CANDIDATES), strict=True)
    return found


def _judges(method: str, item: Item) -> bool:
    """Whether a method takes queries apart, as it shows when it is driven over a fake."""
    options = registry.load("strategy", method).Options()
    (driven,) = rehearsed(method, options, [item])
    return bool(driven.outcome.explanation.components)


def _run(results: Sequence[SearchResult], tag: str, *, first_stage: bool = False) -> Run:
    """With ``first_stage``, hits have the first stage's scores; else an order that has none counts down."""
    rows = {}
    for r in results:
        scored = [Scored(h.id, h.score) for h in r.hits if h.score is not None]
        plain = first_stage and len(scored) == len(r.hits)
        rows[r.query.id] = tuple(scored) if plain else in_order([h.id for h in r.hits])
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
        "queries_degraded": sum(r.degraded for r in results),
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
