"""Reads a table in pages by the rising number of its rows. A damaged one, where none rises, is an error."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mmrerank.errors import ImageIndexError

Row = TypeVar("Row", bound=Sequence[Any])


def pages(path: Path, fetch: Callable[[int], Sequence[Row]]) -> Iterator[Row]:
    """The rows of every page. ``fetch(last)`` gives those behind number ``last``, the first item of a row.

    In a damaged database a page may lead back to one before it, which would never end. Raises
    `ImageIndexError` there.
    """
    last = -1
    while page := fetch(last):
        for row in page:
            if row[0] <= last:
                raise ImageIndexError(
                    f"{path} is damaged: record {row[0]} stands behind record {last}; index the source again "
                    "with --rebuild"
                )
            last = row[0]
            yield row
