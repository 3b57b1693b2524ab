"""What a benchmark is: its interface, and its values (queries, relevant documents, a run's lists, scores).

`mmrerank.ports` passes on every name. No file is read and no metric computed here: that is done in
`mmrerank.evaluation.measure`.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, overload, runtime_checkable

# what is measured has a file of its own for length; these names are part of this one
from mmrerank.measured import Measured as Measured
from mmrerank.measured import Scores as Scores
from mmrerank.measured import Short as Short
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
    """A query as a benchmark asks it: words, the document that is its image, earlier turns.

    ``instruction`` is what the benchmark tells models to do with them.
    """

    text: str = ""
    image: str = ""
    turns: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    instruction: str = ""


APART = "apart"
"""The kind of the answer to a task's question `Task.apart`."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A split of a benchmark: its queries, what is right, and what may be returned.

    ``benchmark`` and ``split`` are filled in where they are empty. ``qrels`` is empty where labels are
    private. ``gallery`` holds the documents, None where the data does not list them; ``lists`` the documents
    that a query chooses among, where each has its own. ``removed`` are documents that a query's list leaves
    out before it is judged, ``kept`` those that a first stage lists even when they are not among the nearest.
    ``apart`` are a few documents of each query that methods rank by themselves too, in a second question.
    ``files`` maps a document to its file below the folder of images, where that is not the document's own
    name; ``texts`` to its words, ``told`` to what the benchmark tells models to do with it. ``first`` is a
    first stage that comes with the data, ``pictures`` gives pictures that lie in it. ``depth`` is how long a list
    the metrics look at; ``categories`` may break a figure down. ``sources`` are the files it was read from, as far as they are known.
    """

    queries: Mapping[str, BenchmarkQuery]
    qrels: Qrels
    benchmark: str = ""
    split: str = ""
    gallery: Sequence[str] | None = None
    lists: Mapping[str, Sequence[str]] = field(default_factory=dict)
    removed: Mapping[str, frozenset[str]] = field(default_factory=dict)
    kept: Mapping[str, frozenset[str]] = field(default_factory=dict)
    apart: Mapping[str, frozenset[str]] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    told: Mapping[str, str] = field(default_factory=dict)
    categories: Mapping[str, str] = field(default_factory=dict)
    first: Mapping[str, Ranked] = field(default_factory=dict)
    pictures: Callable[[str], Image] | None = None
    depth: int = 100
    warnings: tuple[str, ...] = ()
    sources: tuple[Path, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The lists of one file. ``kind`` is ``run``, `APART`, or the benchmark's name for a file of its own."""

    path: str
    kind: str
    rows: Mapping[str, Ranked]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    """For a benchmark without options."""


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
    ``METHODS`` are run where none is named. ``TIES``: its metrics say what equal scores mean, so that a
    reranked list is scored with the method's own numbers; else in its order, without ties.
    ``FILES_ARE_PARTS``: several files of one run each answer a part of the queries; otherwise each must
    answer all. ``task`` is always what `load` (or `prepare`) returned.

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
    TIES: bool = False
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

    def write_apart(self, task: Any, run: Run, folder: Path) -> None:
        """Writes the lists of the question `Task.apart` over what `write_own` has written of it."""
        return

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
