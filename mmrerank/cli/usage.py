"""Show what searches, rerankings and evaluations on this machine spent, by day and model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from mmrerank.cli.console import Output, emit, one_line, table_console, working
from mmrerank.cli.options import OutputFlag, PriceFlag
from mmrerank.errors import UsageError

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
    from mmrerank.chat.around.ledger import Entry, default_ledger, entries
    from mmrerank.types import Usage

    if by not in ("day", "model"):
        raise UsageError(f"--by is day or model, not {by!r}")
    cost = None if price is None else Price.parse(price)
    path = ledger or default_ledger()
    if path is None:
        raise UsageError("MMRERANK_LEDGER is off, so nothing is counted; give --ledger FILE")
    with working():
        found = entries(path)
    if by == "model":
        models: dict[str, tuple[Usage, int]] = {}
        for entry in found:
            used, failed = models.get(entry.model, (Usage(), 0))
            models[entry.model] = (used + entry.usage, failed + entry.failed)
        found = [Entry(day="", model=m, usage=u, failed=f) for m, (u, f) in models.items()]
    rows = [
        {
            **({"day": e.day} if e.day else {}),
            "model": e.model,
            **dataclasses.asdict(e.usage),
            "failed": e.failed,
            **(
                {"money": round(cost.of(e.usage.input_tokens, e.usage.output_tokens), 4)}
                if cost
                else {}
            ),
        }
        for e in found
    ]
    if output is Output.json:
        emit({"ledger": str(path), "entries": rows})
        return
    if not rows:
        typer.echo(f"nothing was spent yet, as far as {path} knows")
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in rows[0]:
        table.add_column(
            name.replace("_", " "), justify="left" if name in ("day", "model") else "right",
            overflow="fold",
        )  # fmt: skip
    for row in rows:
        table.add_row(
            *(
                Text(
                    one_line(
                        f"{v:,.2f}"
                        if isinstance(v, float)
                        else f"{v:,}"
                        if isinstance(v, int)
                        else v
                    )
                )
                for v in row.values()
            )
        )
    table_console().print(table)


COMMAND = usage
