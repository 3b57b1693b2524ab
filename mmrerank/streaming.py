"""Rankings that are watched from outside: as an iterator of events, and for asynchronous programs.

The ranking runs in a thread of its own and is cancelled when nobody wants it any more. Whoever stops waiting
waits until no model is being asked for them.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from queue import SimpleQueue
from types import TracebackType
from typing import TypeVar

from mmrerank.errors import CancelledError
from mmrerank.events import Done, Event, OnEvent
from mmrerank.results import SearchResult

T = TypeVar("T")
Work = Callable[[OnEvent, threading.Event], object]
"""A ranking that tells of its events, `Done` the last, and ends soon after the token is set."""


class Stream(Iterator[Event]):
    """The events of one ranking as they come; the last is `Done`, with the result.

    An error of the ranking is raised by the iteration. Leaving it early (`close`, the end of a ``with``, or
    dropping it) cancels the ranking and waits for the model to finish what it has begun.

    >>> from mmrerank import Reranker
    >>> texts = [{"id": name, "text": name} for name in ("a house", "a red boat")]
    >>> [event.name for event in Reranker("pointwise", "oracle").stream("a red boat", texts)]
    ['judged', 'judged', 'order', 'done']
    """

    def __init__(self, work: Work) -> None:
        self._events: SimpleQueue[Event | BaseException | None] = SimpleQueue()
        self._cancel = threading.Event()
        self._over = False
        self._result: SearchResult | None = None
        # the thread must not hold the stream, or dropping it would go unnoticed
        self._thread = threading.Thread(
            target=_run, args=(work, self._events, self._cancel), name="ranking", daemon=True
        )
        self._thread.start()

    def __next__(self) -> Event:
        if self._over:
            raise StopIteration
        found = self._events.get()
        if isinstance(found, Event):
            if isinstance(found, Done):
                self._result = found.result
            return found
        self._over = True
        if found is None or (self._cancel.is_set() and isinstance(found, CancelledError)):
            raise StopIteration
        raise found

    @property
    def result(self) -> SearchResult:
        """The result; waits for it. Raises what the ranking raised, `CancelledError` after `close`."""
        for _ in self:
            pass
        if self._result is None:
            raise CancelledError("the stream was closed before the ranking was done")
        return self._result

    def close(self) -> None:
        """Cancels the ranking, if it is not done, and waits until its last question is answered."""
        self._over = True
        self._cancel.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # nobody can wait here: what the model has begun ends by itself
        self._cancel.set()


def _run(work: Work, events: SimpleQueue[Event | BaseException | None], cancel: threading.Event) -> None:
    try:
        work(events.put, cancel)
        events.put(None)
    except BaseException as error:  # raised where the stream is read
        events.put(error)


async def finished(work: Callable[[threading.Event], T]) -> T:
    """``work`` in a thread; cancelling the task sets its token, and ends when the thread has ended."""
    cancel = threading.Event()
    task = asyncio.ensure_future(asyncio.to_thread(work, cancel))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        cancel.set()
        await _ended(task)
        raise


async def _ended(task: asyncio.Future[T]) -> None:
    """Waits for ``task`` to end in whatever way, also where its waiter is cancelled again."""
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            continue
    if not task.cancelled():
        task.exception()  # seen


async def events(work: Work) -> AsyncGenerator[Event, None]:
    """The events of ``work`` as they come, the last is `Done`; the loop is never blocked.

    Closing the generator, or cancelling the task that reads it, cancels the ranking.
    """
    loop, queue, cancel = asyncio.get_running_loop(), asyncio.Queue[Event | None](), threading.Event()

    def tell(event: Event) -> None:
        loop.call_soon_threadsafe(queue.put_nowait, event)

    task = asyncio.ensure_future(asyncio.to_thread(work, tell, cancel))
    task.add_done_callback(lambda _: queue.put_nowait(None))
    try:
        while (event := await queue.get()) is not None:
            yield event
        task.result()  # raises what the ranking raised
    finally:
        cancel.set()
        await _ended(task)
