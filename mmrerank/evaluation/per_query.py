"""Values of each query, as ``trec_eval -q`` prints them: metric, query and value, and then ``all``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmrerank.benchmark import Measured, Scores
from mmrerank.evaluation.measure.runs import encode_id


def chosen(scores: Scores) -> list[Measured]:
    """The metrics whose values are given: parts such as ``dress.R@10`` repeat those of ``R@10``."""
    known = scores.metrics
    return [m for n, m in known.items() if n.partition(".")[2] not in known or "." not in n]


def per_query(scores: Scores) -> dict[str, dict[str, float]]:
    """By metric, the value of every query (or dialogue) that counts; one without an answer as it counts."""
    return {
        m.name: {u: float(m.values.get(u, m.absent)) for u in m.expected} for m in chosen(scores)
    }  # fmt: skip


def lines(scores: Scores, *, digits: int | None = 4) -> Iterator[str]:
    """``metric TAB query TAB value``, query by query, then a line ``all`` for each metric.

    Ids are encoded as in runs. ``digits`` after the point, None for all of them.
    """
    values = per_query(scores)
    units: Mapping[str, None] = dict.fromkeys(u for own in values.values() for u in own)
    for unit in units:
        for name, own in values.items():
            if unit in own:
                yield f"{name}\t{encode_id(unit)}\t{_shown(own[unit], digits)}"
    for measured in chosen(scores):
        yield f"{measured.name}\tall\t{_shown(measured.value, digits)}"


def _shown(value: float, digits: int | None) -> str:
    return repr(float(value)) if digits is None else f"{value:.{digits}f}"


def labelled(scores: Mapping[str, Scores | None]) -> Iterator[str]:
    """`lines` of several methods, each line after the method's name."""
    for label, one in scores.items():
        for line in lines(one) if one is not None else ():
            yield f"{label}\t{line}"


def per_query_dict(scores: Scores) -> dict[str, Any]:
    """``{"per_query", "missing_queries"}`` as plain data: the values, and who has none of their own."""
    return {"per_query": per_query(scores), "missing_queries": list(scores.missing)}
