"""Finds plug-ins: the plug-in's name is its file's name, and it is imported when first used.

A kind is a package; every module in it whose name does not start with an underscore is a plug-in. Adding
one is adding a file. Listing names imports nothing.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from mmrerank import catalog
from mmrerank.errors import UsageError
from mmrerank.ports import Capability

KINDS = {
    "strategy": "mmrerank.rerank.strategies",
    "chat": "mmrerank.chat",
    "embedder": "mmrerank.embed",
    "corpus": "mmrerank.corpus",
    "store": "mmrerank.index.stores",
    "benchmark": "mmrerank.evaluate.benchmarks",
}


def names(kind: str) -> list[str]:
    """The plug-ins of a kind, sorted; none of them is imported."""
    package = importlib.import_module(KINDS[kind])
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if m.name[0] != "_")


def load(kind: str, name: str) -> ModuleType:
    """The module of a plug-in. Raises `UsageError` naming what exists and what was probably meant."""
    known = names(kind)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        word = "method" if kind == "strategy" else kind
        raise UsageError(f"there is no {word} {name!r}; there are: {', '.join(known)}.{hint}")
    return importlib.import_module(f"{KINDS[kind]}.{name}")


def needs_of(module: Any, options: Any) -> tuple[Capability, ...]:
    """The capabilities that a method needs with these options (by ``needs``, else ``NEEDS``)."""
    needs = getattr(module, "needs", None)
    return tuple(needs(options) if needs else module.NEEDS)


def opened(kind: str, spec: str, options: Mapping[str, Any]) -> tuple[catalog.Card, Any]:
    """What ``spec`` names, a short name of the catalogue or ``PLUGIN:REST``, and its card.

    ``options`` go to the plug-in's ``open``; those that are None count as not given. Raises `UsageError`
    for an unknown form or option, and what the plug-in's ``open`` raises.
    """
    card = catalog.resolve(kind, spec)
    name, _, rest = card.spec.partition(":")
    if name not in names(kind):
        raise UsageError(f"there is no {kind} {spec!r}; {forms(kind)}")
    opener = load(kind, name).open
    given = {k: v for k, v in options.items() if v is not None}
    allowed = set(inspect.signature(opener).parameters) - {"rest"}
    if wrong := sorted(given.keys() - allowed):
        raise UsageError(
            f"{kind} {name!r} takes no {wrong[0]!r}; its options are {', '.join(sorted(allowed))}"
        )
    return card, opener(rest, **given)


def forms(kind: str) -> str:
    """How something of a kind can be named, in one line."""
    shapes = [load(kind, n).FORM for n in names(kind)]
    if kind == "chat":
        shapes += [s.form for s in catalog.servers() if s.name != "openai"]
    short = [c.name for c in catalog.cards() if c.kind == kind]
    return f"forms are {', '.join(shapes)}; short names are {', '.join(short)}"
