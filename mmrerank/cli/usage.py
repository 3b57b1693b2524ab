"""Show what searches, rerankings and evaluations on this machine spent, by day and model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmrerank.cli.console import Output, emit, one_line, table_console, working
from mmrerank.cli.options import OutputFlag, PriceFlag
from mmrerank.errors import UsageError

if TYPE_CHECKING:
    from mmrerank.budget import Price
    from mmrerank.chat.around.ledger import Entry

EXAMPLE = """mmrerank usage
mmrerank usage --by model --price 0.15,0.60 --output json"""


def usage(
    ledger: Annotated[
        Path | None,
        typer.Option(
            "--ledger", metavar="FILE", show_default=False,
            help="The ledger (default: MMRERANK_LEDGER, or mmrerank/usage.jsonl in the state folder).",
        ),
    ] = None,
    by: Annotated[
        str, typer.Option("--by", metavar="day|model", help="One line a day and model, or a model.")
    ] = "day",
    price: PriceFlag = None,
    output: OutputFlag = Output.text,
) -> None:  # fmt: skip
    """Show what searches, rerankings and evaluations on this machine spent; the cache's answers cost nothing.

    The command line counts calls and tokens by day and model, no question and no answer.
    MMRERANK_LEDGER=off keeps no ledger.
    """
    from mmrerank.budget import Price
    from mmrerank.chat.around.ledger import default_ledger, entries

    if by not in ("day", "model"):
        raise UsageError(f"--by is day or model, not {by!r}")
    cost = None if price is None else Price.parse(price)
    path = ledger or default_ledger()
    if path is None:
        raise UsageError("MMRERANK_LEDGER is off, so nothing is counted; give --ledger FILE")
    with working():
        found = entries(path)
    rows = [_row(e, cost) for e in (_by_model(found) if by == "model" else found)]
    if output is Output.json:
        emit({"ledger": str(path), "entries": rows})
    elif rows:
        _print(rows)
    else:
        typer.echo(f"nothing was spent yet, as far as {path} knows")


def _by_model(entries: Sequence[Entry]) -> list[Entry]:
    from mmrerank.chat.around.ledger import Entry
    from mmrerank.types import Usage

    models: dict[str, tuple[Usage, int]] = {}
    for entry in entries:
        used, failed = models.get(entry.model, (Usage(), 0))
        models[entry.model] = (used + entry.usage, failed + entry.failed)
    return [Entry(day="", model=m, usage=u, failed=f) for m, (u, f) in models.items()]


def _row(entry: Entry, cost: Price | None) -> dict[str, Any]:
    used = entry.usage
    money = {} if cost is None else {"money": round(cost.of(used.input_tokens, used.output_tokens), 4)}
    day = {"day": entry.day} if entry.day else {}
    return {**day, "model": entry.model, **dataclasses.asdict(used), "failed": entry.failed, **money}


def _print(rows: Sequence[Mapping[str, Any]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in rows[0]:
        words = name in ("day", "model")
        table.add_column(name.replace("_", " "), justify="left" if words else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(one_line(_cell(value))) for value in row.values()))
    table_console().print(table)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


COMMAND = usage
