"""Reads ``models.toml`` and ``servers.toml``: the only places that know particular models and servers.

A model has a short name, a spec and a domain; a server has an address, a variable for its key and what its
protocol needs said. Nothing here opens anything.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True, kw_only=True)
class Card:
    """A model with a short name. ``spec`` is what the name stands for; ``domain`` is what little it knows."""

    name: str
    kind: str
    spec: str
    about: str = ""
    domain: str = ""


@dataclass(frozen=True, kw_only=True)
class Server:
    """A kind of server that speaks the OpenAI protocol; the fields are explained in ``servers.toml``."""

    name: str
    url: str
    key: str
    limit: str = "max_tokens"
    quiet: Mapping[str, Any] = field(default_factory=dict)
    chooses: bool = False
    start: str = ""

    @property
    def form(self) -> str:
        """How its models are named on the command line."""
        return (
            f"{self.name}:MODEL@HOST[:PORT]" if self.name == "vllm" else f"{self.name}:MODEL[@HOST]"
        )

    def at(self, host: str) -> str:
        """The base URL at ``host``, a whole URL or ``HOST[:PORT]``; the usual one where it is empty."""
        if not host:
            return self.url
        if "://" in host:
            return host
        usual = urlsplit(self.url)
        place = host if ":" in host else f"{host}:{usual.port}" if usual.port else host
        return f"{usual.scheme}://{place}{usual.path}"


@cache
def cards() -> tuple[Card, ...]:
    """Every model of the catalogue, in the file's order."""
    root = Path(str(files("mmrerank")))
    return tuple(
        Card(
            name=name, kind=kind, **{k: v.replace("{package}", str(root)) for k, v in entry.items()}
        )
        for kind, entries in _table("models").items()
        for name, entry in entries.items()
    )


@cache
def servers() -> tuple[Server, ...]:
    """Every kind of server, in the file's order."""
    return tuple(Server(name=name, **entry) for name, entry in _table("servers").items())


def _table(name: str) -> dict[str, Any]:
    return tomllib.loads((Path(str(files("mmrerank"))) / f"{name}.toml").read_text("utf-8"))


def resolve(kind: str, spec: str) -> Card:
    """The card for a short name, or a plain card around any other spec.

    A model on a server, such as ``ollama:MODEL``, gets a spec of the plug-in that speaks its protocol:
    ``openai:MODEL@NAME+URL``.
    """
    for card in cards():
        if card.kind == kind and spec in (card.name, card.spec):
            return card
    return Card(name=spec, kind=kind, spec=_served(spec) if kind == "chat" else spec)


def _served(spec: str) -> str:
    name, _, rest = spec.partition(":")
    server = next((s for s in servers() if s.name == name), None)
    if server is None or name == "openai" or not rest:
        return spec
    model, at, host = rest.partition("@")
    if name == "vllm" and (not at or Path(rest).exists()):
        return spec  # the engine in this process
    if not model or (at and not host):
        return spec
    return f"openai:{model}@{name}+{server.at(host)}"
