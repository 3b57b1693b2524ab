"""``mmrerank demo``: the whole main job on the bundled picture book; ``demo export`` writes that world."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmrerank.cli.console import Output, emit, guarded, progress, table_console, working
from mmrerank.cli.options import OptionsFlag, OutputFlag, pairs
from mmrerank.errors import DEGRADED_EXIT_CODE

if TYPE_CHECKING:
    from mmrerank.picturebook.run import Shown

EXAMPLE = """mmrerank demo
mmrerank demo export ./book --seed 7 --scenes 500 --queries 40"""

group = typer.Typer(
    help="See it work on the bundled picture book; needs no download.",
    invoke_without_command=True,
    rich_markup_mode=None,
)


@guarded
def demo(
    context: typer.Context,
    index: Annotated[
        str, typer.Option("--index", metavar="X", help="Where the demo's index goes.")
    ] = "demo",
    scenes: Annotated[
        int | None,
        typer.Option(
            "--scenes", metavar="N", min=1, show_default=False, help="How many pictures are drawn."
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed", metavar="N", min=0, show_default=False, help="Which pictures are drawn."
        ),
    ] = None,
    queries: Annotated[
        list[str] | None,
        typer.Option(
            "--query",
            metavar="TEXT",
            show_default=False,
            help="Ask this instead of the demo's queries; may be repeated.",
        ),
    ] = None,
    chat: Annotated[
        str,
        typer.Option(
            "--chat",
            metavar="SPEC",
            envvar="MMRERANK_CHAT",
            help="The language model that reranks.",
        ),
    ] = "bundled",
    rerank: Annotated[
        str, typer.Option("--rerank", metavar="METHOD", help="The method that reranks.")
    ] = "cotrr",
    option: OptionsFlag = None,
    output: OutputFlag = Output.text,
) -> None:
    """See it work on the bundled picture book; needs no download."""
    if context.invoked_subcommand is not None:
        return
    from mmrerank.picturebook import run as demo_run
    from mmrerank.picturebook.show import show

    with working(), progress("drawing and indexing") as step:
        done = demo_run.run_demo(
            index=index,
            scenes=scenes or demo_run.SCENES,
            seed=demo_run.SEED if seed is None else seed,
            queries=queries or (),
            chat=chat,
            method=rerank,
            options=pairs(option, "-o"),
            progress=lambda stage, now, total: step(now, total),
        )
    if output is Output.json:
        emit(
            {
                "index": str(done.index),
                "report": str(done.report),
                "seconds": dict(done.seconds),
                "searches": [
                    {
                        **s.result.to_dict(),
                        "full_matches": _counted(s),
                    }
                    for s in done.shown
                ],
            }
        )
    else:
        show(done, table_console())
    if any(s.result.degraded for s in done.shown):
        raise typer.Exit(DEGRADED_EXIT_CODE)


def _counted(shown: Shown) -> dict[str, int | bool | None]:
    """Pictures that show everything asked for, before and after; None where that is not known."""
    known = shown.full_in_all is not None
    return {
        "before": sum(shown.before) if known else None,
        "after": sum(shown.after) if known else None,
        "in_all": shown.full_in_all,
        "first_before": any(shown.before[:1]) if known else None,
        "first_after": any(shown.after[:1]) if known else None,
    }


@guarded
def export(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder that is new or empty.")
    ],
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", min=0, help="Which world is drawn.")
    ] = 0,
    scenes: Annotated[
        int, typer.Option("--scenes", metavar="N", min=1, help="How many pictures.")
    ] = 200,
    queries: Annotated[
        int, typer.Option("--queries", metavar="N", min=0, help="How many queries.")
    ] = 20,
    output: OutputFlag = Output.text,
) -> None:
    """Write a picture-book world: pictures, queries, graded truth."""
    from mmrerank.picturebook.export import export as write

    with working(), progress("drawing") as step:
        write(directory, seed=seed, scenes=scenes, queries=queries, progress=step)
    told = {"directory": str(directory), "seed": seed, "scenes": scenes, "queries": queries}
    if output is Output.json:
        emit(told)
    else:
        typer.echo(f"{scenes} pictures and {queries} queries in {directory}")


group.callback(invoke_without_command=True)(demo)
group.command("export", epilog=f"\b\nExample:\n  {EXAMPLE.splitlines()[1]}")(export)

COMMAND = group
