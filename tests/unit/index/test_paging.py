"""A damaged database whose pages lead back is an error, not an endless reading."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmrerank.errors import ImageIndexError
from mmrerank.index.paging import pages


def test_each_row_comes_once() -> None:
    rows = [(n, f"row {n}") for n in (0, 3, 4, 9)]

    def fetch(last: int) -> list[tuple[int, str]]:
        return [r for r in rows if r[0] > last][:2]

    assert list(pages(Path("x"), fetch)) == rows


def test_a_page_that_leads_back_ends_with_an_error() -> None:
    found = pages(Path("records.sqlite"), lambda last: [(5, "a"), (2, "b")])
    assert next(found) == (5, "a")
    with pytest.raises(ImageIndexError, match=r"records\.sqlite is damaged: record 2 stands behind record 5"):
        list(found)
