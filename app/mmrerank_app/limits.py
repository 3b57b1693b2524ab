"""What visitors of the page may ask of this machine. Each limit can be raised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from mmrerank import config
from mmrerank.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class PageLimits:
    """Limits of the page, checked on the server whatever the browser shows.

    Raised with ``mmrerank app --limit NAME=VALUE``, or in Python with ``build(search, limits=...)``.

    >>> PageLimits.parse(["candidates=200"]).candidates
    200
    """

    shown: int = 50
    """Images in a result: each is decoded, and its small copy is part of the page."""
    candidates: int = 100
    """Images judged for one search: each costs at least one look of the model."""
    query_chars: int = 2_000
    """Characters in each field of the form: all of them are read by the model, for every image."""
    calls: int = 1_000
    """Questions to the model for one search, whatever the method's options multiply to."""
    seconds: float = 300.0
    """Time for one search: others wait for it."""
    waiting: int = 16
    """Searches that may wait for their turn; one more is refused: the page is busy."""
    upload_mb: float = 20.0
    """Megabytes of one reference image: a photograph has 3 to 15."""
    upload_minutes: float = 30.0
    """How long a reference image is kept: long enough to search with it again."""
    uploads_mb: float = 500.0
    """Megabytes of all kept reference images; the oldest give way."""
    body_kb: int = 256
    """Kilobytes of any other request: a form that is filled in has less than 20."""
    body_seconds: float = 60.0
    """Time for sending one request: a slow sender holds a connection."""
    connections: int = 256
    """Connections at a time; a browser holds about 3."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = vars(self)[field.name]
            # NaN is neither: it would make every comparison with it false
            if not 0 < value < float("inf"):
                raise ValueError(f"{field.name} must be above 0, not {value}")

    @staticmethod
    def parse(given: Sequence[str]) -> PageLimits:
        """``NAME=VALUE`` texts over the defaults. Raises `UsageError` for a wrong name or value."""
        values: dict[str, str] = {}
        for text in given:
            name, equals, value = text.partition("=")
            if not equals:
                raise UsageError(f"a limit is NAME=VALUE, such as candidates=200, not {text!r}")
            values[name.strip()] = value.strip()
        return config.build(PageLimits, values, where="limits of the page")

    def raised(self, name: str) -> str:
        """How the limit is raised, for the end of an error."""
        return f"the owner of the page raises it with --limit {name}=N"
