"""``mmrerank compare``: runs over the same queries, what differs, how sure that is, and where to look."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmrerank.cli._beside import Notes, read_queries, read_results, read_usage
from mmrerank.cli.console import Output, emit, progress, say, table_console, working
from mmrerank.cli.options import OutputFlag, is_file, is_folder
from mmrerank.errors import InputError, MissingExtraError, UsageError
from mmrerank.evaluation.measure.metrics import split_names
from mmrerank.types import Usage

if TYPE_CHECKING:
    from mmrerank.benchmark import Qrels, Scored, Scores
    from mmrerank.evaluation.compare.comparison import Comparison

    Read = Callable[[Path], Mapping[str, Sequence[Scored]]]
    """The lists of a file under the ids that were scored."""

EXAMPLE = """mmrerank demo export book --seed 5 --scenes 2000 --queries 49
mmrerank eval demo --seed 5 --scenes 2000 --queries 49 --runs out --methods none,cotrr
mmrerank compare out/none.trec out/cotrr.trec --benchmark demo --data book --images book/images --html c.html
mmrerank compare old=a/run.trec new=b/run.trec --qrels qrels.txt --format latex
mmrerank compare a.trec b.trec --benchmark circo --data DATA/circo"""
_SUFFIXES = (".trec", ".run", ".txt")


class Format(StrEnum):
    """How tables are printed."""

    text = "text"
    markdown = "markdown"
    latex = "latex"
    csv = "csv"


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN", show_default=False,
            help="Two or more TREC runs (.gz too); PATH, or NAME=PATH to give it a name.",
        ),
    ],
    qrels: Annotated[
        Path | None,
        typer.Option(
            "--qrels", metavar="QRELS", show_default=False, help="Relevance, in TREC's four columns."
        ),
    ] = None,
    benchmark: Annotated[
        str | None,
        typer.Option(
            "--benchmark", metavar="NAME", show_default=False,
            help="Instead of --qrels: score as this benchmark of `mmrerank list benchmarks` does.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", metavar="DIR", show_default=False, help="The benchmark's own files."
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option("--split", metavar="S", show_default=False, help="The benchmark's split."),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            "--metrics", metavar="LIST", show_default="nDCG@10,RR; a benchmark's first two",
            help="Metrics, with commas between.",
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline", metavar="NAME", show_default=False,
            help="The run that others are compared with (default: the first).",
        ),
    ] = None,
    all_pairs: Annotated[
        bool, typer.Option("--all-pairs", help="Compare every run with every other.")
    ] = False,
    queries: Annotated[
        Path | None,
        typer.Option(
            "--queries", metavar="FILE.jsonl",
            help="Lines of id, text, category, seen (true, false) and images, for breakdowns and report.",
        ),
    ] = None,
    usage: Annotated[
        Path | None,
        typer.Option(
            "--usage", metavar="FILE.json",
            help="By run: calls, input_tokens, output_tokens and seconds over all queries "
            "(default: what METHOD.jsonl beside METHOD.trec says).",
        ),
    ] = None,
    level: Annotated[
        float,
        typer.Option(
            "--level", metavar="P",
            help="Chance of any false alarm; 0.05 gives 95% intervals.",
        ),
    ] = 0.05,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", min=0, help="Of the random draws.")
    ] = 0,
    format: Annotated[
        Format | None,
        typer.Option("--format", show_default="text", help="How tables are printed on stdout."),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE.html", help="Also write a self-contained report."),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            "--images", metavar="DIR",
            help="The images for the report: ids are file names or paths in here.",
        ),
    ] = None,
    worst: Annotated[
        int,
        typer.Option(
            "--worst", metavar="N", min=0, help="How many failures of a kind the report shows."
        ),
    ] = 6,
    pictures: Annotated[
        Path | None,
        typer.Option("--pictures", metavar="DIR", help="Also write pictures here, SVG and PNG."),
    ] = None,
    output: OutputFlag = Output.text,
) -> None:  # fmt: skip
    """Compare runs: which is better, how sure that is, where and at what cost."""
    files = _named(runs)
    _check(files, baseline, metrics, level, output, format, images, html)

    from mmrerank.evaluation.compare.compute import compare as compare_runs

    with working(), progress("scoring") as tell:
        notes, costs = _beside(files, queries, usage)
        if benchmark is not None:
            judged, scores, notes, read = _by_benchmark(files, benchmark, data, split, notes, tell)
            names = split_names(metrics or "") or list(next(iter(scores.values())).metrics)[:2]
        else:
            names = split_names(metrics or "nDCG@10,RR")
            judged, scores, read = _by_qrels(files, qrels, names, tell)
        found = compare_runs(
            scores,
            baseline=baseline,
            metrics=names,
            categories={"category": notes.categories} if notes.categories else None,
            seen=notes.seen or None,
            all_pairs=all_pairs,
            level=level,
            seed=seed,
        )
    _print(found, costs, output, format or Format.text)
    with working():
        if html is not None:
            _report(html, found, costs, notes, files, read, judged, images, worst)
        if pictures is not None:
            _draw(pictures, found, costs)


def _by_qrels(
    files: Mapping[str, Path],
    qrels: Path | None,
    metrics: Sequence[str],
    tell: Callable[[int, int], None],
) -> tuple[Qrels, dict[str, Scores], Read]:
    from mmrerank.evaluation.measure.runs import read_qrels
    from mmrerank.evaluation.measure.scoring import read_any, score_run

    if qrels is None:
        raise UsageError("say what is right: --qrels FILE, or --benchmark NAME --data DIR")
    judged = read_qrels(qrels)
    if not judged:
        raise InputError(f"{qrels} judges no query")
    scores = {}
    for number, (name, path) in enumerate(files.items(), start=1):
        scores[name] = score_run(path, judged, metrics)
        tell(number, len(files))
    return judged, scores, lambda path: read_any(path).rows


def _by_benchmark(
    files: Mapping[str, Path],
    benchmark: str,
    data: Path | None,
    split: str | None,
    notes: Notes,
    tell: Callable[[int, int], None],
) -> tuple[Qrels, dict[str, Scores], Notes, Read]:
    """Also fills in what the benchmark knows of its queries."""
    from mmrerank.evaluation.tasks import load_task, read_answer, score

    if data is None:
        raise UsageError(f"--benchmark {benchmark} needs --data DIR, the folder of its own files")
    task = load_task(benchmark, data, split=split)
    scores = {}
    for number, (name, path) in enumerate(files.items(), start=1):
        scores[name] = score(task, [read_answer(task, path)])
        tell(number, len(files))
    texts = {q: ", ".join((*a.turns, a.text)) for q, a in task.queries.items()}
    categories = {**task.categories, **notes.categories}
    notes = replace(notes, texts={**texts, **notes.texts}, categories=categories)
    return task.qrels, scores, notes, lambda path: read_answer(task, path).rows


def _named(texts: Sequence[str]) -> dict[str, Path]:
    """Run files by name. Raises `UsageError` when two have the same name."""
    files: dict[str, Path] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        # a path may hold the sign itself
        file = Path(path) if equals and name and not is_file(Path(text), "RUN") else Path(text)
        if file == Path(text):
            name = file.name.removesuffix(".gz")
            for suffix in _SUFFIXES:
                name = name.removesuffix(suffix) or name
        # undecodable bytes of a file name would fail in every output
        name = os.fsencode(name).decode("utf-8", "replace")
        if name in files:
            raise UsageError(
                f"two runs are named {name!r}: {files[name]} and {file}; "
                f"name them, such as old={files[name]} new={file}"
            )
        files[name] = file
    return files


def _check(
    files: Mapping[str, Path],
    baseline: str | None,
    metrics: str | None,
    level: float,
    output: Output,
    format: Format | None,
    images: Path | None,
    html: Path | None,
) -> None:
    """Raises what can be told before anything is read."""
    if len(files) < 2:
        raise UsageError(
            f"a comparison needs at least two runs, not {len(files)}; "
            "`mmrerank eval demo --runs DIR` writes some"
        )
    if baseline is not None and baseline not in files:
        raise UsageError(f"--baseline must be one of {', '.join(files)}, not {baseline!r}")
    if metrics is not None and not split_names(metrics):
        raise UsageError("--metrics names none; give some, such as nDCG@10,RR")
    if not 0 < level < 1:
        raise UsageError(f"--level must lie between 0 and 1, such as 0.05, not {level}")
    if output is Output.json and format is not None:
        raise UsageError("--output json prints every figure; leave --format out")
    if images is not None and html is None:
        raise UsageError("--images are shown in the report; give --html FILE.html as well")
    if images is not None and not is_folder(images, "--images"):
        raise InputError(f"--images: there is no folder {str(images)!r}")
    for name, path in files.items():
        if not is_file(path, f"run {name!r}"):
            raise InputError(f"run {name!r}: there is no file {str(path)!r}")


def _beside(
    files: Mapping[str, Path], queries: Path | None, usage: Path | None
) -> tuple[Notes, dict[str, Usage]]:
    """What is known of queries and costs; what a flag names goes before what lies beside the runs."""
    texts: dict[str, str] = {}
    costs: dict[str, Usage] = {}
    for name, path in files.items():
        if told := read_results(path):
            texts |= told[0]
            costs[name] = told[1]
    notes = read_queries(queries) if queries else Notes()
    if usage:
        costs |= read_usage(usage, list(files))
    return replace(notes, texts={**texts, **notes.texts}), costs


def _print(found: Comparison, costs: Mapping[str, Usage], output: Output, format: Format) -> None:
    from mmrerank.evaluation.compare import tables as made
    from mmrerank.evaluation.compare.rendering import RENDERINGS, terminal

    if output is Output.json:
        used = {run: made.usage_dict(u) for run, u in costs.items()}
        emit({**found.to_dict(), "usage": used})
        return
    for warning in found.warnings:
        say(f"warning: {warning}")
    if format is Format.csv:
        typer.echo(RENDERINGS["csv"](made.long_table(found)), nl=False)
        return
    tables = [made.values_table(found), made.differences_table(found)]
    tables += [made.groups_table(found, g, m) for g in found.groupings for m in found.metrics]
    if costs:
        tables.append(made.cost_table(found, costs, found.metrics[0]))
    console = table_console()
    for number, table in enumerate(tables):
        if number:
            typer.echo()
        if format is Format.text:
            console.print(terminal(table))
        else:
            typer.echo(RENDERINGS[format](table), nl=False)


def _report(
    path: Path,
    found: Comparison,
    costs: Mapping[str, Usage],
    notes: Notes,
    files: Mapping[str, Path],
    read: Read,
    judged: Qrels,
    images: Path | None,
    worst: int,
) -> None:
    from mmrerank.benchmark import Ranked
    from mmrerank.evaluation.compare.charts import draw
    from mmrerank.evaluation.compare.report import Evidence, failing, page, save

    try:
        drawn = draw(found, costs)
    except MissingExtraError as error:
        say(f"the report has no pictures: {error}")
        drawn = ()
    labels = {q: [c] for q, c in notes.categories.items()}
    for query, known in notes.seen.items():
        labels.setdefault(query, []).append("seen" if known else "novel")
    shown = failing(found, worst)  # a run can have millions of lines: no more is kept
    rankings = {
        name: {q: Ranked.of(rows).ids for q, rows in read(file).items() if q in shown}
        for name, file in files.items()
    }
    evidence = Evidence(
        texts=notes.texts,
        labels=labels,
        references=notes.images,
        rankings=rankings,
        qrels=judged,
        images=images,
    )
    save(page(found, evidence=evidence, usage=costs, pictures=drawn, worst=worst), path)
    say(f"wrote {path}")


def _draw(folder: Path, found: Comparison, costs: Mapping[str, Usage]) -> None:
    from mmrerank.evaluation.compare.charts import FORMATS, draw

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for format in FORMATS:
            for picture in draw(found, costs, format=format):
                (folder / f"{picture.name}.{format}").write_bytes(picture.data)
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror or error}") from error
    say(f"wrote pictures into {folder}")


COMMAND = compare
