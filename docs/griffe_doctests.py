"""Fences the doctests of docstrings, which Markdown would take for quotations."""

from __future__ import annotations

import re
from typing import Any

import griffe

_DOCTEST = re.compile(r"(?:^>>> .*\n?(?:^(?!\s*$|>>> ).*\n?)*)+", re.M)


class Doctests(griffe.Extension):
    """Puts each run of ``>>>`` lines, with what they print, into a code block."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for every object whose docstring was read."""
        if obj.docstring is not None:
            obj.docstring.value = _DOCTEST.sub(
                lambda found: f"\n```pycon\n{found[0].rstrip()}\n```\n", obj.docstring.value
            )
