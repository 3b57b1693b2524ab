"""``mmrerank eval NAME``: one command for each benchmark, all made from one function."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmrerank import registry
from mmrerank.cli._console import Output, emit, guarded, say, working
from mmrerank.cli._options import OutputFlag, pairs

if TYPE_CHECKING:
    from mmrerank.evaluate.benchmark import Task


def command(name: str) -> Callable[..., None]:
    """The command that reads, checks and scores the benchmark ``name``."""

    @guarded
    def evaluate(
        data: Annotated[
            Path, typer.Option("--data", metavar="DIR", help="The benchmark's own files.")
        ],
        run: Annotated[
            list[Path] | None,
            typer.Option(
                "--run", metavar="FILE", show_default=False,
                help="What is scored: a TREC run, raw scores (.jsonl), or a prediction or submission "
                "file of the benchmark; .gz too; may be repeated.",
            ),
        ] = None,
        split: Annotated[
            str | None,
            typer.Option("--split", metavar="S", show_default=False, help="Which split."),
        ] = None,
        gallery: Annotated[
            str | None,
            typer.Option(
                "--gallery", metavar="original|union", show_default=False,
                help="FashionIQ: which garments are searched (default: original).",
            ),
        ] = None,
        set_: Annotated[
            list[str] | None,
            typer.Option(
                "--set", metavar="NAME=VALUE", show_default=False,
                help="An option of the benchmark (`mmrerank list benchmarks`); may be repeated.",
            ),
        ] = None,
        submission: Annotated[
            Path | None,
            typer.Option(
                "--submission", metavar="DIR", show_default=False,
                help="Write the official submission files of the run here.",
            ),
        ] = None,
        output: OutputFlag = Output.text,
    ) -> None:  # fmt: skip
        from mmrerank.cli._scores import show, show_published
        from mmrerank.evaluate import benchmark

        options: dict[str, Any] = dict(pairs(set_, "--set"))
        if gallery is not None:
            options["gallery"] = gallery
        with working():
            task = benchmark.load_task(name, data, split=split, options=options)
            files = run or benchmark.own_runs(name, data)
            answers = [benchmark.read_answer(task, path) for path in files]
            if submission is not None:
                for path in benchmark.write_submission(task, answers, submission):
                    say(f"wrote {path}")
        if not answers or (not task.qrels and run):
            # labels that are private leave only the check
            warnings = [*task.warnings, *(w for a in answers for w in a.warnings)]
            _describe(task, [str(p) for p in files], warnings, output)
            return
        with working():
            scores = benchmark.score(task, answers)
        if output is Output.json:
            emit(scores.to_dict())
            return
        head = headline(list(scores.metrics))
        show(scores, title=f"{name} {task.split}", only=head)
        show_published(name, task.split, head)

    evaluate.__doc__ = f"""Check and score: {benchmark_about(name)}.

    Without a run the files are checked and counted. "value" takes a query without an answer for 0,
    "value_scored" leaves it out.
    """
    return evaluate


def benchmark_about(name: str) -> str:
    """The benchmark in a few words, out of the data beside it."""
    # the first line alone: the command line starts without reading every figure
    package = resources.files(registry.KINDS["benchmark"])
    with package.joinpath(f"{name.replace('-', '_')}.yaml").open(encoding="utf-8") as file:
        return file.readline().removeprefix("about:").strip()


def headline(names: list[str], most: int = 40) -> list[str]:
    """The metrics that fit a screen: all of them, or those of whole groups at the first cut-off."""
    if len(names) <= most:
        return names
    first = [n for n in names if n.endswith("Hit@1")]
    return first or names[:most]


def _describe(task: Task, files: list[str], warnings: list[str], output: Output) -> None:
    body = {
        "benchmark": task.benchmark,
        "split": task.split,
        "queries": len(task.queries),
        "labelled": len(task.qrels),
        "images": None if task.gallery is None else len(task.gallery),
        "checked": files,
        "warnings": warnings,
    }
    if output is Output.json:
        emit(body)
        return
    images = "" if task.gallery is None else f", {len(task.gallery)} images"
    typer.echo(
        f"{task.benchmark} {task.split}: {len(task.queries)} queries{images}; the files are sound"
    )
    for path in files:
        typer.echo(f"{path}: can be read; the labels of {task.split} are not public")
    for warning in warnings:
        say(f"warning: {warning}")
    if not files:
        say("score a run with --run FILE")


def example(name: str) -> str:
    """A command line for the help."""
    return f"mmrerank eval {name} --data DATA/{name} --run {name}.trec --output json"


def register(group: typer.Typer) -> None:
    """Adds a command for every benchmark that has none of its own."""
    for module in registry.names("benchmark"):
        name = module.replace("_", "-")
        if name != "demo":
            group.command(name, epilog=f"\b\nExample:\n  {example(name)}")(command(name))
