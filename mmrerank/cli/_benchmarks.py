"""``mmrerank eval NAME``: one command for each benchmark, all made from one function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmrerank import registry
from mmrerank.cli._carry_out import First, make_first_stage, read_recipe
from mmrerank.cli._carry_out import rerank as carried_out
from mmrerank.cli.console import Output, emit, guarded, say, working
from mmrerank.cli.options import (
    BudgetFlag,
    CacheFlag,
    ChatFlag,
    ChatOptionsFlag,
    OptionsFlag,
    OutputFlag,
    PriceFlag,
    RecordFlag,
    TotalFlag,
    pairs,
    surroundings,
)
from mmrerank.errors import DEGRADED_EXIT_CODE, UsageError

if TYPE_CHECKING:
    from mmrerank.benchmark import Answer, Task


def command(name: str) -> Callable[..., None]:
    """The command that reads, checks, carries out and scores the benchmark ``name``."""

    @guarded
    def evaluate(
        data: Annotated[
            Path | None,
            typer.Option(
                "--data", metavar="DIR", show_default=False, help="The benchmark's own files."
            ),
        ] = None,
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
        index: Annotated[
            str | None,
            typer.Option(
                "--index", metavar="X", show_default=False,
                help="Make the first stage with this index.",
            ),
        ] = None,
        shards: Annotated[
            Path | None,
            typer.Option(
                "--shards", metavar="DIR", show_default=False,
                help="INQUIRE: make the first stage with published embedding shards.",
            ),
        ] = None,
        embedder: Annotated[
            str | None,
            typer.Option(
                "--embedder", metavar="SPEC", show_default=False,
                help="What embeds queries (default: the index's own); without --index their candidates too.",
            ),
        ] = None,
        images: Annotated[
            Path | None,
            typer.Option(
                "--images", metavar="DIR", show_default=False,
                help="Where the pictures are, to be asked with or to be reranked.",
            ),
        ] = None,
        rerank: Annotated[
            str | None,
            typer.Option(
                "--rerank", metavar="METHOD", show_default=False,
                help="Rerank the first stage, or the --run, by this method.",
            ),
        ] = None,
        option: OptionsFlag = None,
        chat: ChatFlag = None,
        chat_option: ChatOptionsFlag = None,
        candidates: Annotated[
            int | None,
            typer.Option(
                "--candidates", metavar="N", min=1, show_default=False,
                help="How many of each list are reranked (default: 20).",
            ),
        ] = None,
        depth: Annotated[
            int | None,
            typer.Option(
                "--depth", metavar="N", min=1, show_default=False,
                help="How long the first stage's lists are (default: as the benchmark looks).",
            ),
        ] = None,
        runs: Annotated[
            Path | None,
            typer.Option(
                "--runs", metavar="DIR", show_default=False,
                help="Where runs, verdicts, provenance and journals go (default: ./runs/eval/...).",
            ),
        ] = None,
        config: Annotated[
            Path | None,
            typer.Option(
                "--config", metavar="FILE.yaml", show_default=False,
                help="A recipe with any of these settings; flags go over it.",
            ),
        ] = None,
        fresh: Annotated[
            bool, typer.Option("--fresh", help="Start over instead of going on from the journal.")
        ] = False,
        retry_failed: Annotated[
            bool,
            typer.Option("--retry-failed", help="Judge queries again of which a judgement failed."),
        ] = False,
        forecast: Annotated[
            int | None,
            typer.Option(
                "--forecast", metavar="N", min=0, show_default=False,
                help="Judge N queries more (0: none), say what the rest takes, and stop.",
            ),
        ] = None,
        price: PriceFlag = None,
        cache: CacheFlag = None,
        record: RecordFlag = None,
        budget: BudgetFlag = None,
        total_budget: TotalFlag = None,
        submission: Annotated[
            Path | None,
            typer.Option(
                "--submission", metavar="DIR", show_default=False,
                help="Write the official submission files of the result here.",
            ),
        ] = None,
        output: OutputFlag = Output.text,
    ) -> None:  # fmt: skip
        from mmrerank.benchmark import Answer
        from mmrerank.evaluation import tasks as benchmark

        recipe = read_recipe(
            name,
            config,
            data=data, split=split, gallery=gallery, set=pairs(set_, "--set") or None, index=index,
            shards=shards, embedder=embedder, images=images, rerank=rerank,
            options=pairs(option, "-o") or None, chat=chat, candidates=candidates, depth=depth, runs=runs,
        )  # fmt: skip
        around = surroundings(
            cache, record, budget, total_budget, price, chat=recipe.chat, chat_option=chat_option
        )
        own = {"gallery": recipe.gallery} if recipe.gallery else {}
        with working():
            place = Path(recipe.data)
            task = benchmark.load_task(
                name, place, split=recipe.split or None, options={**recipe.set, **own}
            )
        first: First | None = None
        folder = Path(recipe.runs or f"runs/eval/{name}-{task.split}")
        if recipe.index or recipe.shards or (recipe.embedder and not run):
            if run:
                raise UsageError("give --run, or --index to make one, not both")
            first = make_first_stage(task, recipe, folder)
            answers = [first.answer(task)]
        else:
            with working():
                files = run or benchmark.benchmark_of(name).own_runs(place)
                answers = [benchmark.read_answer(task, path) for path in files]
                if not answers and task.first and recipe.rerank != "none":
                    # the data brings a first stage, such as INQUIRE-Rerank's clip_score
                    answers = [Answer(path=str(place), kind="run", rows=task.first)]
        result: dict[str, Any] | None = None
        if recipe.rerank != "none":
            result = carried_out(
                task, recipe, first, answers, folder, fresh, retry_failed, forecast, price, around
            )
            if "forecast" in result:
                _tell_forecast(result, output)
                return
            answers = [benchmark.read_answer(task, folder / f"{recipe.rerank}.trec")]
        if submission is not None:
            with working():
                for path in benchmark.write_submission(task, answers, submission):
                    say(f"wrote {path}")
        _finish(task, answers, result, output, asked=bool(run or first))

    evaluate.__doc__ = f"""Check, carry out and score: {benchmark_about(name)}.

    Without a run or an index the files are checked and counted. With --run, a run is scored, which needs no
    pictures. With --index, a first stage is made; with --rerank, its head, or that of a run, is reranked, and
    goes on after a kill. "value" takes a query without an answer for 0, "value_scored" leaves it out.
    """
    return evaluate


def _tell_forecast(body: dict[str, Any], output: Output) -> None:
    from mmrerank.evaluation.experiment.forecast import Forecast

    if output is Output.json:
        emit(body)
    else:
        typer.echo(f"{body['method']}: {Forecast(**body['forecast'])}")


def _finish(
    task: Task,
    answers: list[Answer],
    result: dict[str, Any] | None,
    output: Output,
    *,
    asked: bool,
) -> None:
    if not answers or (not task.qrels and asked):
        # labels that are private leave only the check
        _describe(task, answers, output)
    else:
        _score(task, answers, result, output)
    if result and result["failed"]:
        raise typer.Exit(DEGRADED_EXIT_CODE)


def _score(
    task: Task, answers: list[Answer], result: dict[str, Any] | None, output: Output
) -> None:
    from mmrerank.cli._scores import figure, show, show_published
    from mmrerank.evaluation import tasks as benchmark

    with working():
        scores = benchmark.score(task, answers)
        more = (result or {}).pop("warnings", [])
        scores = replace(
            scores, warnings=[*scores.warnings, *(w for w in more if w not in scores.warnings)]
        )
    if output is Output.json:
        emit({**scores.to_dict(), **(result or {})})
    else:
        head = headline(list(scores.metrics))
        show(scores, title=f"{task.benchmark} {task.split}", only=head)
        if result:
            name = next(n for n in head)
            before, best = result["first_stage"]["metrics"][name], result["ceiling"][name]
            measured = scores.metrics[name]
            typer.echo(
                f"{name}: first stage {figure(measured, before)}, best order of its first "
                f"{result['candidates']} {figure(measured, best)}; {result['usage']['calls']} calls, "
                f"{result['failed']} failed, {result['repaired']} repaired"
            )
        show_published(task.benchmark, task.split, head)


def benchmark_about(name: str) -> str:
    """The benchmark in a few words, out of the data beside it."""
    from mmrerank.discovery import about

    return about("benchmark", name.replace("-", "_"))


def headline(names: list[str], most: int = 40) -> list[str]:
    """The metrics that fit a screen: all of them, or those at the first cut-off."""
    if len(names) <= most:
        return names
    first = [n for n in names if n.endswith("Hit@1")]
    return first or names[:most]


def _describe(task: Task, answers: list[Answer], output: Output) -> None:
    warnings = [*task.warnings, *(w for a in answers for w in a.warnings)]
    body = {
        "benchmark": task.benchmark,
        "split": task.split,
        "queries": len(task.queries),
        "labelled": len(task.qrels),
        "images": None if task.gallery is None else len(task.gallery),
        "checked": [a.path for a in answers],
        "warnings": warnings,
    }
    if output is Output.json:
        emit(body)
        return
    images = "" if task.gallery is None else f", {len(task.gallery)} images"
    typer.echo(
        f"{task.benchmark} {task.split}: {len(task.queries)} queries{images}; the files are sound"
    )
    for answer in answers:
        typer.echo(
            f"{answer.path}: {len(answer.rows)} queries answered; the labels of {task.split} are not public"
        )
    for warning in warnings:
        say(f"warning: {warning}")
    if not answers:
        say("score a run with --run FILE, or make one with --index X")


def example(name: str) -> str:
    """Command lines for the help."""
    return (
        f"mmrerank eval {name} --data DATA/{name} --run {name}.trec --output json\n"
        f"  mmrerank eval {name} --data DATA/{name} --index {name} --rerank cotrr --chat bundled"
    )


def register(group: typer.Typer) -> None:
    """Adds a command for every benchmark that has none of its own."""
    for module in registry.names("benchmark"):
        name = module.replace("_", "-")
        if name != "demo":
            group.command(name, epilog=f"\b\nExample:\n  {example(name)}")(command(name))
