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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmrerank.benchmark import Answer, Benchmark, Measured, NoOptions, Run, Task
from mmrerank.corpus.folder import open as open_folder
from mmrerank.embed.open import open_embedder
from mmrerank.evaluation.benchmarks import _folder
from mmrerank.evaluation.experiment.forecast import Price, rehearsed
from mmrerank.evaluation.experiment.methods import Named, named
from mmrerank.evaluation.experiment.provenance import (
    candidates_digest,
    chat_identity,
    code_digest,
    prompt_digests,
    provenance,
)
from mmrerank.evaluation.experiment.reranking import PORTION, Item
from mmrerank.evaluation.experiment.resume import Progress, Resumable, Surroundings
from mmrerank.evaluation.experiment.two_stage import write
from mmrerank.evaluation.measure.metrics import by_query, relisted
from mmrerank.evaluation.measure.runs import read_qrels, write_qrels, write_run
from mmrerank.evaluation.tasks import one_run
from mmrerank.index.index import ImageIndex
from mmrerank.picturebook.cards import DOMAIN
from mmrerank.picturebook.export import World, export
from mmrerank.picturebook.figures import (
    METRICS,
    Book,
    bounds,
    deconstruction,
    figures,
    no_match,
    run_of,
    summed,
    verdicts,
)
from mmrerank.picturebook.queries import DemoQuery, Truth, make_unmatched
from mmrerank.picturebook.world import stream
from mmrerank.ports import Chat
from mmrerank.results import SearchResult
from mmrerank.search import ImageSearch
from mmrerank.types import Image, Query

CANDIDATES = 20
UNMATCHED = 50


class PictureBook(Benchmark):
    """A world that ``mmrerank demo export`` wrote: its queries and graded truth."""

    SPLITS = ("all",)

    def load(self, data: Path, split: str, options: NoOptions) -> Task:
        """The folder of an exported world."""
        content = _folder.read(data, "demo")
        return Task(
            benchmark="demo",
            split=split,
            queries=content.asked,
            qrels=content.qrels,
            categories=content.categories,
            depth=CANDIDATES,
        )

    def score(self, task: Task, answers: Sequence[Answer]) -> dict[str, Measured]:
        """nDCG@10 with the gains 0, 1, 3, 7, and P@1 for grade 3."""
        run = Run(rows=one_run(task, answers).rows)
        return relisted(run, task.qrels, METRICS)


BENCHMARK = PictureBook()


def evaluate_demo(
    *,
    seed: int = 0,
    scenes: int = 2000,
    queries: int = 200,
    candidates: int = CANDIDATES,
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

    The first ``candidates`` of the embedding order are reranked. ``methods`` are named as in
    `mmrerank.evaluation.experiment.methods`; ``all`` is every one. ``none`` is always among them, since the
    others are compared with it. Finished queries are kept in ``journals`` (default: ``runs``, or nowhere) and
    are not judged again when the same call is made after a kill; the figures are those of one uninterrupted
    run. ``fresh`` starts over, ``retry_failed`` judges queries again of which a judgement failed.

    With ``runs``, also writes ``METHOD.trec``, ``METHOD.raw.jsonl`` (scores as they were),
    ``METHOD.jsonl`` (components and verdicts), ``METHOD.json`` (provenance) and ``qrels.txt`` there.

    With ``stop_after``, judges no more than so many queries of each list (rounded up to portions) and
    returns what the others will take instead of figures; so it does when the budget for all (``around``) is
    spent before the end. Raises `UsageError` for an unknown method, too
    few scenes for the queries, or a journal of other work.
    """
    wanted = {m.label: m for m in named(methods)}  # a wrong name is told before anything is drawn
    options = {label: dataclasses.asdict(m.options) for label, m in wanted.items()}
    with tempfile.TemporaryDirectory(prefix="mmrerank-demo-") as temporary:
        folder = Path(temporary)
        judging = Resumable(
            folder=journals or runs or folder / "journals",
            chat=chat,
            work={"benchmark": "demo", "seed": seed, "scenes": scenes, "candidates": candidates},
            fresh=fresh,
            retry_failed=retry_failed,
            limit=stop_after,
            price=price,
            around=around or Surroundings(),
            progress=progress,
            say=say,
        )
        book = _prepare(folder, seed, scenes, queries, progress)
        judging.retriever = book.search
        asked = _first_stage(book, book.queries, candidates)
        told = {
            label: judging.rerank(m.name, asked, options=m.given, part=m.part)
            for label, m in wanted.items()
        }
        order = [label for label in ("cotrr", *wanted) if label in wanted]
        judged = next((label for label in order if _judges(wanted[label], asked[0])), None)
        without = None
        if judged:
            unmatched = _first_stage(book, book.unmatched, candidates)
            m = wanted[judged]
            part = f"{m.part}.no-match" if m.part else "no-match"
            without = judging.rerank(m.name, unmatched, options=m.given, part=part)
        heading = {
            "seed": seed,
            "scenes": scenes,
            "queries": len(book.queries),
            "candidates": candidates,
            "chat": chat if isinstance(chat, str) else chat.spec,
            "budget": judging.around.limits,
        }
        lists = [*told.values(), *([without] if without else [])]
        if stop_after is not None or any(t.left.queries for t in lists):
            left = {m: t.left.to_dict() for m, t in told.items()}
            if judged and without:
                left[f"{judged}.no-match"] = without.left.to_dict()
            return {**heading, "forecast": left}

        results = {m: t.results for m, t in told.items()}
        values = {m: by_query(run_of(r, m), book.qrels, METRICS) for m, r in results.items()}
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
            chat=chat,
        )
        if runs is not None:
            write_qrels(runs / "qrels.txt", book.qrels)
            for label, found in results.items():
                config = {**heading, "benchmark": "demo", "method": wanted[label].name}
                config["options"] = options[label]
                _save(runs, wanted[label].stem, found, {**origin, "config": config})
        return {
            **heading,
            "methods": {m: figures(book, results[m], values[m], values["none"]) for m in wanted},
            **bounds(book, results["none"], seed),
            "verdicts": verdicts(book, results[judged]) if judged else None,
            "deconstruction": deconstruction(book, results[judged]) if judged else None,
            "sum_of_verdicts": summed(book, results[judged], values["none"]) if judged else None,
            "no_match": no_match(without.results, results[judged]) if judged and without else None,
            # what is printed is the same for the same figures; the files say the date as well
            "provenance": {k: v for k, v in origin.items() if k != "date"},
        }


def journal_folder(
    *,
    seed: int,
    scenes: int,
    queries: int,
    chat: str,
    candidates: int = CANDIDATES,
    around: Surroundings | None = None,
) -> Path:
    """Where the command keeps journals: ``runs/eval/demo-XXXXXXXX``, another one for other work.

    Other weights, prompts, code or limits of a query are other work too: an update begins a folder instead
    of failing.
    """
    limits = (around or Surroundings()).limits
    work = [seed, scenes, queries, candidates, limits]
    work += [chat_identity(chat), prompt_digests(chat), code_digest()]
    digest = hashlib.sha256(json.dumps(work).encode()).hexdigest()
    return Path("runs") / "eval" / f"demo-{digest[:8]}"


def _save(
    runs: Path, method: str, results: Sequence[SearchResult], origin: Mapping[str, Any]
) -> None:
    raw = run_of(results, method, first_stage=method == "none")
    write_run(runs / f"{method}.trec", raw, raw=runs / f"{method}.raw.jsonl")
    lines = [json.dumps(r.to_dict()) + "\n" for r in results]
    write(runs / f"{method}.jsonl", "".join(lines))
    write(runs / f"{method}.json", json.dumps(origin, indent=2) + "\n")


def _prepare(folder: Path, seed: int, scenes: int, queries: int, progress: Progress | None) -> Book:
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
    return Book(
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


def _first_stage(book: Book, queries: Sequence[Query], candidates: int) -> list[Item]:
    """Each query with its candidates, in portions, so that what a model keeps in memory stays small."""
    found: list[Item] = []
    for start in range(0, len(queries), PORTION):
        part = queries[start : start + PORTION]
        found += zip(part, book.search.first_stage(part, candidates), strict=True)
    return found


def _judges(method: Named, item: Item) -> bool:
    """Whether a method gives verdicts, as it shows when it is driven over a fake."""
    (driven,) = rehearsed(method.name, method.options, [item])
    return any(a.verdicts for a in driven.outcome.explanation.assessments.values())
