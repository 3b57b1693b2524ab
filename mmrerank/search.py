"""`ImageSearch`: the object users hold. An index gathers, a method reranks, a result explains."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mmrerank import registry
from mmrerank.arithmetic import query_vectors
from mmrerank.best import best, check_best
from mmrerank.budget import Budget, Meter
from mmrerank.duplicates import Collapse, Groups, Looks, check_collapse
from mmrerank.embed.overlong import overlong
from mmrerank.errors import UsageError
from mmrerank.events import Done, Event, OnEvent, Searched
from mmrerank.filters.filter import Where
from mmrerank.gathering import Collapsed, Copies, copies_in, gathered, short
from mmrerank.gathering import Keep as Keep
from mmrerank.index.index import ImageIndex
from mmrerank.inputs import AllowUrls, several, to_query, typed, watching
from mmrerank.limits import check_count, in_force
from mmrerank.messages import Retrieve, Stored
from mmrerank.ports import Chat, Embedder, Retriever, Vectors
from mmrerank.query_embedder import words_embedder
from mmrerank.rerank.drive import Progress
from mmrerank.rerank.profiles import folder_of
from mmrerank.reranker import Method, Reranker
from mmrerank.results import SearchResult, build_hits, in_first_order
from mmrerank.stored import stored_vectors
from mmrerank.streaming import Stream, events, finished
from mmrerank.types import Candidate, Explanation, Hit, Query, Ranking


class ImageSearch:
    """Search over one index.

    Models are opened when first needed: opening an index and searching with given vectors loads none.

    >>> search = ImageSearch.open("photos", chat="qwen2.5-vl-7b")  # doctest: +SKIP
    >>> [hit.id for hit in search.search("a red boat", rerank="cotrr")]  # doctest: +SKIP
    """

    def __init__(
        self,
        index: ImageIndex,
        *,
        chat: str | Chat | None = None,
        embedder: str | Embedder = "",
        device: str = "",
        cache: Path | str = "",
        record: Path | str = "",
        prompts: Path | str = "",
        budget: Budget | None = None,
        total: Budget | Meter | None = None,
    ) -> None:
        if not isinstance(index, ImageIndex):
            raise UsageError(
                f"an ImageSearch takes an ImageIndex, not {type(index).__name__}; open takes a path"
            )
        typed("budget", budget, (Budget,), "a mmrerank.Budget")
        typed("total", total, (Budget, Meter), "a mmrerank.Budget")
        if not isinstance(embedder, str):
            registry.check(embedder, Embedder, "the embedder that was given")
        self.index = index
        self._chat = chat
        self._cache, self._record, self._budget = cache, record, budget
        folder_of(prompts)  # a wrong profile is an error here, not at the first search
        self._prompts = prompts
        self._total = Meter(total) if isinstance(total, Budget) else total
        self._embedder, self._device = embedder, device
        self._lock = threading.RLock()
        self._looks = Looks()

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        chat: str | Chat | None = None,
        embedder: str | Embedder = "",
        device: str = "",
        cache: Path | str = "",
        record: Path | str = "",
        prompts: Path | str = "",
        budget: Budget | None = None,
        total: Budget | Meter | None = None,
    ) -> ImageSearch:
        """Opens the index at ``path`` (a bare name is ``./indexes/NAME``).

        ``chat`` is a backend or its spec (``transformers:PATH``, ``openai:MODEL@URL``; default: the
        catalogue's model that is meant for such images, if there is one); ``embedder`` defaults to the one
        that made the index, unless that is a folder or file of this machine, which has to be named. It runs
        on ``device`` (default: a GPU where there is one). ``cache``, ``record``, ``prompts``, ``budget`` and
        ``total`` are those of `Reranker`. Raises `ImageIndexError`.
        """
        return cls(
            ImageIndex.open(path),
            chat=chat,
            embedder=embedder,
            device=device,
            cache=cache,
            record=record,
            prompts=prompts,
            budget=budget,
            total=total,
        )

    @property
    def embedder(self) -> Embedder:
        """The embedder, opened on first use. Raises `MismatchError` when the index was made with another,
        `ModelError` where only the index names a model of this machine.
        """
        with self._lock:
            return self._opened_embedder()

    def _opened_embedder(self) -> Embedder:
        if isinstance(self._embedder, str):
            where: dict[str, Any] = {"device": self._device} if self._device else {}
            self._embedder = words_embedder(self.index.manifest, self.index.path, self._embedder, **where)
        self.index.check_embedder(self._embedder)
        return self._embedder

    def first_stage(
        self, queries: Sequence[Query], k: int, *, keep: Keep | None = None, where: Where | None = None
    ) -> list[Ranking]:
        """The ``k`` nearest images of each query by inner product of unit vectors, of those that ``keep``
        takes and that satisfy ``where``.
        """
        where = None if where is None else self.index.filter(where)
        return [Ranking(found.kept) for found in self._gathered(queries, k, keep, None, where)]

    def _gathered(
        self, queries: Sequence[Query], k: int, keep: Keep | None, copies: Copies | None, where: Where | None
    ) -> list[Groups]:
        check_count("results", k, "k")
        with self._lock:  # an index and its embedder serve one at a time
            vectors = query_vectors(self.embedder, queries)
            return [self._nearest(v, k, keep, copies, where) for v in vectors]

    def _nearest(
        self, vector: Any, k: int, keep: Keep | None, copies: Copies | None, where: Where | None
    ) -> Groups:
        most = min(len(self.index), max(in_force().results, k))
        return gathered(lambda n: self.index.candidates(vector, n, where), k, most, keep=keep, copies=copies)

    def retrieve(
        self,
        requests: Sequence[Retrieve],
        *,
        keep: Keep | None = None,
        copies: Copies | None = None,
        where: Where | None = None,
    ) -> list[tuple[Candidate, ...]]:
        """What lies nearest to each request's query, moved where it says so (`mmrerank.ports.Retriever`)."""
        with self._lock:
            return self._moved(requests, keep, copies, where)

    def _moved(
        self, requests: Sequence[Retrieve], keep: Keep | None, copies: Copies | None, where: Where | None
    ) -> list[tuple[Candidate, ...]]:
        queries = [r.query for r in requests if r.query is not None]
        found: list[tuple[Candidate, ...]] = []
        for request, vector in zip(requests, query_vectors(self.embedder, queries), strict=True):
            moved = vector.astype(np.float64)
            if request.toward:
                weights = np.array(list(request.toward.values()))
                moved += weights @ self.index.vectors(list(request.toward)).astype(np.float64)
            found.append(self._nearest(moved.astype(np.float32), request.k, keep, copies, where).kept)
        return found

    def stored(self, request: Stored) -> tuple[Vectors, ...]:
        """The query's vector and the index's own of images (`mmrerank.ports.Retriever`)."""
        return stored_vectors(request, self.index, self.embedder, self._chat)

    def search(
        self,
        query: str | Query,
        *,
        k: int = 10,
        rerank: Method = "none",
        candidates: int = 20,
        images: Any = (),
        exclude: str | Sequence[str] = (),
        plus: Any = (),
        minus: Any = (),
        keep: Keep | None = None,
        where: Where | None = None,
        collapse: Collapse = "none",
        allow_urls: AllowUrls = False,
        top_n: int | None = None,
        threshold: float | None = None,
        progress: Progress | None = None,
        cancel: threading.Event | None = None,
        on_event: OnEvent | None = None,
        **options: Any,
    ) -> SearchResult:
        """The ``k`` best images for ``query``.

        The first ``candidates`` of the first stage are reranked by method ``rerank`` (``options`` are the
        method's); what lies beyond keeps first-stage order. ``images`` are reference images (paths, bytes,
        PIL images, arrays; addresses with ``allow_urls``) and ``exclude`` words that must not apply; both are
        added to those of a `Query`. ``plus`` and ``minus`` are words, images and `Term` that are added and
        taken away (`mmrerank.arithmetic`). Of copies, ``collapse`` shows the one that comes first
        (`mmrerank.duplicates`). Only images are searched that satisfy ``where``, a `Filter` or its text
        (``where='taken >= 2024-06'``), and that ``keep``, called with a `Candidate`, takes:
        ``keep=lambda c: c.metadata.get("year") == 2024``. ``top_n`` is another name of ``k``, and counts
        where it is smaller; with ``threshold`` only images that the method judged, with that relevance or
        more, are returned (`mmrerank.best.best`). Setting ``cancel``, from another thread, ends the ranking
        with `CancelledError`. ``on_event`` is called with each of `mmrerank.events` as it happens. Raises
        `UsageError` for more than `mmrerank.limits` allows and for what is of another kind.
        """
        asked = to_query(query, images, exclude, plus=plus, minus=minus, allow_urls=allow_urls)
        return self.search_batch(
            [asked],
            k=k,
            rerank=rerank,
            candidates=candidates,
            options=options,
            keep=keep,
            where=where,
            collapse=collapse,
            top_n=top_n,
            threshold=threshold,
            progress=progress,
            cancel=cancel,
            on_event=on_event,
        )[0]

    def stream(self, query: str | Query, **settings: Any) -> Stream:
        """`search` with the same ``settings``, as an iterator of `mmrerank.events`.

        First comes `Searched` with the first stage's hits, then the parts of the query, each judgement, and
        every change of the order; `Done` is the last. Closing it cancels the search.

        >>> with ImageSearch.open("photos").stream("a dog", rerank="cotrr") as events:  # doctest: +SKIP
        ...     for event in events:
        ...         print(event.to_dict())
        """
        return Stream(lambda tell, cancel: self.search(query, **settings, on_event=tell, cancel=cancel))

    async def asearch(self, query: str | Query, **settings: Any) -> SearchResult:
        """`search` for asynchronous programs: in a thread, cancelled with the task that waits for it."""
        return await finished(lambda cancel: self.search(query, **settings, cancel=cancel))

    def astream(self, query: str | Query, **settings: Any) -> AsyncGenerator[Event, None]:
        """`stream` for ``async for``; closing it, or cancelling its task, cancels the search."""
        return events(lambda tell, cancel: self.search(query, **settings, on_event=tell, cancel=cancel))

    def search_batch(
        self,
        queries: Sequence[str | Query],
        *,
        k: int = 10,
        rerank: Method = "none",
        candidates: int = 20,
        options: Mapping[str, Any] | None = None,
        keep: Keep | None = None,
        where: Where | None = None,
        collapse: Collapse = "none",
        top_n: int | None = None,
        threshold: float | None = None,
        progress: Progress | None = None,
        budget: Budget | None = None,
        cancel: threading.Event | None = None,
        on_event: OnEvent | None = None,
    ) -> list[SearchResult]:
        """`search` for many queries, whose questions share the model's batches.

        ``budget`` bounds each ranking here, where the search was opened without one.
        """
        check_count("results", k, "k")
        check_count("candidates", candidates, "candidates")
        check_collapse(collapse)
        watching(progress, cancel, on_event, keep=keep)
        asked = [to_query(q) for q in several(queries, "a batch")]
        where = None if where is None else self.index.filter(where)
        copies = copies_in(self.index, collapse, self._looks)
        within = _Within(search=self, keep=keep, copies=copies, where=where)
        # a wrong method, option or backend is reported before the embedder is loaded
        reranker = self._reranker(rerank, options, budget, within)
        check_best(reranker.name, top_n, threshold)
        k = min(k, top_n or k)
        groups = self._gathered(asked, max(k, candidates), keep, copies, where)
        within.queries = [
            Collapsed(query=q, groups=g, copies=within.copies) for q, g in zip(asked, groups, strict=True)
        ]
        rankings = [Ranking(g.kept) for g in groups]
        if on_event is not None:
            for n, found in enumerate(rankings):
                hits = within.queries[n].hits(build_hits(found, found, Explanation()))
                on_event(Searched(request=n, hits=hits[:k]))
        heads = [(q, Ranking(r.candidates[:candidates])) for q, r in zip(asked, rankings, strict=True)]
        few = min(map(len, rankings), default=k)
        lacking = self._short(few, max(k, candidates), keep, within.copies)
        if where is not None and not any(rankings):
            lacking.append(f"no image of the index satisfies {where}")
        warnings = [*self._warnings(reranker.chat), *lacking]
        results = []
        reranked = reranker.ranked(heads, progress=progress, cancel=cancel, on_event=on_event)
        for before, head, collapsed in zip(rankings, reranked, within.queries, strict=True):
            cut = overlong(self.embedder, head.query)
            after = before.with_head(Ranking(tuple(h.candidate for h in head)))
            hits = collapsed.hits(build_hits(before, after, head.explanation))
            hits, told = self._looked_at(hits, k, 0 if head.method == "none" else len(head))
            told = [*warnings, *cut, *told, *collapsed.warnings(hits[:k]), *head.warnings]
            whole = replace(head, hits=hits, first=in_first_order(hits, k), warnings=tuple(told))
            results.append(best(whole, top_n=k, threshold=threshold))
            if on_event is not None:
                on_event(Done(request=len(results) - 1, result=results[-1]))
        return results

    def _reranker(
        self, method: Method, options: Mapping[str, Any] | None, budget: Budget | None, retriever: Retriever
    ) -> Reranker:
        # each model is opened once, whoever asks first
        closed = self._chat is None or isinstance(self._chat, str)
        with self._lock if closed else nullcontext():
            reranker = Reranker(
                method,
                self._chat,
                corpus=self.index.domain,
                retriever=retriever,
                cache=self._cache,
                record=self._record,
                prompts=self._prompts,
                budget=self._budget or budget,
                total=self._total,
                options=options,
            )
            self._chat = reranker.chat or self._chat
        return reranker

    def _short(self, few: int, wanted: int, keep: Keep | None, copies: Copies | None) -> list[str]:
        most = max(in_force().results, wanted)
        return short(few, wanted, most, len(self.index), keep=keep, copies=copies)

    def _looked_at(self, hits: tuple[Hit, ...], k: int, head: int) -> tuple[tuple[Hit, ...], list[str]]:
        """``hits`` with what is wrong with their files, and sentences about it.

        Looks at those that are shown and, where a model was asked, at the ``head`` that it looked at.
        """
        used = [h.id for h in hits if h.rank <= k or 0 < (h.first_rank or head) <= head]
        problems = self.index.problems_of(used)
        marked = tuple(replace(h, problem=problems[h.id]) if h.id in problems else h for h in hits)
        return marked, self.index.explain(problems, len(used))

    def _warnings(self, chat: Chat | None) -> list[str]:
        models: list[tuple[str, Embedder | Chat]] = [
            ("embedder", self.embedder),
            *([("language model", chat)] if chat else []),
        ]
        limited = [
            f"the {role} {model.spec} is limited ({model.domain}); here its answers mean little"
            for role, model in models
            if model.domain and model.domain != self.index.domain
        ]
        return [*limited, *self.index.embedder_warnings(self.embedder)]


@dataclass(kw_only=True)
class _Within:
    """A search as the first stage of methods that search again, within the same images."""

    search: ImageSearch
    keep: Keep | None
    copies: Copies | None
    where: Where | None
    queries: Sequence[Collapsed] = ()

    def retrieve(self, requests: Sequence[Retrieve]) -> list[tuple[Candidate, ...]]:
        """`ImageSearch.retrieve` of what ``keep`` takes, copies of what is known left out."""
        found = self.search.retrieve(requests, keep=self.keep, copies=self.copies, where=self.where)
        if self.copies is None:
            return found
        return [self._known(r.query, f) for r, f in zip(requests, found, strict=True)]

    def _known(self, query: Query | None, found: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
        # a method may search with words of its own: in a batch it is not known for which query
        of = [c for c in self.queries if c.query is query or len(self.queries) == 1]
        return of[0].found_again(found) if of else found

    def stored(self, request: Stored) -> tuple[Vectors, ...]:
        """`ImageSearch.stored`: vectors of images that were kept already."""
        return self.search.stored(request)
