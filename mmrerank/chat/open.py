"""Opens a chat backend by what the user typed: a short name of the catalogue or ``PLUGIN:REST``.

A dedicated reranker is named in the same place, and comes as a chat of capability ``score``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmrerank import registry
from mmrerank.chat.scoring import ScorerChat
from mmrerank.ports import Chat, Room

_NEUTRAL = {
    *("api_key", "timeout", "max_retries", "concurrency", "backoff", "stream", "any_model", "context"),
    *("batch_size", "batch_tokens", "prefix_bytes", "feature_bytes", "feature_folder", "gpu_memory"),
}
"""Options of backends that change how a reply is got, not what it says."""


def deciding(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a backend's ``options`` that can change a reply."""
    return {k: v for k, v in options.items() if v is not None and k not in _NEUTRAL}


def open_chat(spec: str, **options: Any) -> Chat:
    """The backend for ``spec``, with ``.spec`` as typed and ``.domain`` of the catalogue.

    ``options`` and errors are those of `mmrerank.registry.opened`; those that can change a reply stay in
    ``.settings``.
    """
    card, found = registry.opened("chat", spec, options, Chat)
    scores = registry.kind_of("chat", card.spec.partition(":")[0]) == "scorer"
    chat: Chat = ScorerChat(found) if scores else found
    chat.spec = spec
    chat.settings = deciding(options)
    if card.domain:
        chat.domain = card.domain
    if card.label_share is not None and options.get("label_share") is None:
        chat.label_share = card.label_share
    if card.prompts:
        chat.prompts = card.prompts
    own = chat.room
    chat.room = Room(
        images=own.images or card.images,
        tokens=own.tokens or card.context,
        auto={**own.auto, **card.auto},
        brief=own.brief or card.brief,
    )
    return chat
