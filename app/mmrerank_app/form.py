"""What a filled-in form asks for. The values come from anywhere: a program can send what no browser shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mmrerank.errors import UsageError
from mmrerank.limits import shown
from mmrerank.types import Image, Query
from mmrerank_app.limits import PageLimits
from mmrerank_app.uploads import Uploads


@dataclass(frozen=True, kw_only=True)
class Form:
    """A form whose values were checked. ``query`` is None where nothing was typed or chosen."""

    query: Query | None
    method: str
    k: int
    candidates: int
    options: dict[str, str] = field(default_factory=dict)


def read_form(values: Sequence[Any], methods: Sequence[str], uploads: Uploads) -> Form:
    """The form of ``values``: text, method, images shown, images judged, reference image, exclusions, turns,
    options. Raises `UsageError` for a value out of place and `InputError` for an image that is no upload.
    """
    limits = uploads.limits
    if len(values) != 8:
        raise UsageError(f"a form has 8 values, not {len(values)}")
    text, method, k, candidates, image, exclude, turns, options = values
    if not isinstance(method, str) or method not in methods:
        raise UsageError(f"choose a method: {', '.join(methods)}")
    return Form(
        query=_query(
            words(text, "search", limits),
            _image(image, uploads),
            words(exclude, "exclusions", limits),
            words(turns, "earlier turns", limits),
        ),
        method=method,
        k=_whole(k, "images shown", limits.shown, limits, "shown"),
        candidates=_whole(candidates, "images judged", limits.candidates, limits, "candidates"),
        options=options_of(words(options, "method options", limits)),
    )


def words(value: Any, what: str, limits: PageLimits) -> str:
    """A text field's value; an empty field is None or missing. Raises `UsageError`."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UsageError(f"{what}: a text is needed")
    if len(value) > limits.query_chars:
        raise UsageError(
            f"{what}: {len(value)} characters, and {limits.query_chars} are allowed; "
            f"{limits.raised('query_chars')}"
        )
    return value.encode("utf-8", "replace").decode("utf-8").strip()  # half a character cannot be sent on


def _whole(value: Any, what: str, most: int, limits: PageLimits, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        raise UsageError(f"{what}: a whole number is needed")
    if not 1 <= value <= most:
        raise UsageError(
            f"{what}: {shown(value)} was given, and 1 to {most} are allowed; {limits.raised(name)}"
        )
    return int(value)


def _image(value: Any, uploads: Uploads) -> tuple[Image, ...]:
    if value is None:
        return ()
    path = value.get("path") if isinstance(value, dict) else None
    # the bytes, not the file: it may be deleted while the model is asked
    return (Image(data=uploads.read(path if isinstance(path, str) else "")),)


def _query(text: str, images: tuple[Image, ...], exclude: str, turns: str) -> Query | None:
    earlier = tuple(t.strip() for t in turns.splitlines() if t.strip())
    absent = tuple(w.strip() for w in exclude.split(";") if w.strip())
    if not (text or images or earlier):
        return None
    return Query(text=text, images=images, exclude=absent, turns=earlier)


def options_of(text: str) -> dict[str, str]:
    """``name=value`` lines. Raises `UsageError` for a line of another shape."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip():
            continue
        name, equals, value = line.partition("=")
        if not equals:
            raise UsageError(f"an option is name=value, not {line.strip()!r}")
        found[name.strip()] = value.strip()
    return found
