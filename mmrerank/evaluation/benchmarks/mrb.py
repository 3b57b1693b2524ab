"""MRB, the reranking benchmark of lychee-rerank-mm (arXiv 2510.14824), from folders in our own layout.

Its files and protocol are not public as far as we know, so nothing here claims to be its own code: each
data set is a folder below the data with ``queries.jsonl`` (see ``folder``), whose ``candidates`` are put in
order. Figures are nDCG@10, MRR@10 and R@1, by data set and as unweighted means over data sets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mmrerank.benchmark import Answer, Benchmark, BenchmarkQuery, Measured, NoOptions, Run, Task
from mmrerank.errors import InputError
from mmrerank.evaluation.benchmarks import query_folder
from mmrerank.evaluation.measure.metrics import measure
from mmrerank.evaluation.measure.short import room_of
from mmrerank.evaluation.tasks import find_all, how_to_get, one_run

NAME = "mrb"
METRICS = ("nDCG@10", "MRR@10", "R@1")


@dataclass(frozen=True, kw_only=True)
class MrbTask(Task):
    """``parts`` are the queries of each data set."""

    parts: Mapping[str, Sequence[str]]


class Mrb(Benchmark):
    """Data sets in folders of our own layout."""

    SPLITS = ("test",)

    def load(self, data: Path, split: str, options: NoOptions) -> MrbTask:
        """Every folder below ``data`` that has a table of queries; ids are ``dataset/id``."""
        asked: dict[str, BenchmarkQuery] = {}
        qrels: dict[str, dict[str, int]] = {}
        lists: dict[str, list[str]] = {}
        parts: dict[str, list[str]] = {}
        for folder in sorted(p for p in data.iterdir() if p.is_dir()):
            if find_all(folder, *query_folder.TABLES):
                content = query_folder.read(folder, NAME, f"{folder.name}/")
                asked |= content.asked
                qrels |= content.qrels
                lists |= content.lists
                parts[folder.name] = list(content.asked)
        if not parts:
            raise InputError(f"no folder below {data} holds a table of queries.\n{how_to_get(NAME)}")
        return MrbTask(
            queries=asked,
            qrels=qrels,
            lists=lists,
            categories={q: p for p, queries in parts.items() for q in queries},
            parts=parts,
            warnings=("MRB's protocol is not public: these figures are ours, not its own",),
        )

    def score(self, task: MrbTask, answers: Sequence[Answer]) -> dict[str, Measured]:
        """``DATASET.METRIC`` and the means over data sets."""
        whole = measure(Run(rows=one_run(task, answers).rows), task.qrels, METRICS, room=room_of(task))
        found: dict[str, Measured] = {}
        for name, measured in whole.items():
            for part, queries in task.parts.items():
                own = {q: measured.values[q] for q in queries if q in measured.values}
                found[f"{part}.{name}"] = replace(
                    measured, name=f"{part}.{name}", values=own, expected=queries
                )
            found[name] = replace(measured, parts=task.parts)
        return found


BENCHMARK = Mrb()
