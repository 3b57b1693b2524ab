"""The event loop on which questions to a server wait side by side, for callers of any thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from mmrerank import cancel
from mmrerank.answering import Numbered
from mmrerank.errors import BudgetError, ChatError, UsageError
from mmrerank.messages import Ask, Reply
from mmrerank.types import Usage

_LOOKS = 0.1  # seconds between looks whether an answer is still wanted
_ENDING = 10.0  # seconds that questions may take to end once they are given up
_T = TypeVar("_T")
_Answer = tuple[int, Reply] | BaseException


class Loop:
    """A loop in a thread of its own; ``place`` names the server in errors."""

    def __init__(self, name: str, place: Any) -> None:
        self._place = place
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name=name, daemon=True)
        self.thread.start()
        self._under_way: set[asyncio.Task[Any]] = set()

    def _started(self, work: Coroutine[Any, Any, _T]) -> concurrent.futures.Future[_T]:
        if self.loop.is_closed():
            work.close()
            raise UsageError(f"{self._place} was closed; open it again")
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def wait(self, work: Coroutine[Any, Any, _T]) -> _T:
        """What ``work`` returns or raises."""
        future = self._started(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def each(
        self,
        one: Callable[[Ask, float], Coroutine[Any, Any, Reply]],
        asks: Sequence[Ask],
        seconds: float | None,
    ) -> Numbered:
        """Replies of ``one(ask, now)`` as they come; a `BudgetError` for what has none after so many seconds.

        Whatever ends this early ends the questions under way, before it returns.
        """
        if not asks:
            return
        answers: SimpleQueue[_Answer] = SimpleQueue()
        tasks: dict[asyncio.Task[Reply], int] = {}
        unwanted = threading.Event()
        work = self._started(self._round(one, asks, seconds, answers.put, tasks, unwanted))
        try:
            for _ in asks:
                found = self._next(answers, work)
                if isinstance(found, BaseException):
                    raise found
                yield found
        finally:
            unwanted.set()
            if not work.done() and not self.loop.is_closed():
                self.loop.call_soon_threadsafe(lambda: [task.cancel() for task in tasks])
                concurrent.futures.wait([work], timeout=_ENDING)  # no call outlives who asked

    def _next(self, answers: SimpleQueue[_Answer], work: concurrent.futures.Future[None]) -> _Answer:
        while True:
            cancel.check()
            try:
                return answers.get(timeout=_LOOKS)
            except Empty:
                if work.done() and answers.empty():
                    raise self._given_up() from None

    def _given_up(self) -> ChatError:
        return ChatError(f"{self._place} was given up while it was asked")

    async def _round(
        self,
        one: Callable[[Ask, float], Coroutine[Any, Any, Reply]],
        asks: Sequence[Ask],
        seconds: float | None,
        tell: Callable[[_Answer], None],
        tasks: dict[asyncio.Task[Reply], int],
        unwanted: threading.Event,
    ) -> None:
        """Asks side by side and tells each reply; the first error is told and ends the rest."""
        if unwanted.is_set():
            return
        began = time.monotonic()
        tasks.update({asyncio.ensure_future(one(ask, began)): n for n, ask in enumerate(asks)})
        self._under_way.update(tasks)
        left, end = set(tasks), None if seconds is None else began + seconds
        try:
            while left:
                most = None if end is None else max(end - time.monotonic(), 0.0)
                done, left = await asyncio.wait(left, timeout=most, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    break
                for task in sorted(done, key=lambda t: tasks[t]):
                    tell((tasks[task], task.result()))
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            gone = BudgetError(f"{self._place} had not answered when the time was over")
            over = Reply(error=gone, finish="error", usage=Usage(calls=1))
            for task in left:
                tell((tasks[task], over if task.cancelled() else task.result()))
        except asyncio.CancelledError:
            tell(self._given_up())
        except BaseException as error:  # who waits raises it, in their own thread
            tell(error)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._under_way.difference_update(tasks)

    def cancel(self) -> None:
        """Gives up every question under way; the calls that wait for them end with an error."""

        def give_up() -> None:
            for task in self._under_way:
                task.cancel()

        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(give_up)
