"""What ``--dry-run`` prints: the questions that a method would ask. No model is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from mmrerank.cli.console import Output, emit

if TYPE_CHECKING:
    from mmrerank.types import Query, Ranking


def tell(
    method: str, options: Mapping[str, Any], items: Sequence[tuple[Query, Ranking]], output: Output
) -> None:
    """Prints the forecast for ``items``. Raises `UsageError` for a wrong method or option."""
    from mmrerank.evaluation.experiment.forecast import forecast
    from mmrerank.rerank.methods import MethodSpec, parse_method

    name, named = parse_method(method)
    spec = MethodSpec(name=name, given={**named, **options})
    expected = forecast(name, spec.options, list(items), [])
    if output is Output.json:
        emit({"method": name, "forecast": expected.to_dict()})
    else:
        typer.echo(f"{name}: {expected}")
