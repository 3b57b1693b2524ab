"""A result as a file: the JSON of `SearchResult.to_dict`, and beside it every field, to load it again.

Pictures that were held in memory are not written, only where they came from.
"""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any

from mmrerank import reading, writing
from mmrerank.errors import DATA_ERRORS, InputError, in_short
from mmrerank.paths import expanded, reason
from mmrerank.results import SearchResult
from mmrerank.types import (
    Assessment,
    Candidate,
    Component,
    Explanation,
    Failure,
    Hit,
    Image,
    Query,
    Repairs,
    Term,
    Usage,
    Verdict,
)

FORMAT = 1
_SPAN = re.compile(r"(.*)#(\d+)\+(\d+)", re.DOTALL)
NOT_SAVED = "its bytes were held in memory, and are not in the saved result"


def save(result: SearchResult, path: Path | str) -> Path:
    """Writes ``result`` to ``path`` in one step, for its owner alone. Raises `InputError`."""
    body = {**result.to_dict(), "format": FORMAT, "whole": _plain(result)}
    target = expanded(path)
    data = json.dumps(body, default=_number).encode("ascii")
    try:
        writing.write(target, data, private=True)
    except OSError as error:
        raise InputError(f"the result {target} cannot be written: {reason(error)}") from error
    return target


def load(path: Path | str) -> SearchResult:
    """The result in the file at ``path``. Raises `InputError`."""
    source = expanded(path)
    try:
        body = json.loads(reading.whole(source))
    except OSError as error:
        raise InputError(f"the result {source} cannot be read: {reason(error)}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{source} is no saved result: {in_short(error)}") from error
    return restored(body, str(source))


def restored(body: Any, name: str = "this") -> SearchResult:
    """What `SearchResult.to_dict` or `save` made of a result. Raises `InputError` for anything else."""
    try:
        if body.get("format", FORMAT) != FORMAT:
            raise InputError(
                f"{name} has the format {body['format']!r}, and this version of mmrerank reads {FORMAT}"
            )
        found: SearchResult = _as(SearchResult, body["whole"]) if "whole" in body else _shown(body)
        return found
    except DATA_ERRORS as error:
        raise InputError(
            f"{name} is no result that SearchResult.save wrote or a command printed: {in_short(error)}"
        ) from error


# ---------------------------------------------------------------- every field


def _plain(value: Any) -> Any:
    if isinstance(value, Image) and value.data is not None:
        value = dataclasses.replace(value, data=b"", problem=value.problem or NOT_SAVED)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(vars(value)[f.name]) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return "" if isinstance(value, bytes) else str(value) if isinstance(value, Path) else value


def _number(value: Any) -> Any:
    """What JSON lacks: numbers of NumPy, and whatever else metadata hold, as text."""
    return float(value) if isinstance(value, Real) else str(value)


def _as(kind: Any, value: Any) -> Any:
    """``value`` as a value of type ``kind``. Raises `TypeError` and the like where it is none."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any or origin is typing.Literal:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        return _as(next(i for i in inner if i is not type(None)), value)
    if origin is tuple:
        return tuple(_as(inner[0], v) for v in value)
    if origin is not None:  # a mapping
        return {k: _as(inner[1], v) for k, v in value.items()}
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        known = {f.name for f in dataclasses.fields(kind)}
        kind = typing.cast(typing.Callable[..., Any], kind)
        return kind(**{n: _as(hints[n], v) for n, v in value.items() if n in known})
    if kind is bytes:
        return b""
    if kind is Path:
        return Path(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value


# ---------------------------------------------------------------- what is shown


def _shown(body: Mapping[str, Any]) -> SearchResult:
    """A result out of `SearchResult.to_dict` alone: without scores, trace and what stood first."""
    hits = tuple(_hit(h) for h in body["hits"])
    query = body["query"]
    return SearchResult(
        query=Query(
            text=query["text"],
            id=query.get("id", ""),
            turns=tuple(query.get("turns", ())),
            images=tuple(_image(i) for i in query.get("images", ())),
            exclude=tuple(query.get("exclude", ())),
            instruction=query.get("instruction", ""),
            terms=tuple(_term(t) for t in query.get("terms", ())),
        ),
        hits=hits,
        first=tuple(sorted((h for h in hits if h.first_rank), key=lambda h: h.first_rank or 0)),
        method=body["method"],
        cut=body.get("cut", 0),
        explanation=Explanation(
            components=tuple(_as(Component, c) for c in body["components"]),
            assessments={h.id: h.assessment for h in hits if h.assessment is not None},
            reason=body["reason"],
            relevance={h.id: h.relevance for h in hits if h.relevance is not None},
        ),
        usage=_as(Usage, body["usage"]),
        repairs=_as(Repairs, body["repairs"]),
        failures=tuple(_as(Failure, f) for f in body["failures"]),
        warnings=_as(tuple[str, ...], body["warnings"]),
    )


def _hit(row: Mapping[str, Any]) -> Hit:
    judged = Assessment(
        grade=row["grade"], reason=row["reason"], verdicts=tuple(_as(Verdict, v) for v in row["verdicts"])
    )
    text = row.get("text")
    image = None if row["image"] is None and text is not None else _image(row["image"])
    return Hit(
        candidate=Candidate(id=row["id"], image=image, text=text, score=row["score"]),
        rank=row["rank"],
        first_rank=row["first_rank"],
        assessment=None if judged == Assessment() else judged,
        problem=row["problem"],
        relevance=row["relevance"],
        duplicates=_as(tuple[str, ...], row.get("duplicates", ())),
    )


def _term(row: Mapping[str, Any]) -> Term:
    if "image" in row:
        return Term(image=_image(row["image"]), weight=row["weight"])
    return Term(text=row["text"], weight=row["weight"])


def _image(place: str | None) -> Image:
    if place is None:
        return Image(data=b"", problem=NOT_SAVED)
    if place.startswith(("http://", "https://")):
        return Image(data=b"", url=place, problem=NOT_SAVED)
    span = _SPAN.fullmatch(place)
    if span is None:
        return Image(path=Path(place))
    return Image(path=Path(span[1]), offset=int(span[2]), length=int(span[3]))
