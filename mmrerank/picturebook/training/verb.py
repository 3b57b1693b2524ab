"""``mmrerank demo train`` and ``mmrerank demo ask``: train the picture book's models again, and test one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmrerank.cli.console import Output, emit, guarded, progress, say, working
from mmrerank.cli.options import CacheFlag, DeviceFlag, OutputFlag, opened


@guarded
def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="clip, vlm, or a YAML file of your own.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where checkpoints and the log go.")],
    steps: Annotated[
        int | None,
        typer.Option("--steps", metavar="N", min=1, show_default=False, help="Stop after this many steps."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")
    ] = False,
    output: OutputFlag = Output.text,
) -> None:
    """Train a model by a recipe; the result opens like any other model."""
    from mmrerank.picturebook.training.run import recipe_file
    from mmrerank.picturebook.training.run import train as run

    file = recipe_file(recipe)
    with working(), progress("training") as step:
        figures = run(file, out=out, steps=steps, resume=resume, progress=step)
    if output is Output.json:
        emit({"model": str(out / "model"), "figures": figures})
        return
    say("trained; the model is in")
    typer.echo(str(out / "model"))


@guarded
def ask(
    scenes: Annotated[
        int, typer.Option("--scenes", metavar="N", min=2, help="How many pictures are drawn.")
    ] = 800,
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Which pictures are drawn.")] = 991,
    chat: Annotated[
        str, typer.Option("--chat", metavar="SPEC", envvar="MMRERANK_CHAT", help="The language model asked.")
    ] = "bundled",
    cache: CacheFlag = None,
    device: DeviceFlag = None,
    output: OutputFlag = Output.text,
) -> None:
    """Ask a language model about pictures and searches drawn evenly, kind by kind."""
    from mmrerank.picturebook.training.ask import as_text, ask_evenly

    with working():
        backend = opened(chat, device=device or "", given={}, cache=cache or "")
        say(f"asking {chat} about {scenes} pictures ...")
        found = ask_evenly(backend, scenes=scenes, seed=seed)
    if output is Output.json:
        emit(found)
    else:
        typer.echo(as_text(found))
