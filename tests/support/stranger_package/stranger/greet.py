"""Greet somebody, and say how many methods there are. A verb of another package."""

from __future__ import annotations

from typing import Annotated

import typer

EXAMPLE = "mmrerank greet Ada --loudly"


def greet(
    name: Annotated[str, typer.Argument(help="Whom to greet.")],
    loudly: Annotated[bool, typer.Option("--loudly", help="In capitals.")] = False,
) -> None:
    """Greet somebody, and say how many methods there are."""
    from mmrerank import registry

    text = f"Hello {name}, there are {len(registry.names('strategy'))} methods"
    typer.echo(text.upper() if loudly else text)


COMMAND = greet
