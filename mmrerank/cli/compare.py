"""Compare runs: which is better, how sure that is, where and at what cost."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from mmrerank.cli._benchmark_options import every_own_option, one_of_each, parameter
from mmrerank.cli.console import Output, emit, progress, say, table_console, working
from mmrerank.cli.options import OutputFlag, is_folder, pairs
from mmrerank.errors import InputError, UsageError

if TYPE_CHECKING:
    from mmrerank.evaluation.compare_runs import ComparisonReport

EXAMPLE = """mmrerank compare out/none.trec out/cotrr.trec --qrels out/qrels.txt --images pics --html c.html
mmrerank compare old=a/run.trec new=b/run.trec --qrels qrels.txt --format latex
mmrerank compare a.trec b.trec --benchmark circo --data DATA/circo"""


class Format(StrEnum):
    """How tables are printed."""

    text = "text"
    markdown = "markdown"
    latex = "latex"
    csv = "csv"


RunsArgument = Annotated[list[str], typer.Argument(
    metavar="RUN", show_default=False,
    help="Two or more TREC runs (.gz too); PATH, or NAME=PATH to give it a name.",
)]  # fmt: skip
QrelsFlag = Annotated[Path | None, typer.Option(
    "--qrels", metavar="QRELS", show_default=False, help="Relevance, in TREC's four columns."
)]  # fmt: skip
BenchmarkFlag = Annotated[str | None, typer.Option(
    "--benchmark", metavar="NAME", show_default=False,
    help="Instead of --qrels: score as this benchmark of `mmrerank list benchmarks` does.",
)]  # fmt: skip
DataFlag = Annotated[Path | None, typer.Option(
    "--data", metavar="DIR", show_default=False, help="The benchmark's own files."
)]  # fmt: skip
SplitFlag = Annotated[
    str | None,
    typer.Option("--split", metavar="S", show_default=False, help="The benchmark's split."),
]  # fmt: skip
SetFlag = Annotated[list[str] | None, typer.Option(
    "--set", metavar="NAME=VALUE", show_default=False,
    help="An option of the benchmark (`mmrerank list benchmarks`); may be repeated.",
)]  # fmt: skip
MetricsFlag = Annotated[str | None, typer.Option(
    "--metrics", metavar="LIST", show_default="nDCG@10,RR; a benchmark's first two",
    help="Metrics, with commas between.",
)]  # fmt: skip
BaselineFlag = Annotated[str | None, typer.Option(
    "--baseline", metavar="NAME", show_default=False,
    help="The run that others are compared with (default: the first).",
)]  # fmt: skip
AllPairsFlag = Annotated[
    bool, typer.Option("--all-pairs", help="Compare every run with every other.")
]  # fmt: skip
QueriesFlag = Annotated[Path | None, typer.Option(
    "--queries", metavar="FILE.jsonl",
    help="Lines of id, text, category, seen (true, false) and images, for breakdowns and report.",
)]  # fmt: skip
UsageFlag = Annotated[Path | None, typer.Option(
    "--usage", metavar="FILE.json",
    help="By run: calls, input_tokens, output_tokens and seconds over all queries "
    "(default: what METHOD.jsonl beside METHOD.trec says).",
)]  # fmt: skip
LevelFlag = Annotated[float, typer.Option(
    "--level", metavar="P",
    help="Chance of any false alarm; 0.05 gives 95% intervals.",
)]  # fmt: skip
SeedFlag = Annotated[
    int, typer.Option("--seed", metavar="N", min=0, help="Of the random draws.")
]  # fmt: skip
FormatFlag = Annotated[
    Format | None,
    typer.Option("--format", show_default="text", help="How tables are printed on stdout."),
]  # fmt: skip
HtmlFlag = Annotated[
    Path | None,
    typer.Option("--html", metavar="FILE.html", help="Also write a self-contained report."),
]  # fmt: skip
ImagesFlag = Annotated[Path | None, typer.Option(
    "--images", metavar="DIR",
    help="The images for the report: ids are file names or paths in here.",
)]  # fmt: skip
WorstFlag = Annotated[int, typer.Option(
    "--worst", metavar="N", min=0, help="How many failures of a kind the report shows."
)]  # fmt: skip
PicturesFlag = Annotated[
    Path | None,
    typer.Option("--pictures", metavar="DIR", help="Also write pictures here, SVG and PNG."),
]  # fmt: skip


def compare(
    runs: RunsArgument,
    qrels: QrelsFlag = None,
    benchmark: BenchmarkFlag = None,
    data: DataFlag = None,
    split: SplitFlag = None,
    set_: SetFlag = None,
    metrics: MetricsFlag = None,
    baseline: BaselineFlag = None,
    all_pairs: AllPairsFlag = False,
    queries: QueriesFlag = None,
    usage: UsageFlag = None,
    level: LevelFlag = 0.05,
    seed: SeedFlag = 0,
    format: FormatFlag = None,
    html: HtmlFlag = None,
    images: ImagesFlag = None,
    worst: WorstFlag = 6,
    pictures: PicturesFlag = None,
    output: OutputFlag = Output.text,
    **own: Any,
) -> None:
    """Compare runs: which is better, how sure that is, where and at what cost."""
    options = one_of_each(pairs(set_, "--set"), {k: v for k, v in own.items() if v is not None})
    if options and benchmark is None:
        raise UsageError(f"{', '.join(options)}: options of a benchmark need --benchmark NAME")
    if metrics is not None and not metrics.strip(" ,"):
        raise UsageError("--metrics names none; give some, such as nDCG@10,RR")
    if output is Output.json and format is not None:
        raise UsageError("--output json prints every figure; leave --format out")
    if images is not None and html is None:
        raise UsageError("--images are shown in the report; give --html FILE.html as well")
    if images is not None and not is_folder(images, "--images"):
        raise InputError(f"--images: there is no folder {str(images)!r}")

    import mmrerank

    with working(), progress("scoring") as tell:
        found = mmrerank.compare(
            runs, qrels=qrels, benchmark=benchmark, data=data, split=split, options=options,
            metrics=metrics or (),
            baseline=baseline, all_pairs=all_pairs, queries=queries, usage=usage, level=level, seed=seed,
            progress=tell,
        )  # fmt: skip
    if output is Output.json:
        emit(found.to_dict())
    else:
        _print(found, format or Format.text)
    with working():
        if html is not None:
            say(f"wrote {found.save_html(html, images=images, worst=worst, say=say)}")
        if pictures is not None:
            found.save_charts(pictures)
            say(f"wrote pictures into {pictures}")


def _print(found: ComparisonReport, format: Format) -> None:
    from mmrerank.evaluation.compare.rendering import RENDERINGS, terminal

    for warning in found.warnings:
        say(f"warning: {warning}")
    if format is Format.csv:
        typer.echo(RENDERINGS["csv"](found.long_table), nl=False)
        return
    console = table_console()
    for number, table in enumerate(found.tables):
        if number:
            typer.echo()
        if format is Format.text:
            console.print(terminal(table))
        else:
            typer.echo(RENDERINGS[format](table), nl=False)


def _with_benchmarks_options() -> Callable[..., None]:
    """`compare` with a flag for each option of a benchmark."""
    hints = get_type_hints(compare, include_extras=True)
    fixed = [p for n, p in inspect.signature(compare).parameters.items() if n != "own"]
    keyword = inspect.Parameter.KEYWORD_ONLY
    named = [p.replace(annotation=hints[p.name], kind=keyword) for p in fixed]
    place = [p.name for p in named].index("set_") + 1
    named[place:place] = [parameter(o) for o in every_own_option({p.name for p in named} | {"k"})]

    @functools.wraps(compare)
    def command(**flags: Any) -> None:
        compare(**flags)

    command.__annotations__ = {p.name: p.annotation for p in named}
    command.__signature__ = inspect.Signature(named)  # type: ignore[attr-defined]
    return command


COMMAND = _with_benchmarks_options()
