"""Metrics that other tools compute, through ir-measures: one at a time, each with its own rule and error.

Whatever such a tool does wrong is an error of that metric and of no other. Says which tool computes a metric,
how that orders equal scores, and whether its values are fractions.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmrerank.benchmark import Qrels, Ranked
from mmrerank.errors import InputError, UsageError

TREC_TIES = "equal scores, in single precision, by descending document id (trec_eval)"
NO_ORDER = "the order does not count"
_TIES = {
    "pytrec_eval": TREC_TIES,
    "gdeval": "equal scores by descending document id (gdeval)",
    "judged": "equal scores by ascending document id (ir-measures)",
    "msmarco": "equal scores by ascending document id (ir-measures, MS MARCO's script)",
    "compat": "equal scores by ascending document id (ir-measures)",
    "accuracy": "equal scores in the order of the run (ir-measures)",
}
_SETS = frozenset({"NumQ", "NumRel", "NumRet", "SetP", "SetR", "SetF", "SetAP"})
_NUMBERS = frozenset({"NumQ", "NumRel", "NumRet", "alpha_DCG", "α_DCG"})
"""Counts, and sums without an upper bound of 1."""
_GDEVAL_GRADE = 4
MOST = 10**9
"""The largest cut-off."""


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """A metric as another tool computes it. ``error`` says why it could not; there are no values then."""

    values: Mapping[str, float] = field(default_factory=dict)
    tie_rule: str = TREC_TIES
    is_fraction: bool = True
    error: str = ""


def expression(name: str, known: Sequence[str] = ()) -> Any:
    """The metric that ir-measures parses out of ``name``.

    Raises `UsageError` for one that it does not know or none of its installed tools computes; ``known`` are
    names to guess from.
    """
    import ir_measures

    try:
        found = ir_measures.parse_measure(name)
    except (NameError, ValueError, SyntaxError, TypeError, AttributeError, KeyError) as error:
        lower = {m.lower(): m for m in known}
        near = difflib.get_close_matches(name.split("@")[0].lower(), lower, n=1)
        hint = f" Did you mean {lower[near[0]]}?" if near else ""
        why = _plain(error)
        raise UsageError(f"{name!r} is not a metric: {why}; see `mmrerank list metrics`.{hint}") from None
    _provider(name, found)
    for word, value in found.params.items():
        # one below 1 ends some tools at once, and the whole process with them
        if word in ("cutoff", "rel") and isinstance(value, int) and not 1 <= value <= MOST:
            what = "the cut-off" if word == "cutoff" else word
            raise UsageError(f"{what} of {name} must be from 1 to {MOST:,}, not {value}")
    return found


def foreign(name: str, lists: Mapping[str, Ranked], qrels: Qrels, *, known: Sequence[str] = ()) -> Foreign:
    """The values of one metric over ``lists``; one that they do not have counts as the tool says.

    Raises `UsageError` as `expression` does.
    """
    measure = expression(name, known)
    tool = _provider(name, measure)
    base = str(measure.NAME)
    rule = NO_ORDER if base in _SETS else _TIES.get(tool.NAME, f"as {tool.NAME} orders equal scores")
    try:
        values = _values(measure, tool, lists, qrels)
    except Exception as error:  # another tool's: whatever it does wrong is an error of this one metric
        why = " ".join(str(error).split())[:300] or type(error).__name__
        kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
        return Foreign(tie_rule=rule, error=f"{tool.NAME} cannot compute it: {kind}{why}")
    if strange := [q for q, v in values.items() if not math.isfinite(v)]:
        where = f"{len(strange)} of {len(values)} queries, such as {strange[0]!r}"
        return Foreign(tie_rule=rule, error=f"{tool.NAME} gives no number for {where}")
    bounded = all(0 <= v <= 1 + 1e-9 for v in values.values())
    return Foreign(values=values, tie_rule=rule, is_fraction=base not in _NUMBERS and bounded)


def _values(measure: Any, tool: Any, lists: Mapping[str, Ranked], qrels: Qrels) -> dict[str, float]:
    graded = {q: dict(judged) for q, judged in qrels.items()}
    scored = {q: dict(zip(r.ids, r.scores, strict=True)) for q, r in lists.items() if len(r)}
    names = {q: q for q in graded}
    if tool.NAME == "gdeval":
        highest = max((g for judged in graded.values() for g in judged.values()), default=0)
        if highest > _GDEVAL_GRADE:
            raise InputError(f"it takes grades up to {_GDEVAL_GRADE}, and the qrels have {highest}")
        graded, scored, names = _numbered(graded, scored)
    values = dict.fromkeys((q for q in lists if q in qrels), float(measure.DEFAULT))
    for one in tool.iter_calc([measure], graded, scored):
        query = names.get(one.query_id)
        if query in values:
            values[query] = float(one.value)
    return values


def _provider(name: str, measure: Any) -> Any:
    """The first of ir-measures' tools that is installed and computes a metric, as it chooses itself."""
    import ir_measures

    lacking, others = [], []
    for tool in ir_measures.DefaultPipeline.providers:
        try:
            supports = tool.supports(measure)
        except Exception as error:  # providers report these in many ways, assertions too
            raise UsageError(f"{name!r} is not a metric: {_plain(error) or type(error).__name__}") from None
        how = tool.install_instructions() or "not installed"
        try:
            if supports and tool.is_available():
                return tool
        except Exception as error:  # a broken installation fails as it likes: the next tool may do
            how = f"its installation is broken: {type(error).__name__}: {error}"
        if supports:
            lacking.append(f"{tool.NAME} ({how})")
        others += [f"{tool.NAME} computes {m}" for m in tool.SUPPORTED_MEASURES if m.NAME == measure.NAME]
    where = f"; these would: {', '.join(lacking)}" if lacking else ""
    if others and not lacking:
        where = f" with these parameters; {', '.join(others)}"
    raise UsageError(f"{name}: no tool that is installed computes it{where}; see `mmrerank list metrics`")


def _plain(error: Exception) -> str:
    """What ir-measures says of a name, without its marker of a parameter that was left out."""
    return re.sub(
        r"invalid param (\w+)=<object object at \w+>", r"the parameter \1 must be given", str(error)
    )


def _numbered(
    graded: Mapping[str, Mapping[str, int]], scored: Mapping[str, Mapping[str, float]]
) -> tuple[dict[str, dict[str, int]], dict[str, dict[str, float]], dict[str, str]]:
    """Qrels and lists under numbers for ids, in the order of the ids, and the queries by their numbers.

    gdeval takes numbers for queries, and ids without white space.
    """
    queries = {q: str(n) for n, q in enumerate({**graded, **scored}, start=1)}
    documents = sorted({d for rows in (*graded.values(), *scored.values()) for d in rows})
    short = {d: f"{n:09d}" for n, d in enumerate(documents)}
    return (
        {queries[q]: {short[d]: g for d, g in rows.items()} for q, rows in graded.items()},
        {queries[q]: {short[d]: s for d, s in rows.items()} for q, rows in scored.items()},
        {number: q for q, number in queries.items()},
    )
