"""Reads ``models.toml``, the only place that knows particular models: short names, specs and domains."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Card:
    """A model with a short name. ``spec`` is what the name stands for; ``domain`` is what little it knows."""

    name: str
    kind: str
    spec: str
    about: str = ""
    domain: str = ""


@cache
def cards() -> tuple[Card, ...]:
    """Every model of the catalogue, in the file's order."""
    root = Path(str(files("mmrerank")))
    table = tomllib.loads((root / "models.toml").read_text("utf-8"))
    return tuple(
        Card(
            name=name, kind=kind, **{k: v.replace("{package}", str(root)) for k, v in entry.items()}
        )
        for kind, entries in table.items()
        for name, entry in entries.items()
    )


def resolve(kind: str, spec: str) -> Card:
    """The card for a short name, or a plain card around any other spec."""
    for card in cards():
        if card.kind == kind and spec in (card.name, card.spec):
            return card
    return Card(name=spec, kind=kind, spec=spec)
