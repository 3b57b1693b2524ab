"""Check that an index is whole; ends with code 4 when something is wrong."""

from __future__ import annotations

from typing import Annotated

import typer

from mmrerank.cli.console import Output, emit, one_line, say, working
from mmrerank.cli.options import OutputFlag
from mmrerank.errors import ImageIndexError

EXAMPLE = """mmrerank verify pictures
mmrerank verify pictures --deep"""


def verify(
    index: Annotated[str, typer.Argument(metavar="INDEX", help="Index folder, or a name below ./indexes.")],
    deep: Annotated[
        bool, typer.Option("--deep", help="Also read every vector and every image file.")
    ] = False,
    output: OutputFlag = Output.text,
) -> None:
    """Check that an index is whole; ends with code 4 when something is wrong."""
    from mmrerank.index.index import ImageIndex

    with working(), ImageIndex.open(index) as opened:
        problems, command = opened.verify(deep=deep), opened.update_command()
    if output is Output.json:
        emit({"index": index, "ok": not problems, "problems": problems})
    else:
        for problem in problems:
            typer.echo(one_line(str(problem)))
        typer.echo(f"{len(problems)} problem(s)" if problems else "the index is whole")
    if problems:
        say(f"where pictures have changed, bring the index up to date: {command}")
        raise typer.Exit(ImageIndexError.exit_code)


COMMAND = verify
