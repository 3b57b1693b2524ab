"""The judgements of CoTRR: each one owns a prompt, the schema of its reply, and what a reply means.

`deconstruct`, `evaluate`, `order` and `single`; those without a chain of thought are in `comparisons`. A
reader (`read_*`) never raises on a reply's content: it returns what could be understood and says through
`Reading.status` whether that is all of it (``ok``), some of it (``repaired``) or nothing (``failed``).
Where a model must order, the reply is an object with one required key per candidate, so that a grammar
guarantees each appears once; reasoning stands before the verdict it leads to.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mmrerank.messages import Ask, Reply
from mmrerank.rerank.comparisons import thinking
from mmrerank.rerank.orders import TOP_SCORE, label_scores, labels_in_order
from mmrerank.rerank.parse import (
    answer,
    as_text,
    entry_of,
    inner_object,
    labelled,
    lines_object,
    named,
    text_of,
    top_rows,
)
from mmrerank.rerank.prompting import render
from mmrerank.rerank.replies import TEXT, Reading, labels_for, object_of, reading, shown
from mmrerank.rerank.rooms import sized
from mmrerank.rerank.verdicts import (
    MAX_COMPONENTS,
    assessed,
    by_label,
    component_match,
    parts_by_kind,
    parts_in_words,
    placed_components,
    read_components,
    read_verdict,
    read_verdicts,
)
from mmrerank.rerank.wording import whole
from mmrerank.types import (
    COMPONENT_KINDS,
    MAX_GRADE,
    VERDICTS,
    Assessment,
    Candidate,
    Component,
    Query,
    Repairs,
    Verdict,
)

THOUGHT = 1024
"""Tokens that may be thought before an order, unless a method says otherwise."""
_VERDICT: dict[str, Any] = {"type": "string", "enum": list(VERDICTS)}
_GRADE: dict[str, Any] = {"type": "integer", "enum": list(range(MAX_GRADE + 1))}
_COMPONENTS: dict[str, Any] = {
    "type": "array",
    "minItems": 1,
    "maxItems": MAX_COMPONENTS,
    "items": object_of({"kind": {"type": "string", "enum": list(COMPONENT_KINDS)}, "text": TEXT}),
}


def _ordering(count: int) -> int:
    """Tokens for an order of ``count`` images, and the sentences before it that compare the best few."""
    return sized(200 + 12 * count, 800 + 16 * count)


def _scores(labels: Sequence[str]) -> dict[str, Any]:
    return object_of({label: {"type": "integer", "minimum": 0, "maximum": TOP_SCORE} for label in labels})


# --- deconstruct -------------------------------------------------------------------------------------


def deconstruct(query: Query, *, image_tokens: int = 256) -> Ask:
    """Asks for the parts of a query: ``{"components": [{"kind", "text"}, ...]}``."""
    schema = object_of({"components": _COMPONENTS})
    return Ask(
        messages=render("deconstruct", query=query, schema=schema),
        schema=schema,
        max_tokens=sized(400, 1024),
        image_tokens=image_tokens,
        kind="deconstruct",
        query=query,
    )


_COMPONENT_LIST = named(components=("parts", "component_list", "elements", "query_components"))


def read_deconstruct(reply: Reply) -> Reading:
    """Reads the reply to `deconstruct`; failed when no component can be made out."""
    body, repaired = answer(reply, _COMPONENT_LIST)
    found = body.get("components", top_rows(reply) or parts_by_kind(body) or parts_in_words(reply))
    components, clean = read_components(found)
    if not components:
        return reading("failed")
    mended = repaired or not clean or "components" not in body
    return reading("repaired" if mended else "ok", components=components)


# --- evaluate ----------------------------------------------------------------------------------------


def evaluate(
    query: Query, components: Sequence[Component], group: Sequence[Candidate], *, image_tokens: int = 256
) -> Ask:
    """Asks for a verdict per candidate and component, and a grade per candidate.

    The reply: ``{"A": {"c1": {"note", "verdict"}, ..., "grade": 0-3}, ...}``, keys required.
    """
    labels = labels_for(len(group))
    one = object_of({"note": TEXT, "verdict": _VERDICT})
    per_image = object_of({**{c.id: one for c in components}, "grade": _GRADE})
    schema = object_of(dict.fromkeys(labels, per_image))
    return Ask(
        messages=render(
            "evaluate", query=query, components=components, candidates=shown(group), schema=schema
        ),
        schema=schema,
        max_tokens=len(group) * sized(40 + 60 * len(components), 128 + 128 * len(components)),
        image_tokens=image_tokens,
        kind="evaluate",
        query=query,
        shown=tuple(c.id for c in group),
        labels=labels,
        components=tuple(components),
    )


def read_evaluate(reply: Reply, ask: Ask) -> Reading:
    """Reads the reply to ``ask`` (made by `evaluate`).

    A candidate whose verdicts are all unreadable gets no assessment; a single unreadable verdict among
    others is ``cannot_tell`` and counts as a repair.
    """
    body, repaired = answer(reply, labelled(ask.labels), rows=True)
    if not any(n in body for n in ask.labels):
        match = component_match(ask.components)
        parts = answer(reply, match, rows=True)[0] or lines_object(reply, match)
        # by part and then by image; of one image, also without its label
        alone = {ask.labels[0]: parts} if len(ask.labels) == 1 else {}
        body, repaired = by_label(parts, ask) or alone, True
    assessments: dict[str, Assessment] = {}
    for label, id_ in zip(ask.labels, ask.shown, strict=True):
        found, told, mended = read_verdicts(body.get(label), ask.components)
        repaired = repaired or mended
        if not any(found):
            continue
        grade = whole(told, MAX_GRADE)
        repaired = repaired or grade is None or not isinstance(told, int)
        assessments[id_] = assessed(
            ask.components,
            tuple(
                v or Verdict(component=c.id, verdict="cannot_tell")
                for c, v in zip(ask.components, found, strict=True)
            ),
            grade,
        )
    if not assessments:
        return reading("failed")
    return reading("repaired" if repaired else "ok", assessments=assessments)


# --- order -------------------------------------------------------------------------------------------


def order(
    query: Query,
    components: Sequence[Component],
    candidates: Sequence[Candidate],
    assessments: Mapping[str, Assessment],
    *,
    show_images: bool = False,
    think: int = 0,
    image_tokens: int = 256,
) -> Ask:
    """Asks for the order of all candidates given their evaluations, and optionally their images again.

    The reply: ``{"reason": ..., "scores": {"A": 0-99, ...}}``, one required key per candidate; with
    ``think`` a ``"thought"`` of at most about so many tokens stands before both, and a model that thinks on
    its own may.
    """
    labels = labels_for(len(candidates))
    shown = [
        {
            "label": n,
            "image": c.image if show_images else None,
            "text": c.text,
            "shown": show_images or c.text,
            "assessment": assessments.get(c.id),
        }
        for n, c in zip(labels, candidates, strict=True)
    ]
    answer = {"reason": TEXT, "scores": _scores(labels)}
    schema = object_of({"thought": TEXT, **answer} if think else answer)
    ask = Ask(
        messages=render("order", query=query, components=components, candidates=shown, schema=schema),
        schema=schema,
        max_tokens=think + _ordering(len(labels)),
        image_tokens=image_tokens,
        kind="order",
        query=query,
        shown=tuple(c.id for c in candidates),
        labels=labels,
        components=tuple(components),
        details={"assessments": dict(assessments)},
    )
    return replace(thinking(ask, think > 0), think=think > 0)


def in_ids(reason: str, ids: Mapping[str, str]) -> str:
    """``reason`` with labels as the ids they stand for: whoever reads it has never seen the labels.

    ``Image C`` anywhere, and a label that opens the sentence before a verb; a lone letter elsewhere is left,
    since it may be a word.
    """
    return _form(ids).sub(lambda m: ids[m[1] or m[2]], reason) if ids else reason


def _form(labels: Iterable[str]) -> re.Pattern[str]:
    known = "|".join(map(re.escape, sorted(labels, key=len, reverse=True)))
    return re.compile(rf"\b[Ii]mage ({known})\b|^({known})(?= (?:fits|comes|shows|is|has|matches|meets)\b)")


def _ordered(ask: Ask, found: Any, reason: str, repaired: bool, *, is_ranking: bool = False) -> Reading:
    """An order out of ``found``: scores by label, or a list or text of labels, best first."""
    labels, repairs = labels_in_order(found, ask.labels, is_ranking=is_ranking)
    if not labels:
        return reading("failed")
    ids = dict(zip(ask.labels, ask.shown, strict=True))
    named = {m[1] or m[2] for m in _form(ids).finditer(reason)}
    if named and labels[0] not in named:
        reason = ""  # it speaks of other images than the one that came first
    mended = repaired or repairs != Repairs()
    return reading(
        "repaired" if mended else "ok",
        order=tuple(ids[n] for n in labels),
        scores={ids[n]: s for n, s in label_scores(found, labels).items()},
        reason=in_ids(reason, ids),
        order_repairs=repairs,
    )


_ORDER = named(
    scores=("score", "ratings", "grades", "relevance_scores", "final_scores"),
    ranking=("rankings", "ranked", "ranks", "rank", "final_ranking", "ranked_list", "ranked_images"),
    order=("ordering", "ordered", "sorted", "final_order", "permutation"),
    reason=("reasoning", "explanation", "why", "rationale"),
)
_ENVELOPES = named(result=("results", "answer", "final_answer", "output", "response", "images", "candidates"))


def read_order(reply: Reply, ask: Ask) -> Reading:
    """Reads the reply to ``ask`` (made by `order`): ids best first, equal scores in the order shown.

    Models that were not held to the schema may answer with a list (``ranking``, ``order`` or bare); that
    is taken as an order and counts as a repair.
    """
    keys = ("scores", "ranking", "order")
    body, repaired = answer(reply, _ORDER, keys)
    for key in keys:
        if key in body:
            found = body[key]
            mended = repaired or key != "scores" or not _plain_scores(found, ask)
            return _ordered(ask, found, as_text(body.get("reason")), mended, is_ranking=key != "scores")
    bare, _ = answer(reply, labelled(ask.labels), rows=True)
    if not any(n in bare for n in ask.labels):
        bare, _ = answer(reply, _ENVELOPES)
        bare = bare.get("result", bare)
    # an object that was cut off before its order holds thoughts and reasons, whose labels are no order
    text = re.sub(r"\\boxed\{([^{}]*)\}", r"\1", text_of(reply))
    return _ordered(ask, bare or ("" if "{" in text else text), "", True)


def _plain_scores(found: Any, ask: Ask) -> bool:
    """Whether scores stand as they were asked for: numbers by label."""
    return isinstance(found, dict) and all(
        k in ask.labels and isinstance(v, int | float) for k, v in found.items()
    )


# --- single ------------------------------------------------------------------------------------------


def single(
    query: Query,
    candidates: Sequence[Candidate],
    *,
    think: bool = True,
    more: int = 0,
    image_tokens: int = 256,
) -> Ask:
    """CoTRR in one call. Without ``think`` only the order is asked for: the ablation without reasoning.

    A reply may have 1,024 tokens and 400 for each image, 9,024 for twenty; ``more`` are for thoughts of the
    model's own.

    The reply: ``{"components": [...], "images": {"A": {"note", "verdicts": [...], "grade"}}, "reason",
    "scores": {"A": 0-99, ...}}``; verdicts stand in the order of the components.
    """
    labels = labels_for(len(candidates))
    shown = [
        {"label": n, "image": c.image, "text": c.text, "shown": True, "assessment": None}
        for n, c in zip(labels, candidates, strict=True)
    ]
    judged = object_of(
        {
            "note": TEXT,
            "verdicts": {"type": "array", "items": _VERDICT, "minItems": 1, "maxItems": MAX_COMPONENTS},
            "grade": _GRADE,
        }
    )
    count = len(labels)
    thoughts = {"components": _COMPONENTS, "images": object_of(dict.fromkeys(labels, judged))}
    answer = {"reason": TEXT, "scores": _scores(labels)}
    schema = object_of({**thoughts, **answer} if think else answer)
    return Ask(
        messages=render("single", query=query, candidates=shown, schema=schema)
        if think
        else render("order", query=query, components=(), candidates=shown, schema=schema),
        schema=schema,
        max_tokens=more + (sized(600 + 120 * count, 1024 + 400 * count) if think else _ordering(count)),
        image_tokens=image_tokens,
        kind="single" if think else "order",
        query=query,
        shown=tuple(c.id for c in candidates),
        labels=labels,
        think=more > 0,
    )


_SINGLE = named(
    components=("parts", "elements"),
    images=("evaluations", "candidates", "judgements", "evaluation", "image"),
)
_LOOKED_AT = named(
    verdicts=("verdict", "components", "judgements", "evaluations"),
    grade=("score", "rating", "mark"),
    note=("notes", "reason", "explanation"),
)


def read_single(reply: Reply, ask: Ask) -> Reading:
    """Reads the reply to ``ask`` (made by `single` with ``think``): order, components and assessments."""
    body, repaired = answer(reply, _SINGLE, ("images", "components"))
    ordering = read_order(reply, ask)
    placed, clean = placed_components(body.get("components"))
    components = tuple(placed.values())
    assessments: dict[str, Assessment] = {}
    images, mended = inner_object(body.get("images"), labelled(ask.labels))
    clean = clean and not (mended and images)
    for label, id_ in zip(ask.labels, ask.shown, strict=True):
        entry, renamed = entry_of(images.get(label), _LOOKED_AT)
        listed = entry.get("verdicts")
        # verdicts stand at the places of the model's own parts, those that were dropped included
        entries = listed if isinstance(listed, list) else []
        told = [read_verdict(c, entries[n]) for n, c in placed.items() if n < len(entries)]
        if isinstance(listed, dict):
            told = [
                read_verdict(c, entry_of(listed, component_match(components))[0].get(c.id))
                for c in components
            ]
        found = [v for v, _ in told]
        exact = all(e for _, e in told) and isinstance(listed, list) and not renamed
        clean = clean and len(found) == len(components) and all(found) and exact
        if any(found):
            found += [None] * (len(components) - len(found))
            verdicts = tuple(
                v or Verdict(component=c.id, verdict="cannot_tell")
                for c, v in zip(components, found, strict=True)
            )
            assessments[id_] = assessed(components, verdicts, whole(entry.get("grade"), MAX_GRADE))
    status = ordering.status
    if status == "ok" and (repaired or not clean):
        status = "repaired"
    return reading(
        status,
        components=components,
        assessments=assessments,
        order=ordering.order,
        scores=ordering.scores,
        reason=ordering.reason,
        order_repairs=Repairs(
            unknown=ordering.repairs.unknown,
            repeated=ordering.repairs.repeated,
            missing=ordering.repairs.missing,
        ),
    )
