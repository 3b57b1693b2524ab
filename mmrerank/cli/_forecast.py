"""What ``--dry-run`` tells: the questions that a method would ask. No model is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import typer

from mmrerank import registry
from mmrerank.cli.console import Output, emit
from mmrerank.config import build
from mmrerank.types import Query, Ranking


def tell(
    method: str,
    options: Mapping[str, Any],
    items: Sequence[tuple[Query, Ranking]],
    output: Output,
) -> None:
    """Prints the forecast for ``items``. Raises `UsageError` for a wrong method or option."""
    from mmrerank.evaluation.experiment.forecast import forecast

    chosen = build(registry.load("strategy", method).Options, options, where=f"method {method}")
    told = forecast(method, chosen, list(items), [])
    if output is Output.json:
        emit({"method": method, "forecast": told.to_dict()})
    else:
        typer.echo(f"{method}: {told}")
