"""What a server offers, by one tiny question: only what it showed or said itself counts as lacking."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from mmrerank.errors import ChatError, FailureKind
from mmrerank.messages import Ask, Message, Part
from mmrerank.ports import Capability

_ODD_ANSWERS: tuple[FailureKind, ...] = ("reply", "no_room", "refusal", "content_filter")
"""Kinds of failures of one question that say nothing about what the server can do."""
BOTH: frozenset[Capability] = frozenset({"generate", "choice_logprobs"})


def offers(failure: Callable[[Ask], ChatError | None]) -> tuple[frozenset[Capability], bool]:
    """What it offers, and whether that is known: an odd answer shows nothing.

    ``failure`` asks and gives the error of the reply. A server that is down, a spent quota and the like are
    raised as the `ChatError` that they are.
    """
    question = Message(role="user", parts=(Part(text="Answer yes or no: is fire hot?"),))
    probe = Ask(messages=(question,), choices=("yes", "no"))
    error = failure(probe)
    if error is not None and error.kind == "bad_request":
        # it does not say what it minds: the same question without log-probabilities tells
        plain = failure(replace(probe, choices=(), max_tokens=16))
        error = error if plain is not None else ChatError(str(error), kind="no_logprobs")
    # labels missing among the likeliest still shows that log-probabilities come back
    if error is None or error.kind == "labels":
        return BOTH, True
    if error.kind == "no_logprobs":
        return frozenset({"generate"}), True
    if error.kind in _ODD_ANSWERS:  # the judgements try it, and give their reasons
        return BOTH, False
    raise error
