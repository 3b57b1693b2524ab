"""Which metrics of a benchmark fit a screen, and what papers report for them."""

from __future__ import annotations

from collections.abc import Sequence

from mmrerank.benchmark import Task
from mmrerank.evaluation.compare.rendering import Cell, Table
from mmrerank.evaluation.tasks import facts_of

_MOST = 40


def headline(names: list[str], most: int = _MOST) -> list[str]:
    """The metrics that fit a screen: all of them, or those at the first cut-off."""
    if len(names) <= most:
        return names
    first = [n for n in names if n.endswith("Hit@1")]
    return first or names[:most]


def published_table(task: Task, metrics: Sequence[str]) -> Table | None:
    """What papers report for these metrics; None where nothing is known."""
    facts = facts_of(task.benchmark)
    found: dict[str, dict[str, float]] = {}
    for row in facts.published:
        if row["metric"] in metrics:
            found.setdefault(row["system"], {})[row["metric"]] = row["value"]
    if not found:
        return None
    splits = {row["split"] for row in facts.published}
    where = ""
    if splits != {task.split}:
        where = f", on {', '.join(sorted(splits))} and not on {task.split}"
    names = [m for m in metrics if any(m in row for row in found.values())]
    return Table(
        title=f"published{where} ({facts.source.strip()})",
        columns=["system", *names],
        rows=[[Cell(text=system), *(_percent(row.get(n)) for n in names)] for system, row in found.items()],
    )


def _percent(value: float | None) -> Cell:
    return Cell(text="") if value is None else Cell(text=f"{100 * value:.2f} %", value=value, numeric=True)
