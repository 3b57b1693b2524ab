"""OpenAI-compatible servers: ``openai:MODEL@BASE_URL``, or by name, ``ollama:MODEL``, ``vllm:MODEL@HOST``.

Sends with bounded concurrency, tries again only what may succeed again, and finds out what the server
really does instead of trusting a 200. Whether a text means anything is for the parser to say. The key
comes from the server's own variable (``OPENAI_API_KEY`` for ``openai:``) and is never written anywhere.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import random
import re
import threading
import time
import weakref
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import urlsplit

from mmrerank.budget import PER_MESSAGE, bound
from mmrerank.chat.openai.address import address
from mmrerank.chat.openai.failures import (
    LONGEST_WAIT,
    Complaint,
    Refused,
    ServerFailure,
    classified,
    error_text,
    of_words,
)
from mmrerank.chat.openai.limits import Limits as Limits
from mmrerank.chat.openai.outage import Outage
from mmrerank.chat.openai.place import Place
from mmrerank.chat.openai.sdk import LARGEST, arguments, connected, stop
from mmrerank.chat.openai.stream import assembled
from mmrerank.chat.openai.wire import (
    Dialect,
    answered_as,
    body,
    fields,
    in_words,
    notes,
    off_schema,
    reading,
    trouble,
)  # fmt: skip
from mmrerank.chat.thinking import with_thoughts
from mmrerank.errors import BudgetError, ChatError, InputError, ReplyError, UsageError
from mmrerank.messages import Ask, Message, Part, Reply
from mmrerank.ports import Capability, Chat, ChatFacts
from mmrerank.types import Usage

FORM = "openai:MODEL[@BASE_URL]"  # read from the source text by `mmrerank list`
LONGEST_STREAM = 10
"""A stream may last so many times the timeout, which then bounds its silences only."""
_MOST_IMAGES = re.compile(r"(?i)at most (\d+) image")
_T = TypeVar("_T")


class OpenAIChat(Chat):
    """A model behind a server. Safe to call from several threads; `close` ends its connections."""

    def __init__(
        self,
        model: str,
        base_url: str,
        *,
        api_key: str,
        limits: Limits | None = None,
        dialect: Dialect | None = None,
        place: Place | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.spec = f"openai:{model}@{base_url}"
        self.model, self._url = model, base_url
        self.host = urlsplit(base_url).netloc.rpartition("@")[2]
        self.concurrency = self.limits.concurrency
        self._key, self.dialect = api_key, dialect or Dialect()
        self._place = place or Place(model=model, url=base_url)
        self.cached_tokens = 0
        """Prompt tokens that the server reports to have read before."""
        self.thought = False
        """Whether an answer came with thoughts."""
        self.most_images: int | None = None
        """Images a question may hold, once the server has refused more."""
        self._answered = False
        self._outage = Outage()
        self._capabilities: frozenset[Capability] | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"chat {self.host}", daemon=True)
        self._thread.start()
        self._room = asyncio.Semaphore(self.concurrency)
        self._under_way: set[asyncio.Task[Any]] = set()
        self._client = self._wait(connected(base_url, api_key, self.limits.timeout))
        self._end = weakref.finalize(self, stop, self._loop, self._thread, self._client)

    @property
    def fingerprint(self) -> str:  # type: ignore[override] # worked out when asked
        """What of the settings can change a reply, beside the model: for what keeps replies."""
        text = {
            "model": self.model,
            "url": self._url,
            "extra": self.dialect.extra,
            "thinking": self.limits.thinking,
        }
        return json.dumps(text, sort_keys=True, default=str)

    @property
    def capabilities(self) -> frozenset[Capability]:
        """``generate``, and ``choice_logprobs`` if one tiny call, made on first use, brings any back.

        Raises `ChatError` when the server refuses the key or knows no such model. While the server cannot
        be reached, says ``generate`` alone and asks again next time.
        """
        if self._capabilities is None:
            question = Message(role="user", parts=(Part(text="Answer yes or no: is fire hot?"),))
            probe = Ask(messages=(question,), choices=("yes", "no"))
            error = self.reply([probe])[0].error
            if error is not None and error.retryable:
                return frozenset({"generate"})
            # labels missing among the likeliest still shows that log-probabilities come back
            given = error is None or "likeliest" in str(error)
            self._capabilities = frozenset({"generate", *(("choice_logprobs",) if given else ())})
        return self._capabilities

    @capabilities.setter
    def capabilities(self, value: frozenset[Capability]) -> None:
        self._capabilities = value

    def reply(self, asks: Sequence[Ask]) -> list[Reply]:
        """Answers every ask. Raises `ChatError` when the server refuses the key or knows no such model."""
        return self.reply_within(asks, None)

    def reply_within(self, asks: Sequence[Ask], seconds: float | None) -> list[Reply]:
        """`reply`, where what is not answered after so many seconds gets a reply with a `BudgetError`."""
        if not asks:
            return []
        start = time.perf_counter()

        def within(some: Sequence[Ask]) -> list[Reply]:
            left = None if seconds is None else seconds - (time.perf_counter() - start)
            return self._wait(self._all(some, None if left is None else max(left, 0.0)))

        replies = with_thoughts(asks, within)
        # the asks waited side by side: each bears its share of the wall time
        share = Usage(seconds=(time.perf_counter() - start) / len(asks))
        return [replace(r, usage=r.usage + share) for r in replies]

    def bound(self, ask: Ask) -> Usage:
        """The most that ``ask`` is taken to cost: `budget.bound`, with thoughts and a schema in words."""
        most = bound(ask)
        if ask.schema is not None and not ask.choices and self.dialect.schema_in_prompt:
            words = len(in_words(ask.schema).encode()) + PER_MESSAGE
            most += Usage(input_tokens=words)
        thinks = not ask.choices or ask.think
        return most + Usage(output_tokens=self.limits.thinking if thinks else 0)

    def cancel(self) -> None:
        """Gives up every question under way; the calls that wait for them end with an error."""

        def give_up() -> None:
            for task in self._under_way:
                task.cancel()

        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(give_up)

    def facts(self) -> ChatFacts:
        """What the server does, as far as it was asked."""
        held = not self.dialect.schema_in_prompt
        return ChatFacts(
            model=self.model,
            cached_tokens=self.cached_tokens,
            thinks=self.thought,
            schema="obeyed" if held else "ignored" if self.dialect.schema else "refused",
        )

    def models(self) -> list[str]:
        """The names of the models that the server lists; none where it lists none. Raises `ChatError`."""

        async def listed() -> list[str]:
            try:
                async with asyncio.timeout(self.limits.timeout):
                    page = await self._client.models.list()
            except Exception as error:
                raise self._classified(error).error from None
            # whatever a server that only resembles the protocol sends
            rows = vars(page).get("data") or []
            return [m.id for m in rows if isinstance(m.id, str)]

        return self._wait(listed())

    def close(self) -> None:
        """Closes connections and the thread; later calls of `reply` fail."""
        self._end()

    def _wait(self, work: Coroutine[Any, Any, _T]) -> _T:
        if self._loop.is_closed():
            work.close()
            raise UsageError(f"{self.spec} was closed; open it again")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise ChatError(f"{self._where()} was given up while it was asked") from None
        except BaseException:
            future.cancel()
            raise

    async def _all(self, asks: Sequence[Ask], seconds: float | None) -> list[Reply]:
        tasks = [asyncio.ensure_future(self._one(ask, time.monotonic())) for ask in asks]
        self._under_way.update(tasks)
        try:
            _, late = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
            if any(not t.cancelled() and t.exception() for t in tasks if t.done()):
                return list(await asyncio.gather(*tasks))  # raises
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
            why = f"{self._where()} had not answered when the time was over"
            gone = Reply(error=BudgetError(why), finish="error", usage=Usage(calls=1))
            return [gone if t in late and t.cancelled() else t.result() for t in tasks]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._under_way.difference_update(tasks)

    async def _one(self, ask: Ask, asked: float) -> Reply:
        images = sum(p.image is not None for m in ask.messages for p in m.parts)
        usage = Usage(calls=1, images=images)
        async with self._room:
            if (gone := self._outage.since(asked)) is not None:
                return Reply(error=gone, finish="error")  # not sent
            try:
                if ask.read:
                    raise ChatError(f"{self._where()}: a server does not give {ask.read}")
                if self.most_images is not None and images > self.most_images:
                    raise self._too_many_images(images)
                reply = await self._ask(ask)
            except (InputError, OSError) as error:
                shown = ChatError(f"an image of the question cannot be shown: {error}", kind="image")
                return Reply(error=shown, finish="error", usage=Usage(calls=1))
            except ChatError as error:
                # refused at once is refused for good; later on it is this question's own trouble
                if isinstance(error, Refused) and not self._answered:
                    raise
                reply = Reply(error=error, finish="error")
        self._outage.note(reply.error)
        if reply.error is None:
            self._answered = True
        else:
            reply.error.args = (self._clean(str(reply.error)),)  # it may quote what the server text
        return replace(reply, usage=reply.usage + usage)

    async def _ask(self, ask: Ask) -> Reply:
        """One answer, in the plainest dialect that it takes; the dialect that worked is remembered."""
        known = dialect = self.dialect
        spent = Usage()
        while True:
            request = await asyncio.to_thread(body, ask, self.model, dialect, thinking=self.limits.thinking)
            try:
                payload = await self._send(request)
            except Complaint as complaint:
                if most := _MOST_IMAGES.search(complaint.whole):
                    self.most_images = int(most[1])
                    raise self._too_many_images() from None
                plainer = dialect.plainer(complaint.whole, request)
                if plainer is None:
                    return Reply(error=complaint, finish="error", usage=spent)
                dialect = plainer
                continue
            except ChatError as error:
                if isinstance(error, Refused):
                    raise
                # an answer before this one has been paid for
                return Reply(error=error, finish="error", usage=spent)
            if not self.limits.any_model and (other := answered_as(payload, self.model)):
                raise Refused(
                    f"{self._where()} answered as {other!r}; name that model, or take it with "
                    "--chat-option any_model=true",
                    kind="address",
                )
            seen = notes(payload)
            self.cached_tokens += seen.cached_tokens
            self.thought = self.thought or seen.thought
            reply = reading(ask, payload)
            if dialect != known:  # what another question has learnt meanwhile stays
                self.dialect = known = dialect
            # a server that ignores response_format answers 200 and prose: tell it in words, once
            if (
                ask.schema is not None
                and "response_format" in request
                and not dialect.schema_in_prompt
                and reply.error is None
                and off_schema(reply, ask.schema)
            ):
                dialect, spent = replace(dialect, schema_in_prompt=True), reply.usage
                continue
            return replace(reply, usage=reply.usage + spent)

    async def _send(self, request: dict[str, Any]) -> bytes:
        """The response's bytes, after at most ``max_retries`` more tries where the failure may pass."""
        for tried in range(self.limits.max_retries + 1):
            try:
                return await self._post(request)
            except Exception as error:
                failure = self._classified(error)
                last = tried == self.limits.max_retries or (failure.wait or 0.0) > LONGEST_WAIT
                # a server that has answered may be starting again
                passing = failure.error.retryable or (self._answered and failure.error.kind == "unreachable")
                if not passing or last:
                    raise failure.error from None  # the original may quote the request's headers
            # on top of what the server asks for, or all who got the same answer come back together
            pause = self.limits.backoff * 2**tried * random.uniform(0.5, 1.0)
            await asyncio.sleep((failure.wait or 0.0) + min(pause, LONGEST_WAIT))
        raise AssertionError("the last try returns or raises")

    async def _post(self, request: dict[str, Any]) -> bytes:
        call = self._client.chat.completions.with_streaming_response.create(**arguments(request))
        received = bytearray()
        stream, patience = bool(request.get("stream")), self.limits.timeout
        clock = self._loop.time
        end = clock() + LONGEST_STREAM * patience
        async with asyncio.timeout(patience) as limit, call as response:
            async for piece in response.iter_bytes():
                received += piece
                if len(received) > LARGEST:
                    raise ReplyError(f"{self._where()} sent more than {LARGEST >> 20} MB; given up")
                if stream:
                    limit.reschedule(min(clock() + patience, end))
        # a server that quotes the request's headers must not put the key into a trace
        whole = assembled(bytes(received)) if stream else bytes(received)
        if whole is None:
            raise ChatError(f"{self._where()} broke its stream off", retryable=True)
        if (found := trouble(whole)) is not None:
            error, code = found
            raise of_words(code, self._clean(error_text(error)), self._place).error
        return whole.replace(self._key.encode(), b"***") if len(self._key) >= 8 else whole

    def _classified(self, error: Exception) -> ServerFailure:
        return classified(
            error, place=self._place, text=self._clean(error_text(error)), timeout=self.limits.timeout
        )

    def _too_many_images(self, images: int | None = None) -> ChatError:
        held = "" if images is None else f"; this one holds {images}"
        return ChatError(
            f"{self._where()} takes at most {self.most_images} image(s) a question{held}. Ask with fewer "
            "(a smaller window or group_size), or start the server with a higher limit "
            "(vLLM: --limit-mm-per-prompt)",
            kind="too_many_images",
            limit=self.most_images,
        )

    def _where(self) -> str:
        return str(self._place)

    def _clean(self, text: str) -> str:
        # a placeholder such as EMPTY is no secret, and a word that messages may hold
        return text.replace(self._key, "***") if len(self._key) >= 8 else text


def open(
    rest: str,
    *,
    api_key: str | None = None,
    timeout: float = 120.0,
    max_retries: int = 4,
    concurrency: int = 8,
    backoff: float = 0.5,
    stream: bool = False,
    thinking: int = 0,
    any_model: bool = False,
    extra: str = "",
) -> OpenAIChat:
    """Opens ``MODEL@BASE_URL``, ``MODEL@SERVER+BASE_URL`` (a name of ``servers.toml``), or ``MODEL`` at
    ``OPENAI_BASE_URL`` (default: OpenAI's own). Nothing is sent yet.

    ``timeout`` (seconds) bounds each try, with ``stream`` its silences; ``max_retries`` the tries after
    the first, ``concurrency`` the requests under way; ``backoff`` is the first pause in seconds and
    doubles. ``thinking`` tokens may go before an answer (0: none wanted). ``extra`` is a JSON object of
    more fields for every request; ``any_model`` as in `Limits`. Raises `UsageError` for a spec that names
    no model or no usable address.
    """
    found = address(rest)
    return OpenAIChat(
        found.model,
        found.url,
        api_key=found.key(api_key),
        limits=Limits(
            timeout=timeout, max_retries=max_retries, concurrency=concurrency, backoff=backoff,
            thinking=thinking, any_model=any_model, key=found.server.key,
        ),
        dialect=Dialect(
            limit=found.limit, stream=stream, extra=fields(extra), quiet=found.server.quiet,
            chooses=found.server.chooses,
        ),
        place=Place(model=found.model, url=found.url, server=found.server),
    )  # fmt: skip
