"""The desk where the open questions of rankings are answered, round by round, and what is kept of each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from mmrerank import cancel as cancelling
from mmrerank.budget import Meter
from mmrerank.errors import LASTING, BudgetError, CancelledError, ChatError
from mmrerank.limits import way
from mmrerank.messages import Ask, Reply, Retrieve, Step, Trace
from mmrerank.ports import Chat, Judging, Outcome, Retriever
from mmrerank.rerank import profiles, rooms, scoring
from mmrerank.rerank.again import retrieved
from mmrerank.rerank.asking import Heard, within
from mmrerank.rerank.sparing import PROBE
from mmrerank.rerank.stopping import Watch, unreached
from mmrerank.rerank.telling import Telling
from mmrerank.rerank.understood import unreadable, watched
from mmrerank.rerank.written import Row, Written, settled
from mmrerank.types import Failure, Usage

Progress = Callable[[int, int], None]
"""Called with (questions answered, questions asked so far)."""


@dataclass(frozen=True, kw_only=True)
class Driven:
    """A finished strategy with what it cost and every step on the way."""

    outcome: Outcome
    usage: Usage
    trace: Trace
    failures: tuple[Failure, ...] = ()
    """Why questions gave nothing, each kind with its first reason."""
    notes: tuple[str, ...] = ()
    """What replies say of how they were got, each once."""
    unasked: int = 0
    """Questions that were not asked, or not answered in time, for want of budget."""
    written: Written = field(default_factory=Written)


@dataclass(kw_only=True)
class Job:
    """One ranking under way."""

    judging: Judging
    meters: tuple[Meter, ...] = ()
    written: Written = field(default_factory=Written)
    unasked: int = 0
    asks: list[Ask] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    steps: list[Step] = field(default_factory=list)
    failures: dict[str, Failure] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)
    outcome: Outcome | None = None
    most: int = 0
    """Questions that may be sent, whatever the method asks."""
    sent: int = 0
    telling: Telling | None = None

    def refused(self) -> list[Reply] | None:
        """Failed replies where the round would pass the limit on questions; None where it may be sent."""
        self.sent += len(self.asks)
        if self.sent <= self.most:
            return None
        why = f"not asked: a ranking may ask {self.most:,} questions; {way('questions')}"
        return [Reply(error=BudgetError(why), finish="error") for _ in self.asks]

    def advance(self, replies: list[Reply] | None) -> None:
        """Lets the method go on to its next questions, or to its end."""
        try:
            asks = self.judging.send(replies)  # type: ignore[arg-type] # None starts a generator
            self.asks = [watched(a) for a in asks]
        except StopIteration as stop:
            self.asks, self.outcome = [], stop.value

    def note(self, ask: Ask, reply: Reply) -> None:
        """Takes down what ``reply`` cost and whether it failed."""
        self.usage += reply.usage
        self.steps.append(Step.of(ask, reply))
        if ask.kind == PROBE:
            return
        self.notes |= dict.fromkeys(reply.notes)
        self.written.note(ask, reply)
        if reply.error is not None:
            self._failed(reply.error.kind, str(reply.error), outside=unreached(reply.error))
            self.unasked += isinstance(reply.error, BudgetError)
        elif ask.useful is not None and not ask.useful(reply):
            self._failed("reply", unreadable(reply))

    def _failed(self, kind: str, why: str, *, outside: bool = False) -> None:
        before = self.failures.get(kind, Failure(kind=kind, example=why, count=0))
        self.failures[kind] = replace(before, count=before.count + 1, outside=before.outside or outside)

    @property
    def driven(self) -> Driven:
        """What came of it."""
        return Driven(
            outcome=_whole(self.outcome),
            usage=self.usage,
            trace=Trace(steps=tuple(self.steps)),
            failures=tuple(self.failures.values()),
            notes=(*self.notes, *self.written.told),
            unasked=self.unasked,
            written=self.written,
        )


@dataclass(kw_only=True)
class Desk:
    """Where questions are answered, for jobs of one thread or of several."""

    chat: Chat | None
    retriever: Retriever | None
    progress: Progress | None
    watch: Watch
    cancel: threading.Event | None = None
    reached: bool = False
    lost: ChatError | None = None
    asked: int = 0
    answered: int = 0
    closed: bool = False
    failed: BaseException | None = None
    """What ended the rankings early; errors of others after it only say that they were given up."""
    lock: threading.RLock = field(default_factory=threading.RLock)

    def advance(self, job: Job, replies: list[Reply] | None) -> None:
        """Lets the method go on, with the prompts that are meant for this model and what it can hold."""
        chat = self.chat
        with profiles.holding(chat) as notes, rooms.within(chat), scoring.grouped(chat.group if chat else 1):
            job.advance(replies)
        job.notes |= notes

    def serve(self, jobs: Sequence[Job]) -> None:
        """Brings ``jobs`` to their end, round by round; what ends them early ends all others as well."""
        try:
            with cancelling.heeding(self.cancel):
                self._rounds(jobs)
        except BaseException as error:
            with self.lock:
                self.failed = self.failed or error
                self.closed = True
            raise

    def _rounds(self, jobs: Sequence[Job]) -> None:
        while open_jobs := [job for job in jobs if job.outcome is None]:
            if self.closed:
                return
            cancelling.check()
            # one call for the open questions of all jobs: a tournament of twenty rounds over fifty queries
            # is twenty full batches, not a thousand single questions
            refused = {id(job): job.refused() for job in open_jobs}
            asks = [(a, job) for job in open_jobs if refused[id(job)] is None for a in job.asks]
            self._tell(open_jobs, asked=len(asks))
            replies = iter(self._replies(asks))
            if self.closed:
                return  # what was given up is no answer
            for job in open_jobs:
                mine = refused[id(job)] or [next(replies) for _ in job.asks]
                for ask, reply in zip(job.asks, mine, strict=True):
                    job.note(ask, reply)
                    self._watch(job, ask, reply)
                self.advance(job, mine)

    def _watch(self, job: Job, ask: Ask, reply: Reply) -> None:
        if isinstance(ask, Retrieve):
            return
        if reply.error is not None and (reply.error.systemic or reply.error.kind in LASTING):
            self.lost = reply.error
        else:
            self.reached = True
        self.watch.note(reply, id(job))

    def end(self) -> None:
        """Raises `Stopped` where no question got an answer, for a reason outside of all of them."""
        if self.lost is not None and not self.reached:
            self.watch.nothing(self.lost)

    def _tell(self, jobs: Sequence[Job], *, asked: int) -> None:
        """Tells who watches of a round that begins."""
        with self.lock:
            self.asked += asked
            if self.progress:
                self.progress(self.answered, self.asked)
            for job in jobs:
                if job.telling:
                    job.telling.asking(job.asks)

    def _heard(self, ask: Ask, job: Job, reply: Reply) -> None:
        """Tells who watches of a reply. Raises `CancelledError`, so that the rest is given up."""
        with self.lock:
            if self.closed:  # another ranking has failed, and with it all of them
                raise CancelledError("the rankings were given up; nothing further is asked")
            self.answered += 1
            if self.progress:
                self.progress(self.answered, self.asked)
            if job.telling and ask.kind != PROBE:
                job.telling.heard(ask, reply)
        cancelling.check()

    def _replies(self, asks: Sequence[tuple[Ask, Job]]) -> list[Reply]:
        """Every question to whom it is for: the first stage or the model."""
        replies: dict[int, Reply] = {}

        def take(places: Sequence[int], n: int, reply: Reply) -> None:
            replies[places[n]] = reply
            self._heard(*asks[places[n]], reply)

        searches = {n: a for n, (a, _) in enumerate(asks) if isinstance(a, Retrieve)}
        if searches:
            with self.lock:  # an index and its embedder serve one at a time
                found = retrieved(self.retriever, list(searches.values()))
            for place, reply in enumerate(found):
                take(list(searches), place, reply)
        others = [n for n in range(len(asks)) if n not in searches]
        each = any(job.telling for _, job in asks)

        def ask_all(rows: Sequence[Row], heard: Heard) -> None:
            within(self.chat, rows, heard, each=each)

        rows = [(asks[n][0], asks[n][1].meters) for n in others]
        settled(self.chat, rows, ask_all, partial(take, others))
        return [replies[n] for n in range(len(asks))]


def _whole(outcome: Any) -> Outcome:
    assert isinstance(outcome, Outcome), "a strategy must return an Outcome"
    return outcome
