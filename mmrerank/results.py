"""What a search or a reranking returns: hits with their reasons, as Python values, JSON and HTML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, overload

from mmrerank import writing
from mmrerank.errors import MissingExtraError
from mmrerank.messages import Trace
from mmrerank.paths import expanded
from mmrerank.types import (
    Assessment,
    Candidate,
    Component,
    Explanation,
    Failure,
    Hit,
    Query,
    Ranking,
    Repairs,
    Term,
    Usage,
)

_NAMED = 10  # copies that are named where people read


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """Hits, best first, and everything that explains and audits them.

    ``first`` holds as many candidates in first-stage order: what stood there before. ``no_match`` is
    true when images were graded and none met every part of the query (or nothing was found at all).
    ``degraded`` is true when some judgements failed, so that the first-stage order stands there;
    ``failures`` says why, by kind. ``cut`` counts the hits that a threshold of relevance left out.

    >>> from mmrerank import Reranker
    >>> result = Reranker("pointwise", "oracle").rank("a boat", [{"id": "a boat", "text": "a boat"}])
    >>> [(hit.rank, hit.id) for hit in result], result.usage.calls, result.degraded
    ([(1, 'a boat')], 0, False)
    """

    query: Query
    hits: tuple[Hit, ...]
    first: tuple[Hit, ...] = ()
    method: str = "none"
    explanation: Explanation = field(default_factory=Explanation)
    usage: Usage = field(default_factory=Usage)
    repairs: Repairs = field(default_factory=Repairs)
    warnings: tuple[str, ...] = ()
    failures: tuple[Failure, ...] = ()
    cut: int = 0
    trace: Trace = field(default_factory=Trace, repr=False)

    @property
    def no_match(self) -> bool:
        """Whether nothing fits."""
        return not self.hits or self.explanation.no_match

    @property
    def unreached(self) -> bool:
        """Whether a question got no answer for a reason outside of it, such as a server that was gone."""
        return any(f.outside for f in self.failures)

    @property
    def degraded(self) -> bool:
        """Whether some judgements failed."""
        return self.repairs.failed > 0

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def __len__(self) -> int:
        return len(self.hits)

    @overload
    def __getitem__(self, place: int) -> Hit: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[Hit, ...]: ...

    def __getitem__(self, place: int | slice) -> Hit | tuple[Hit, ...]:
        return self.hits[place]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON: the shape the command line and the server print."""
        return {
            "query": query_dict(self.query),
            "method": self.method,
            "no_match": self.no_match,
            "components": [component_dict(c) for c in self.explanation.components],
            "hits": [hit_dict(h) for h in self.hits],
            "cut": self.cut,
            "reason": self.explanation.reason,
            "usage": {
                "calls": self.usage.calls,
                "input_tokens": self.usage.input_tokens,
                "output_tokens": self.usage.output_tokens,
                "images": self.usage.images,
                "seconds": round(self.usage.seconds, 3),
            },
            "repairs": {
                "failed": self.repairs.failed,
                "repaired": self.repairs.repaired,
                "unknown": self.repairs.unknown,
                "repeated": self.repairs.repeated,
                "missing": self.repairs.missing,
                "written": self.repairs.written,
            },
            "failures": [{"kind": f.kind, "count": f.count, "example": f.example} for f in self.failures],
            "warnings": list(self.warnings),
        }

    @staticmethod
    def from_dict(body: Mapping[str, Any]) -> SearchResult:
        """The result that `to_dict` made ``body`` of, as far as that holds it. Raises `InputError`.

        Without the trace, the method's scores, metadata, and pictures that were held in memory.
        """
        from mmrerank.result_file import restored

        return restored(body)

    def save(self, path: Path | str) -> Path:
        """Writes all of it to ``path`` as JSON, in one step and for its owner alone, and returns the path.

        It is what `to_dict` gives, and every field besides. Pictures held in memory are left out.
        """
        from mmrerank.result_file import save

        return save(self, path)

    @staticmethod
    def load(path: Path | str) -> SearchResult:
        """The result that `save` wrote to ``path``, or a command printed as JSON. Raises `InputError`."""
        from mmrerank.result_file import load

        return load(path)

    @property
    def records(self) -> list[dict[str, Any]]:
        """A flat row for each hit: its place, scores and grade, and the verdict of each part by its words."""
        parts = {c.id: c.text for c in self.explanation.components}
        rows = []
        for hit, body in ((h, hit_dict(h)) for h in self.hits):
            verdicts = {parts.get(v["component"], v["component"]): v["verdict"] for v in body.pop("verdicts")}
            rows.append({**body, **hit.candidate.metadata, **verdicts})
        return rows

    def to_pandas(self) -> Any:
        """`records` as a ``pandas.DataFrame``. Raises `MissingExtraError` where pandas is not installed."""
        try:
            pandas = import_module("pandas")
        except ImportError as error:
            raise MissingExtraError("to_pandas() needs pandas; pip install pandas") from error
        return pandas.DataFrame(self.records)

    def html(self) -> str:
        """A self-contained page: before and after, thumbnails, verdict matrix, reasons, cost."""
        from mmrerank.result_page import page

        return page([self])

    def save_html(self, path: Path | str) -> Path:
        """Writes `html` to ``path`` in one step, for its owner alone, and returns it."""
        target = expanded(path)
        # a query may hold half a surrogate pair, which UTF-8 cannot
        writing.write(target, self.html().encode("utf-8", "replace"), private=True)
        return target

    def _repr_html_(self) -> str:
        from mmrerank.result_page import fragment

        return fragment(self)


def build_hits(before: Ranking, after: Ranking, explanation: Explanation) -> tuple[Hit, ...]:
    """Hits of ``after``, each knowing its place in ``before``, if it had one."""
    first = {id_: rank for rank, id_ in enumerate(before.ids, start=1)}
    assessments = explanation.assessments
    return tuple(
        Hit(
            candidate=c,
            rank=r,
            first_rank=first.get(c.id),
            assessment=assessments.get(c.id),
            relevance=explanation.relevance.get(c.id),
            problem=c.image.problem if c.image is not None else "",
        )
        for r, c in enumerate(after, start=1)
    )


def in_first_order(hits: tuple[Hit, ...], k: int) -> tuple[Hit, ...]:
    """The ``k`` of ``hits`` that stood first before reranking, in that order."""
    stood = [(h.first_rank, h) for h in hits if h.first_rank is not None]
    return tuple(h for _, h in sorted(stood, key=lambda pair: pair[0]))[:k]


def copies_text(hit: Hit) -> str:
    """The copies that a hit stands for, in words: ``and 2 more like it: a.jpg, b.jpg``; empty for none."""
    count = len(hit.duplicates)
    shown = ", ".join(hit.duplicates[:_NAMED]) + (f" and {count - _NAMED} others" if count > _NAMED else "")
    return f"and {count} more like it: {shown}" if count else ""


def query_dict(query: Query) -> dict[str, Any]:
    """A query as plain data; empty fields are left out, except the text."""
    body: dict[str, Any] = {"text": query.text}
    if query.id:
        body["id"] = query.id
    if query.turns:
        body["turns"] = list(query.turns)
    if query.images:
        body["images"] = [location(i) for i in query.images]
    if query.exclude:
        body["exclude"] = list(query.exclude)
    if query.instruction:
        body["instruction"] = query.instruction
    if query.terms:
        body["terms"] = [term_dict(t) for t in query.terms]
    return body


def term_dict(term: Term) -> dict[str, Any]:
    """A term as plain data."""
    what = {"text": term.text} if term.image is None else {"image": location(term.image)}
    return {**what, "weight": term.weight}


def location(image: Any) -> str | None:
    """Where an image is, as a printable string: its path (undecodable bytes escaped), or None."""
    if image is None or image.path is None:
        return None if image is None or not image.url else str(image.url)
    name = str(image.path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return name if image.offset is None else f"{name}#{image.offset}+{image.length}"


def hit_dict(hit: Hit) -> dict[str, Any]:
    """One hit as plain data."""
    candidate: Candidate = hit.candidate
    body = {
        "id": hit.id,
        "rank": hit.rank,
        "first_rank": hit.first_rank,
        "score": hit.score,
        "relevance": hit.relevance,
        "image": location(candidate.image),
        "problem": hit.problem,
        "duplicates": list(hit.duplicates),
        **assessment_dict(hit.assessment),
    }
    return body if candidate.text is None else {**body, "text": candidate.text}


def assessment_dict(found: Assessment | None) -> dict[str, Any]:
    """A judgement as plain data; without one, the same keys."""
    judged = found or Assessment()
    return {
        "grade": judged.grade,
        "reason": judged.reason,
        "verdicts": [
            {"component": v.component, "verdict": v.verdict, "note": v.note} for v in judged.verdicts
        ],
    }


def component_dict(part: Component) -> dict[str, Any]:
    """A part of a query as plain data."""
    return {"id": part.id, "kind": part.kind, "text": part.text, "excluded": part.excluded}
