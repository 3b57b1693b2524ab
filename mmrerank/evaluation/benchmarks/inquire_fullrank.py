"""INQUIRE full-rank: 250 expert queries over five million iNaturalist pictures, judged on the first 50.

Also its two-stage form, where the first 50 or 100 are reranked and the best 50 kept: R is then still every
positive of the annotation file, never those among the candidates. Source: Vendrow et al. 2024,
arXiv 2411.02537; inquire-benchmark/INQUIRE, commit 4473f3f.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmrerank.benchmark import Answer, Benchmark, BenchmarkQuery, Measured, Ranked, Run, Task
from mmrerank.evaluation.benchmarks import _inquire
from mmrerank.evaluation.measure.metrics import relisted
from mmrerank.evaluation.measure.short import room_of
from mmrerank.evaluation.tasks import count_warnings, one_run, renamed

NAME = "inquire-fullrank"


@dataclass(frozen=True, kw_only=True)
class InquireOptions:
    """``k``: how many of the list are judged (50 in the benchmark)."""

    k: int = 50

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k must be at least 1, not {self.k}")


@dataclass(frozen=True, kw_only=True)
class InquireTask(Task):
    """The names that images go by, and how deep the list is judged."""

    names: Mapping[str, str]
    k: int


class InquireFullrank(Benchmark):
    """Expert queries, judged on the first k of a list."""

    SPLITS = _inquire.SPLITS
    TIES = True
    Options = InquireOptions

    def load(self, data: Path, split: str, options: InquireOptions) -> InquireTask:
        """``inquire_queries_SPLIT.csv`` and ``inquire_annotations.csv``."""
        queries = _inquire.read_queries(data, split, NAME)
        annotated = _inquire.read_annotations(data, queries, NAME)
        nothing = [q for q, judged in annotated.positives.items() if not judged]
        warnings = count_warnings(NAME, split, {"queries": len(queries.texts)}, str(queries.path))
        if nothing:
            warnings += (f"{annotated.path} has no image for {len(nothing)} queries; they score 0",)
        return InquireTask(
            queries={q: BenchmarkQuery(text=t) for q, t in queries.texts.items()},
            qrels=annotated.positives,
            files=annotated.files,
            categories=queries.categories,
            names=annotated.names,
            depth=options.k,
            k=options.k,
            warnings=warnings,
        )

    def canonical(self, task: InquireTask, rows: Mapping[str, Ranked]) -> Mapping[str, Ranked]:
        """A run may name images by id, path or file name, with or without extension."""
        return renamed(rows, _inquire.by_name(task.names))

    def score(self, task: InquireTask, answers: Sequence[Answer]) -> dict[str, Measured]:
        """AP, nDCG and MRR as the benchmark defines them, precision and recall, all at k."""
        run = Run(rows=one_run(task, answers).rows)
        names = [f"{m}@{task.k}" for m in ("INQUIRE_AP", "INQUIRE_nDCG", "INQUIRE_MRR")]
        more = {f"P@{task.k}": f"Precision@{task.k}", f"R@{task.k}": f"Recall@{task.k}"}
        return relisted(run, task.qrels, {**{n: n for n in names}, **more}, room=room_of(task))


BENCHMARK = InquireFullrank()
