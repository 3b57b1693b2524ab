"""What ``--dry-run`` prints: the questions that a method would ask. No model is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from mmrerank.cli.console import Output, emit

if TYPE_CHECKING:
    from mmrerank.rerank.methods import MethodSpec
    from mmrerank.types import Query, Ranking


def spec_of(method: str, options: Mapping[str, Any]) -> MethodSpec:
    """A method with its options, those in its brackets too. Raises `UsageError` for another form."""
    from mmrerank.rerank.methods import MethodSpec, parse_method

    name, named = parse_method(method)
    return MethodSpec(name=name, given={**named, **options})


def tell(
    method: str, options: Mapping[str, Any], items: Sequence[tuple[Query, Ranking]], output: Output
) -> None:
    """Prints the forecast for ``items``. Raises `UsageError` for a wrong method or option."""
    from mmrerank.evaluation.experiment.forecast import forecast

    spec = spec_of(method, options)
    name = spec.name
    expected = forecast(name, spec.options, list(items), [])
    if output is Output.json:
        emit({"method": name, "forecast": expected.to_dict()})
    else:
        typer.echo(f"{name}: {expected}")
