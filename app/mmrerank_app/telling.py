"""The part of an error that a visitor sees: what is wrong and what to do, and no folder of this machine."""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from mmrerank.errors import MmrerankError, UsageError
from mmrerank.results import SearchResult

_LOG = logging.getLogger("mmrerank.page")
_PATH = re.compile(
    r"""(?<![\w./\\<])           # not within a word, an address or a tag: and/or, http://host
        (?:~|[A-Za-z]:)?[/\\](?![/\\\s])
        (?:[^\s'"<>|:;,()]*[/\\])?
        ([^\s'"<>|:;,()]*)       # the last name is left: it says which file is meant""",
    re.VERBOSE,
)
FAILED = "something went wrong on the server; its log has the reason"


class Telling:
    """Takes folders out of texts. ``places`` are folders of this machine whose names may hold spaces."""

    def __init__(self, places: Iterable[str | Path] = ()) -> None:
        own = [Path.home(), Path.cwd(), tempfile.gettempdir(), *places]
        found = {text for place in own for text in (str(place), str(Path(place).absolute()))}
        self.places = sorted(
            (t for t in found if Path(t).is_absolute() and len(t) > 1), key=len, reverse=True
        )

    def clean(self, text: str) -> str:
        """``text`` without folders.

        >>> Telling().clean("cannot read '/srv/photos/boat.jpg': permission denied (see http://localhost/v1)")
        "cannot read '…/boat.jpg': permission denied (see http://localhost/v1)"
        """
        for place in self.places:
            text = text.replace(place, "/…")
        return _PATH.sub(lambda m: f"…/{m[1]}" if m[1] not in ("", "…") else "…", text)

    def error(self, error: Exception) -> str:
        """What a visitor reads of ``error``; the log has all of it."""
        if isinstance(error, MmrerankError):
            # What was typed wrong concerns the visitor alone. As a literal: nobody writes lines into the log.
            level = logging.INFO if isinstance(error, UsageError) else logging.WARNING
            _LOG.log(level, "%s: %r", type(error).__name__, str(error))
            return self.clean(str(error))
        _LOG.error("a search failed", exc_info=error)
        return FAILED

    def result(self, result: SearchResult) -> SearchResult:
        """``result`` with clean warnings, problems and errors."""
        steps = tuple(replace(s, error=self.clean(s.error)) for s in result.trace.steps)
        return replace(
            result,
            hits=tuple(replace(h, problem=self.clean(h.problem)) for h in result.hits),
            first=tuple(replace(h, problem=self.clean(h.problem)) for h in result.first),
            warnings=tuple(map(self.clean, result.warnings)),
            trace=replace(result.trace, steps=steps),
        )
