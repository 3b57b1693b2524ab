"""The picture book as a benchmark: a world nobody trained on, its queries, and its graded truth.

Images have opaque names; the truth of the scenes enters only as qrels. nDCG@10 has the gains 0, 1, 3, 7 and
the ideal over the whole world; P@1 asks for grade 3 on top; both are means over all queries. Verdicts are
compared where a component was named as the truth names it, by class (met, partly, missed), and averaged over
the classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmrerank.benchmark import Answer, Benchmark, BenchmarkQuery, Measured, Prepared, Run, Task
from mmrerank.corpus.folder import open as open_folder
from mmrerank.embed.open import open_embedder
from mmrerank.evaluation.benchmarks import query_folder
from mmrerank.evaluation.compare.rendering import Cell, Table
from mmrerank.evaluation.measure.metrics import relisted
from mmrerank.evaluation.tasks import one_run
from mmrerank.index.index import ImageIndex
from mmrerank.picturebook.cards import DOMAIN
from mmrerank.picturebook.export import export
from mmrerank.picturebook.figures import (
    METRICS,
    BookTask,
    decomposed,
    gain_text,
    no_match,
    possible,
    random_order,
    summed,
    verdicts,
)
from mmrerank.picturebook.queries import DemoQuery, Truth, make_unmatched
from mmrerank.picturebook.world import stream
from mmrerank.results import SearchResult

EXAMPLE = "mmrerank eval demo --seed 5 --methods none,cotrr,pointwise"
CANDIDATES = 20
UNMATCHED = 50


@dataclass(frozen=True, kw_only=True)
class BookOptions:
    """Of the world that is drawn where no --data is given."""

    seed: int = 0
    """Which world; any is new to the models"""
    scenes: int = 2000
    """How many pictures are drawn"""
    queries: int = 200
    """How many queries are asked"""

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, not {self.seed}")
        for name, value in (("scenes", self.scenes), ("queries", self.queries)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")


class PictureBook(Benchmark):
    """A world that ``mmrerank demo export`` wrote, or one that is drawn for the evaluation."""

    SPLITS = ("all",)
    METHODS = ("none", "cotrr")
    Options = BookOptions

    def load(self, data: Path, split: str, options: BookOptions) -> Task:
        """An exported world: its queries and graded truth."""
        content = query_folder.read(data, "demo")
        return Task(
            queries=content.asked, qrels=content.qrels, categories=content.categories, depth=CANDIDATES
        )

    def prepare(
        self, folder: Path, options: BookOptions, progress: Callable[[str, int, int], None]
    ) -> Prepared:
        """Draws and indexes the world of ``seed``. Raises `UsageError` for too few scenes for the queries."""
        world = export(
            folder / "world",
            seed=options.seed,
            scenes=options.scenes,
            queries=options.queries,
            progress=lambda done, of: progress("drawing", done, of or 0),
        )
        ImageIndex.build(
            folder / "index",
            open_folder(str(world.images)),
            open_embedder("bundled"),
            domain=DOMAIN,
            allow_removal=True,
            progress=lambda done, of: progress("indexing", done, of or 0),
        )
        plain = self.load(world.folder, "all", options)
        task = BookTask(
            queries=plain.queries,
            qrels=plain.qrels,
            categories=plain.categories,
            depth=CANDIDATES,
            world=world,
            seed=options.seed,
        )
        return Prepared(task=task, index=folder / "index", images=world.folder, domain=DOMAIN)

    def score(self, task: Task, answers: Sequence[Answer]) -> dict[str, Measured]:
        """nDCG@10 with the gains 0, 1, 3, 7, and P@1 for grade 3."""
        return relisted(Run(rows=one_run(task, answers).rows), task.qrels, METRICS)

    def unanswerable(self, task: Task) -> Task | None:
        """Queries that no picture of the world meets; none for a world that was exported."""
        if not isinstance(task, BookTask):
            return None
        scenes = task.world.scenes
        rng = stream("evaluation", task.seed + 2_000_003)
        asked = make_unmatched(scenes, UNMATCHED, rng, "evaluation", truth=Truth(scenes))
        queries = {q.id: _query(q) for q in asked}
        return Task(benchmark="demo", split="all", queries=queries, qrels={}, depth=CANDIDATES)

    def report(
        self, task: Task, results: Mapping[str, Sequence[SearchResult]], unanswerable: Sequence[SearchResult]
    ) -> Mapping[str, Any]:
        """Bounds, and where a method gives verdicts, how right it is in every step."""
        if not isinstance(task, BookTask):
            return {}
        judged = list(results.values())[-1] if unanswerable else None
        none = results.get("none")
        return {
            "methods": {label: possible(task, found) for label, found in results.items()},
            "random": random_order(task, none) if none else None,
            "verdicts": verdicts(task, judged) if judged else None,
            "deconstruction": decomposed(task, judged) if judged else None,
            "sum_of_verdicts": summed(task, judged, none) if judged and none else None,
            "no_match": no_match(unanswerable, judged) if judged else None,
        }

    def tables(self, report: Mapping[str, Any]) -> Sequence[Table]:
        """The bounds, and how right the verdicts are."""
        rows = []
        if random := report.get("random"):
            rows.append([Cell(text="(random order)"), *_figures(random), Cell(text="")])
        if total := report.get("sum_of_verdicts"):
            gain = Cell(text=gain_text(total), numeric=True)
            rows.append([Cell(text="(sum of verdicts)"), *_figures(total), gain])
        columns = ["the same candidates", "nDCG@10", "P@1", "gain, 95% interval"]
        found = [Table(title="", columns=columns, rows=rows)] if rows else []
        return [*found, _verdict_table(report)] if report.get("verdicts") else found


BENCHMARK = PictureBook()


def _query(query: DemoQuery) -> BenchmarkQuery:
    return BenchmarkQuery(text=query.text, turns=query.turns)


def _figures(row: Mapping[str, Any]) -> list[Cell]:
    return [Cell(text=f"{row[n]:.3f}", value=row[n], numeric=True) for n in ("nDCG@10", "P@1")]


def _verdict_table(report: Mapping[str, Any]) -> Table:
    shares = {
        **{kind: (row["seen"], row["unseen"]) for kind, row in report["verdicts"].items()},
        # of wordings, not of combinations
        "decomposed exactly (new wordings)": (
            report["deconstruction"]["seen"],
            report["deconstruction"]["unseen"],
        ),
    }
    found = report["no_match"]
    share = (
        f"reports rightly that nothing matches: {found['balanced_accuracy']:.3f} (balanced; "
        f"{found['usage']['calls']:,} calls more)"
    )
    return Table(
        title="",
        columns=["verdicts right (balanced)", "seen", "new combinations"],
        rows=[[Cell(text=kind), *map(_share, pair)] for kind, pair in shares.items()],
        notes=[share],
    )


def _share(value: float | None) -> Cell:
    return Cell(text="" if value is None else f"{value:.3f}", value=value, numeric=True)
