"""`Reranker`: one method with one backend, for candidates from anywhere.

It turns what people hold (paths, PIL images, bytes, dictionaries) into candidates, drives the method over
one query or many together, and returns rankings with their explanation. First-stage search is not here.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mmrerank import catalog, registry
from mmrerank.arithmetic import folded, remarks, unfolded
from mmrerank.best import best, check_best
from mmrerank.budget import Budget, Meter
from mmrerank.chat.around import around
from mmrerank.chat.open import open_chat
from mmrerank.chat.scoring import ScorerChat
from mmrerank.config import build
from mmrerank.errors import UsageError
from mmrerank.events import Done, Event, OnEvent
from mmrerank.inputs import AllowUrls, pairs, to_query, typed, watching
from mmrerank.inputs import to_candidate as to_candidate
from mmrerank.inputs import to_image as to_image
from mmrerank.inputs import to_ranking as to_ranking
from mmrerank.limits import check_count, in_force, way
from mmrerank.ports import Chat, Judging, Retriever, Scorer, StrategyOptions
from mmrerank.rerank import profiles
from mmrerank.rerank.drive import Driven, Progress, check, drive
from mmrerank.rerank.methods import parse_method
from mmrerank.rerank.relevance import lawful
from mmrerank.rerank.sparing import SHOWING, Searches, spared
from mmrerank.rerank.stopping import Stopped, Watch
from mmrerank.rerank.telling import Telling
from mmrerank.results import SearchResult, build_hits, in_first_order
from mmrerank.streaming import Stream, events, finished
from mmrerank.types import Failure, Query, Ranking, Repairs

_REASONS = 3  # of failures that a warning tells
_NAMED = 5  # candidates left out that a warning names
Method = str | Callable[[Query, Ranking], Judging]
"""A method of ``mmrerank list methods``, ``NAME(option=value)``, or a generator function of one's own."""


@dataclass(frozen=True, kw_only=True)
class _NoOptions(StrategyOptions):
    """A function of the user's takes its options where it is written."""


class Reranker:
    """A reranking method bound to a backend.

    ``name`` is a method of ``mmrerank list methods``, with options where wanted
    (``pointwise(alpha=0.9;beta=4)``), or a function ``(query, ranking)`` that yields lists
    of `mmrerank.messages.Ask` and returns a `mmrerank.ports.Outcome`; ``chat`` a backend or its spec
    (``transformers:PATH``, ``openai:MODEL@URL``; a method without needs takes none; default: the model
    that the catalogue means for images of ``corpus``, an index's domain);
    ``prompts`` is a prompt profile, by its name (``mmrerank list prompts``) or its folder (default: the
    model's); ``options`` are the method's own, as a mapping or as keywords; ``retriever`` (an
    `ImageSearch`) is what methods that search again ask. Raises `UsageError` for an unknown name or option
    and `CapabilityError` when the backend cannot do what the method needs.

    >>> texts = [{"id": name, "text": name} for name in ("a house", "a red boat")]
    >>> [hit.id for hit in Reranker("pointwise", "oracle").rank("a red boat", texts)]
    ['a red boat', 'a house']
    """

    def __init__(
        self,
        name: Method,
        chat: str | Chat | Scorer | None = None,
        *,
        corpus: str = "",
        retriever: Retriever | None = None,
        cache: Path | str = "",
        record: Path | str = "",
        prompts: Path | str = "",
        budget: Budget | None = None,
        total: Budget | Meter | None = None,
        options: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> None:
        if not isinstance(name, str) and not callable(name):
            raise UsageError(f"a method is a name or a function, not {type(name).__name__}")
        typed("budget", budget, (Budget,), "a mmrerank.Budget")
        typed("total", total, (Budget, Meter), "a mmrerank.Budget")
        typed("cache", cache, (str, Path), "a path, or off")
        typed("record", record, (str, Path), "a path, or off")
        typed("options", options, (Mapping,), "a mapping of a method's options")
        if retriever is not None and "retrieve" not in dir(retriever):
            raise UsageError(f"a retriever is an ImageSearch, not {type(retriever).__name__}")
        own = None if isinstance(name, str) else name
        self.name, named = parse_method(name) if isinstance(name, str) else (_name_of(name), {})
        self.retriever = retriever
        self.budget = budget
        self.total = Meter(total) if isinstance(total, Budget) else total
        self._watch, self._searches = Watch(), Searches()
        self.module: Any = _own(own) if own else registry.load("strategy", self.name)
        chosen = {**named, **(options or {}), **more}
        self.options = build(self.module.Options, chosen, where=f"method {self.name}")
        needs = [n for n in registry.needs_of(self.module, self.options) if n != "retrieve"]
        folder = profiles.folder_of(prompts)  # a wrong one is reported before a model is loaded
        # a method without needs never costs the loading of a model; a function's are not known
        self.chat = _opened(chat, corpus) if needs or own else None
        if self.chat is not None:
            self.chat = around(self.chat, cache=cache, record=record, prompts=folder)
        check(self.chat, needs, self.name)

    def rank(
        self,
        query: str | Query,
        images: Sequence[Any] | Ranking,
        *,
        top_n: int | None = None,
        threshold: float | None = None,
        progress: Progress | None = None,
        cancel: threading.Event | None = None,
        on_event: OnEvent | None = None,
        allow_urls: AllowUrls = False,
    ) -> SearchResult:
        """Ranks ``images`` (see `to_candidate`; the order given is the first-stage order) for ``query``.

        ``top_n`` and ``threshold`` keep the best alone (`mmrerank.best.best`). With ``allow_urls`` candidates
        may be addresses of pictures: of the public internet, or as `mmrerank.images.urls.Urls` says.
        """
        found = self.rank_batch(
            [(query, images)],
            top_n=top_n,
            threshold=threshold,
            progress=progress,
            cancel=cancel,
            on_event=on_event,
            allow_urls=allow_urls,
        )
        return found[0]

    def stream(self, query: str | Query, images: Sequence[Any] | Ranking, **settings: Any) -> Stream:
        """`rank` with the same ``settings``, as an iterator of `mmrerank.events`; closing it cancels the
        ranking.
        """
        return Stream(lambda tell, cancel: self.rank(query, images, **settings, on_event=tell, cancel=cancel))

    async def arank(
        self, query: str | Query, images: Sequence[Any] | Ranking, **settings: Any
    ) -> SearchResult:
        """`rank` for asynchronous programs: in a thread, cancelled with the task that waits for it."""
        return await finished(lambda cancel: self.rank(query, images, **settings, cancel=cancel))

    def astream(
        self, query: str | Query, images: Sequence[Any] | Ranking, **settings: Any
    ) -> AsyncGenerator[Event, None]:
        """`stream` for ``async for``."""
        return events(lambda tell, cancel: self.rank(query, images, **settings, on_event=tell, cancel=cancel))

    def rank_batch(
        self,
        requests: Sequence[tuple[str | Query, Sequence[Any] | Ranking]],
        *,
        top_n: int | None = None,
        threshold: float | None = None,
        progress: Progress | None = None,
        cancel: threading.Event | None = None,
        on_event: OnEvent | None = None,
        allow_urls: AllowUrls = False,
    ) -> list[SearchResult]:
        """Ranks many requests, driven together so that they share the model's batches.

        Of each, the ``top_n`` best are kept, and of those with a relevance of ``threshold`` or more.
        A picture that cannot be shown costs its candidate's place and nothing else. Raises `UsageError` for a
        query or candidates that say nothing, `InputError` for a reference image that cannot be shown, and
        `Stopped` (a `ChatError`, with the results that were complete) when all that is left would fail too.
        `CancelledError` soon after ``cancel`` is set, by whatever thread: no further question is sent.
        ``on_event`` is called with each of `mmrerank.events` as it happens.
        """
        check_best(self.name, top_n, threshold)
        try:
            results = self.ranked(
                requests, progress=progress, cancel=cancel, on_event=on_event, allow_urls=allow_urls
            )
        except Stopped as stopped:
            kept = stopped.results.items()
            stopped.results = {n: best(r, top_n=top_n, threshold=threshold) for n, r in kept}
            raise
        results = [best(r, top_n=top_n, threshold=threshold) for r in results]
        if on_event is not None:
            for n, result in enumerate(results):
                on_event(Done(request=n, result=result))
        return results

    def ranked(
        self,
        requests: Sequence[tuple[str | Query, Sequence[Any] | Ranking]],
        *,
        progress: Progress | None = None,
        cancel: threading.Event | None = None,
        on_event: OnEvent | None = None,
        allow_urls: AllowUrls = False,
    ) -> list[SearchResult]:
        """`rank_batch` without its last event, for who has more to do with the results."""
        watching(progress, cancel, on_event)
        asked = pairs(requests)
        queries = [to_query(q) for q, _ in asked]
        told = [folded(q) for q in queries]
        rankings = [to_ranking(c, allow_urls=allow_urls) for _, c in asked]
        for ranking in rankings:
            self._check_work(len(ranking))
        try:
            driven = drive(
                [self._judging(q, r) for q, r in zip(told, rankings, strict=True)],
                self.chat,
                retriever=unfolded(self.retriever, told, queries),
                progress=progress,
                budget=self.budget,
                total=self.total,
                watch=self._watch,
                cancel=cancel,
                tellings=[]
                if on_event is None
                else [Telling(on_event=on_event, ids=r.ids, request=n) for n, r in enumerate(rankings)],
            )
        except Stopped as stopped:
            whole = stopped.finished.items()
            stopped.results = {n: self._result(queries[n], rankings[n], one) for n, one in whole}
            raise
        return [self._result(*row) for row in zip(queries, rankings, driven, strict=True)]

    def _check_work(self, count: int) -> None:
        """Raises `UsageError` where a model would have to look at more, or be asked more, than is allowed."""
        asked = self.options.calls(count)
        if self.chat is None or asked == 0:
            return
        check_count("candidates", max(count, 1), "the number of candidates")
        most = in_force().questions
        if asked is not None and asked > most and (self.budget is None or self.budget.calls is None):
            raise UsageError(
                f"{self.name} may ask {asked:,} questions about {count:,} candidates, and a ranking may ask "
                f"{most:,}: take fewer candidates or another method, or give a budget of calls; "
                f"{way('questions')}"
            )

    def _judging(self, query: Query, ranking: Ranking) -> Judging:
        def rank(query: Query, ranking: Ranking) -> Judging:
            judging: Judging = self.module.rank(query, ranking, self.options)
            return judging

        return spared(rank, query, ranking, self._searches)

    def _result(self, query: Query, before: Ranking, driven: Driven) -> SearchResult:
        outcome = driven.outcome
        # nothing of what was given is lost, whatever the strategy did
        after = before.with_head(outcome.ranking)
        explanation = lawful(outcome.explanation, after.ids)
        hits = build_hits(before, after, explanation)
        return SearchResult(
            query=query,
            hits=hits,
            first=in_first_order(hits, len(hits)),
            method=self.name,
            explanation=explanation,
            usage=driven.usage,
            repairs=_marked(driven),
            warnings=(
                *_warnings(driven),
                *driven.notes,
                *outcome.notes,
                *_cut(outcome.ranking, driven),
                *(remarks(query, self.name) if self.name != "none" else ()),
            ),
            failures=_reasons(driven),
            trace=driven.trace,
        )


def _name_of(method: Callable[..., Any]) -> str:
    # a partial or an object with __call__ has no name of its own
    return getattr(method, "__name__", "own method")  # not every callable has a name


def _own(method: Callable[[Query, Ranking], Judging]) -> SimpleNamespace:
    """A user's function in the place of a strategy's module."""
    return SimpleNamespace(
        NEEDS=(), Options=_NoOptions, rank=lambda query, ranking, options: method(query, ranking)
    )


def _opened(chat: str | Chat | Scorer | None, corpus: str) -> Chat | None:
    if chat is None or isinstance(chat, str):
        spec = chat or (catalog.chosen("chat", "", corpus) if corpus else "")
        return open_chat(spec) if spec else None
    if isinstance(chat, Scorer):  # it stands where a chat does
        return ScorerChat(chat)
    registry.check(chat, Chat, "the chat that was given")
    return chat


def _marked(driven: Driven) -> Repairs:
    """The method's own count; questions left unasked for want of budget are failures, whatever it says."""
    repairs = driven.outcome.repairs
    failed = max(repairs.failed, min(driven.unasked, 1))
    return replace(repairs, failed=failed, written=driven.written.again)


def _warnings(driven: Driven) -> tuple[str, ...]:
    """What to tell the user when judgements failed: how many, why, and what stands instead."""
    left = driven.outcome.left_out
    told = [_left_out(left)] if left else []
    failed = _marked(driven).failed - len(left)
    failures = _reasons(driven)[1:] if left else _reasons(driven)
    why = "; ".join(f.text for f in failures[:_REASONS])
    if driven.unasked:
        spent = next(f.example for f in failures if f.kind == "budget")
        told.append(
            f"{driven.unasked} question(s) had no budget left ({spent}), {failed} judgement(s) failed; "
            "where they did, the first-stage order stands"
        )
    elif failed:
        reasons = f" ({why})" if why else ""
        told.append(f"{failed} judgement(s) failed{reasons}; where they did, the first-stage order stands")
    else:
        # such as a first stage that could not be asked again: nothing stands on its head for that
        told += [f.text for f in failures[:_REASONS]]
    return tuple(told)


def _cut(ranking: Ranking, driven: Driven) -> list[str]:
    """Says which texts were too long to be read whole."""
    most = in_force().caption_characters
    long = [c.id for c in ranking if c.text is not None and len(c.text) > most]
    if not long or not driven.trace.steps:
        return []
    more = f" and {len(long) - _NAMED} more" if len(long) > _NAMED else ""
    names = ", ".join(long[:_NAMED]) + more
    return [
        f"of {len(long)} long text(s) the model was shown the first {most:,} characters ({names}); "
        f"{way('caption_characters')}"
    ]


def _reasons(driven: Driven) -> tuple[Failure, ...]:
    """Why judgements failed: candidates that were left out count once, whatever they spoilt before."""
    left = driven.outcome.left_out
    if not left:
        return driven.failures
    id_, why = next(iter(left.items()))
    out = Failure(kind=SHOWING, example=f"{id_}: {why}", count=len(left))
    others = driven.outcome.repairs.failed > len(left) or driven.unasked
    return (out, *(f for f in driven.failures if others and f.kind != SHOWING))


def _left_out(left: Mapping[str, str]) -> str:
    """Which candidates were in no question, and why."""
    names = "; ".join(f"{i}: {why}" for i, why in list(left.items())[:_NAMED])
    more = f"; and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
    s, keep = ("", "its first-stage place") if len(left) == 1 else ("s", "their first-stage places")
    return f"{len(left)} candidate{s} left out of the questions, keeping {keep}: {names}{more}"
