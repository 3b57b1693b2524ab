"""What a benchmark is: its interface, and its values (queries, relevant documents, a run's lists, scores).

`mmrerank.ports` passes on every name. No file is read and no metric computed here: that is done in
`mmrerank.evaluation.measure`.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, overload, runtime_checkable

from mmrerank.types import Image

Qrels = Mapping[str, Mapping[str, int]]
"""Relevance by query id and document id."""


HIGHEST_GRADE = 1000
"""Beyond it 2^grade and trec_eval's tables by grade are of no use to anybody."""


class Scored(NamedTuple):
    """One line of a run: a document and its score."""

    id: str
    score: float


class Ranked(Sequence[Scored]):
    """The documents of one query, best first, held without an object for each of them.

    A run of millions of lines is read and scored in this form: ``ids`` and, as long, ``scores``.
    """

    __slots__ = ("ids", "scores")

    def __init__(self, ids: Sequence[str], scores: Sequence[float]) -> None:
        self.ids = tuple(ids)
        self.scores = array("d", scores)

    @classmethod
    def of(cls, rows: Sequence[Scored]) -> Ranked:
        """``rows`` in this form."""
        return rows if isinstance(rows, cls) else cls([r.id for r in rows], [r.score for r in rows])

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, place: int) -> Scored: ...

    @overload
    def __getitem__(self, place: slice) -> Ranked: ...

    def __getitem__(self, place: int | slice) -> Scored | Ranked:
        if isinstance(place, slice):
            return Ranked(self.ids[place], self.scores[place])
        return Scored(self.ids[place], self.scores[place])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment] # a sequence with an array inside


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one system returned: documents by query id, best first, each once. ``tag`` names the system."""

    rows: Mapping[str, Sequence[Scored]]
    tag: str = "mmrerank"


@dataclass(frozen=True, kw_only=True)
class BenchmarkQuery:
    """A query as a benchmark asks it: words, the document that is its image, earlier turns."""

    text: str = ""
    image: str = ""
    turns: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Task:
    """A split of a benchmark: its queries, what is right, and what may be returned.

    ``benchmark`` and ``split`` are filled in where they are empty. ``qrels`` is empty where labels are
    private. ``gallery`` holds the documents, None where the data does not list them; ``lists`` the documents
    that a query chooses among, where each has its own. ``removed`` are documents that a query's list leaves
    out before it is judged, ``kept`` those that a first stage lists even when they are not among the nearest.
    ``files`` maps a document to its file below the folder of images, where that is not the document's own
    name; ``texts`` to its words. ``first`` is a first stage that comes with the data, ``pictures`` gives
    pictures that lie in it. ``depth`` is how long a list the metrics look at; ``categories`` may break a
    figure down.
    """

    queries: Mapping[str, BenchmarkQuery]
    qrels: Qrels
    benchmark: str = ""
    split: str = ""
    gallery: Sequence[str] | None = None
    lists: Mapping[str, Sequence[str]] = field(default_factory=dict)
    removed: Mapping[str, frozenset[str]] = field(default_factory=dict)
    kept: Mapping[str, frozenset[str]] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    categories: Mapping[str, str] = field(default_factory=dict)
    first: Mapping[str, Ranked] = field(default_factory=dict)
    pictures: Callable[[str], Image] | None = None
    depth: int = 100
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The lists of one file. ``kind`` is ``run``, or the benchmark's own name for a file of its own."""

    path: str
    kind: str
    rows: Mapping[str, Ranked]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    """For a benchmark without options."""


@dataclass(frozen=True, kw_only=True)
class Short:
    """Lists that are too short for a figure, by unit: `mmrerank.evaluation.measure.short` has the rule.

    ``held`` says how many names each list has, ``wanted`` how many are looked at. Those of ``lacking`` miss a
    right answer, so that longer lists could change their values. ``explained``: a warning of the benchmark's
    own says what follows.
    """

    held: Mapping[str, int]
    wanted: Mapping[str, int]
    lacking: frozenset[str] = frozenset()
    explained: bool = False

    def to_dict(self) -> dict[str, Any]:
        """``{"lists", "lacking", "wanted", "first"}``: how many, the most names wanted, and the first ids."""
        return {
            "lists": len(self.held),
            "lacking": len(self.lacking),
            "wanted": max(self.wanted.values(), default=0),
            "first": list(self.held)[:3],
        }


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One metric. Its unit is a query, or a dialogue where the metric judges whole dialogues.

    ``values`` holds the units that the run answered, ``expected`` every unit that counts. ``parts``, where
    there are any, name the units of each part (category, data set, round): the mean is then taken over the
    parts' means, each part counting the same. ``absent`` is what a unit without an answer counts as.
    ``lowest`` and ``highest`` are the values under the worst and the best order of tied documents. ``short``
    names lists that are too short, also those of units that do not count here: see `too_short`. Values that
    are no fractions (counts) are not shown as percentages. ``error`` says why there are no values.
    """

    name: str
    values: Mapping[str, float]
    expected: Sequence[str]
    tie_rule: str
    parts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    absent: float = 0.0
    lower_is_better: bool = False
    lowest: Mapping[str, float] | None = None
    highest: Mapping[str, float] | None = None
    short: Short | None = None
    is_fraction: bool = True
    error: str = ""

    @property
    def too_short(self) -> Short | None:
        """The lists of its own units that are too short; None where all are long enough."""
        if self.short is None:
            return None
        held = {u: self.short.held[u] for u in self.expected if u in self.short.held}
        lacking = self.short.lacking & held.keys()
        return replace(self.short, held=held, lacking=lacking) if held else None

    @property
    def value(self) -> float:
        """The mean over every expected unit, absent ones included; 0 without any."""
        return self._mean(self.values, whole=True)

    @property
    def value_scored(self) -> float:
        """The mean over the units that have a value; 0 without any."""
        return self._mean(self.values, whole=False)

    @property
    def bounds(self) -> tuple[float, float] | None:
        """``value`` under the worst and the best order of tied documents, where that was asked for."""
        if self.lowest is None or self.highest is None:
            return None
        return self._mean(self.lowest, whole=True), self._mean(self.highest, whole=True)

    def _mean(self, values: Mapping[str, float], *, whole: bool) -> float:
        means = []
        for units in self.parts.values() if self.parts else (self.expected,):
            if whole:
                found = [values.get(u, self.absent) for u in units]
            else:
                found = [values[u] for u in units if u in values]
            if found:
                means.append(sum(found) / len(found))
        return sum(means) / len(means) if means else 0.0

    def to_dict(self) -> dict[str, Any]:
        """``{"value", "value_scored", "tie_rule"}``, ``tie_bounds`` where they were asked for, and ``short``
        where lists are too short.
        """
        body: dict[str, Any] = {
            "value": self.value,
            "value_scored": self.value_scored,
            "tie_rule": self.tie_rule,
        }
        if self.bounds is not None:
            body["tie_bounds"] = list(self.bounds)
        if (short := self.too_short) is not None:
            body["short"] = short.to_dict()
        return body


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Every metric of one run, how many queries it answered, and what a reader must know.

    ``missing`` are the ids of expected queries that the run lacks, in the benchmark's order; ``failed`` says
    of metrics that could not be computed why.
    """

    metrics: Mapping[str, Measured]
    expected: int
    missing: Sequence[str] = ()
    benchmark: str | None = None
    split: str | None = None
    warnings: Sequence[str] = ()
    failed: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON; fractions, not percentages."""
        return {
            "benchmark": self.benchmark,
            "split": self.split,
            "metrics": {name: m.to_dict() for name, m in self.metrics.items()},
            "queries": {
                "expected": self.expected,
                "scored": self.expected - len(self.missing),
                "missing": len(self.missing),
            },
            **({"failed_metrics": dict(self.failed)} if self.failed else {}),
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True, kw_only=True)
class BenchmarkFacts:
    """What is known of a benchmark: ``NAME.yaml`` beside its file says it, or the benchmark itself.

    ``get`` says how to get the data; ``counts`` are the published numbers of queries and images by split;
    ``published`` has rows of ``system``, ``split``, ``metric`` and ``value``; ``groups`` are parts by name.
    """

    about: str = ""
    source: str = ""
    get: str = ""
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    published: Sequence[Mapping[str, Any]] = ()
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A task, and what a benchmark that makes its data has made: an index of its images.

    ``images`` is the folder of the images that queries are asked with, ``domain`` what they are of.
    """

    task: Task
    index: Path | None = None
    images: Path | None = None
    domain: str = ""


@runtime_checkable
class Benchmark(Protocol):
    """What is asked, what is relevant, and how lists are scored. Only `load` must be written.

    ``METRICS`` are names of `mmrerank list metrics`, computed where `score` returns None. ``Options`` is a
    frozen dataclass, every field with a default; each becomes a flag of ``mmrerank eval NAME``.
    ``METHODS`` are run where none is named. ``FILES_ARE_PARTS``: several files of one run each answer a part
    of the queries; otherwise each must answer all. ``task`` is always what `load` (or `prepare`) returned.

    >>> class Boats(Benchmark):
    ...     def load(self, data, split, options):
    ...         queries = {"q1": BenchmarkQuery(text="a red boat")}
    ...         return Task(queries=queries, qrels={"q1": {"boat.jpg": 1}})
    >>> BENCHMARK = Boats()
    >>> BENCHMARK.SPLITS
    ('test',)
    """

    SPLITS: tuple[str, ...] = ("test",)
    METRICS: tuple[str, ...] = ("nDCG@10", "AP", "RR", "R@1", "R@10")
    Options: type[Any] = NoOptions
    METHODS: tuple[str, ...] = ()
    FILES_ARE_PARTS: bool = False
    facts: BenchmarkFacts = BenchmarkFacts()

    def load(self, data: Path, split: str, options: Any) -> Task:
        """Reads the benchmark's own files below ``data``, a folder that exists.

        Raises `InputError` for a file that is missing or wrong.
        """
        ...

    def score(self, task: Any, answers: Sequence[Answer]) -> Mapping[str, Measured] | None:
        """Every figure by name; None for ``METRICS`` over the one list of each query."""
        return None

    def expected(self, task: Any, answers: Sequence[Answer]) -> Sequence[str]:
        """The queries that count, whether they were answered or not."""
        return list(task.qrels)

    def warnings(self, task: Any, answers: Sequence[Answer]) -> Sequence[str]:
        """What a reader of the figures must know of these lists, such as that they are too short."""
        return ()

    def canonical(self, task: Any, rows: Mapping[str, Ranked]) -> Mapping[str, Ranked]:
        """A run's lists under the benchmark's own names for queries and documents."""
        return rows

    def settle_ties(self, query: str, ranked: Ranked) -> Ranked:
        """A list that is to be reranked, with equal scores in an order that no label decides."""
        return ranked

    def own_runs(self, data: Path) -> Sequence[Path]:
        """Predictions that lie in the data itself and are scored when no run is given."""
        return ()

    def read_own(self, task: Any, path: Path, body: Any) -> Answer | None:
        """A prediction or submission file of the benchmark's own form; None where it is another.

        ``body`` is a ``.json`` file's content, parsed, or a ``.jsonl`` file's text.
        """
        return None

    def write_own(self, task: Any, run: Run, folder: Path) -> Sequence[Path] | None:
        """Writes the official submission files and returns their paths; None where there is no such form.

        Raises `InputError` where the benchmark's server would refuse them.
        """
        return None

    def prepare(
        self, folder: Path, options: Any, progress: Callable[[str, int, int], None]
    ) -> Prepared | None:
        """Makes the data in ``folder``, for a benchmark that needs no files; None for any other.

        ``progress`` is called with what is being done, how much is done, and of how much.
        """
        return None

    def unanswerable(self, task: Any) -> Task | None:
        """Further queries that no image meets, asked of the first method that gives verdicts."""
        return None

    def report(
        self, task: Any, results: Mapping[str, Sequence[Any]], unanswerable: Sequence[Any]
    ) -> Mapping[str, Any]:
        """Figures of its own, beside the metrics: plain data, ready for JSON.

        ``results`` are `mmrerank.SearchResult` by method, and ``unanswerable`` those of the further queries,
        which the last of the methods was asked. Rows under ``methods`` are added to those of the methods.
        """
        return {}

    def tables(self, report: Mapping[str, Any]) -> Sequence[Any]:
        """What of ``report`` people see, as `mmrerank.evaluation.compare.rendering.Table`."""
        return ()


class BenchmarkPlugin(Protocol):
    """The file of a benchmark; its name, with hyphens for underscores, is the benchmark's.

    ``NAME.yaml`` may lie beside it (see `BenchmarkFacts`). It may define ``EXAMPLE``, one command a line,
    for ``mmrerank eval NAME --help``.
    """

    @property
    def BENCHMARK(self) -> Benchmark:  # noqa: D102
        ...
