"""Any server that reranks: ``rerank:MODEL@URL``, asked at ``/v1/rerank``, ``/rerank`` or ``/score``.

vLLM, Cohere, Jina and text-embeddings-inference are known; which form a server takes is found out with the
first question and reported. Pictures go as data URLs within a budget of pixels. Relevance is the server's
score where that is 0 to 1. The key comes from the server's own variable (`mmrerank.scorers._rerank_place`).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import math
import threading
import weakref
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from mmrerank import cancel
from mmrerank.chat.openai.dialect import Dialect
from mmrerank.chat.openai.failures import Complaint, Refused
from mmrerank.chat.openai.limits import Limits
from mmrerank.chat.openai.said import error_text
from mmrerank.chat.openai.sdk import connected, stop
from mmrerank.chat.openai.sending import Sender
from mmrerank.chat.openai.wire import fields, image_url
from mmrerank.errors import DATA_ERRORS, ChatError, InputError, ReplyError, UsageError, in_short
from mmrerank.images.budget import pixels_per_token
from mmrerank.ports import Marks, Scorer
from mmrerank.scorers._rerank_place import Address, address
from mmrerank.scorers._rerank_wire import Answer, Side, Way, answer, body, pictured_in
from mmrerank.types import Candidate, Image, Query

FORM = "rerank:MODEL@URL"
_LOOKS = 0.1  # seconds between looks whether an answer is still wanted
_T = TypeVar("_T")


class _Elsewhere(ChatError):
    """There is no such path at the server."""


class _Caller(Sender):
    """`Sender` for any path: a request holds its ``path``, its ``body``, and whether it only tries a form."""

    async def _post(self, request: dict[str, Any]) -> bytes:
        import openai

        try:
            async with asyncio.timeout(self._limits.timeout):
                text = await self._client.post(request["path"], cast_to=str, body=request["body"])
        except openai.APIStatusError as error:
            said, code = self.classified(error).error, error.status_code
            words = error_text(error).shown
            if code in (404, 405, 501) and "model" not in words.casefold():
                raise _Elsewhere(str(said), kind="not_found") from None
            if code == 500 and request["trying"]:  # so do some answer what they cannot read
                raise Complaint(str(said), words) from None
            raise
        return self._secret.clean_bytes(text.encode())


@dataclass(frozen=True, kw_only=True)
class _Part:
    """What came of some documents of a question, by their places."""

    scores: dict[int, float]
    failures: dict[int, ChatError]
    tokens: int = 0
    notes: tuple[str, ...] = ()


class RerankServer(Scorer):
    """A reranker behind a server. Safe to call from several threads; `close` ends its connections."""

    def __init__(
        self, found: Address, *, key: str, limits: Limits, batch_size: int, image_tokens: int, extra: str
    ) -> None:
        if batch_size < 1 or image_tokens < 1:
            raise UsageError("batch_size and image_tokens must be at least 1")
        self.place = found.place
        self.spec = f"rerank:{found.place.model}@{found.place.url}"
        self.concurrency, self.image_tokens = limits.concurrency, image_tokens
        self.batch = batch_size
        self.extra = fields(extra)
        self.fingerprint = json.dumps([found.place.model, found.place.url, image_tokens, self.extra])
        self._pictured = Dialect(pixels_per_token=pixels_per_token(found.place.model))
        self.ways: dict[bool, Way] = {}
        """How the server is asked about words alone (False) and about images, once it has answered."""
        self._possible, self._batch_size = found.ways, batch_size
        self._loop = asyncio.new_event_loop()
        name = f"rerank {found.place.host}"
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()
        self._room = asyncio.Semaphore(limits.concurrency)
        self._finding = asyncio.Lock()
        client = self._wait(connected(found.place.url, key, limits.timeout))
        self._sender = _Caller(client, found.place, limits, key)
        self._end = weakref.finalize(self, stop, self._loop, self._thread, client)

    def score(self, query: Query, candidates: Sequence[Candidate], instruction: str = "") -> Sequence[float]:
        """The server's scores, NaN where it gave none."""
        return self.marks(query, candidates, instruction).scores

    def marks(self, query: Query, candidates: Sequence[Candidate], instruction: str = "") -> Marks:
        """`score` with the tokens that the server counted and why a candidate has none.

        Raises `ChatError` where it refuses the key or nobody is there, `InputError` for a picture of the
        query.
        """
        asked = Side(images=tuple(self._url(i) for i in query.images), text=query.text)
        part = self._wait(self._all(asked, candidates, instruction))
        count = len(candidates)
        scores = tuple(part.scores.get(n, math.nan) for n in range(count))
        # scores beyond 0 to 1 are logits, and then all of them are
        if not self.logits and any(not 0 <= s <= 1 for s in scores if not math.isnan(s)):
            self.logits = True
        notes = part.notes
        if self.logits:
            notes = (*notes, "the server's scores go beyond 0 to 1: relevance is their sigmoid")
        share, more = divmod(part.tokens, max(count, 1))
        tokens = tuple(share + (n < more) for n in range(count))
        return Marks(scores=scores, failures=part.failures, tokens=tokens, notes=tuple(dict.fromkeys(notes)))

    def close(self) -> None:
        """Closes connections and the thread; later calls fail."""
        self._end()

    # ------------------------------------------------------------ asking

    def _url(self, image: Image) -> str:
        return image_url(image, self.image_tokens, self._pictured)

    async def _all(self, query: Side, candidates: Sequence[Candidate], instruction: str) -> _Part:
        """All candidates, so many in a request."""
        sides: dict[int, Side] = {}
        failures: dict[int, ChatError] = {}
        for n, candidate in enumerate(candidates):
            try:
                urls = () if candidate.image is None else (
                    await asyncio.to_thread(self._url, candidate.image),
                )  # fmt: skip
            except (InputError, OSError) as error:
                why = f"an image of the question cannot be shown: {error}"
                failures[n] = ChatError(why, kind="image")
                continue
            sides[n] = Side(images=urls, text=candidate.text or "")
        places = list(sides)
        size = self._batch_size
        batches = [{p: sides[p] for p in places[i : i + size]} for i in range(0, len(places), size)]
        parts = await asyncio.gather(*(self._batch(query, b, instruction) for b in batches))
        return _joined([_Part(scores={}, failures=failures), *parts])

    async def _batch(self, query: Side, sides: dict[int, Side], instruction: str) -> _Part:
        """Some documents in one request; where the server minds that one, each by itself."""
        places = list(sides)
        try:
            async with self._room:
                found, notes = await self._ask(query, list(sides.values()), instruction)
        except Refused as error:
            # refused at once is refused for good; later on it is this question's own trouble
            if not self._sender.answered:
                raise
            return _Part(scores={}, failures=dict.fromkeys(places, error))
        except ChatError as error:
            if len(places) > 1 and isinstance(error, Complaint) and self._sender.answered:
                single = [self._batch(query, {p: s}, instruction) for p, s in sides.items()]
                return _joined(await asyncio.gather(*single))
            error.args = (self._sender.clean(str(error)),)  # it may quote what the server said
            return _Part(scores={}, failures=dict.fromkeys(places, error))
        lost = ReplyError(f"{self.place} gave no score ({'; '.join(found.notes)})")
        scored = dict(zip(places, found.scores, strict=True))
        failures: dict[int, ChatError] = {p: lost for p, s in scored.items() if math.isnan(s)}
        return _Part(scores=scored, failures=failures, tokens=found.tokens, notes=(*notes, *found.notes))

    async def _ask(
        self, query: Side, documents: Sequence[Side], instruction: str
    ) -> tuple[Answer, tuple[str, ...]]:
        """One answer, in the way that the server takes; which one that is, is found out once."""
        pictured = pictured_in(query, documents)
        if (way := self.ways.get(pictured)) is None:
            async with self._finding:
                if (way := self.ways.get(pictured)) is None:
                    return await self._found(query, documents, instruction, pictured)
        return await self._send(way, query, documents, instruction)

    async def _found(
        self, query: Side, documents: Sequence[Side], instruction: str, pictured: bool
    ) -> tuple[Answer, tuple[str, ...]]:
        """The first way that brings an answer. Raises the first refusal where none does."""
        refused: list[ChatError] = []
        gone: dict[str, None] = {}
        possible = [w for w in self._possible if w.shows or not pictured]
        if not possible:
            raise ChatError(f"{self.place} takes words only, and no images", kind="no_images")
        for way in possible:
            if way.path in gone:
                continue
            try:
                result = await self._send(way, query, documents, instruction, trying=True)
            except _Elsewhere:
                gone[way.path] = None
                continue
            except (Complaint, ReplyError) as error:  # this form is not what it takes, or the question is bad
                refused.append(error)
                continue
            self.ways[pictured] = way
            return result
        if not refused:
            tried = ", ".join(gone) + (" in a form that takes images" if pictured else "")
            raise Refused(
                f"{self.place} has none of {tried}; name the root of a server that reranks, as in "
                f"rerank:{self.place.model}@http://HOST:PORT",
                kind="address",
            )
        if len(refused) > 1:
            refused[0].args = (f"{refused[0]}. It was asked in {len(refused)} forms, and took none",)
        raise refused[0]

    async def _send(
        self, way: Way, query: Side, documents: Sequence[Side], instruction: str, *, trying: bool = False
    ) -> tuple[Answer, tuple[str, ...]]:
        sent = body(way, self.place.model, query, documents, instruction)
        request = {"path": way.path, "body": {**sent.fields, **self.extra}, "trying": trying}
        data = await self._sender.send(request)
        first = next(w for w in self._possible if w.shows or not pictured_in(query, documents))
        learnt = () if way == first else (f"the server was asked at {way}, for it took nothing before that",)
        try:
            found = answer(data.decode("utf-8", "replace"), len(documents))
        except ReplyError as error:
            raise ReplyError(f"{self.place}: {error}") from None
        except DATA_ERRORS as error:
            why = f"{self.place} gave an answer that cannot be read: {in_short(error)}"
            raise ReplyError(why) from None
        self._sender.answered = True
        return found, (*learnt, *sent.notes)

    def _wait(self, work: Coroutine[Any, Any, _T]) -> _T:
        if self._loop.is_closed():
            work.close()
            raise UsageError(f"{self.spec} was closed; open it again")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            while cancel.heeded():
                try:
                    return future.result(timeout=_LOOKS)
                except TimeoutError:
                    if future.done():
                        break  # the work's own
                    cancel.check()
            return future.result()
        except concurrent.futures.CancelledError:
            raise ChatError(f"{self.place} was given up while it was asked") from None
        except BaseException:
            future.cancel()
            raise


def _joined(parts: Sequence[_Part]) -> _Part:
    whole = _Part(scores={}, failures={})
    for part in parts:
        whole = replace(
            whole,
            scores=whole.scores | part.scores,
            failures=whole.failures | part.failures,
            tokens=whole.tokens + part.tokens,
            notes=(*whole.notes, *part.notes),
        )
    return whole


def open(
    rest: str,
    *,
    api_key: str | None = None,
    timeout: float = 120.0,
    max_retries: int = 4,
    concurrency: int = 8,
    backoff: float = 0.5,
    batch_size: int = 32,
    image_tokens: int = 1280,
    extra: str = "",
) -> RerankServer:
    """Opens ``MODEL@URL``, ``MODEL@NAME`` or ``MODEL@NAME+URL`` (names: vllm, cohere, jina, tei).

    Nothing is sent yet. ``timeout`` (seconds) bounds each try, ``max_retries`` the tries after the first,
    ``concurrency`` the requests under way; ``backoff`` is the first pause in seconds and doubles.
    ``batch_size`` documents go in a request, pictures of at most ``image_tokens`` times 28 x 28 pixels.
    ``extra`` is a JSON object of more fields for every request. Raises `UsageError` for a spec that names no
    model or no usable address.
    """
    found = address(rest)
    limits = Limits(timeout=timeout, max_retries=max_retries, concurrency=concurrency, backoff=backoff)
    return RerankServer(
        found, key=found.key(api_key), limits=limits, batch_size=batch_size, image_tokens=image_tokens,
        extra=extra,
    )  # fmt: skip
