"""Check that an index is whole; ends with code 4 when something is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mmrerank.cli.console import Output, emit, one_line, say, working
from mmrerank.cli.options import OutputFlag
from mmrerank.errors import ImageIndexError, MmrerankError

if TYPE_CHECKING:
    from mmrerank.index.index import ImageIndex

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
        model = _model(opened)
    if output is Output.json:
        body = {"index": index, "ok": not problems, "problems": problems}
        emit({**body, "warnings": [model] if model else []})
    else:
        for problem in problems:
            typer.echo(one_line(str(problem)))
        whole = "its files are whole; its model was not looked at" if model else "the index is whole"
        typer.echo(f"{len(problems)} problem(s)" if problems else whole)
        if model:
            say(f"warning: {one_line(model)}")
    if problems:
        say(f"where pictures have changed, bring the index up to date: {command}")
        raise typer.Exit(ImageIndexError.exit_code)


def _model(index: ImageIndex) -> str:
    """Why the model that the index names is opened by nothing here; empty where it may be."""
    from mmrerank.query_embedder import check_remembered

    try:
        check_remembered(index.manifest, index.path)
    except MmrerankError as error:
        return str(error)
    return ""


COMMAND = verify
