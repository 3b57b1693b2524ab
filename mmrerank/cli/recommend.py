"""Say which methods a language model can run, what each costs for one query, and where to begin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from mmrerank.cli.console import Output, emit, table_console, working
from mmrerank.cli.options import OutputFlag, PriceFlag, budget_of

if TYPE_CHECKING:
    from mmrerank.evaluation.experiment.recommend import Option

EXAMPLE = """mmrerank recommend --chat transformers:Qwen/Qwen3-VL-8B-Instruct
mmrerank recommend --chat openai:MODEL --candidates 50 --budget calls=60 --price 0.15,0.60"""


def recommend(
    chat: Annotated[
        str,
        typer.Option(
            "--chat", metavar="SPEC", envvar="MMRERANK_CHAT", show_default=False,
            help="The language model.",
        ),
    ] = "",
    candidates: Annotated[
        int, typer.Option("--candidates", min=1, help="Images that are reranked.")
    ] = 20,
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget", metavar="LIMITS", show_default=False,
            help="What one query may spend: calls=40, tokens=20000 or money=0.05 (with --price).",
        ),
    ] = None,
    price: PriceFlag = None,
    output: OutputFlag = Output.text,
) -> None:  # fmt: skip
    """Say which methods a language model can run, what each costs for one query, and where to begin.

    Calls are the most a method asks; tokens are estimates at 256 an image. Opens the model, or asks the
    server what it can do.
    """
    import mmrerank
    from mmrerank.chat.open import open_chat
    from mmrerank.cli._models import chosen

    limits = budget_of(budget, price)
    with working():
        backend = open_chat(chosen("chat", chat, ""))
        rows = mmrerank.recommend(backend.capabilities, k=candidates, budget=limits, chat=backend)
    best = next(r.method for r in rows if r.recommended)
    if output is Output.json:
        emit({
            "chat": chat,
            "capabilities": sorted(backend.capabilities),
            "candidates": candidates,
            "recommended": best,
            "methods": [r.to_dict() for r in rows],
        })  # fmt: skip
    else:
        _print(rows, f"{chat}, {candidates} candidates a query", best)


def _print(rows: Sequence[Option], title: str, best: str) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=True, header_style="dim")
    for column in ("", "method", "family", "calls", "images", "tokens in", "out", "to pay", ""):
        table.add_column(column, justify="right" if column in _NUMBERS else "left")
    for row in rows:
        lacks = f"needs {', '.join(row.lacks)}" if row.lacks else ""
        over = f"more {row.over} than the budget" if row.over else ""
        cells = (
            "▸" if row.recommended else "",
            row.method,
            row.family,
            f"{row.calls:,}",
            f"{row.images:,}",
            f"{row.input_tokens:,}",
            f"{row.output_tokens:,}",
            "" if row.money is None else f"{row.money:,.4f}",
            lacks or over,
        )
        table.add_row(*(Text(c) for c in cells), style="" if row.possible else "dim")
    console = table_console()
    console.print(Text(title, style="bold"))
    console.print(table)
    console.print(Text(f"Begin with: mmrerank search ... --rerank {best}", style="dim"))


_NUMBERS = {"calls", "images", "tokens in", "out", "to pay"}


COMMAND = recommend
