"""Benchmarks by name: their data loaded, any run scored by their protocol, and helpers for their authors.

A benchmark is a file in `mmrerank.evaluation.benchmarks`, or one of another package (see
`mmrerank.ports.Benchmark`). Nothing here knows any of them.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from mmrerank import config, registry
from mmrerank.benchmark import APART, Answer, Benchmark, BenchmarkFacts, Measured, Ranked, Run, Scores, Task
from mmrerank.discovery import source_file
from mmrerank.errors import InputError, MmrerankError, UsageError
from mmrerank.evaluation.measure import short
from mmrerank.evaluation.measure.files import noting, parse_json, read_bytes
from mmrerank.evaluation.measure.list_metrics import LIST_TIES, Listed, hit
from mmrerank.evaluation.measure.metrics import measure
from mmrerank.evaluation.measure.odd_runs import empty_parts, of_another_split
from mmrerank.evaluation.measure.scoring import left_out, parted, quoted, read_any, unknown_queries
from mmrerank.evaluation.measure.short import Room, room_of, too_short


def names() -> list[str]:
    """Every benchmark, as named on the command line. None is imported."""
    return sorted(n.replace("_", "-") for n in registry.names("benchmark"))


def every() -> Iterator[tuple[str, Benchmark]]:
    """Name and benchmark of each that works; a broken one costs one warning and is left out."""
    for name in names():
        try:
            yield name, benchmark_of(name)
        except MmrerankError as error:
            registry.warn("benchmark", name, error)


def benchmark_of(name: str) -> Benchmark:
    """The benchmark. Raises `UsageError` for an unknown name and for a plug-in that is broken."""
    found = registry.load("benchmark", _plugin(name)).BENCHMARK
    what = f"the benchmark {name!r} ({registry.place('benchmark', _plugin(name))})"
    if isinstance(found, type):
        raise UsageError(f"{what} cannot be used: BENCHMARK is a class; it must be an instance")
    registry.check(found, Benchmark, what)
    benchmark: Benchmark = found
    return benchmark


def _plugin(name: str) -> str:
    """A benchmark's file is called ``inquire_rerank`` where people write ``inquire-rerank``."""
    known = registry.names("benchmark")
    return next((n for n in known if n.replace("_", "-") == name), name.replace("-", "_"))


@cache
def facts_of(name: str) -> BenchmarkFacts:
    """What ``NAME.yaml`` beside the benchmark's file says, else the benchmark itself.

    Raises `UsageError` for a file that is no mapping of `BenchmarkFacts`.
    """
    own = benchmark_of(name).facts
    file = source_file(registry.place("benchmark", _plugin(name)))
    beside = Path(file or name).with_suffix(".yaml")
    about = own.about or registry.about("benchmark", _plugin(name))
    if not beside.is_file():
        return replace(own, about=about)
    try:
        body = yaml.safe_load(beside.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UsageError(f"{beside} cannot be read: {error}") from error
    known = {f.name for f in fields(BenchmarkFacts)}
    if not isinstance(body, dict) or not body.keys() <= known:
        raise UsageError(f"{beside} must be a mapping of {', '.join(sorted(known))}")
    return replace(own, **{"about": about, **body})


def load_task(
    name: str, data: Path, *, split: str | None = None, options: Mapping[str, Any] | None = None
) -> Task:
    """Reads and checks a benchmark's files below ``data``.

    Raises `UsageError` for an unknown benchmark, split or option and `InputError` for missing files (with
    how to get them) and for wrong ones (with file, row and column).
    """
    benchmark = benchmark_of(name)
    wanted = split_of(name, split)
    given = options_of(name, options)
    if not data.is_dir():
        raise InputError(f"there is no folder {data}.\n{how_to_get(name)}")
    with noting() as read:
        task = benchmark.load(data, wanted, given)
    return replace(named(task, name, wanted), sources=tuple(read))


def named(task: Task, name: str, split: str) -> Task:
    """The task with benchmark and split filled in where it leaves them empty."""
    return replace(task, benchmark=task.benchmark or name, split=task.split or split)


def split_of(name: str, split: str | None) -> str:
    """``split``, or else the benchmark's first one. Raises `UsageError` for one that it does not have."""
    known = benchmark_of(name).SPLITS
    wanted = split or known[0]
    if wanted not in known:
        near = difflib.get_close_matches(wanted, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"{name} has no split {wanted!r}; it has {', '.join(known)}.{hint}")
    return wanted


def options_of(name: str, options: Mapping[str, Any] | None) -> Any:
    """The benchmark's ``Options``. Raises `UsageError` for an unknown one or a wrong value."""
    return config.build(benchmark_of(name).Options, options or {}, where=f"benchmark {name}")


def how_to_get(name: str) -> str:
    """What to say when a benchmark's files are not there."""
    get = " ".join(facts_of(name).get.split())
    return f"How to get {name}: {get}" if get else f"{name} does not say how to get its files."


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
    known = facts_of(name).counts.get(split, {})
    return tuple(
        f"{where}: {found[what]} {what}, but {number} are published for {name} {split}"
        for what, number in known.items()
        if what in found and found[what] != number
    )


def read_answer(task: Task, path: Path) -> Answer:
    """The lists in ``path``: a TREC run, raw scores, or a file of the benchmark's own form (each may be .gz).

    Raises `InputError` when it is none of them, or answers none of the queries.
    """
    benchmark = benchmark_of(task.benchmark)
    name = path.name.removesuffix(".gz")
    if name.endswith((".json", ".jsonl")) and type(benchmark).read_own is not Benchmark.read_own:
        text = read_bytes(path).decode("utf-8-sig", "surrogateescape")
        body = parse_json(text, path) if name.endswith(".json") else text
        if (answer := benchmark.read_own(task, path, body)) is not None:
            return answer
    if name.endswith(".json"):
        raise InputError(
            f"{path} is JSON, and {task.benchmark} has no prediction or submission file of that form; "
            "give a TREC run"
        )
    return answer_of(task, read_any(path), str(path))


def answer_of(task: Task, run: Run, where: str) -> Answer:
    """A run's lists under the benchmark's names, checked; ``where`` is what messages call the run.

    Raises `InputError` when it answers none of the queries.
    """
    rows = {q: Ranked.of(r) for q, r in run.rows.items()}
    rows = dict(benchmark_of(task.benchmark).canonical(task, rows))
    warnings = unknown_queries(rows, task.queries, where, f"{task.benchmark} {task.split}")
    unknown = sum(q not in task.queries for q in rows)
    hint = of_another_split(unknown, len(rows), benchmark_of(task.benchmark).SPLITS, task.split)
    warnings = [w + hint for w in warnings]
    rows = {q: r for q, r in rows.items() if q in task.queries}
    return Answer(
        path=where, kind="run", rows=rows, warnings=(*warnings, *unknown_documents(task, rows, where))
    )


def named_documents(task: Task) -> Sequence[str] | None:
    """The gallery, or else what queries choose among and what is judged; None where there are no lists."""
    if task.gallery is not None or not task.lists:
        return task.gallery
    tables = (task.lists, task.qrels)
    return list(dict.fromkeys(i for table in tables for own in table.values() for i in own))


def _tables(task: Task) -> list[Mapping[str, Collection[str]]]:
    """Where the documents of ``task`` are named: the gallery, or lists of candidates and what is judged."""
    if task.gallery is not None:
        return [{"": task.gallery}] if task.gallery else []
    return [task.lists, task.qrels] if task.lists else []


def unknown_documents(task: Task, rows: Mapping[str, Ranked], path: Path | str) -> list[str]:
    """A warning when lists hold documents that the benchmark does not have; they stand as wrong answers."""
    used = {i for r in rows.values() for i in r.ids}
    every = task.gallery is not None or all(q in task.lists for q in task.queries)
    listed = _tables(task) if every else []
    where = f"{task.benchmark} {task.split}"
    if not any(len(t) for t in listed):
        right = {i for judged in task.qrels.values() for i in judged}
        if not right or used & right:
            return []
        # wrong answers cannot be distinguished from ids of another kind, but a run of nothing else is odd
        return [
            f"{path}: none of its ids is a right answer of {where} to any query; they are like "
            f"{quoted(sorted(used))}, those like {quoted(sorted(right))}"
        ]
    strange = set(used)
    for table in listed:  # list by list: all of them together may be more than fits in memory
        for own in table.values():
            strange.difference_update(own)
            if not strange:
                return []
    if strange == used:
        raise InputError(
            f"{path} has no image of {where}: its ids are like {quoted(sorted(strange))}, "
            f"the benchmark's like {quoted(next(iter(listed[0].values())))}"
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
    benchmark = benchmark_of(task.benchmark)
    metrics = benchmark.score(task, answers)
    if metrics is None:
        run = Run(rows=benchmark_rows(benchmark, task, answers))
        metrics = measure(run, task.qrels, benchmark.METRICS, room=room_of(task))
    metrics, failed = parted(metrics)
    expected = benchmark.expected(task, answers)
    lacks = all if benchmark.FILES_ARE_PARTS else any
    return Scores(
        benchmark=task.benchmark,
        split=task.split,
        metrics=metrics,
        failed=failed,
        expected=len(expected),
        missing=[q for q in expected if lacks(q not in a.rows for a in answers)],
        warnings=[
            *task.warnings,
            *(w for a in answers for w in a.warnings),
            *left_out(failed),
            *short.warnings(metrics),
            *empty_parts(metrics),
            *benchmark.warnings(task, answers),
        ],
    )


def benchmark_rows(benchmark: Benchmark, task: Task, answers: Sequence[Answer]) -> Mapping[str, Ranked]:
    """The one list of each query, without what the protocol leaves out."""
    rows = merged(answers) if benchmark.FILES_ARE_PARTS else one_run(task, answers).rows
    return without(task, rows)


def write_submission(task: Task, answers: Sequence[Answer], folder: Path) -> list[Path]:
    """Writes the benchmark's official files of a run, reads them again, and returns their paths.

    Raises `UsageError` where the benchmark has none, or there is no run to write.
    """
    runs, benchmark = [a for a in answers if a.kind == "run"], benchmark_of(task.benchmark)
    if type(benchmark).write_own is Benchmark.write_own:
        raise UsageError(f"{task.benchmark} has no submission file")
    if len(runs) != 1:
        raise UsageError(f"a submission is written from one TREC run, not {len(runs)}; give it as --run")
    paths = list(benchmark.write_own(task, Run(rows=runs[0].rows, tag=runs[0].path), folder) or ())
    for apart in (a for a in answers if a.kind == APART):
        benchmark.write_apart(task, Run(rows=apart.rows, tag=apart.path), folder)
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
    room: Room | None = None,
    partial: Collection[str] = (),
) -> Measured:
    """R@k as image retrieval uses it: 1 when a right document is among the first ``k`` of the list.

    ``room`` and ``partial`` as in `mmrerank.evaluation.measure.short.too_short`.
    """
    units = list(task.qrels) if expected is None else list(expected)
    wanted = set(units)
    return Measured(
        name=name,
        values={q: hit(Listed.of(r, task.qrels[q]), k) for q, r in rows.items() if q in wanted},
        expected=units,
        parts=parts or {},
        tie_rule=LIST_TIES,
        short=too_short(rows, task.qrels, k, room=room or room_of(task), first=True, partial=partial),
    )


def one_run(task: Task, answers: Sequence[Answer]) -> Answer:
    """The answer, for benchmarks that take one file. Raises `UsageError` for several."""
    if len(answers) != 1:
        raise UsageError(f"{task.benchmark} scores one --run at a time, not {len(answers)}")
    return answers[0]


def merged(answers: Sequence[Answer]) -> dict[str, Ranked]:
    """The lists of several files that are parts of one answer. Raises `UsageError` for a query in two."""
    return {q: answer.rows[q] for q, answer in owners(answers).items()}


def owners(answers: Sequence[Answer]) -> dict[str, Answer]:
    """Which of several files has the list of a query; errors as `merged`. Reads no list."""
    found: dict[str, Answer] = {}
    for answer in answers:
        if both := found.keys() & answer.rows.keys():
            raise UsageError(f"{answer.path} answers query {min(both)!r} a second time")
        found |= dict.fromkeys(answer.rows, answer)
    return found


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
