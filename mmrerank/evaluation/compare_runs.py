"""`mmrerank.compare`: runs over the same queries, what differs, how sure that is, and where to look.

Imports no model code.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmrerank import writing
from mmrerank.benchmark import Qrels, Ranked, Run, Scores, Task
from mmrerank.errors import InputError, MissingExtraError, UsageError
from mmrerank.evaluation.compare import tables as made
from mmrerank.evaluation.compare.beside import (
    Notes,
    Results,
    read_queries,
    read_results,
    read_usage,
    unlike_settings,
)  # fmt: skip
from mmrerank.evaluation.compare.comparison import Comparison
from mmrerank.evaluation.compare.compute import compare as compare_scores
from mmrerank.evaluation.compare.rendering import Table
from mmrerank.evaluation.measure.metrics import split_names
from mmrerank.evaluation.measure.scoring import QrelsLike, RunLike, as_qrels, as_run, left_out, score_run
from mmrerank.evaluation.measure.short import cut_off
from mmrerank.evaluation.tabular import Tabular
from mmrerank.paths import expanded
from mmrerank.types import Usage

Progress = Callable[[int, int], None]
_SUFFIXES = (".trec", ".run", ".txt")
METRICS = ("nDCG@10", "RR")


@dataclass(frozen=True, kw_only=True)
class ComparisonReport(Tabular):
    """What a comparison of runs found. ``usage`` is what each run cost, where that is known."""

    comparison: Comparison
    usage: Mapping[str, Usage] = field(default_factory=dict)
    notes: Notes = field(default_factory=Notes)
    qrels: Qrels = field(default_factory=dict, repr=False)
    rows_of: Callable[[str], Mapping[str, Ranked]] = field(repr=False)
    """The lists of a run under the ids that were scored; a file is read again."""

    @property
    def warnings(self) -> Sequence[str]:
        """What a reader of the figures must know."""
        return self.comparison.warnings

    @property
    def tables(self) -> tuple[Table, ...]:  # noqa: D102
        found = self.comparison
        groups = [made.groups_table(found, g, m) for g in found.groupings for m in found.metrics]
        cost = [made.cost_table(found, self.usage, found.metrics[0])] if self.usage else []
        return (made.values_table(found), made.differences_table(found), *groups, *cost)

    @property
    def long_table(self) -> Table:
        """Every figure in long form, for CSV."""
        return made.long_table(self.comparison)

    @property
    def records(self) -> list[dict[str, Any]]:
        """A row for each run and metric, with its difference from the baseline."""
        rows = []
        for one in self.comparison.values:
            found = self.comparison.difference(one.metric, one.run)
            gap = {} if found is None else found.to_dict()
            gap.pop("interval", None), gap.pop("queries", None)
            bounds = {} if found is None else dict(zip(("low", "high"), found.interval, strict=True))
            rows.append({**one.to_dict(), **gap, **bounds})
        return rows

    def to_dict(self) -> dict[str, Any]:  # noqa: D102
        used = {run: made.usage_dict(u) for run, u in self.usage.items()}
        return {**self.comparison.to_dict(), "usage": used}

    def save_html(
        self,
        path: Path | str,
        *,
        images: Path | None = None,
        worst: int = 6,
        say: Callable[[str], None] = lambda _: None,
    ) -> Path:
        """Writes a page that needs no other file: tables, charts, and ``worst`` failures of each kind.

        ``images`` is a folder in which documents are files. Without matplotlib the page has no charts, and
        ``say`` is called with that. Raises `InputError` where it cannot be written.
        """
        from mmrerank.evaluation.compare.charts import draw
        from mmrerank.evaluation.compare.report import Evidence, failing, page, save

        found, notes = self.comparison, self.notes
        try:
            charts = draw(found, self.usage)
        except MissingExtraError as error:
            say(f"the report has no pictures: {error}")
            charts = ()
        labels = {q: [c] for q, c in notes.categories.items()}
        for query, known in notes.seen.items():
            labels.setdefault(query, []).append("seen" if known else "novel")
        shown = failing(found, worst)  # a run can have millions of lines: no more is kept
        evidence = Evidence(
            texts=notes.texts,
            labels=labels,
            references=notes.images,
            rankings={
                run: {q: r.ids for q, r in self.rows_of(run).items() if q in shown} for run in found.runs
            },
            qrels=self.qrels,
            images=images,
        )
        html = page(found, evidence=evidence, usage=self.usage, pictures=charts, worst=worst)
        save(html, Path(path))
        return Path(path)

    def save_charts(self, folder: Path | str) -> None:
        """Writes the charts as SVG and PNG. Raises `InputError`, and `MissingExtraError`."""
        from mmrerank.evaluation.compare.charts import FORMATS, draw

        target = Path(folder)
        try:
            target.mkdir(parents=True, exist_ok=True)
            for format in FORMATS:
                for chart in draw(self.comparison, self.usage, format=format):
                    writing.write(target / f"{chart.name}.{format}", chart.data)
        except OSError as error:
            raise InputError(f"{target} cannot be written: {error.strerror or error}") from error


def compare(
    runs: Mapping[str, RunLike] | Iterable[Path | str],
    *,
    qrels: QrelsLike | None = None,
    benchmark: str | None = None,
    data: Path | str | None = None,
    split: str | None = None,
    options: Mapping[str, Any] | None = None,
    metrics: str | Sequence[str] = (),
    baseline: str | None = None,
    all_pairs: bool = False,
    queries: Path | None = None,
    usage: Path | None = None,
    level: float = 0.05,
    seed: int = 0,
    progress: Progress | None = None,
) -> ComparisonReport:
    """Compares runs, which stand under names or are files: which is better, how sure that is, and where.

    What is relevant says ``qrels`` (as in `mmrerank.score`), or a ``benchmark`` with its ``data``, which then
    scores as its own protocol says. ``metrics`` default to nDCG@10 and RR, or the benchmark's first two.
    ``baseline`` defaults to the first run. ``queries`` (JSON lines) and ``usage`` (JSON) are files, as
    `mmrerank compare` takes them. Raises `UsageError` and `InputError`.

    >>> runs = {"old": {"q": {"a": 2, "b": 1}}, "new": {"q": {"a": 1, "b": 2}}}
    >>> compare(runs, qrels={"q": {"b": 1}}, metrics=["RR"]).records[1]["difference"]
    0.5
    """
    files = named_runs(runs)
    names = split_names(metrics) if isinstance(metrics, str) else list(metrics)
    check(files, baseline, level)
    _check_truth(qrels, benchmark, {"--data": data, "--split": split})
    results = {n: r for n, run in files.items() if isinstance(run, Path) and (r := read_results(run))}
    notes, costs = _beside(results, list(files), queries, usage)
    if benchmark is not None:
        task = _task(benchmark, data, split, options)
        judged, read = task.qrels, _benchmark_reader(task)
        notes = _with_task(notes, task)
    elif qrels is not None:
        names = names or list(METRICS)
        judged, read = as_qrels(qrels), _qrels_reader(as_qrels(qrels), names)
    else:
        raise UsageError("say what is right: --qrels FILE, or --benchmark NAME --data DIR")
    scores: dict[str, Scores] = {}
    depths: dict[str, int] = {}
    for number, (name, run) in enumerate(files.items(), start=1):
        scores[name], rows_of = read(run)
        depths[name] = max((len(r) for r in rows_of().values()), default=0)
        if progress:
            progress(number, len(files))
    found = compare_scores(
        scores, baseline=baseline, all_pairs=all_pairs, level=level, seed=seed,
        metrics=names or list(next(iter(scores.values())).metrics)[:2],
        categories={"category": notes.categories} if notes.categories else None,
        seen=notes.seen or None,
    )  # fmt: skip
    found = found.with_failures({n: (r.failed, r.queries, r.why) for n, r in results.items()})
    told = [*_unlike_depths(depths, found.metrics), *unlike_settings(files)]
    found = replace(found, warnings=[*found.warnings, *told])
    return ComparisonReport(
        comparison=found, usage=costs, notes=notes, qrels=judged,
        rows_of=lambda name: read(files[name])[1](),
    )  # fmt: skip


def _unlike_depths(depths: Mapping[str, int], metrics: Sequence[str]) -> list[str]:
    """A warning where metrics look at whole lists, and those are longer in one run than in another."""
    whole = [m for m in metrics if cut_off(m) is None]
    if not whole or len(set(depths.values())) == 1:
        return []
    lengths = ", ".join(f"{run} to {depth}" for run, depth in depths.items())
    return [
        f"{', '.join(whole)}: looks at whole lists, and the runs list to different depths ({lengths}); a "
        "difference may come from that alone"
    ]


_Rows = Callable[[], Mapping[str, Ranked]]
_Reader = Callable[[RunLike], tuple[Scores, _Rows]]


def _qrels_reader(qrels: Qrels, names: Sequence[str]) -> _Reader:
    def read(run: RunLike) -> tuple[Scores, _Rows]:
        lists, where = as_run(run)
        rows = lists.rows
        scores = score_run(lists, qrels, names, where=where)
        if scores.failed:
            raise InputError(f"{where}: {'; '.join(left_out(scores.failed))}; name other --metrics")
        return (scores, lambda: {q: Ranked.of(r) for q, r in rows.items()})

    return read


def _benchmark_reader(task: Task) -> _Reader:
    from mmrerank.evaluation.tasks import answer_of, read_answer, score

    def read(run: RunLike) -> tuple[Scores, _Rows]:
        if isinstance(run, Run | Mapping):
            answer = answer_of(task, *as_run(run))
        else:
            answer = read_answer(task, Path(run))
        return score(task, [answer]), lambda: answer.rows

    return read


def _task(
    benchmark: str, data: Path | str | None, split: str | None, options: Mapping[str, Any] | None
) -> Task:
    from mmrerank.evaluation.tasks import load_task

    if data is None:
        raise UsageError(f"--benchmark {benchmark} needs --data DIR, the folder of its own files")
    return load_task(benchmark, Path(data), split=split, options=options)


def _with_task(notes: Notes, task: Task) -> Notes:
    """Also what the benchmark knows of its queries."""
    texts = {q: ", ".join((*a.turns, a.text)) for q, a in task.queries.items()}
    categories = {**task.categories, **notes.categories}
    return replace(notes, texts={**texts, **notes.texts}, categories=categories)


def named_runs(runs: Mapping[str, RunLike] | Iterable[Path | str]) -> dict[str, RunLike]:
    """Runs by name; a text is a path, or ``NAME=PATH``. Raises `UsageError` when two have the same name."""
    if isinstance(runs, Mapping):
        return {str(n): Path(r) if isinstance(r, str) else r for n, r in runs.items()}
    files: dict[str, RunLike] = {}
    for given in runs:
        name, equals, path = str(given).partition("=")
        # a path may hold the sign itself
        if isinstance(given, Path) or not (equals and name) or is_file(Path(given), "RUN"):
            name, path = Path(given).name.removesuffix(".gz"), str(given)
            for suffix in _SUFFIXES:
                name = name.removesuffix(suffix) or name
        elif not path.strip():
            raise UsageError(
                f"run {given!r} names no file; write NAME=PATH. Is a variable of the shell not set?"
            )
        # undecodable bytes of a file name would fail in every output
        name = os.fsencode(name).decode("utf-8", "replace")
        if name in files:
            raise UsageError(
                f"two runs are named {name!r}: {files[name]} and {path}; "
                f"name them, such as old={files[name]} new={path}"
            )
        files[name] = expanded(path)
    return files


def _check_truth(qrels: QrelsLike | None, benchmark: str | None, of_benchmark: Mapping[str, Any]) -> None:
    """Raises `UsageError` where two things say what is right, or one that would not be looked at."""
    if benchmark is not None and qrels is not None:
        raise UsageError("--qrels and --benchmark both say what is right; give one of them")
    unused = [flag for flag, value in of_benchmark.items() if value is not None]
    if benchmark is None and unused:
        raise UsageError(f"{', '.join(unused)}: of a benchmark's files; give --benchmark NAME as well")


def check(runs: Mapping[str, RunLike], baseline: str | None, level: float) -> None:
    """Raises what can be reported before anything is read."""
    if len(runs) < 2:
        raise UsageError(
            f"a comparison needs at least two runs, not {len(runs)}; "
            "`mmrerank eval NAME --methods LIST --runs DIR` writes some"
        )
    if baseline is not None and baseline not in runs:
        raise UsageError(f"--baseline must be one of {', '.join(runs)}, not {baseline!r}")
    if not 0 < level < 1:
        raise UsageError(f"--level must lie between 0 and 1, such as 0.05, not {level}")
    for name, run in runs.items():
        if isinstance(run, Path) and not is_file(run, f"run {name!r}"):
            raise InputError(f"run {name!r}: there is no file {str(run)!r}")


def is_file(path: Path, where: str) -> bool:
    """Whether a file is there. Raises `InputError` starting with ``where`` when that cannot be looked at."""
    try:
        return path.is_file()
    except OSError as error:  # a name that is too long, a folder that nobody is let into
        shown = str(path) if len(str(path)) <= 100 else f"{str(path)[:100]}..."
        raise InputError(f"{where}: {shown!r} cannot be looked at: {error.strerror}") from error


def _beside(
    results: Mapping[str, Results], runs: Sequence[str], queries: Path | None, usage: Path | None
) -> tuple[Notes, dict[str, Usage]]:
    """What is known of queries and costs; what was named goes before what lies beside the runs."""
    texts: dict[str, str] = {}
    for found in results.values():
        texts |= found.texts
    costs = {name: found.usage for name, found in results.items()}
    notes = read_queries(queries) if queries else Notes()
    if usage:
        costs |= read_usage(usage, runs)
    return replace(notes, texts={**texts, **notes.texts}), costs
