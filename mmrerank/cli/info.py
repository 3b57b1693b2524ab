"""Show what an index holds: images, failures, embedder, store."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mmrerank.cli.console import Output, emit, one_line, say, table_console, working
from mmrerank.cli.options import OutputFlag

EXAMPLE = "mmrerank info pictures"
_LISTED = 50


def info(
    index: Annotated[str, typer.Argument(metavar="INDEX", help="Index folder, or a name below ./indexes.")],
    output: OutputFlag = Output.text,
) -> None:
    """Show what an index holds: images, failures, embedder, store, and the columns for `search --where`."""
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
    columns = facts.pop("columns")
    for key, value in facts.items():
        text = ", ".join(value) if isinstance(value, list) else str(value)
        table.add_row(key.replace("_", " "), Text(one_line(text)))
    table_console().print(table)
    _columns(columns)
    for warning in warnings:
        say(f"warning: {warning}")


def _columns(columns: list[dict[str, Any]]) -> None:
    """The columns that a filter can ask about; long lists end early."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("column", overflow="fold")
    table.add_column("type", no_wrap=True)
    table.add_column("images", justify="right", no_wrap=True)
    for column in columns[:_LISTED]:
        table.add_row(*(Text(one_line(str(column[k]))) for k in ("name", "type", "images")))
    console = table_console()
    console.print("\nWhat --where can ask about:")
    console.print(table)
    if len(columns) > _LISTED:
        console.print(f"and {len(columns) - _LISTED} more; --output json lists all")


COMMAND = info
