"""A fake that knows the truth: ``oracle:FILE``, ``oracle``, or from Python `Oracle`. No model is asked.

It reads the query, the shown ids and the labels of an ask, never its prompt or pixels, and answers in the
form that the ask's kind takes. A file has JSON lines ``{"query": words, "grades": {id: 0-3}, "components":
[{"kind", "text"}]}`` (components optional, absent ids grade 0). Bare ``oracle`` grades an id by how many of
the query's words stand in it, which serves where files are named for what they show.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmrerank.chat.fakes.scripted import Answer, as_reply, lines
from mmrerank.errors import ChatError, InputError
from mmrerank.messages import Ask, Reply, Scoring
from mmrerank.ports import Capability, Chat
from mmrerank.types import COMPONENT_KINDS, MAX_GRADE, Query

FORM = "oracle[:FILE]"
Grades = Callable[[Query, str], int]
Parts = Sequence[Mapping[str, str]]


def by_name(query: Query, id: str) -> int:
    """A grade from names: the share of the query's words found in ``id``, all of them being the top grade."""
    asked = set(re.findall(r"[^\W_]+", query.words.casefold()))
    named = set(re.findall(r"[^\W_]+", id.casefold()))
    if any(w.casefold() in named for w in query.exclude) or not asked:
        return 0
    return len(asked & named) * MAX_GRADE // len(asked)


def whole(query: Query) -> Parts:
    """The query as one component, and one more for each word that must not apply."""
    text = query.words or "what the reference image shows"
    return [
        {"kind": "subject", "text": text},
        *({"kind": "exclusion", "text": word} for word in query.exclude),
    ]


class Oracle(Chat):
    """Answers every kind of ask from ``grades(query, id)``, 0 to 3, and ``components(query)``."""

    fake = True

    def __init__(self, grades: Grades = by_name, components: Callable[[Query], Parts] = whole) -> None:
        self.spec = "oracle"
        self.capabilities: frozenset[Capability] = frozenset(
            {"generate", "choice_logprobs", "attention", "embed", "token_embeddings", "score"}
        )
        self._grades, self._components = grades, components

    def reply(self, asks: Sequence[Ask]) -> list[Reply]:
        """One reply per ask; an error where the ask does not say what it is about."""
        return [as_reply(ask, self._answer(ask)) for ask in asks]

    def _answer(self, ask: Ask) -> Answer:
        try:
            if ask.query is None:
                raise ChatError("the oracle needs the ask's query, and this ask has none")
            if isinstance(ask, Scoring):
                return Reply(scores=tuple(g / MAX_GRADE for g in self._graded(ask, ask.query).values()))
            if ask.read:
                return Reply(states=self._states(ask, ask.query))
            if ask.choices:
                return Reply(logprobs=self._choices(ask, ask.query))
            return self._object(ask, ask.query)
        except ChatError as error:
            return Reply(error=error, finish="error")

    def _graded(self, ask: Ask, query: Query) -> dict[str, int]:
        # a yes/no question labels its answers, not its candidate
        about_one = ask.kind in ("score", "relevance", "mark")
        labels = ask.shown if about_one or not ask.labels else ask.labels
        return {
            label: min(max(self._grades(query, id), 0), MAX_GRADE)
            for label, id in zip(labels, ask.shown, strict=True)
        }

    def _states(self, ask: Ask, query: Query) -> tuple[NDArray[np.float32], ...]:
        """Vectors at an angle from the search that shrinks with the grade; attention that grows with it."""
        if ask.read == "attention":
            # an empty search looks at all alike, reference images come before the candidates
            known = [0 if query.text == "N/A" else g for g in self._graded(ask, query).values()]
            values = [0] * len(query.images) + known
            return tuple(np.full(2, 1.0 + v, np.float32) for v in values)
        if ask.kind in ("embed_candidate", "tokens_candidate"):
            (grade,) = self._graded(ask, query).values()
            vector = _at_angle((MAX_GRADE - grade) / (MAX_GRADE + 1) * math.pi / 2)
        else:
            vector = _at_angle(0.0)
        return (vector if ask.read == "embed" else vector[None],)

    def _object(self, ask: Ask, query: Query) -> dict[str, Any]:
        if ask.kind == "deconstruct":
            return {"components": list(self._components(query))}
        if ask.kind == "describe":
            return {"thought": "", "description": query.words or "an image like the reference"}
        if ask.kind == "caption":
            return dict.fromkeys(ask.labels, query.words or "an image like the reference")
        grades = self._graded(ask, query)
        order = {
            "reason": "by the grades that the oracle holds",
            "scores": {label: grade * 33 for label, grade in grades.items()},
        }
        if ask.kind == "order":
            return {k: order.get(k, "the grades are known") for k in (ask.schema or {})["properties"]}
        if ask.schema and "best" in ask.schema["properties"]:
            thought = {"thought": "the grades are known"} if ask.kind == "choose" else {}
            return {**thought, "best": max(grades, key=lambda label: grades[label])}
        if ask.kind == "grade":
            return {
                label: {"note": f"worth {grade} of {MAX_GRADE}", "grade": grade * 3}
                for label, grade in grades.items()
            }
        if ask.kind == "evaluate":
            ids = [c.id for c in ask.components]
            return {
                label: {
                    **{
                        id: {"note": _note(v), "verdict": v}
                        for id, v in zip(ids, _verdicts(grade, len(ids)), strict=True)
                    },
                    "grade": grade,
                }
                for label, grade in grades.items()
            }
        if ask.kind == "single":
            parts = list(self._components(query))
            judged = {
                label: {
                    "note": f"worth {grade} of {MAX_GRADE}",
                    "verdicts": _verdicts(grade, len(parts)),
                    "grade": grade,
                }
                for label, grade in grades.items()
            }
            return {"components": parts, "images": judged, **order}
        raise ChatError(f"the oracle knows no ask of kind {ask.kind!r} without choices")

    def _choices(self, ask: Ask, query: Query) -> dict[str, float]:
        grades = self._graded(ask, query)
        low = {c.casefold(): c for c in ask.choices}
        weights = dict.fromkeys(ask.choices, 1.0)
        sure = (next(iter(grades.values()), 0) + 0.5) / (MAX_GRADE + 1)
        if {"yes", "no"} == low.keys() and grades:
            weights = {low["yes"]: sure, low["no"]: 1 - sure}
        elif ask.kind == "relevance":
            weights = {"1": sure, "0": 1 - sure}
        elif ask.kind == "mark":
            weights[str(3 * next(iter(grades.values())))] = 1000.0
        elif grades.keys() & weights.keys():
            # a little for grade 0, so that every label has a logarithm
            weights = {c: grades.get(c, 0) + 0.01 for c in ask.choices}
        total = sum(weights.values())
        return {c: math.log(w / total) for c, w in weights.items()}


def _verdicts(grade: int, n: int) -> list[str]:
    """``n`` verdicts that a grade stands for: all met at the top, none at 0, something missing between."""
    met = n * grade // MAX_GRADE
    return ["met" if i < met else "partly" if i == met and grade else "missed" for i in range(n)]


def _at_angle(angle: float) -> NDArray[np.float32]:
    return np.array([math.cos(angle), math.sin(angle)], np.float32)


def _note(verdict: str) -> str:
    return {"met": "as asked", "partly": "not quite as asked"}.get(verdict, "not there")


def open(rest: str) -> Oracle:
    """Reads the truth from ``FILE``, or grades by names without one. Raises `InputError` for a wrong line."""
    if not rest:
        return Oracle()
    grades: dict[str, dict[str, int]] = {}
    parts: dict[str, Parts] = {}
    for item in lines(rest, {"query", "grades", "components"}, "oracle's file"):
        try:
            key = _key(item["query"])
            grades[key] = {str(id): int(grade) for id, grade in item["grades"].items()}
            if "components" in item:
                parts[key] = [{"kind": str(c["kind"]), "text": str(c["text"])} for c in item["components"]]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{rest}: a line needs query and grades by id ({error!r}): {item}") from error
        if any(c["kind"] not in COMPONENT_KINDS for c in parts.get(key, ())):
            raise InputError(f"{rest}: kinds of components are {', '.join(COMPONENT_KINDS)}: {item}")

    def grade(query: Query, id: str) -> int:
        known = grades.get(_key(query.words))
        if known is None:
            raise ChatError(f"the oracle's file {rest} says nothing about the query {query.words!r}")
        return known.get(id, 0)

    chat = Oracle(grade, lambda query: parts.get(_key(query.words)) or whole(query))
    chat.spec = f"oracle:{rest}"
    return chat


def _key(words: str) -> str:
    return " ".join(words.casefold().split())
