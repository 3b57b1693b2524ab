"""`Filter`: which images are searched, as one value that Python, the command line and a page share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmrerank.filters import check, matching
from mmrerank.filters.columns import Fields
from mmrerank.filters.grammar import parse
from mmrerank.filters.tree import Node


@dataclass(frozen=True)
class Filter:
    """A condition on what an index knows about an image: its columns and its metadata.

    Comparisons are ``= != < <= > >=``, ``~`` (contains, in small or capital letters) and ``!~``,
    ``in (1, 2)`` and ``not in``, ``is null`` and ``is not null`` (or ``has column``). ``and``, ``or``,
    ``not`` and brackets join them. Values are text in quotes, numbers, ``true``, ``false`` and dates
    (``2024``, ``2024-06``, ``2024-06-01``, ``2024-06-01T12:30``), which stand for all of that year, month,
    day or minute.

    A comparison with a value that is missing does not hold; ``not`` turns that round.

    >>> larus = Filter.parse('taken >= 2024-06 and species = "Larus"')
    >>> larus.matches({"taken": "2024-07-01T10:00:00", "metadata": {"species": "Larus"}})
    True
    >>> print(larus | ~Filter.parse("has species"))
    (taken >= 2024-06 and species = "Larus") or not species is not null
    """

    node: Node
    text: str = field(compare=False, repr=False)

    @classmethod
    def parse(cls, text: str) -> Filter:
        """The filter that ``text`` says. Raises `UsageError` that shows the place of a fault."""
        return cls(parse(text), text)

    @classmethod
    def of(cls, given: Where) -> Filter:
        """A filter, or the one that text says."""
        return given if isinstance(given, Filter) else cls.parse(given)

    def __str__(self) -> str:
        return str(self.node)

    def __and__(self, other: Where) -> Filter:
        return Filter.parse(f"({self}) and ({Filter.of(other)})")

    def __or__(self, other: Where) -> Filter:
        return Filter.parse(f"({self}) or ({Filter.of(other)})")

    def __invert__(self) -> Filter:
        return Filter.parse(f"not ({self})")

    def matches(self, facts: Mapping[str, Any]) -> bool:
        """Whether it holds for ``facts``: ``id``, ``path``, ``taken``, ``camera``, ``width``, ``height`` and
        ``size`` by name, and the ``metadata``. What is left out is missing.
        """
        return matching.holds(self.node, facts)

    def check(self, fields: Fields) -> None:
        """Raises `UsageError` that shows the place of a column that is not among ``fields``, or is of another
        type than it is compared with.
        """
        check.check(self.text, self.node, fields)


Where = Filter | str
"""A filter, or the text of one."""
