"""Parrot: a language model that says yes to what it is shown, more surely the more text there is."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from mmrerank.errors import UsageError
from mmrerank.messages import Ask, Reply
from mmrerank.ports import Capability, Chat
from mmrerank.types import Usage

FORM = "parrot:NAME"


class Parrot(Chat):
    """Answers by a rule. Only what a `Chat` must have is here."""

    def __init__(self, name: str) -> None:
        self.spec = f"parrot:{name}"
        self.capabilities: frozenset[Capability] = frozenset({"generate", "choice_logprobs"})

    def reply(self, asks: Sequence[Ask]) -> list[Reply]:
        """One reply an ask."""
        return [self._answer(ask) for ask in asks]

    def _answer(self, ask: Ask) -> Reply:
        parts = [p for m in ask.messages for p in m.parts]
        words = sum(len((p.text or "").split()) for p in parts)
        images = sum(p.image is not None for p in parts)
        usage = Usage(calls=1, input_tokens=words + 9 * images, output_tokens=1, images=images)
        if ask.choices:
            total = sum(range(1, len(ask.choices) + 1))
            shares = {c: math.log((len(ask.choices) - n) / total) for n, c in enumerate(ask.choices)}
            return Reply(logprobs=shares, usage=usage)
        return Reply(text=json.dumps({"said": words}), usage=usage)


def open(rest: str, *, loudly: bool = False) -> Parrot:
    """``parrot:NAME``."""
    if not rest:
        raise UsageError(f"{FORM} needs a name")
    return Parrot(rest.upper() if loudly else rest)
