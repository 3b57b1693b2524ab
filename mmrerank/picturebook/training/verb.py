"""``mmrerank train``: runs a training recipe. The training itself is `mmrerank.picturebook.training`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmrerank.cli.console import progress, say, working

EXAMPLE = """mmrerank train configs/train/demo-clip.yaml --out runs/clip
mmrerank train configs/train/demo-clip.yaml --out runs/clip --resume"""


def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE.yaml", help="What to train, and how.")],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where checkpoints and the log go.")
    ],
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps", metavar="N", min=1, show_default=False, help="Stop after this many steps."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")
    ] = False,
) -> None:
    """Train a model by a recipe; the result opens like any other model."""
    from mmrerank.picturebook.training.run import train as run_training

    with working(), progress("training") as step:
        run_training(recipe, out=out, steps=steps, resume=resume, progress=step)
    say("trained; the model is in")
    typer.echo(str(out / "model"))
