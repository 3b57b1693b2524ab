"""Keeps the best hits of a result: so many at most, and those that are relevant enough."""

from __future__ import annotations

from dataclasses import replace

from mmrerank.errors import UsageError
from mmrerank.limits import shown
from mmrerank.results import SearchResult, in_first_order


def check_best(method: str, top_n: int | None, threshold: float | None) -> None:
    """Raises `UsageError` for what `best` cannot keep by, before anything is asked."""
    if top_n is not None and (isinstance(top_n, bool) or not isinstance(top_n, int) or top_n < 1):
        raise UsageError(f"top_n must be a whole number of at least 1, not {shown(top_n)}")
    if threshold is None:
        return
    number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
    if not number or not 0 <= threshold <= 1:  # not a number is refused too
        raise UsageError(f"threshold must be a number from 0 to 1, not {shown(threshold)}")
    if method == "none":
        raise UsageError(
            "threshold needs a method that judges, and none gives no relevance: name one with --rerank (in "
            "Python: rerank=...)"
        )


def best(result: SearchResult, *, top_n: int | None = None, threshold: float | None = None) -> SearchResult:
    """``result`` with at most ``top_n`` hits, all of a relevance of ``threshold`` or more.

    ``cut`` counts the hits that the threshold took from the first ``top_n``. One without a relevance was not
    judged, and is left out too; where no hit has any, nothing is left out. A warning says either. Ranks are
    counted anew; ``first`` becomes as short. Raises `UsageError` as `check_best` does.
    """
    check_best(result.method, top_n, threshold)
    if top_n is None and threshold is None:
        return result
    wanted, hits, warnings = result.hits[:top_n], result.hits, result.warnings
    if threshold is not None and hits:
        judged = [h for h in hits if h.relevance is not None]
        unknown = sum(h.relevance is None for h in wanted)
        if not judged:
            warnings += (
                f"the threshold of {threshold:g} left out nothing: no image was judged by {result.method}",
            )
        else:
            hits = tuple(h for h in judged if (h.relevance or 0.0) >= threshold)
            if unknown:
                one = "1 image that was not judged is" if unknown == 1 else f"{unknown} images not judged are"
                warnings += (f"{one} left out by the threshold of {threshold:g}",)
    kept = hits[:top_n]
    ids = {h.id for h in kept}
    return replace(
        result,
        hits=tuple(replace(h, rank=n) for n, h in enumerate(kept, start=1)),
        first=in_first_order(result.hits, len(kept)),
        cut=sum(h.id not in ids for h in wanted),
        warnings=warnings,
    )
