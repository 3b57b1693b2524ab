"""What the server of a benchmark would refuse: every fault of a submission in one error, with counts and ids.

A file of a benchmark's own form is a submission on any split. A run of a split whose labels are private is
checked as the submission that would be made of it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from mmrerank.benchmark import Answer, Benchmark, Ranked, Run, Task
from mmrerank.errors import InputError, UsageError
from mmrerank.evaluation import tasks
from mmrerank.evaluation.measure.short import room_of

_SHOWN = 3  # ids of a fault


class Faults:
    """The faults of one submission, gathered so that all are named at once."""

    def __init__(self, path: Path | str, task: Task) -> None:
        self._path, self._task = path, task
        self._found: dict[str, list[str]] = {}
        self._of: dict[str, int] = {}

    def add(self, what: str, id_: str, detail: str = "") -> None:
        """Notes one fault: ``what`` is a plural such as ``lists that name an image twice``."""
        self._found.setdefault(what, []).append(f"{id_!r}{detail}")

    def queries(self, answered: Collection[str]) -> None:
        """Notes the task's queries that ``answered`` lacks, and those that are none of the task's."""
        expected = self._task.queries
        self._of["queries missing"] = len(expected)
        for query in expected:
            if query not in answered:
                self.add("queries missing", query)
        where = f"queries that {self._task.benchmark} {self._task.split} does not have"
        for query in answered:
            if query not in expected:
                self.add(where, query)

    def names(self, query: str, names: Sequence[str], *, known: Collection[str] | None, count: int) -> None:
        """Notes what is wrong with a list that must have ``count`` names out of ``known``, each once."""
        if len(names) != count:
            self.add(f"lists of other than {count} names", query, f" with {len(names)}")
        if len(set(names)) != len(names):
            self.add("lists that name an image twice", query)
        self.strange(query, names, known)

    def strange(self, query: str, names: Iterable[str], known: Collection[str] | None) -> None:
        """Notes a list that has an image which the benchmark does not have."""
        if known is not None and (odd := next((n for n in names if n not in known), None)) is not None:
            self.add("lists with an image that the benchmark does not have", query, f": {odd!r}")

    def raise_any(self) -> None:
        """Raises `InputError` where there are any."""
        if not self._found:
            return
        faults = []
        for what, found in self._found.items():
            of = f" of {self._of[what]}" if what in self._of else ""
            more = ", ..." if len(found) > _SHOWN else ""
            faults.append(f"{what}: {len(found)}{of} ({', '.join(found[:_SHOWN])}{more})")
        others = [s for s in tasks.benchmark_of(self._task.benchmark).SPLITS if s != self._task.split]
        hint = (
            f". Is it of another split (--split {', '.join(others)})?" if self._split_is_odd(others) else ""
        )
        raise InputError(
            f"{self._path} is no sound submission for {self._task.benchmark} {self._task.split}. "
            f"{'; '.join(faults)}{hint}"
        )

    def _split_is_odd(self, others: Sequence[str]) -> bool:
        strange = any(what.startswith("queries that") for what in self._found)
        lacking = len(self._found.get("queries missing", ())) > len(self._task.queries) / 2
        return bool(others) and (strange or lacking)


def has_files(benchmark: str) -> bool:
    """Whether a benchmark has submission files that can be written."""
    return type(tasks.benchmark_of(benchmark)).write_own is not Benchmark.write_own


def check(task: Task, answers: Sequence[Answer]) -> None:
    """Checks answers to a split whose labels are private: runs as the submission that would be made of them,
    and files that are parts of one submission as a whole. Each file of its own is checked when it is read.

    Raises `InputError` where they are no sound submission, and `UsageError` for several answers of a kind.
    """
    benchmark = tasks.benchmark_of(task.benchmark)
    own = has_files(task.benchmark)
    kinds = [a.kind for a in answers]
    # a run answers everything by itself
    twice = len(set(kinds)) < len(kinds) or "run" in kinds
    if len(kinds) > 1 and twice and not benchmark.FILES_ARE_PARTS:
        paths = ", ".join(a.path for a in answers)
        raise UsageError(
            f"{paths}: one submission has one file of a kind; give one --run, or one file of each"
        )
    for answer in answers:
        if answer.kind == "run" and own:
            with tempfile.TemporaryDirectory(prefix="mmrerank-submission-") as folder:
                benchmark.write_own(task, Run(rows=answer.rows, tag=answer.path), Path(folder))
        elif answer.kind == "run" and not benchmark.FILES_ARE_PARTS:
            _check_lists(task, answer.path, answer.rows)
    if benchmark.FILES_ARE_PARTS and not own:
        _check_lists(task, ", ".join(a.path for a in answers), tasks.merged(answers))


def _check_lists(task: Task, where: str, rows: Mapping[str, Ranked]) -> None:
    faults = Faults(where, task)
    faults.queries(rows)
    room = room_of(task)
    known = None if task.gallery is None else frozenset(task.gallery)
    for query, ranked in tasks.without(task, rows).items():
        size = room(query)
        if len(ranked) < (wanted := task.depth if size is None else min(task.depth, size)):
            faults.add(f"lists of fewer than {wanted} names", query, f" with {len(ranked)}")
        faults.strange(query, ranked.ids, known)
    faults.raise_any()
