"""Show what an index holds: images, failures, embedder, store."""

from __future__ import annotations

from typing import Annotated

import typer

from mmrerank.cli.console import Output, emit, one_line, say, table_console, working
from mmrerank.cli.options import OutputFlag

EXAMPLE = "mmrerank info pictures"


def info(
    index: Annotated[str, typer.Argument(metavar="INDEX", help="Index folder, or a name below ./indexes.")],
    output: OutputFlag = Output.text,
) -> None:
    """Show what an index holds: images, failures, embedder, store."""
    from mmrerank.index.index import ImageIndex

    with working(), ImageIndex.open(index) as opened:
        facts, warnings = opened.info(), opened.warnings()
    if output is Output.json:
        emit({**facts, "warnings": warnings})
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for key, value in facts.items():
        text = ", ".join(value) if isinstance(value, list) else str(value)
        table.add_row(key.replace("_", " "), Text(one_line(text)))
    table_console().print(table)
    for warning in warnings:
        say(f"warning: {warning}")


COMMAND = info
