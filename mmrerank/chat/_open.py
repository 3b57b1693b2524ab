"""Opens a chat backend by what the user typed: a short name of the catalogue or ``PLUGIN:REST``."""

from __future__ import annotations

import inspect
from typing import Any

from mmrerank import catalog, registry
from mmrerank.errors import UsageError
from mmrerank.ports import Chat


def open_chat(spec: str, **options: Any) -> Chat:
    """The backend for ``spec``, with ``.spec`` as typed and ``.domain`` of the catalogue.

    ``options`` go to the plug-in's ``open``; those that are None count as not given. Raises `UsageError`
    for an unknown form or option, and what the plug-in's ``open`` raises.
    """
    card = catalog.resolve("chat", spec)
    name, _, rest = card.spec.partition(":")
    if name not in registry.names("chat"):
        raise UsageError(f"there is no chat {spec!r}; {forms()}")
    opener = registry.load("chat", name).open
    given = {k: v for k, v in options.items() if v is not None}
    allowed = set(inspect.signature(opener).parameters) - {"rest"}
    if wrong := sorted(given.keys() - allowed):
        raise UsageError(
            f"chat {name!r} takes no {wrong[0]!r}; its options are {', '.join(sorted(allowed))}"
        )
    chat: Chat = opener(rest, **given)
    chat.spec = spec
    if card.domain:
        chat.domain = card.domain
    return chat


def forms() -> str:
    """How a chat can be named, in one line."""
    shapes = {n: registry.load("chat", n).FORM for n in registry.names("chat")}
    short = [c.name for c in catalog.cards() if c.kind == "chat"]
    return f"forms are {', '.join(shapes.values())}; short names are {', '.join(short)}"
