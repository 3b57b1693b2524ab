"""Show, check or copy a prompt profile: the wording of the questions that a model is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmrerank import writing
from mmrerank.cli.console import Output, emit, say, working
from mmrerank.cli.options import OutputFlag
from mmrerank.errors import InputError
from mmrerank.paths import reason

EXAMPLE = """mmrerank prompts
mmrerank prompts full --to my-prompts
mmrerank prompts my-prompts"""


def prompts(
    profile: Annotated[
        str, typer.Argument(metavar="NAME|DIR", help="A profile of `mmrerank list prompts`, or a folder.")
    ] = "full",
    to: Annotated[
        Path | None,
        typer.Option(
            "--to",
            metavar="DIR",
            show_default=False,
            help="Write its files into this folder, which must be empty or new.",
        ),
    ] = None,
    output: OutputFlag = Output.text,
) -> None:
    """Show, check or copy a prompt profile: the wording of the questions that a model is asked.

    A folder of your own is checked as it is when a ranking begins. To change a wording, write a profile
    into a folder, keep the files that you change, and name the folder with --prompts.
    """
    from mmrerank.rerank.profiles import opened, texts

    with working():
        found = opened(profile)
        if to is not None:
            _write(dict(texts(found)), to)
    if output is Output.json:
        emit({"name": found.name, "files": found.files, "lacking": found.lacking, "digest": found.digest})
        return
    typer.echo(f"{found.name}: {len(found.files)} files, all right; digest {found.digest[:12]}")
    for name in found.files:
        typer.echo(f"  {name}")
    if found.lacking:
        typer.echo(f"asked with the product's own prompts (full): {', '.join(found.lacking)}")
    if to is not None:
        say(f"wrote {to}; name it with --prompts {to}")


def _write(files: dict[str, str], folder: Path) -> None:
    try:
        if folder.exists() and any(folder.iterdir()):
            raise InputError(f"{folder} is not empty; name a new folder, so that nothing is written over")
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            writing.write(folder / name, text.encode())
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {reason(error)}") from error


COMMAND = prompts
