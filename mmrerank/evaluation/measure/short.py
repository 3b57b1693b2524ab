"""Which lists are too short for a figure: the one rule, for every benchmark, run and metric.

A metric looks at the first k names of a list, but at no more than the query could have: its own candidates,
or the gallery, without what the protocol leaves out. A list that holds fewer is too short.

- Where that number is known and the metric has a cut-off, the length decides: names that are not there may
  belong before those that are, so that even a list with its right answer is reported.
- Without a known gallery, or without a cut-off, a list counts only where it lacks a right answer (every one,
  for metrics of the first): otherwise a longer list could not change the value. Where neither is known,
  nothing can be said.
- A gallery smaller than k is no fault, and a query without any list is missing, not short.

A short list keeps its value: right answers beyond its end count as not found. The figure is marked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from mmrerank.benchmark import Measured, Qrels, Ranked, Short, Task

MARK = "†"
"""Stands behind a figure whose lists are too short."""
NOTE = f"{MARK} Some lists are too short for this figure; the warnings say how many."
Room = Callable[[str], int | None]
"""How many names a query's list could hold; None where that is not known."""
_FIRST = frozenset({"RR", "Success", "Hit", "MRR", "INQUIRE_MRR"})
_SHOWN = 4  # names of metrics in a warning


def too_short(
    rows: Mapping[str, Ranked],
    qrels: Qrels,
    k: int | None,
    *,
    room: Room = lambda _: None,
    first: bool = False,
    partial: Collection[str] = (),
) -> Short | None:
    """The lists of ``rows`` that are too short for the cut-off ``k``; None where there are none.

    ``first``: one right answer is all that the metric looks for. Lists of the queries ``partial`` are known
    to leave out most of the gallery: they are too short whatever k is.
    """
    held: dict[str, int] = {}
    wanted: dict[str, int] = {}
    lacking: set[str] = set()
    for query, ranked in rows.items():
        if query not in qrels or (k is not None and len(ranked) >= k and query not in partial):
            continue
        size = room(query)
        most = size if k is None or query in partial else k if size is None else min(k, size)
        if most is None or len(ranked) >= most:
            continue
        right = {i for i, grade in qrels[query].items() if grade > 0}
        found = len(right.intersection(ranked.ids))
        lacks = not found if first else found < len(right)
        if lacks or (k is not None and size is not None):
            held[query], wanted[query] = len(ranked), most
            if lacks:
                lacking.add(query)
    return Short(held=held, wanted=wanted, lacking=frozenset(lacking)) if held else None


def cut_off(name: str) -> int | None:
    """The k of a metric's name, such as 10 of ``nDCG@10``."""
    found = re.search(r"@(\d+)$", name)
    return int(found[1]) if found else None


def by_metric(
    names: Sequence[str], rows: Mapping[str, Ranked], qrels: Qrels, room: Room
) -> dict[str, Short | None]:
    """`too_short` for each metric of ``names``, which have their cut-offs; alike ones are looked at once."""
    seen: dict[tuple[int | None, bool], Short | None] = {}
    found = {}
    for name in names:
        case = cut_off(name), re.split(r"[@(]", name)[0] in _FIRST
        if case not in seen:
            seen[case] = too_short(rows, qrels, case[0], room=room, first=case[1])
        found[name] = seen[case]
    return found


def room_of(task: Task) -> Room:
    """How many names the list of a query of ``task`` could hold, without what the protocol leaves out."""
    gallery = None if task.gallery is None else frozenset(task.gallery)
    # many queries share a list, which is kept as well: another one must not get its id
    known: dict[int, tuple[Sequence[str], frozenset[str]]] = {}

    def room(query: str) -> int | None:
        own = task.lists.get(query)
        names = gallery
        if own is not None:
            if len(known) > 16:
                known.clear()
            if id(own) not in known:
                known[id(own)] = own, frozenset(own)
            names = known[id(own)][1]
        return None if names is None else len(names) - len(names & task.removed.get(query, frozenset()))

    return room


def either(one: Short | None, other: Short | None) -> Short | None:
    """What holds of a figure that is made of two."""
    if one is None or other is None:
        return one or other
    return replace(
        one,
        held={**other.held, **one.held},
        wanted={**other.wanted, **one.wanted},
        lacking=one.lacking | other.lacking,
    )


def warnings(metrics: Mapping[str, Measured]) -> list[str]:
    """A warning for each cut-off that lists are too short for."""
    alike: dict[tuple[tuple[str, int], ...], list[Measured]] = {}
    keys: dict[int, tuple[tuple[str, int], ...]] = {}  # parts of a figure share its lists
    for measured in metrics.values():
        found = measured.short
        if found is not None and not found.explained and measured.too_short:
            key = keys.setdefault(id(found), tuple(found.wanted.items()))
            alike.setdefault(key, []).append(measured)
    return [_warning(group) for group in alike.values()]


def _warning(alike: Sequence[Measured]) -> str:
    # the figure over all queries, before those of parts
    whole = max(alike, key=lambda m: len(m.expected))
    names = [m.name for m in alike if len(m.expected) == len(whole.expected)]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    short = whole.too_short
    assert short is not None  # asked for before
    query = next(iter(short.held))
    count = max(len(m.too_short.lacking) for m in alike if m.too_short)
    follows = (
        f"{count} lack{'s' if count == 1 else ''} a right answer, which counts as not found; "
        "longer lists may hold it"
        if count
        else "none lacks a right answer, but names that are not listed might stand before it"
    )
    return (
        f"{', '.join(names[:_SHOWN])}{more}: {len(short.held)} of {len(whole.values)} lists are too short, "
        f"such as {query!r} with {short.held[query]} of the {short.wanted[query]} names looked at; {follows}"
    )
