"""What a reply says of the parts of a query, and of images against them, in whatever shape it says it.

Reads the values of one answer; which object of a reply that is, `mmrerank.rerank.parse` says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mmrerank.messages import Ask, Reply
from mmrerank.rerank.parse import (
    GRADED,
    Match,
    as_mapping,
    as_text,
    entry_of,
    inner_object,
    labelled,
    named,
    words_of,
)
from mmrerank.rerank.tables import list_items
from mmrerank.rerank.wording import field_name, folded, verdict_of
from mmrerank.types import COMPONENT_KINDS, VERDICTS, Assessment, Component, ComponentKind, Verdict

MAX_COMPONENTS = 8
_MAX_KEY = 2_000  # characters of a key; a part's own words are never more


def read_components(found: Any) -> tuple[tuple[Component, ...], bool]:
    """Components out of a reply's list, ids ``c1``, ``c2``, ...; the flag says that nothing was dropped."""
    kept, clean = placed_components(found)
    return tuple(kept.values()), clean


_PART = named(
    kind=("type", "category", "role"), text=("component", "description", "value", "content", "name", "phrase")
)
_KINDS: dict[str, ComponentKind] = {k: k for k in COMPONENT_KINDS}


def placed_components(found: Any) -> tuple[dict[int, Component], bool]:
    """`read_components` by their places in the reply's list."""
    components: dict[int, Component] = {}
    clean = isinstance(found, list)
    for place, item in enumerate(_parts(found)):
        entry, mended = entry_of(item, _PART)
        text = as_text(entry.get("text") if entry else item)
        text = (
            text if any(map(str.isalnum, text)) else ""
        )  # "..." is copied out of the form, and says nothing
        kind = entry.get("kind")
        clean = clean and bool(text) and not mended and kind in COMPONENT_KINDS
        if text in {c.text for c in components.values()}:
            clean = False  # twice the same part would count twice
        elif text and len(components) < MAX_COMPONENTS:
            components[place] = Component(id=f"c{len(components) + 1}", kind=_kind(kind), text=text)
    return components, clean


def _parts(found: Any) -> list[Any]:
    """The rows of a list of parts, also of ``{"c1": {...}}`` and ``{"subject": "a boat"}``."""
    if not isinstance(found, dict):
        return found if isinstance(found, list) else []
    if all(isinstance(v, dict) for v in found.values()):
        return list(found.values())
    return [
        {"kind": kind, "text": text}
        for kind, value in found.items()
        for text in (value if isinstance(value, list) else [value])
        if isinstance(text, str)
    ]


def parts_by_kind(body: Mapping[str, Any]) -> dict[str, Any]:
    """``{"subject": "a boat"}`` as it is; empty where a key is no kind of part."""
    return dict(body) if all(field_name(k).removesuffix("s") in _KINDS for k in body) else {}


def parts_in_words(reply: Reply) -> list[dict[str, Any]]:
    """Parts of a reply that is a bare list of texts, a list in lines, or ``subject: a boat`` in lines."""
    text = words_of(reply)
    try:
        items = json.loads(text)
    except (ValueError, RecursionError):
        items = list_items(text)
    if not isinstance(items, list) or not all(isinstance(i, str) for i in items):
        return []
    found = []
    for item in items:
        kind, colon, rest = item.partition(":")
        known = colon and field_name(kind).removesuffix("s") in _KINDS
        found.append({"kind": kind, "text": rest.strip(" *")} if known else {"text": item})
    return found


def _kind(value: Any) -> ComponentKind:
    name = field_name(value) if isinstance(value, str) else ""
    return _KINDS.get(name) or _KINDS.get(name.removesuffix("s")) or "detail"


def read_verdict(component: Component, value: Any) -> tuple[Verdict | None, bool]:
    """What is said of a part, and whether it stood there in the words asked for."""
    entry, mended = entry_of(value, GRADED)
    said = entry.get("verdict") if as_mapping(value) else value
    name = verdict_of(said, component)
    exact = not mended and said in VERDICTS if isinstance(said, str) else False
    return name and Verdict(component=component.id, verdict=name, note=as_text(entry.get("note"))), exact


def component_match(components: Sequence[Component]) -> Match:
    """Components by their ids (``c1``, ``C1``, ``component 1``, ``c1 (subject)``) or by their own words."""
    ids = {c.id for c in components}
    texts = {folded(c.text).casefold(): c.id for c in components}

    def match(key: str) -> str | None:
        if key in ids:
            return key
        key = key[:_MAX_KEY]
        if found := texts.get(" ".join(folded(key).casefold().split())):
            return found
        number = re.match(
            r"\W*(?:c|component|part|element)[\W_]*0*(\d{1,2})(?![\w.])", folded(key).casefold()
        )
        return f"c{number[1]}" if number and f"c{number[1]}" in ids else None

    return match


def read_verdicts(value: Any, components: Sequence[Component]) -> tuple[list[Verdict | None], Any, bool]:
    """The verdict on each component, the grade, and whether what is said of one image was mended."""
    body = value[0] if isinstance(value, list) and len(value) == 1 else value
    entry, mended = entry_of(body, GRADED)
    match = component_match(components)
    direct, renamed = entry_of(body, match)
    if not any(c.id in direct for c in components):
        # below one more key, as rows, or in the order of the components
        inner = entry.get("verdicts", entry.get("verdict", body)) if entry else body
        listed = inner if isinstance(inner, list) and all(_said(v) for v in inner) else None
        if listed is not None and len(listed) == len(components):
            direct = {c.id: v for c, v in zip(components, listed, strict=True)}
        elif len(components) == 1 and (_said(inner) or "verdict" in entry):
            direct = {components[0].id: body}
        else:
            direct, _ = inner_object(body, match)
        renamed = True
    found = [read_verdict(c, direct.get(c.id)) for c in components]
    exact = all(e for _, e in found) and not mended and not renamed
    return [v for v, _ in found], entry.get("grade"), not exact


def _said(value: Any) -> bool:
    return isinstance(value, str | bool)


def by_label(body: Mapping[str, Any], ask: Ask) -> dict[str, Any]:
    """``{"c1": {"A": ...}}`` as ``{"A": {"c1": ...}}``; empty where that is not what ``body`` is."""
    match = labelled(ask.labels)
    turned: dict[str, Any] = {}
    for part in ask.components:
        row, _ = inner_object(body.get(part.id), match)
        for label in ask.labels:
            if label in row:
                turned.setdefault(label, {})[part.id] = row[label]
    return turned


def assessed(components: Sequence[Component], verdicts: tuple[Verdict, ...], grade: int | None) -> Assessment:
    """An assessment with its reason in words: what is met, what is not and what was seen instead."""
    texts = {c.id: c.text for c in components}
    met = [texts[v.component] for v in verdicts if v.verdict == "met"]
    short = [
        f"{v.verdict.replace('_', ' ')}: {texts[v.component]}" + (f" ({v.note})" if v.note else "")
        for v in verdicts
        if v.verdict != "met"
    ]
    reason = "; ".join(([f"met: {', '.join(met)}"] if met else []) + short)
    return Assessment(grade=grade, verdicts=verdicts, reason=reason)
