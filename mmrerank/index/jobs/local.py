"""The shards of a job on this machine: in this process, or in several."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path

from mmrerank.errors import ImageIndexError, MmrerankError, ModelError, in_short
from mmrerank.index.jobs import plan as planning
from mmrerank.index.jobs import shards
from mmrerank.index.jobs.plan import Plan, PlanPart
from mmrerank.ports import Embedder

Opener = Callable[[], Embedder]
"""Opens the embedder in a worker. It is pickled: a function of a module, or a ``partial`` of one."""
Done = Callable[[int], None]
"""Called with a number of images that are done."""
_LAST_SECONDS = 5.0  # for a worker to end when it is told to


def here(work: Path, plan: Plan, parts: Sequence[PlanPart], embedder: Embedder, done: Done) -> None:
    """Embeds the shards one after another in this process."""
    for part in parts:
        shards.embed(work, plan, part, embedder, done)


def processes(
    work: Path, plan: Plan, parts: Sequence[PlanPart], opener: Opener, workers: int, done: Done
) -> None:
    """Embeds the shards in ``workers`` processes of this machine, each with an embedder of its own.

    A process that is killed loses its shard, and another one begins it anew. Raises `ModelError` where that
    happens too often to one shard, or where a worker cannot go on.
    """
    left = deque(parts)
    team = [_Worker(work, opener, workers) for _ in range(min(workers, len(parts)))]
    try:
        while left or any(w.part for w in team):
            for worker in team:
                if left and worker.part is None:
                    worker.give(left.popleft())
            ready = wait([w.pipe for w in team if w.part])
            for number, worker in enumerate(team):
                if worker.pipe not in ready or worker.part is None:
                    continue
                part, worker.part = worker.part, None
                said = worker.answer()
                if said is None:  # it was killed
                    left.appendleft(part)
                    worker.end()
                    team[number] = _Worker(work, opener, workers)
                elif said:
                    raise failed(part.number, said)
                else:
                    done(part.images)
    finally:
        for worker in team:
            worker.end()


class _Worker:
    """A process that makes the shards it is given, one at a time."""

    def __init__(self, work: Path, opener: Opener, workers: int) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.part: PlanPart | None = None
        threads = max(1, (os.cpu_count() or 1) // workers)
        self._process = context.Process(
            target=_serve, args=(theirs, work, opener, threads), daemon=True, name="mmrerank-shards"
        )
        self._process.start()
        theirs.close()

    def give(self, part: PlanPart) -> None:
        """Has it make a shard; one that has ended says so in `answer`."""
        self.part = part
        try:
            self.pipe.send(part.number)
        except OSError:
            return

    def answer(self) -> str | None:
        """Empty when the shard is there, else what is wrong; None when the process has ended."""
        try:
            return str(self.pipe.recv())
        except (EOFError, OSError):
            return None

    def end(self) -> None:
        """Ends the process: one that has nothing to do by itself, another at once."""
        self.pipe.close()
        if self.part is not None:
            self._process.terminate()
        self._process.join(_LAST_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()


def _serve(pipe: Connection, work: Path, opener: Opener, threads: int) -> None:
    """What a worker does until nobody is at the other end any more."""
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    embedder: Embedder | None = None
    while True:
        try:
            number = pipe.recv()
        except (EOFError, OSError):
            return
        said = ""
        try:
            embedder = embedder or opener()
            make(work, number, embedder)
        except Exception as error:  # whatever it is, the process at the other end has to say it
            said = worded(error)
        pipe.send(said)


def make(work: Path, number: int, embedder: Embedder) -> None:
    """Makes shard ``number`` of the plan that lies in ``work``."""
    plan = planning.read(work)
    if plan is None:
        raise ImageIndexError(f"{work} has no plan; every worker must see this folder under this path")
    shards.embed(work, plan, plan.parts[number], embedder)


def failed(number: int, said: str) -> ModelError:
    """The error of a shard whose worker has ``said`` why."""
    name = f"shard {number:05d}"
    return ModelError(said if said.startswith(name) else f"{name} could not be made: {said}")


def worded(error: Exception) -> str:
    """An error of a worker, in words."""
    return str(error) if isinstance(error, MmrerankError) else in_short(error, 300)
