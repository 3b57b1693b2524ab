"""The main job on the bundled defaults: draw the picture book, index it, search, rerank, explain.

Everything goes through the public search object, as for any folder of pictures. The model is asked anew
each time. The truth of the scenes is used for one thing only: to tell the viewer which of the
first ten pictures show all that was asked, before and after.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmrerank.corpus.folder import open as open_folder
from mmrerank.embed.open import open_embedder
from mmrerank.errors import InputError, UsageError
from mmrerank.index import manifest
from mmrerank.index.folders import is_index
from mmrerank.index.index import ImageIndex, index_path
from mmrerank.picturebook.cards import DOMAIN
from mmrerank.picturebook.export import World, draw_world
from mmrerank.picturebook.queries import DemoQuery, Truth, make_queries, make_unmatched
from mmrerank.picturebook.world import stream
from mmrerank.result_page import page
from mmrerank.results import SearchResult
from mmrerank.search import ImageSearch
from mmrerank.types import Query

SCENES = 400
SEED = 2026
CATEGORIES = ("binding", "count", "relation", "exclusion", "setting")
Progress = Callable[[str, int, int], None]
"""Called with (what is being done, how much is done, of how much)."""


@dataclass(frozen=True, kw_only=True)
class DemoSearch:
    """One search of the demo; ``before`` and ``after`` say for each place whether it is a full match.

    They are empty, and ``full_in_all`` None, for a text of the user's own, whose truth nobody knows.
    """

    result: SearchResult
    before: tuple[bool, ...] = ()
    after: tuple[bool, ...] = ()
    full_in_all: int | None = None


@dataclass(frozen=True, kw_only=True)
class DemoRun:
    """What a demo did: its searches, where the index and the report lie, seconds by stage."""

    searches: tuple[DemoSearch, ...]
    index: Path
    report: Path
    seconds: Mapping[str, float]


def prepare_demo(
    index: str = "demo", *, scenes: int = SCENES, seed: int = SEED, progress: Progress | None = None
) -> World:
    """Draws and indexes the picture book, or finds both as they were. The pictures lie beside the index."""
    where = index_path(index)
    book = draw_world(
        where.with_name(where.name + "-pictures"),
        seed=seed,
        scenes=scenes,
        progress=_stage(progress, "drawing"),
    )
    corpus = open_folder(str(book.images))
    embedder = open_embedder("bundled")
    ImageIndex.build(
        where,
        corpus,
        embedder,
        domain=DOMAIN,
        allow_removal=True,
        rebuild=_outgrown(where, embedder.fingerprint),
        progress=_stage(progress, "indexing"),
    )
    return book


def _outgrown(index: Path, fingerprint: str) -> bool:
    """Whether ``index`` is an earlier demo's, made with other bundled weights; nobody else's is touched."""
    if not is_index(index):
        return False
    old = manifest.read(index)
    return (old.domain, old.embedder) == (DOMAIN, "bundled") and old.fingerprint != fingerprint


def example_queries(scenes: int = SCENES, seed: int = SEED) -> list[DemoQuery]:
    """One search of each text category over the demo's scenes, and one that nothing meets."""
    from mmrerank.picturebook.export import evaluation_scenes

    drawn = evaluation_scenes(seed, scenes)
    truth, rng = Truth(drawn), stream("evaluation", seed + 17)
    asked = make_queries(
        drawn, len(CATEGORIES), rng, "evaluation", min_match=2, categories=CATEGORIES, truth=truth
    )
    return [*asked, *make_unmatched(drawn, 1, rng, "evaluation", truth=truth)]


def run_demo(
    *,
    index: str = "demo",
    scenes: int = SCENES,
    seed: int = SEED,
    queries: Sequence[str] = (),
    chat: str = "bundled",
    method: str = "cotrr",
    k: int = 10,
    candidates: int = 20,
    options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    report: Path | None = None,
) -> DemoRun:
    """Runs the demo; ``queries`` are the user's own texts instead of the examples.

    Raises `UsageError` for an empty query, `InputError` when the report cannot be written.
    """
    clock = _Clock()
    if not all(q.strip() for q in queries):
        raise UsageError("a search needs words; --query is empty")
    target = report or Path("reports") / f"{Path(index).name}.html"
    with _writing(target):  # before any work is done for it
        target.parent.mkdir(parents=True, exist_ok=True)
    book = prepare_demo(index, scenes=scenes, seed=seed, progress=progress)
    clock.lap("draw and index")
    truth = Truth(book.scenes)
    asked = [] if queries else example_queries(scenes, seed)
    texts = [Query(text=q) for q in queries] or [Query(text=q.text, id=q.id) for q in asked]
    search = ImageSearch.open(index, chat=chat)
    results = search.search_batch(
        texts,
        k=k,
        rerank=method,
        candidates=candidates,
        options=options,
        progress=_stage(progress, "judging"),
    )
    clock.lap("search and rerank")
    with _writing(target):
        target.write_text(page(results, title="mmrerank on the picture book"), "utf-8")
    clock.lap("report")
    searches = (
        [_graded(r, q, book, truth) for r, q in zip(results, asked, strict=True)]
        if asked
        else [DemoSearch(result=r) for r in results]
    )
    return DemoRun(
        searches=tuple(searches), index=index_path(index), report=target.resolve(), seconds=clock.laps
    )


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"the report {target} cannot be written ({error.strerror}); run this where it can be"
        ) from error


def _graded(result: SearchResult, query: DemoQuery, book: World, truth: Truth) -> DemoSearch:
    grades = dict(zip(book.names, truth.grades(query.facts).tolist(), strict=True))
    return DemoSearch(
        result=result,
        before=tuple(grades[h.id] == 3 for h in result.first),
        after=tuple(grades[h.id] == 3 for h in result.hits),
        full_in_all=sum(g == 3 for g in grades.values()),
    )


class _Clock:
    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name] = round(now - self._last, 2)
        self._last = now


def _stage(progress: Progress | None, name: str) -> Callable[[int, int | None], None] | None:
    return None if progress is None else lambda done, total: progress(name, done, total or 0)
