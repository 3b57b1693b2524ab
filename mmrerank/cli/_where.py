"""The flag that limits a search to some images of the index."""

from __future__ import annotations

from typing import Annotated

import typer

WhereFlag = Annotated[
    str | None,
    typer.Option(
        "--where", metavar="FILTER", show_default=False,
        help="Search only images that satisfy this: 'taken >= 2024-06 and camera ~ \"Pixel\"'. "
        "`mmrerank info INDEX` lists the columns.",
    ),
]  # fmt: skip


def read(where: str) -> None:
    """Raises `UsageError`, with the place of the fault, for a filter that cannot be read; empty is none."""
    if where:
        from mmrerank.filters.filter import Filter

        Filter.parse(where)
