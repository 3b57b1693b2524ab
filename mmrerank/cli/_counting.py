"""A forecast for sources that do not say how many images they hold: they are counted beside the work."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from mmrerank.errors import MmrerankError

Progress = Callable[[int, int | None], None]
_PATIENCE = 3.0
"""Seconds after which a run is worth a forecast; a short one is never counted."""


def counted(step: Progress, sources: Sequence[str]) -> Progress:
    """``step`` with the number of images as soon as it is known, where whoever calls it does not know.

    Folders are walked a second time, in a thread, once the work has lasted for some seconds. Others are not.
    """
    begun = time.monotonic()
    total: list[int] = []
    started = False

    def count() -> None:
        from mmrerank.corpus import open_corpora
        from mmrerank.corpus.folder import FolderCorpus

        try:
            corpora = open_corpora(sources)
            if all(isinstance(c, FolderCorpus) for c in corpora):
                total.append(sum(1 for c in corpora for _ in c.samples()))
        except MmrerankError:  # the run itself reports it
            return

    def tell(done: int, of: int | None) -> None:
        nonlocal started
        if of is None and not started and time.monotonic() - begun > _PATIENCE and "-" not in sources:
            started = True
            threading.Thread(target=count, daemon=True).start()
        step(done, of if of is not None or not total else max(done, total[0]))

    return tell
