"""Judgements that failed, told beside the figures: how many, why, and how they are asked again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mmrerank.results import SearchResult
from mmrerank.types import Failure

REMEDY = "--retry-failed asks again"
_REASONS = 3


def failures_of(results: Sequence[SearchResult]) -> list[Failure]:
    """The failures of all ``results`` by kind, the most frequent first, each with its first example."""
    found: dict[str, Failure] = {}
    for one in (f for r in results for f in r.failures):
        before = found.get(one.kind)
        found[one.kind] = one if before is None else replace(before, count=before.count + one.count)
    return sorted(found.values(), key=lambda f: -f.count)


def failures_dict(results: Sequence[SearchResult]) -> list[dict[str, Any]]:
    """`failures_of` as plain data, with the queries concerned and the remedy."""
    return [
        {
            "kind": f.kind,
            "questions": f.count,
            "queries": sum(any(own.kind == f.kind for own in r.failures) for r in results),
            "example": f.example,
            "remedy": REMEDY,
        }
        for f in failures_of(results)
    ]


def degraded_line(label: str, results: Sequence[SearchResult]) -> str:
    """One sentence on what failed under a method; empty where nothing did."""
    degraded = sum(r.degraded for r in results)
    if not degraded:
        return ""
    failures = failures_of(results)
    why = "".join(f"; {f.text}" for f in failures[:_REASONS])
    more = f"; and {len(failures) - _REASONS} more kinds" if len(failures) > _REASONS else ""
    return (
        f"{label}: judgements failed in {degraded} of {len(results)} queries; there the first-stage order "
        f"stands ({REMEDY}){why}{more}"
    )


def written_line(label: str, results: Sequence[SearchResult]) -> str:
    """One sentence on answers that were asked for again as text under a method; empty where none were."""
    again = [r.repairs.written for r in results if r.repairs.written]
    if not again:
        return ""
    return (
        f"{label}: {sum(again)} answers in {len(again)} of {len(results)} queries were asked for again as "
        "text, since the labels held too little of the probability"
    )
