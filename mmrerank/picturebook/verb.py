"""See it work on a drawn picture book; needs no download.

Subcommands write a picture-book world, open the page on it, and measure and train its two models. Each
imports what it needs when it runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmrerank.cli.console import Output, emit, guarded, progress, table_console, working
from mmrerank.cli.options import CacheFlag, DeviceFlag, OptionsFlag, OutputFlag, opened, pairs
from mmrerank.errors import DEGRADED_EXIT_CODE
from mmrerank.picturebook.training import verb as training

if TYPE_CHECKING:
    from mmrerank.picturebook.run import DemoSearch

EXAMPLE = """mmrerank demo
mmrerank demo app
mmrerank demo export ./book --seed 7 --scenes 500 --queries 40
mmrerank demo mistakes ./runs
mmrerank demo ask --scenes 200
mmrerank demo train clip --out runs/clip"""

COMMAND = typer.Typer(
    help="See it work on a drawn picture book; needs no download.",
    invoke_without_command=True,
    rich_markup_mode=None,
)

IndexFlag = Annotated[str, typer.Option("--index", metavar="X", help="Where the demo's index goes.")]
ScenesFlag = Annotated[
    int | None,
    typer.Option("--scenes", metavar="N", min=1, show_default=False, help="How many pictures are drawn."),
]
SeedFlag = Annotated[
    int | None,
    typer.Option("--seed", metavar="N", min=0, show_default=False, help="Which pictures are drawn."),
]
QueriesFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--query",
        metavar="TEXT",
        show_default=False,
        help="Ask this instead of the demo's queries; may be repeated.",
    ),
]
ChatFlag = Annotated[
    str,
    typer.Option("--chat", metavar="SPEC", envvar="MMRERANK_CHAT", help="The language model that reranks."),
]


@guarded
def demo(
    context: typer.Context,
    index: IndexFlag = "demo",
    scenes: ScenesFlag = None,
    seed: SeedFlag = None,
    queries: QueriesFlag = None,
    chat: ChatFlag = "bundled",
    rerank: Annotated[
        str, typer.Option("--rerank", metavar="METHOD", help="The method that reranks.")
    ] = "cotrr",
    option: OptionsFlag = None,
    output: OutputFlag = Output.text,
) -> None:
    """See it work on a drawn picture book; needs no download."""
    if context.invoked_subcommand is not None:
        return
    from mmrerank.picturebook import run
    from mmrerank.picturebook.show import show

    with working(), progress("drawing and indexing") as step:
        done = run.run_demo(
            index=index,
            scenes=scenes or run.SCENES,
            seed=run.SEED if seed is None else seed,
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
                "searches": [{**s.result.to_dict(), "full_matches": _full_matches(s)} for s in done.searches],
            }
        )
    else:
        show(done, table_console())
    if any(s.result.degraded for s in done.searches):
        raise typer.Exit(DEGRADED_EXIT_CODE)


def _full_matches(search: DemoSearch) -> dict[str, int | bool | None]:
    """Pictures that show everything asked for, before and after; None where that is not known."""
    known = search.full_in_all is not None
    return {
        "before": sum(search.before) if known else None,
        "after": sum(search.after) if known else None,
        "in_all": search.full_in_all,
        "first_before": any(search.before[:1]) if known else None,
        "first_after": any(search.after[:1]) if known else None,
    }


@guarded
def export(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that is new or empty.")],
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Which world is drawn.")] = 0,
    scenes: Annotated[int, typer.Option("--scenes", metavar="N", min=1, help="How many pictures.")] = 200,
    queries: Annotated[int, typer.Option("--queries", metavar="N", min=0, help="How many queries.")] = 20,
    output: OutputFlag = Output.text,
) -> None:
    """Write a picture-book world: pictures, queries, graded truth."""
    from mmrerank.picturebook.export import export as write

    with working(), progress("drawing") as step:
        write(directory, seed=seed, scenes=scenes, queries=queries, progress=step)
    if output is Output.json:
        emit({"directory": str(directory), "seed": seed, "scenes": scenes, "queries": queries})
    else:
        typer.echo(f"{scenes} pictures and {queries} queries in {directory}")


@guarded
def app(
    index: IndexFlag = "demo",
    chat: ChatFlag = "bundled",
    cache: CacheFlag = None,
    device: DeviceFlag = None,
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Address to listen at; 0.0.0.0 lets others in.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", metavar="N", min=0, max=65535, help="Port to listen at.")
    ] = 7860,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open a browser window.")] = False,
) -> None:
    """Open the web page on the picture book, which is drawn and indexed first."""
    from mmrerank import ImageSearch
    from mmrerank.picturebook.run import example_queries, prepare_demo
    from mmrerank_app.launch import build, serve

    with working(), progress("drawing and indexing") as step:
        prepare_demo(index, progress=lambda stage, now, total: step(now, total))
        backend = opened(chat, device=device or "", given={}, cache=cache or "")
        search = ImageSearch.open(index, chat=backend, device=device or "")
        page = build(search, examples=[q.text for q in example_queries()])
    serve(page, host=host, port=port, browser=not no_browser)


@guarded
def mistakes(
    runs: Annotated[Path, typer.Argument(metavar="DIR", help="What `mmrerank eval demo --runs DIR` wrote.")],
    method: Annotated[str, typer.Option("--method", metavar="METHOD", help="Whose explanations.")] = "cotrr",
    show: Annotated[
        int, typer.Option("--show", metavar="N", min=0, help="How many examples of each mistake.")
    ] = 5,
    output: OutputFlag = Output.text,
) -> None:
    """Count the mistakes in a run's explanations, with examples."""
    from mmrerank.picturebook.mistakes import as_text, find_mistakes

    with working():
        found = find_mistakes(runs, method=method, show=show)
    if output is Output.json:
        emit(found)
    else:
        typer.echo(as_text(found))


def _epilog(verb: str) -> str:
    lines = [f"  {line}" for line in EXAMPLE.splitlines() if line.split()[2:3] == [verb]]
    return "\b\nExample:\n" + "\n".join(lines)


COMMAND.callback(invoke_without_command=True)(demo)
for _verb in (app, export, mistakes, training.ask, training.train):
    COMMAND.command(_verb.__name__, epilog=_epilog(_verb.__name__))(_verb)
