"""Any folder of queries and right answers of one's own, graded or not.

``queries.jsonl`` (or csv, json, parquet) with id, text and relevant (a list of image ids, or an object from
id to grade), and where they apply image, turns, exclude, candidates and category; ``qrels.txt`` may stand in
for relevant, and ``gallery.txt`` list the images.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmrerank.benchmark import Answer, Benchmark, Measured, Run, Task
from mmrerank.errors import UsageError
from mmrerank.evaluation.benchmarks import query_folder
from mmrerank.evaluation.measure.metrics import check_names, measure, split_names
from mmrerank.evaluation.measure.short import room_of
from mmrerank.evaluation.tasks import one_run

NAME = "folder"
_DEPTH = 1000  # of lists for metrics without a cut-off, as in TREC


@dataclass(frozen=True, kw_only=True)
class FolderOptions:
    """Metrics with commas between; names of ``mmrerank list metrics``."""

    metrics: str = "nDCG@10,AP,RR,R@1,R@5,R@10,P@1"


@dataclass(frozen=True, kw_only=True)
class FolderTask(Task):
    """``metrics`` are the names wanted, ``whole`` those of them that look at a list to its end."""

    metrics: Sequence[str]
    whole: Sequence[str]


class OwnFolder(Benchmark):
    """The queries of a folder of one's own, by the metrics asked for."""

    SPLITS = ("all",)
    Options = FolderOptions

    def load(self, data: Path, split: str, options: FolderOptions) -> FolderTask:
        """The folder's queries; see the module's text for its columns."""
        names = split_names(options.metrics)
        if not names:
            raise UsageError("the option metrics names none; see `mmrerank list metrics`")
        check_names(names)  # before any model is asked
        cuts = [int(k[1]) for n in names if (k := re.search(r"@(\d+)$", n))]
        whole = [n for n in names if not re.search(r"@\d+$", n)]
        content = query_folder.read(data, NAME)
        return FolderTask(
            queries=content.asked,
            qrels=content.qrels,
            gallery=content.gallery,
            lists=content.lists,
            categories=content.categories,
            metrics=names,
            whole=whole,
            depth=max([*cuts, *([_DEPTH] if whole else [])]),
        )

    def warnings(self, task: FolderTask, answers: Sequence[Answer]) -> list[str]:
        """A warning where lists end before what metrics without a cut-off look for, and nobody knows how long
        they could be.
        """
        right = {q: {i for i, grade in judged.items() if grade > 0} for q, judged in task.qrels.items()}
        rows = one_run(task, answers).rows
        room = room_of(task)
        cut = [q for q, ranked in rows.items() if room(q) is None and right[q] - set(ranked.ids)]
        if not cut or not task.whole:
            return []
        return [
            f"{len(cut)} of {len(rows)} lists lack some right image, such as {cut[0]!r}: it counts as never "
            f"found in {', '.join(task.whole)}; longer lists (--depth) may hold it"
        ]

    def score(self, task: FolderTask, answers: Sequence[Answer]) -> dict[str, Measured]:
        """The metrics asked for, by trec_eval's rules where it has them."""
        return measure(Run(rows=one_run(task, answers).rows), task.qrels, task.metrics, room=room_of(task))


BENCHMARK = OwnFolder()
