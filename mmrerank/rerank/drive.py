"""Runs strategies over a backend: the only place where judging meets I/O.

Many queries are driven together. Each round gathers the open questions of every unfinished query into one
call of `Chat.reply`, so that methods that are sequential within a query still fill the model's batch. Where
the backend has a batch of its own, as servers do (``Chat.concurrency``), every query goes at its own pace.
Usage is summed, budgets are held, every step is kept for the trace, and a backend that breaks costs
judgements, not results.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Any

from mmrerank import cancel as cancelling
from mmrerank.budget import Budget, Meter, bound
from mmrerank.errors import (
    LASTING,
    BudgetError,
    CancelledError,
    CapabilityError,
    ChatError,
    ImageIndexError,
    InputError,
    ModelError,
)
from mmrerank.limits import in_force, way
from mmrerank.messages import Ask, Reply, Retrieve, Step, Trace
from mmrerank.ports import Chat, Judging, Outcome, Retriever
from mmrerank.rerank import profiles, rooms, scoring
from mmrerank.rerank.sparing import PROBE
from mmrerank.rerank.stopping import Stopped, Watch, plain_failure, unreached
from mmrerank.rerank.taken import asked, taken
from mmrerank.rerank.understood import unreadable, watched
from mmrerank.rerank.written import Written, all_settled
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
class _Job:
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

    def refused(self) -> list[Reply] | None:
        """Replies to a round that would pass the limit on questions; None where it may be sent."""
        self.sent += len(self.asks)
        if self.sent <= self.most:
            return None
        why = f"not asked: a ranking may ask {self.most:,} questions; {way('questions')}"
        return [Reply(error=BudgetError(why), finish="error") for _ in self.asks]

    def advance(self, replies: list[Reply] | None) -> None:
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


def check(chat: Chat | None, needs: Iterable[str], method: str) -> None:
    """Raises `CapabilityError` when the backend cannot do what the method needs.

    ``needs`` are capabilities of models. An index to search again is not the backend's affair: without one
    a method orders what it was given.
    """
    lacking = [n for n in needs if chat is None or n not in chat.capabilities]
    if lacking and chat is None:
        raise CapabilityError(
            f"{method} needs a language model; name one with --chat (in Python: chat=...); "
            "`mmrerank list models` and `mmrerank list servers` show some"
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
    budget: Budget | None = None,
    total: Meter | None = None,
    watch: Watch | None = None,
    cancel: threading.Event | None = None,
) -> list[Driven]:
    """Drives every generator to its end and returns the results in the same order.

    ``retriever`` answers what is asked of the first stage; without one such a question fails.
    ``budget`` bounds each ranking, ``total`` all of them together and whatever else it is shared with; a
    question that does not fit gets a reply with a `BudgetError`, so that every method ends with what it
    knows. `mmrerank.budget` says what is promised.

    An error that concerns one question becomes that question's failed reply. `ModelError` (no such
    model or capability) is raised: no answer of this backend would mean anything. `Stopped` is raised, with
    what is finished, when a few questions in a row, or all, fail for a reason outside of them; ``watch``
    counts over several calls. `CancelledError` is raised soon after ``cancel`` is set, by whatever thread.
    """
    shared = () if total is None else (total,)
    own = [() if budget is None else (Meter(budget),) for _ in judgings]
    most = in_force().questions
    jobs = [_Job(judging=j, meters=(*m, *shared), most=most) for j, m in zip(judgings, own, strict=True)]
    watch = watch or Watch()
    if chat is not None:
        watch.plain = lambda: plain_failure(chat)
    desk = _Desk(chat=chat, retriever=retriever, progress=progress, watch=watch, cancel=cancel)
    for job in jobs:
        desk.advance(job, None)
    crew = min(1 if chat is None else chat.concurrency, len(jobs))
    try:
        if crew > 1:
            _each_alone(desk, jobs, crew)
        else:
            desk.serve(jobs)
        desk.end()
    except Stopped as stopped:
        ended = {n: job.driven for n, job in enumerate(jobs) if job.outcome is not None}
        stopped.finished = {n: d for n, d in ended.items() if not any(f.outside for f in d.failures)}
        raise
    return [job.driven for job in jobs]


def _each_alone(desk: _Desk, jobs: Sequence[_Job], crew: int) -> None:
    """Every job in a thread of its own, so many at a time; the first error ends them all."""
    pool = ThreadPoolExecutor(crew, thread_name_prefix="ranking")
    try:
        running = [pool.submit(desk.serve, [job]) for job in jobs]
        wait(running, return_when=FIRST_EXCEPTION)
        for future in running:
            if future.done():
                future.result()
    except BaseException as error:
        desk.closed = True
        pool.shutdown(wait=False, cancel_futures=True)
        # who cancels one ranking leaves alone what others ask of the same model
        if desk.chat is not None and not isinstance(error, CancelledError):
            desk.chat.cancel()
        raise
    finally:
        pool.shutdown()


@dataclass(kw_only=True)
class _Desk:
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
    lock: threading.RLock = field(default_factory=threading.RLock)

    def advance(self, job: _Job, replies: list[Reply] | None) -> None:
        """Lets the method go on, with the prompts that are meant for this model and what it can hold."""
        chat = self.chat
        with profiles.holding(chat) as notes, rooms.within(chat), scoring.grouped(chat.group if chat else 1):
            job.advance(replies)
        job.notes |= notes

    def serve(self, jobs: Sequence[_Job]) -> None:
        """Brings ``jobs`` to their end, round by round. Raises `CancelledError`."""
        with cancelling.heeding(self.cancel):
            self._rounds(jobs)

    def _rounds(self, jobs: Sequence[_Job]) -> None:
        while open_jobs := [job for job in jobs if job.outcome is None]:
            if self.closed:
                return
            cancelling.check()
            # one call for the open questions of all jobs: a tournament of twenty rounds over fifty queries
            # is twenty full batches, not a thousand single questions
            refused = {id(job): job.refused() for job in open_jobs}
            asks = [(a, job.meters) for job in open_jobs if refused[id(job)] is None for a in job.asks]
            self._tell(asked=len(asks))
            replies = iter(self._replies(asks))
            if self.closed:
                return  # what was given up is no answer
            cancelling.check()
            for job in open_jobs:
                mine = refused[id(job)] or [next(replies) for _ in job.asks]
                for ask, reply in zip(job.asks, mine, strict=True):
                    job.note(ask, reply)
                    self._watch(job, ask, reply)
                self.advance(job, mine)
            self._tell(answered=len(asks))

    def _watch(self, job: _Job, ask: Ask, reply: Reply) -> None:
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

    def _tell(self, *, asked: int = 0, answered: int = 0) -> None:
        with self.lock:
            self.asked += asked
            self.answered += answered
            if self.progress:
                self.progress(self.answered, self.asked)

    def _replies(self, asks: list[tuple[Ask, tuple[Meter, ...]]]) -> list[Reply]:
        """Every question to whom it is for: the first stage or the model."""
        searches = [a for a, _ in asks if isinstance(a, Retrieve)]
        if not searches:
            return all_settled(self.chat, asks, _within)
        with self.lock:  # an index and its embedder serve one at a time
            found = iter(_retrieved(self.retriever, searches))
        others = [row for row in asks if not isinstance(row[0], Retrieve)]
        answered = iter(all_settled(self.chat, others, _within))
        return [next(found) if isinstance(a, Retrieve) else next(answered) for a, _ in asks]


def _retrieved(retriever: Retriever | None, searches: list[Retrieve]) -> list[Reply]:
    if retriever is None:
        lacking = ChatError("there is no index here that could be searched again")
        return [Reply(error=lacking, finish="error") for _ in searches]
    try:
        return [Reply(found=found) for found in retriever.retrieve(searches)]
    except (InputError, ImageIndexError) as error:  # candidates from elsewhere, an index that is gone
        failed = ChatError(f"the index cannot be searched again: {error}")
        return [Reply(error=failed, finish="error") for _ in searches]


def _within(chat: Chat | None, rows: list[tuple[Ask, tuple[Meter, ...]]]) -> list[Reply]:
    """Replies within the budgets of their questions; without budgets, in one call.

    Near a limit only so many are asked at once as fit at the most they can cost; when their real cost is
    known, the rest is tried again.
    """
    asks = [ask for ask, _ in rows]
    if not any(meters for _, meters in rows):
        return _reply(chat, asks)
    replies: dict[int, Reply] = {}
    if chat is not None:
        found = enumerate(chat.known(asks))  # cost nothing
        replies = {n: taken(asks[n], r, chat.spec) for n, r in found if r is not None}
    waiting = [n for n in range(len(rows)) if n not in replies]
    most = [(bound if chat is None else chat.bound)(ask) for ask in asks]
    # Ask what fits at its largest, learn what it really cost, ask again: a budget of 40,000 tokens sends more
    # than one question although the bounds of all together would pass it.
    while waiting:
        sent: list[int] = []
        why: dict[int, tuple[Meter, str]] = {}
        for n in waiting:
            refusal = _taken(rows[n][1], most[n])
            if refusal is None:
                sent.append(n)
            else:
                why[n] = refusal
        if not sent:
            # others may hold more than they will spend; what they leave is asked for again
            if any(m.settling() for m in {m for n in waiting for m in rows[n][1]}):
                continue
            for n in waiting:
                refused, limit = why[n]
                refused.exhausted = limit
                spent = BudgetError(f"not asked: the budget of {limit} is spent")
                replies[n] = Reply(error=spent, finish="error")
            break
        left = [s for n in sent for m in rows[n][1] if (s := m.seconds_left()) is not None]
        try:
            answers = _reply(chat, [asks[n] for n in sent], min(left, default=None))
        except BaseException:
            # who shares a meter would wait for ever for what is set aside
            for n in sent:
                for meter in rows[n][1]:
                    meter.settle(most[n], Usage())
            raise
        for n, reply in zip(sent, answers, strict=True):
            used = reply.usage
            if reply.error is None and used.calls and not used.input_tokens + used.output_tokens:
                used = most[n]  # a server that does not count is taken to have used all it could
            for meter in rows[n][1]:
                meter.settle(most[n], used)
            replies[n] = reply
        waiting = [n for n in waiting if n not in replies]
    return [replies[n] for n in range(len(rows))]


def _taken(meters: tuple[Meter, ...], most: Usage) -> tuple[Meter, str] | None:
    """Sets ``most`` aside with every meter, or with none and says whose limit it does not fit, and which."""
    for place, meter in enumerate(meters):
        if why := meter.take(most):
            for other in meters[:place]:
                other.settle(most, Usage())
            return meter, why
    return None


def _reply(chat: Chat | None, asks: list[Ask], seconds: float | None = None) -> list[Reply]:
    if not asks:
        return []
    if chat is None:
        raise CapabilityError("this method asks a language model, and none was given; use --chat")

    def ask_all(some: Sequence[Ask]) -> Sequence[Reply]:
        return chat.reply(some) if seconds is None else chat.reply_within(some, seconds)

    try:
        return asked(ask_all, asks, chat.spec)
    except ModelError:
        raise
    except ChatError as error:
        if error.systemic:  # it concerns every question
            raise Stopped(error, "no further question is asked") from error
        return [Reply(error=error, finish="error") for _ in asks]


def _whole(outcome: Any) -> Outcome:
    assert isinstance(outcome, Outcome), "a strategy must return an Outcome"
    return outcome
