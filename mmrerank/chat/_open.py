"""Opens a chat backend by what the user typed: a short name of the catalogue or ``PLUGIN:REST``."""

from __future__ import annotations

from typing import Any

from mmrerank import registry
from mmrerank.ports import Chat


def open_chat(spec: str, **options: Any) -> Chat:
    """The backend for ``spec``, with ``.spec`` as typed and ``.domain`` of the catalogue.

    ``options`` and errors are those of `mmrerank.registry.opened`.
    """
    card, found = registry.opened("chat", spec, options)
    chat: Chat = found
    chat.spec = spec
    if card.domain:
        chat.domain = card.domain
    return chat
