"""Scores as a table for people: percent, the tie rule, and published figures beside where there are any."""

from __future__ import annotations

from collections.abc import Sequence

from mmrerank.benchmark import Measured, Scores
from mmrerank.cli.console import say, table_console


def show(scores: Scores, *, title: str, only: Sequence[str] = ()) -> None:
    """Prints ``scores`` on stdout; ``only`` names the metrics to show where there are too many of them."""
    from rich.table import Table
    from rich.text import Text

    console = table_console()
    console.print(Text(title, style="bold"))
    lacking = len(scores.missing)
    asked = f"{scores.expected} queries"
    console.print(asked + (f", {lacking} of them without an answer" if lacking else ""))
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    bounds = any(m.bounds for m in scores.metrics.values())
    columns = ["metric", "value", *(["answered only"] if lacking else [])]
    for name in [*columns, *(["tie bounds"] if bounds else []), "equal scores"]:
        right = name in ("value", "answered only", "tie bounds")
        table.add_column(name, justify="right" if right else "left")
    told: set[str] = set()
    shown = [m for n, m in scores.metrics.items() if not only or n in only]
    for measured in shown:
        rule = "" if measured.tie_rule in told else measured.tie_rule
        told.add(measured.tie_rule)
        table.add_row(
            Text(measured.name + (" (lower is better)" if measured.lower_is_better else "")),
            figure(measured, measured.value),
            *([figure(measured, measured.value_scored)] if lacking else []),
            *([_bounds(measured)] if bounds else []),
            Text(rule),
        )
    console.print(table)
    if len(shown) < len(scores.metrics):
        console.print(f"{len(scores.metrics) - len(shown)} more with --output json")
    for warning in scores.warnings:
        say(f"warning: {warning}")


def figure(measured: Measured, value: float) -> str:
    """A fraction as percent; a metric without an upper bound of 1 as it is."""
    return f"{value:.4f}" if measured.lower_is_better else f"{100 * value:.2f} %"


def _bounds(measured: Measured) -> str:
    if measured.bounds is None:
        return ""
    low, high = (figure(measured, v) for v in measured.bounds)
    return f"{low} to {high}"


def show_published(benchmark: str, split: str, metrics: Sequence[str]) -> None:
    """What papers report for these metrics, best first; nothing where nothing is known."""
    from rich.table import Table
    from rich.text import Text

    from mmrerank.evaluation.tasks import facts_of

    data = facts_of(benchmark)
    found: dict[str, dict[str, float]] = {}
    splits = {row["split"] for row in data.published}
    for row in data.published:
        if row["metric"] in metrics:
            found.setdefault(row["system"], {})[row["metric"]] = row["value"]
    if not found:
        return
    console = table_console()
    where = "" if splits == {split} else f", on {', '.join(sorted(splits))} and not on {split}"
    console.print(Text(f"\npublished{where} ({data.source.strip()})", style="dim"))
    names = [m for m in metrics if any(m in row for row in found.values())]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("system")
    for name in names:
        table.add_column(name, justify="right")
    for system, row in found.items():
        table.add_row(Text(system), *(f"{100 * row[n]:.2f} %" if n in row else "" for n in names))
    console.print(table)
