"""What is odd about a run as a whole: it is of another split, or a whole part is without an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmrerank.benchmark import Measured


def of_another_split(unknown: int, total: int, splits: Sequence[str], split: str) -> str:
    """A hint where most of a run's ``total`` queries are not of the split; empty otherwise."""
    others = ", ".join(s for s in splits if s != split)
    odd = 2 * unknown > total and others
    return f"; is it a run of another split (--split {others})?" if odd else ""


def empty_parts(metrics: Mapping[str, Measured]) -> list[str]:
    """A warning where no query of a part (category, data set) is answered: the mean has it as nothing."""
    for measured in metrics.values():
        empty = [p for p, units in measured.parts.items() if not any(u in measured.values for u in units)]
        if empty and len(empty) < len(measured.parts):
            return [
                f"no query of {', '.join(empty)} has an answer; each of them counts as 0 in means such as "
                f"{measured.name}"
            ]
    return []
