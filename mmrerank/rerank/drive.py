"""Runs strategies over a backend: the only place where judging meets I/O.

Many queries are driven together. Each round gathers the open questions of every unfinished query into one
call of `Chat.reply`, so that methods that are sequential within a query still fill the model's batch.
Usage is summed, every step is kept for the trace, and a backend that breaks costs judgements, not results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mmrerank.errors import CapabilityError, ChatError, IndexError_, InputError, ModelError
from mmrerank.messages import Ask, Reply, Retrieve, Step, Trace
from mmrerank.ports import Chat, Judging, Outcome, Retriever
from mmrerank.types import Usage

Progress = Callable[[int, int], None]
"""Called with (questions answered, questions asked so far)."""


@dataclass(frozen=True, kw_only=True)
class Driven:
    """A finished strategy with what it cost and every step on the way."""

    outcome: Outcome
    usage: Usage
    trace: Trace
    errors: tuple[str, ...] = ()


@dataclass(kw_only=True)
class _Job:
    judging: Judging
    asks: list[Ask] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    steps: list[Step] = field(default_factory=list)
    errors: dict[str, None] = field(default_factory=dict)
    outcome: Outcome | None = None

    def advance(self, replies: list[Reply] | None) -> None:
        try:
            self.asks = self.judging.send(replies)  # type: ignore[arg-type] # None starts a generator
        except StopIteration as stop:
            self.asks, self.outcome = [], stop.value


def check(chat: Chat | None, needs: Iterable[str], method: str) -> None:
    """Raises `CapabilityError` when the backend cannot do what the method needs.

    ``needs`` are capabilities of models. An index to search again is not the backend's affair: without one
    a method orders what it was given.
    """
    lacking = [n for n in needs if chat is None or n not in chat.capabilities]
    if lacking and chat is None:
        raise CapabilityError(
            f"{method} needs a language model; choose one with --chat, e.g. bundled"
        )
    if lacking and chat is not None:
        raise CapabilityError(
            f"{method} needs {', '.join(lacking)}, which {chat.spec} does not offer "
            f"(it offers {', '.join(sorted(chat.capabilities)) or 'nothing'}); "
            "transformers:PATH offers all of them"
        )


def drive(
    judgings: Sequence[Judging],
    chat: Chat | None,
    *,
    retriever: Retriever | None = None,
    progress: Progress | None = None,
) -> list[Driven]:
    """Drives every generator to its end and returns the results in the same order.

    ``retriever`` answers what is asked of the first stage; without one such a question fails.
    An error that concerns one question becomes that question's failed reply. `ModelError` (no such
    model or capability) is raised: no answer of this backend would mean anything.
    """
    jobs = [_Job(judging=j) for j in judgings]
    for job in jobs:
        job.advance(None)
    answered = asked = 0
    while open_jobs := [job for job in jobs if job.outcome is None]:
        asks = [ask for job in open_jobs for ask in job.asks]
        asked += len(asks)
        if progress:
            progress(answered, asked)
        replies = iter(_replies(chat, retriever, asks))
        for job in open_jobs:
            mine = [next(replies) for _ in job.asks]
            for ask, reply in zip(job.asks, mine, strict=True):
                job.usage += reply.usage
                job.steps.append(Step.of(ask, reply))
                if reply.error is not None:
                    job.errors[str(reply.error)] = None
            job.advance(mine)
        answered += len(asks)
        if progress:
            progress(answered, asked)
    return [
        Driven(
            outcome=_whole(job.outcome),
            usage=job.usage,
            trace=Trace(steps=tuple(job.steps)),
            errors=tuple(job.errors),
        )
        for job in jobs
    ]


def _replies(chat: Chat | None, retriever: Retriever | None, asks: list[Ask]) -> list[Reply]:
    """Every question to whom it is for: the first stage or the model."""
    searches = [a for a in asks if isinstance(a, Retrieve)]
    if not searches:
        return _reply(chat, asks)
    found = iter(_retrieved(retriever, searches))
    told = iter(_reply(chat, [a for a in asks if not isinstance(a, Retrieve)]))
    return [next(found) if isinstance(a, Retrieve) else next(told) for a in asks]


def _retrieved(retriever: Retriever | None, searches: list[Retrieve]) -> list[Reply]:
    if retriever is None:
        lacking = ChatError("there is no index here that could be searched again")
        return [Reply(error=lacking, finish="error") for _ in searches]
    try:
        return [Reply(found=found) for found in retriever.retrieve(searches)]
    except (InputError, IndexError_) as error:  # candidates from elsewhere, an index that is gone
        failed = ChatError(f"the index cannot be searched again: {error}")
        return [Reply(error=failed, finish="error") for _ in searches]


def _reply(chat: Chat | None, asks: list[Ask]) -> list[Reply]:
    if not asks:
        return []
    if chat is None:
        raise CapabilityError("this method asks a language model, and none was given; use --chat")
    try:
        replies = chat.reply(asks)
    except ModelError:
        raise
    except ChatError as error:
        replies = [Reply(error=error, finish="error") for _ in asks]
    if len(replies) != len(asks):
        short = ChatError(f"{chat.spec} gave {len(replies)} replies to {len(asks)} questions")
        return [Reply(error=short, finish="error") for _ in asks]
    return [_sound(r) for r in replies]


def _sound(reply: Reply) -> Reply:
    if reply.error is None:
        return reply
    return replace(reply, text="", logprobs={}, states=(), finish="error")


def _whole(outcome: Any) -> Outcome:
    assert isinstance(outcome, Outcome), "a strategy must return an Outcome"
    return outcome
