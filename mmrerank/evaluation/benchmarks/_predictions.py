"""MMEB's prediction files, one for each data set: checked as a whole, their lists read again when asked for.

Thirty-six data sets of a thousand queries with a thousand candidates each are more text than fits in memory.
One data set does: lists are asked for in its order, and the last one read is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from mmrerank.benchmark import HIGHEST_GRADE
from mmrerank.errors import InputError
from mmrerank.evaluation.measure.files import TableRow, json_lines

ENDING = "_pred.jsonl"
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A data set as a prediction file has it: what is right, by row, and how many rows repeat a candidate."""

    name: str
    path: Path
    state: tuple[int, int]
    right: Sequence[Mapping[str, int]]
    repeated: int

    @property
    def queries(self) -> list[str]:
        """The ids of its queries, in their order."""
        return [f"{self.name}/{n}" for n in range(len(self.right))]


def read(path: Path) -> DataSet:
    """A prediction file: ``{"prediction": [...], "label": str | list, "rel_scores": null | list}`` a line.

    Raises `InputError` naming the row that is wrong.
    """
    name = path.name.removesuffix(".gz")
    if not name.endswith(ENDING):
        raise InputError(f"{path}: a prediction file is called DATASET{ENDING}")
    state = state_of(path)
    right: list[dict[str, int]] = []
    repeated = 0
    for row in json_lines(path, ("prediction", "label")):
        shown = row.sequence("prediction")
        if not all(isinstance(p, str) for p in shown):
            raise row.wrong("prediction", "must hold candidate keys, which are texts")
        label = row.get("label")
        labels = row.sequence("label") if isinstance(label, list) else [label]
        if not labels or not all(isinstance(i, str) for i in labels):
            raise row.wrong("label", f"must be a candidate key or a list of them, not {label!r}")
        if strange := [i for i in labels if i not in shown]:
            raise row.wrong("label", f"{strange[0]!r} is not among the candidates of 'prediction'")
        repeated += len(set(shown)) != len(shown)
        right.append(_graded(row, labels))
    if not right:
        raise InputError(f"{path} has no row")
    return DataSet(name=name.removesuffix(ENDING), path=path, state=state, right=right, repeated=repeated)


def _graded(row: TableRow, labels: Sequence[str]) -> dict[str, int]:
    """Grades in the labels' own order: pairing them after a set, as the official code does, would make
    them depend on the interpreter's hash seed.
    """
    if not row.has("rel_scores"):
        return dict.fromkeys(labels, 1)
    grades = row.integers("rel_scores")
    if any(not 0 <= g <= HIGHEST_GRADE for g in grades):
        raise row.wrong("rel_scores", f"a grade is from 0 to {HIGHEST_GRADE}")
    if len(grades) != len(labels):
        raise row.wrong("rel_scores", f"has {len(grades)} grades for {len(labels)} labels")
    return dict(zip(labels, grades, strict=True))


class Predicted(Mapping[str, T]):
    """``make(query, candidates as predicted)`` by query id, over files that are read when needed."""

    def __init__(self, sets: Sequence[DataSet], make: Callable[[str, Sequence[str]], T]) -> None:
        self._make = make
        self._sets = {s.name: s for s in sets}
        self._queries = {q: (s.name, n) for s in sets for n, q in enumerate(s.queries)}

    def __getitem__(self, query: str) -> T:
        name, number = self._queries[query]
        found = self._sets[name]
        lists = _lists(found.path, found.state)
        if len(lists) != len(found.right) or state_of(found.path) != found.state:
            raise InputError(f"{found.path} was changed while it was read; start again")
        return self._make(query, lists[number])

    def __contains__(self, query: object) -> bool:
        return query in self._queries

    def __iter__(self) -> Iterator[str]:
        return iter(self._queries)

    def __len__(self) -> int:
        return len(self._queries)


def state_of(path: Path) -> tuple[int, int]:
    """By what a file that was changed is known. Raises `InputError` when it is gone."""
    try:
        found = path.stat()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=1)
def _lists(path: Path, state: tuple[int, int]) -> list[Sequence[str]]:
    return [row.sequence("prediction") for row in json_lines(path, ("prediction",))]
