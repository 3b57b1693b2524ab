"""What every benchmark does around `rerank_all`: journal, model, forecast, and what is reported.

One `Resumable` serves all methods of an evaluation; the model is opened when the first query is judged.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mmrerank import catalog, registry
from mmrerank.budget import Budget, Meter, Price
from mmrerank.chat.around import around
from mmrerank.chat.around.identity import chat_identity
from mmrerank.chat.open import deciding, open_chat
from mmrerank.config import build
from mmrerank.errors import UsageError
from mmrerank.evaluation.experiment.forecast import Forecast, forecast
from mmrerank.evaluation.experiment.journal import Journal, looked_at, opened
from mmrerank.evaluation.experiment.provenance import candidates_digest, code_digest, prompt_digests
from mmrerank.evaluation.experiment.reranking import PORTION, Item, finished, read_back, rerank_all
from mmrerank.ports import Chat, Retriever
from mmrerank.rerank.profiles import folder_of
from mmrerank.reranker import Reranker
from mmrerank.results import SearchResult
from mmrerank.types import Usage


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What stands around the model of an evaluation: files for its replies, and what may be spent.

    ``chat_options`` are those with which the model is opened, ``prompts`` a profile that stands in place of
    the model's own.
    ``budget`` bounds each query's ranking; when ``total`` is spent the evaluation stops, and goes on from
    there when it is started again.
    """

    cache: Path | str = ""
    record: Path | str = ""
    ledger: Path | str = ""
    budget: Budget | None = None
    total: Meter | None = None
    chat_options: Mapping[str, Any] = field(default_factory=dict)
    prompts: Path | str = ""

    @property
    def limits(self) -> dict[str, Any]:
        """The limits of ``budget`` as plain data; a price decides nothing unless money is limited."""
        limits: dict[str, Any] = {} if self.budget is None else dataclasses.asdict(self.budget)
        left_out = {"price"} if limits.get("money") is None else set()
        return {k: v for k, v in limits.items() if v is not None and k not in left_out}


Progress = Callable[[str, int, int], None]
"""Called with (what is being done, how much is done, of how much)."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The finished queries' results, in the order asked, and what the others will take."""

    results: list[SearchResult]
    left: Forecast


@dataclass(kw_only=True)
class Resumable:
    """How an evaluation is carried out: journals in ``folder``, questions to ``chat``.

    ``work`` is plain data about what is evaluated that the methods, the candidates, the model and the
    prompts do not say (benchmark, seed, ...). ``fresh`` and ``retry_failed`` as in
    `mmrerank.evaluation.experiment.journal.opened` and `rerank_all`; with ``limit``, so many queries more are
    judged and nothing is kept, for a forecast; ``retriever`` is what methods that search again ask; ``say``
    is called with lines for the person.
    Versions of libraries and the hardware are not held against a journal; provenance has them.
    """

    folder: Path
    chat: str | Chat
    work: Mapping[str, Any] = field(default_factory=dict)
    fresh: bool = False
    retry_failed: bool = False
    limit: int | None = None
    price: Price | None = None
    retriever: Retriever | None = None
    around: Surroundings = field(default_factory=Surroundings)
    progress: Progress | None = None
    say: Callable[[str], None] = lambda _: None
    spent: dict[str, list[Usage]] = field(default_factory=dict, init=False, repr=False)
    """What each query cost that a method has finished here, whichever list it was of."""

    def __post_init__(self) -> None:
        if self.fresh and self.limit is not None:
            raise UsageError("a forecast keeps nothing, so there is nothing to start over; leave out --fresh")

    @cached_property
    def identity(self) -> dict[str, Any]:
        """The language model's spec and digest, which takes reading its weights, and what else decides."""
        options = deciding(self.around.chat_options)
        return {**chat_identity(self.chat), **({"options": options} if options else {})}

    @property
    def _auto(self) -> Mapping[str, str]:
        """What options that are left at ``auto`` mean for the model."""
        known = self.chat
        return catalog.resolve("chat", known).auto if isinstance(known, str) else known.room.auto

    def rerank(
        self, method: str, items: Sequence[Item], *, options: Mapping[str, Any] | None = None, part: str = ""
    ) -> Judged:
        """Reranks ``items`` with a method; ``part`` names one of several lists of an evaluation.

        The journal is ``METHOD.journal.jsonl``, or ``METHOD.PART.journal.jsonl``. Raises what
        `rerank_all` and `opened` raise, the latter before a model is opened.
        """
        name = f"{method}.{part}" if part else method
        module = registry.load("strategy", method)
        chosen = build(module.Options, options or {}, where=f"method {method}")
        kind = f"{method} {chosen}"
        asks_model = bool({*registry.needs_of(module, chosen)} - {"retrieve"})
        work = self._work(method, chosen, items, asks_model)
        with self._journal(self.folder / f"{name}.journal.jsonl", work) as journal:
            kept = finished(items, journal, retry_failed=self.retry_failed)

            def expected() -> Forecast:
                cost = finished(items, journal, retry_failed=self.retry_failed)
                # what a forecast judges is judged again by the evaluation
                gone = cost if self.limit is None else kept
                left = [(q, r) for q, r in items if q.id not in gone]
                known = list(cost.values()) or self.spent.get(kind, [])
                return forecast(method, chosen, left, known, price=self.price, auto=self._auto)

            before = expected()
            taken = len(items) - before.queries
            if taken and asks_model:
                self.say(f"{name}: {taken} of {len(items)} queries are finished in {journal.path}")
            if before.calls:
                self.say(f"{name}: {before}")
            forecast_known = before.measured > 0

            def report(done: int, of: int) -> None:
                nonlocal forecast_known
                if self.progress:
                    self.progress(name, done, of)
                if not forecast_known and taken < done < of and before.calls:
                    forecast_known = True
                    self.say(f"{name}: {expected()}")

            if self.limit == 0 or not before.queries:
                results = read_back(method, items, journal)  # no model is opened to ask nothing
            else:
                reranker = self._reranker(method, options or {})
                # a forecast, which nothing goes on from, asks so many queries and no more
                unjudged = [(q, r) for q, r in items if q.id not in kept]
                asked = items if self.limit is None else unjudged[: self.limit]
                rerank_all(reranker, asked, journal, retry_failed=self.retry_failed, progress=report)
                results = read_back(method, items, journal)
            left = expected()
            if self.around.total is not None and self.around.total.exhausted and left.queries:
                self.say(
                    f"{name}: the budget of {self.around.total.exhausted} for all is spent; the same "
                    f"command with a larger one goes on with the {left.queries} queries that are left"
                )
        self.spent.setdefault(kind, []).extend(r.usage for r in results)
        return Judged(results=results, left=left)

    def _journal(self, path: Path, work: Mapping[str, Any]) -> AbstractContextManager[Journal]:
        """The journal at ``path``; a forecast only looks at it, and writes nothing."""
        if self.limit is None:
            return opened(path, work, fresh=self.fresh)
        journal, changes = looked_at(path, work)
        if changes:
            self.say(
                f"{path} is of other work ({'; '.join(changes)}): the evaluation will need --fresh, or "
                "another folder (--runs DIR)"
            )
        return nullcontext(journal)

    def _work(self, method: str, chosen: Any, items: Sequence[Item], asks_model: bool) -> dict[str, Any]:
        """Everything that decides the results, as plain data."""
        return {
            **self.work,
            "method": method,
            "options": dataclasses.asdict(chosen),
            "chat": self.identity if asks_model else {},
            "prompts": prompt_digests(self.chat, self.around.prompts) if asks_model else {},
            # what a budget cut short is not finished under another one
            "budget": self.around.limits if asks_model else {},
            "first_stage": candidates_digest(items),
            "portion": PORTION,
            "code": code_digest(),
        }

    def _reranker(self, method: str, options: Mapping[str, Any]) -> Reranker:
        """The method over the model, which is opened for the first one that asks any."""
        set_ = self.around
        if registry.load("strategy", method).NEEDS:
            chat = self.chat
            if isinstance(chat, str):
                chat = open_chat(chat, **set_.chat_options)
            self.chat = around(
                chat,
                cache=set_.cache,
                record=set_.record,
                ledger=set_.ledger,
                prompts=folder_of(set_.prompts),
            )
        return Reranker(
            method, self.chat, retriever=self.retriever, budget=set_.budget, total=set_.total, **options
        )
