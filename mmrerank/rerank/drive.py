"""Runs strategies over a backend: the only place where judging meets I/O.

Many queries are driven together. Each round gathers the open questions of every unfinished query into one
call of `Chat.reply`, so that methods that are sequential within a query still fill the model's batch. Where
the backend has a batch of its own, as servers do (``Chat.concurrency``), every query goes at its own pace.
Usage is summed, budgets are held, every step is kept for the trace, and a backend that breaks costs
judgements, not results.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

from mmrerank.budget import Budget, Meter
from mmrerank.errors import CancelledError, CapabilityError
from mmrerank.limits import in_force
from mmrerank.ports import Chat, Judging, Retriever
from mmrerank.rerank.asking import plain_failure
from mmrerank.rerank.desk import Desk, Driven, Job, Progress
from mmrerank.rerank.stopping import Stopped, Watch
from mmrerank.rerank.telling import Telling

__all__ = ["Driven", "Progress", "check", "drive"]


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
            + (_RERANKERS if "score" in lacking else "transformers:PATH offers all of them")
        )


_RERANKERS = (
    "dedicated rerankers offer it, as in --chat rerank:MODEL@URL; `mmrerank list scorers` shows all forms"
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
    tellings: Sequence[Telling] = (),
) -> list[Driven]:
    """Drives every generator to its end and returns the results in the same order.

    ``retriever`` answers what is asked of the first stage; without one such a question fails.
    ``budget`` bounds each ranking, ``total`` all of them together and whatever else it is shared with; a
    question that does not fit gets a reply with a `BudgetError`, so that every method ends with what it
    knows. `mmrerank.budget` says what is promised.

    An error that concerns one question becomes that question's failed reply. `ModelError` (no such
    model or capability) is raised: no answer of this backend would mean anything. `Stopped` is raised, with
    what is finished, when a few questions in a row, or all, fail for a reason outside of them; ``watch``
    counts over several calls. `CancelledError` is raised soon after ``cancel`` is set, by whatever thread:
    what is being answered then is given up or finished, and nothing more is sent. ``tellings``, one for each
    generator, hear of every reply as it comes.
    """
    shared = () if total is None else (total,)
    own = [() if budget is None else (Meter(budget),) for _ in judgings]
    most = in_force().questions
    told: Sequence[Telling | None] = tellings or [None] * len(judgings)
    jobs = [
        Job(judging=j, meters=(*m, *shared), most=most, telling=t)
        for j, m, t in zip(judgings, own, told, strict=True)
    ]
    watch = watch or Watch()
    if chat is not None:
        watch.plain = lambda: plain_failure(chat)
    desk = Desk(chat=chat, retriever=retriever, progress=progress, watch=watch, cancel=cancel)
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


def _each_alone(desk: Desk, jobs: Sequence[Job], crew: int) -> None:
    """Every job in a thread of its own, so many at a time; the first error ends them all."""
    pool = ThreadPoolExecutor(crew, thread_name_prefix="ranking")
    try:
        running = [pool.submit(desk.serve, [job]) for job in jobs]
        wait(running, return_when=FIRST_EXCEPTION)
        if desk.failed is not None:
            raise desk.failed
    except BaseException as error:
        desk.closed = True
        pool.shutdown(wait=False, cancel_futures=True)
        # who cancels one ranking leaves alone what others ask of the same model
        if desk.chat is not None and not isinstance(error, CancelledError):
            desk.chat.cancel()
        raise
    finally:
        pool.shutdown()
