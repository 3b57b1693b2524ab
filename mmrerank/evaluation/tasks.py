"""What a benchmark is to us, and how any run is scored by one.

A benchmark is a file in `mmrerank.evaluation.benchmarks`: it reads its own folders, says what is asked and
what is right, and computes its own figures. Beside it lies ``NAME.yaml`` with published counts and figures.
Nothing here knows any of them.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from mmrerank import config, registry
from mmrerank.errors import InputError, UsageError
from mmrerank.evaluation.measure.files import parse_json, read_bytes
from mmrerank.evaluation.measure.list_metrics import LIST_TIES, Listed, hit
from mmrerank.evaluation.measure.runs import Qrels, Ranked, Run
from mmrerank.evaluation.measure.scores import Measured, Scores
from mmrerank.evaluation.measure.scoring import quoted, read_any, unknown_queries
from mmrerank.types import Image


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A query as a benchmark asks it: words, the document that is its image, earlier turns."""

    text: str = ""
    image: str = ""
    turns: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Task:
    """A split of a benchmark: its queries, what is right, and what may be returned.

    ``qrels`` is empty where labels are private. ``gallery`` holds the documents, None where the data does
    not list them; ``lists`` the documents that a query chooses among, where each has its own. ``removed``
    are documents that a query's list leaves out before it is judged, ``kept`` those that a first stage lists
    even when they are not among the nearest. ``files`` maps a document to its file below the folder of
    images, where that is not the document's own name; ``texts`` to its words.
    ``first`` is a first stage that comes with the data, ``pictures`` gives pictures that lie in it. ``depth``
    is how long a list the metrics look at; ``categories`` may break a figure down.
    """

    benchmark: str
    split: str
    queries: Mapping[str, Asked]
    qrels: Qrels
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


def module_of(name: str) -> ModuleType:
    """The benchmark's module; a hyphen in the name is an underscore in the file's."""
    module: ModuleType = registry.load("benchmark", name.replace("-", "_"))
    return module


def names() -> list[str]:
    """Every benchmark, as named on the command line."""
    return [n.replace("_", "-") for n in registry.names("benchmark")]


@cache
def published(name: str) -> Mapping[str, Any]:
    """The data beside the benchmark: where it is from, ``counts`` by split, ``published`` figures."""
    beside = beside_file(name)
    body: Mapping[str, Any] = {"about": "", "source": "", "get": "", "published": []}
    return {**body, **yaml.safe_load(beside.read_text("utf-8"))} if beside.is_file() else body


def beside_file(name: str) -> Path:
    """``NAME.yaml`` beside the benchmark's file, whether it is there or not."""
    spec = find_spec(registry.place("benchmark", name.replace("-", "_")))
    return Path(str(spec.origin if spec else name)).with_suffix(".yaml")


def load_task(
    name: str, data: Path, *, split: str | None = None, options: Mapping[str, Any] | None = None
) -> Task:
    """Reads and checks a benchmark's files below ``data``.

    Raises `UsageError` for an unknown benchmark, split or option and `InputError` for missing files (with
    how to get them) and for wrong ones (with file, row and column).
    """
    module = module_of(name)
    wanted = split or module.SPLITS[0]
    if wanted not in module.SPLITS:
        near = difflib.get_close_matches(wanted, module.SPLITS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UsageError(
            f"{name} has no split {wanted!r}; it has {', '.join(module.SPLITS)}.{hint}"
        )
    given = config.build(module.Options, options or {}, where=f"benchmark {name}")
    if not data.is_dir():
        raise InputError(f"there is no folder {data}.\n{how_to_get(name)}")
    task: Task = module.load(data, wanted, given)
    return task


def how_to_get(name: str) -> str:
    """What to say when a benchmark's files are not there."""
    return f"How to get {name}: {' '.join(str(published(name)['get']).split())}"


def find(data: Path, name: str, *places: str) -> Path:
    """The first file of ``places`` below ``data``, plain or gzipped; ``*`` may stand in for characters.

    Raises `InputError` saying what is missing and how to get it.
    """
    found = find_all(data, *places)
    if not found:
        wanted = " or ".join(str(data / p) for p in places)
        raise InputError(f"{name} needs {wanted}, which is not there.\n{how_to_get(name)}")
    return found[0]


def find_all(data: Path, *places: str) -> list[Path]:
    """Every file of the first of ``places`` that has any, sorted."""
    for place in places:
        if "*" in place:
            files = sorted({*data.glob(place), *data.glob(place + ".gz")})
        else:
            files = [p for p in (data / place, data / f"{place}.gz") if p.is_file()]
        if files:
            return files
    return []


def count_warnings(name: str, split: str, found: Mapping[str, int], where: str) -> tuple[str, ...]:
    """What to say where a count is not the published one."""
    known = published(name).get("counts", {}).get(split, {})
    return tuple(
        f"{where}: {found[what]} {what}, but {number} are published for {name} {split}"
        for what, number in known.items()
        if what in found and found[what] != number
    )


def own_runs(name: str, data: Path) -> list[Path]:
    """Predictions that lie in the data itself and are scored when no run is given (MMEB)."""
    find_own: Callable[[Path], list[Path]] = getattr(module_of(name), "own_runs", lambda _: [])
    return find_own(data)


def read_answer(task: Task, path: Path) -> Answer:
    """The lists in ``path``: a TREC run, raw scores, or a file of the benchmark's own form (each may be .gz).

    Raises `InputError` when it is none of them, or answers none of the queries.
    """
    module = module_of(task.benchmark)
    own: Callable[[Task, Path, Any], Answer | None] | None = getattr(module, "read_own", None)
    name = path.name.removesuffix(".gz")
    if name.endswith((".json", ".jsonl")) and own is not None:
        text = read_bytes(path).decode("utf-8-sig", "surrogateescape")
        answer = own(task, path, parse_json(text, path) if name.endswith(".json") else text)
        if answer is not None:
            return answer
    if name.endswith(".json"):
        raise InputError(
            f"{path} is JSON, and {task.benchmark} has no prediction or submission file of that form; "
            "give a TREC run"
        )
    run = read_any(path)
    rename: Callable[[Task, Mapping[str, Ranked]], Mapping[str, Ranked]] | None
    rename = getattr(module, "canonical", None)
    rows = {q: Ranked.of(r) for q, r in run.rows.items()}
    if rename is not None:
        rows = dict(rename(task, rows))
    told = unknown_queries(rows, task.queries, str(path), f"{task.benchmark} {task.split}")
    rows = {q: r for q, r in rows.items() if q in task.queries}
    return Answer(
        path=str(path),
        kind="run",
        rows=rows,
        warnings=(*told, *unknown_documents(task, rows, path)),
    )


def named_documents(task: Task) -> Sequence[str] | None:
    """The gallery, or else what queries choose among and what is judged; None where there are no lists."""
    if task.gallery is not None or not task.lists:
        return task.gallery
    tables = (task.lists, task.qrels)
    return list(dict.fromkeys(i for table in tables for own in table.values() for i in own))


def unknown_documents(task: Task, rows: Mapping[str, Ranked], path: Path) -> list[str]:
    """A warning when lists hold documents that the benchmark does not have; they stand as wrong answers."""
    used = {i for r in rows.values() for i in r.ids}
    every = task.gallery is not None or all(q in task.lists for q in task.queries)
    listed = (named_documents(task) if every else None) or ()
    where = f"{task.benchmark} {task.split}"
    if not listed:
        right = {i for judged in task.qrels.values() for i in judged}
        if not right or used & right:
            return []
        # wrong answers cannot be told from ids of another kind, but a run of nothing else is odd
        return [
            f"{path}: none of its ids is a right answer of {where} to any query; they are like "
            f"{quoted(sorted(used))}, those like {quoted(sorted(right))}"
        ]
    known = set(listed)
    strange = used - known
    if not strange:
        return []
    if not used & known:
        raise InputError(
            f"{path} has no image of {where}: its ids are like {quoted(sorted(strange))}, "
            f"the benchmark's like {quoted(listed)}"
        )
    return [
        f"{path}: {len(strange)} ids are no image of {where} ({quoted(sorted(strange))}); "
        "they count as wrong answers"
    ]


def score_files(
    name: str,
    data: Path,
    runs: Sequence[Path],
    *,
    split: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Scores:
    """Scores files against a benchmark as its own protocol says. Needs no images.

    Raises `UsageError` and `InputError` as `load_task` and `read_answer` do, and when labels are private.
    """
    task = load_task(name, data, split=split, options=options)
    return score(task, [read_answer(task, p) for p in runs])


def score(task: Task, answers: Sequence[Answer]) -> Scores:
    """Scores answers that were read. A query is missing when one of them lacks it; where they are parts of
    one answer, when all do.
    """
    if not task.qrels:
        raise InputError(
            f"the labels of {task.benchmark} {task.split} are not public: a submission file can be checked "
            "(--run) and sent to the benchmark's server, but not scored here"
        )
    module = module_of(task.benchmark)
    metrics: dict[str, Measured] = module.score(task, answers)
    # what figures of lists that are too short leave out
    doubts: Callable[[Task, Sequence[Answer]], list[str]]
    doubts = getattr(module, "doubts", lambda task, answers: [])
    expected = getattr(module, "expected", lambda task, _: list(task.qrels))(task, answers)
    # several files are parts of one answer (MMEB's data sets) or each must answer all (CIRR's two)
    lacks = all if getattr(module, "PARTIAL", False) else any
    return Scores(
        benchmark=task.benchmark,
        split=task.split,
        metrics=metrics,
        expected=len(expected),
        missing=[q for q in expected if lacks(q not in a.rows for a in answers)],
        warnings=[
            *task.warnings,
            *(w for a in answers for w in a.warnings),
            *doubts(task, answers),
        ],
    )


def write_submission(task: Task, answers: Sequence[Answer], folder: Path) -> list[Path]:
    """Writes the benchmark's official files of a run, reads them again, and returns their paths.

    Raises `UsageError` where the benchmark has none, or there is no run to write.
    """
    write = getattr(module_of(task.benchmark), "write_own", None)
    if write is None:
        raise UsageError(f"{task.benchmark} has no submission file")
    runs = [a for a in answers if a.kind == "run"]
    if len(runs) != 1:
        raise UsageError(
            f"a submission is written from one TREC run, not {len(runs)}; give it as --run"
        )
    paths: list[Path] = write(task, Run(rows=runs[0].rows), folder)
    for path in paths:
        read_answer(task, path)
    return paths


def recall(
    name: str,
    rows: Mapping[str, Ranked],
    task: Task,
    k: int,
    *,
    expected: Sequence[str] | None = None,
    parts: Mapping[str, Sequence[str]] | None = None,
) -> Measured:
    """R@k as image retrieval uses it: 1 when a right document is among the first ``k`` of the list."""
    units = list(task.qrels) if expected is None else list(expected)
    wanted = set(units)
    return Measured(
        name=name,
        values={q: hit(Listed.of(r, task.qrels[q]), k) for q, r in rows.items() if q in wanted},
        expected=units,
        parts=parts or {},
        tie_rule=LIST_TIES,
    )


def one_run(task: Task, answers: Sequence[Answer]) -> Answer:
    """The answer, for benchmarks that take one file. Raises `UsageError` for several."""
    if len(answers) != 1:
        raise UsageError(f"{task.benchmark} scores one --run at a time, not {len(answers)}")
    return answers[0]


def merged(answers: Sequence[Answer]) -> dict[str, Ranked]:
    """The lists of several files that are parts of one answer. Raises `UsageError` for a query in two."""
    rows: dict[str, Ranked] = {}
    for answer in answers:
        if both := rows.keys() & answer.rows.keys():
            raise UsageError(f"{answer.path} answers query {min(both)!r} a second time")
        rows |= answer.rows
    return rows


def renamed(rows: Mapping[str, Ranked], name: Callable[[str], str]) -> dict[str, Ranked]:
    """Lists with every document under the benchmark's own name for it.

    Raises `InputError` when a list then has one twice.
    """
    found = {}
    for query, ranked in rows.items():
        ids = [name(i) for i in ranked.ids]
        if len(set(ids)) != len(ids) and len(set(ranked.ids)) == len(ids):
            twice = next(i for n, i in enumerate(ids) if i in ids[:n])
            raise InputError(f"query {query!r} lists image {twice!r} twice, under two of its names")
        found[query] = Ranked(ids, ranked.scores)
    return found


def without(task: Task, rows: Mapping[str, Ranked]) -> dict[str, Ranked]:
    """The lists without the documents that the protocol leaves out."""
    kept = {}
    for query, ranked in rows.items():
        out = task.removed.get(query, frozenset())
        kept[query] = only(ranked, set(ranked.ids) - out) if out else ranked
    return kept


def only(ranked: Ranked, kept: Container[str]) -> Ranked:
    """The documents of a list that are among ``kept``, in their order."""
    places = [n for n, i in enumerate(ranked.ids) if i in kept]
    if len(places) == len(ranked):
        return ranked
    return Ranked([ranked.ids[n] for n in places], [ranked.scores[n] for n in places])
