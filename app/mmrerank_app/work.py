"""Runs searches beside the page: one at a time, watched, and given up when the visitor leaves."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

T = TypeVar("T")
LOOK_EVERY = 0.5
"""Seconds between two looks whether the visitor is still there: Gradio can tell only between two values."""


class Watched:
    """One piece of work: how far it is, and whether its result is still wanted."""

    def __init__(self) -> None:
        self.answered = self.asked = 0
        self.left = threading.Event()

    def progress(self, answered: int, asked: int) -> None:
        """Notes how far the work is."""
        self.answered, self.asked = answered, asked

    @property
    def words(self) -> str:
        """How far the work is, as a sentence."""
        return f"{self.answered} of {self.asked} questions answered" if self.asked else "waiting to begin"


class Work:
    """One thread for all visitors, since a model and an index serve one search at a time."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="search")
        self._running: set[Watched] = set()

    def run(self, task: Callable[[Watched], T]) -> Generator[Watched, None, T]:
        """Yields how far ``task`` is until it is done, and returns its result or raises its error.

        When the generator is closed, as Gradio does when the visitor leaves, a task that has not begun never
        begins, and one that runs sees ``left`` set (``cancel`` of `mmrerank.ImageSearch.search`).
        """
        watched = Watched()
        future = self._pool.submit(task, watched)
        self._running.add(watched)
        try:
            while not wait([future], timeout=LOOK_EVERY).done:
                yield watched
            return future.result()
        finally:
            watched.left.set()
            future.cancel()
            self._running.discard(watched)

    def close(self) -> None:
        """Begins nothing more, and tells what runs that nobody waits for it."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for watched in tuple(self._running):
            watched.left.set()
