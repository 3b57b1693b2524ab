"""Opens plug-ins and checks what they give; `mmrerank.discovery` finds their files.

What lacks a part of its interface is a `UsageError` that names the file and the part.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping
from typing import Any

from mmrerank import catalog
from mmrerank.discovery import KINDS, about, every, first_sentence, form, load, names, place, warn
from mmrerank.errors import UsageError
from mmrerank.near import meant
from mmrerank.paths import expanded
from mmrerank.ports import Capability, Scorer

__all__ = [
    "KINDS", "about", "check", "chosen", "every", "first_sentence", "form", "forms", "kind_of", "load",
    "misspelt", "names", "needs_of", "opened", "place", "takes", "warn",
]  # fmt: skip


_opening = threading.RLock()  # libraries load one model at a time; `mmrerank.loading` says why


def check(found: object, interface: type, what: str) -> None:
    """Raises `UsageError` when ``found``, which a plug-in gave, lacks a part of its ``interface``."""
    wanted = (*interface.__annotations__, *vars(interface))
    # `dir` looks and asks nothing: a property such as ``capabilities`` may call a server
    there = dir(found)
    if lacking := sorted({n for n in wanted if n[0] != "_" and n not in there}):
        raise UsageError(
            f"{what} gives a {type(found).__name__} that lacks {', '.join(lacking)}; deriving from "
            f"mmrerank.ports.{interface.__name__} gives the optional parts their defaults"
        )


def needs_of(strategy: Any, options: Any) -> tuple[Capability, ...]:
    """The capabilities that a method needs with these options."""
    needs = options.needs()
    return tuple(strategy.NEEDS if needs is None else needs)


def kind_of(kind: str, name: str) -> str:
    """The kind of the plug-in ``name`` that was named where one of ``kind`` is.

    That is ``kind``, but for a dedicated reranker, which stands where a chat does.
    """
    return "scorer" if kind == "chat" and name not in names("chat") and name in names("scorer") else kind


def opened(kind: str, spec: str, options: Mapping[str, Any], interface: type) -> tuple[catalog.Card, Any]:
    """What ``spec`` names, a short name of the catalogue or ``PLUGIN:REST``, and its card.

    ``options`` go to the plug-in's ``open``; those that are None count as not given. Raises `UsageError`
    for an unknown form or option, and what the plug-in's ``open`` raises.
    """
    card, opener, given = chosen(kind, spec, options)
    rest = card.spec.partition(":")[2]
    if rest.startswith("~"):  # no shell has replaced it: in quotes, a recipe, a container's settings
        rest = str(expanded(rest))
    with _opening:
        found = opener(rest, **given)
    name = card.spec.partition(":")[0]
    kind_there = kind_of(kind, name)
    check(found, interface if kind_there == kind else Scorer, f"{kind_there} {name!r}")
    return card, found


def chosen(
    kind: str, spec: str, options: Mapping[str, Any]
) -> tuple[catalog.Card, Callable[..., Any], dict[str, Any]]:
    """The card of what ``spec`` names, what opens it, and the options that were given. Opens nothing.

    Raises `UsageError` for an unknown form or option.
    """
    card = catalog.resolve(kind, spec.strip())
    name = card.spec.partition(":")[0]
    if name not in names(kind_of(kind, name)):
        raise UsageError(f"there is no {kind} {spec!r}.{_meant(kind, spec.strip())} The {forms(kind)}")
    kind = kind_of(kind, name)
    opener = load(kind, name).open
    given = {k: v for k, v in options.items() if v is not None}
    allowed = set(inspect.signature(opener).parameters) - {"rest"}
    if wrong := sorted(given.keys() - allowed):
        its = f"its options are {', '.join(sorted(allowed))}" if allowed else "it has no options"
        raise UsageError(f"{kind} {name!r} takes no {wrong[0]!r}; {its}")
    return card, opener, given


def misspelt(kind: str, spec: str) -> str:
    """What a ``spec`` that nothing here answers to probably meant, as a sentence; empty for any other."""
    name = catalog.resolve(kind, spec.strip()).spec.partition(":")[0]
    return "" if name in names(kind_of(kind, name)) else _meant(kind, spec.strip()).strip()


def _meant(kind: str, spec: str) -> str:
    """What a spec that names nothing probably meant: a short name, or the same of another plug-in."""
    name, colon, rest = spec.partition(":")
    plugins = {n for k in catalog.kinds_at(kind) for n in names(k)}
    if kind == "chat":
        plugins |= {s.name for s in catalog.servers()}
    short = [c.name for c in catalog.cards() if c.kind in catalog.kinds_at(kind)]
    if not colon:
        return meant(spec, short)
    return meant(name, plugins, 1).replace("'?", f":{rest}'?") or meant(spec, short)


def takes(kind: str, spec: str, option: str) -> bool:
    """Whether what opens ``spec`` has such an option. Raises `UsageError` for an unknown form."""
    return option in inspect.signature(chosen(kind, spec, {})[1]).parameters


def forms(kind: str) -> str:
    """How something of a kind can be named, in one line."""
    shapes = [form(kind, name) for name in names(kind)]
    if kind == "chat":
        shapes += [s.form for s in catalog.servers() if s.name != "openai"]
        shapes += [form("scorer", name) for name in names("scorer")]
    short = [c.name for c in catalog.cards() if c.kind in catalog.kinds_at(kind)]
    return f"forms are {', '.join(s for s in shapes if s)}; short names are {', '.join(short)}"
