"""OpenAI-compatible servers: ``openai:MODEL@BASE_URL``, or ``openai:MODEL`` with ``OPENAI_BASE_URL`` set.

Sends with bounded concurrency, tries again only what may succeed again, and finds out what the server
really does instead of trusting a 200. Whether a text means anything is for the parser to say. The key
comes from ``OPENAI_API_KEY`` and is never written anywhere.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import threading
import time
import weakref
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from mmrerank.chat._wire import Dialect, body, reading
from mmrerank.errors import ChatError, InputError, ReplyError, UsageError
from mmrerank.messages import Ask, Message, Part, Reply
from mmrerank.ports import Capability
from mmrerank.types import Usage

if TYPE_CHECKING:
    from openai import AsyncOpenAI

FORM = "openai:MODEL[@BASE_URL]"
LARGEST = 8 * 2**20
"""Bytes of a response that are read; a chat completion is a few thousand."""
LONGEST_WAIT = 60.0
"""Seconds waited at most between two tries, whatever Retry-After says."""
FATAL = (401, 403, 404)
_T = TypeVar("_T")


class OpenAIChat:
    """A model behind a server. Safe to call from several threads; `close` ends its connections."""

    domain = ""

    def __init__(
        self,
        model: str,
        base_url: str,
        *,
        api_key: str,
        timeout: float = 120.0,
        max_retries: int = 4,
        concurrency: int = 8,
        backoff: float = 0.5,
    ) -> None:
        if timeout <= 0 or max_retries < 0 or concurrency < 1:
            raise UsageError("timeout and concurrency must be positive, max_retries 0 or more")
        self.spec = f"openai:{model}@{base_url}"
        self.model, self.host = model, urlsplit(base_url).netloc.rpartition("@")[2]
        self._timeout, self._retries, self._backoff = timeout, max_retries, backoff
        self._key, self._dialect = api_key, Dialect()
        self._capabilities: frozenset[Capability] | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name=f"chat {self.host}", daemon=True
        )
        self._thread.start()
        self._room = asyncio.Semaphore(concurrency)
        self._client = self._wait(_client(base_url, api_key, timeout))
        self._end = weakref.finalize(self, _stop, self._loop, self._thread, self._client)

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
        if not asks:
            return []
        start = time.perf_counter()
        replies = self._wait(self._all(asks))
        # the asks waited side by side: each bears its share of the wall time
        share = Usage(seconds=(time.perf_counter() - start) / len(asks))
        return [replace(r, usage=r.usage + share) for r in replies]

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
        except BaseException:
            future.cancel()
            raise

    async def _all(self, asks: Sequence[Ask]) -> list[Reply]:
        tasks = [asyncio.ensure_future(self._one(ask)) for ask in asks]
        try:
            return list(await asyncio.gather(*tasks))
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    async def _one(self, ask: Ask) -> Reply:
        images = sum(p.image is not None for m in ask.messages for p in m.parts)
        usage = Usage(calls=1, images=images)
        async with self._room:
            try:
                reply = await self._ask(ask)
            except (InputError, OSError) as error:
                shown = ChatError(f"an image of the question cannot be shown: {error}")
                return Reply(error=shown, finish="error", usage=Usage(calls=1))
            except ChatError as error:
                if isinstance(error, _Refused):
                    raise
                error.args = (self._clean(error),)  # it may quote what the server said
                return Reply(error=error, finish="error", usage=usage)
        return replace(reply, usage=reply.usage + usage)

    async def _ask(self, ask: Ask) -> Reply:
        """One answer, in the plainest dialect that it takes; the dialect that worked is remembered."""
        dialect = self._dialect
        while True:
            request = await asyncio.to_thread(body, ask, self.model, dialect)
            try:
                reply = reading(ask, await self._send(request))
            except _Complaint as complaint:
                plainer = dialect.plainer(str(complaint), request)
                if plainer is None:
                    raise
                dialect = plainer
                continue
            self._dialect = dialect
            # a server that ignores response_format answers 200 and prose: tell it in words, once
            if "response_format" in request and not dialect.told and _prose(reply):
                dialect = replace(dialect, told=True)
                continue
            return reply

    async def _send(self, request: dict[str, Any]) -> bytes:
        """The response's bytes, after at most ``max_retries`` more tries where the failure may pass."""
        for tried in range(self._retries + 1):
            try:
                async with asyncio.timeout(self._timeout):
                    return await self._post(request)
            except Exception as error:
                failure, wait = self._failure(error)
                if not failure.retryable or tried == self._retries:
                    raise failure from None  # the original may quote the request's headers
            if wait is None:
                wait = self._backoff * 2**tried * random.uniform(0.5, 1.0)
            await asyncio.sleep(min(wait, LONGEST_WAIT))
        raise AssertionError("the last try returns or raises")

    async def _post(self, request: dict[str, Any]) -> bytes:
        call = self._client.chat.completions.with_streaming_response.create(**request)
        received = bytearray()
        async with call as response:
            async for piece in response.iter_bytes():
                received += piece
                if len(received) > LARGEST:
                    raise ReplyError(f"{self._where()} sent more than {LARGEST >> 20} MB; given up")
        return bytes(received)

    def _failure(self, error: Exception) -> tuple[ChatError, float | None]:
        """What ``error`` means, and the seconds that the server asks to wait."""
        import openai

        where = self._where()
        # by name: depending on its version, the SDK's HTTP library is httpx or httpx2
        kinds = {c.__name__ for c in type(error).__mro__}
        if isinstance(error, ChatError):
            return error, None
        if isinstance(error, openai.APIStatusError):
            code, said = error.status_code, self._clean(error)
            if code in FATAL:
                hint = (
                    "check the model's name and that the base URL ends as the server wants, often in /v1"
                    if code == 404
                    else "check OPENAI_API_KEY"
                )
                return _Refused(f"{where} answered {code}; {hint}"), None
            if code in (400, 422):
                return _Complaint(f"{where} answered {code}: {said}"), None
            again = code in (408, 409, 429) or code >= 500
            return ChatError(f"{where} answered {code}: {said}", retryable=again), _retry_after(
                error
            )
        if isinstance(error, openai.APITimeoutError | TimeoutError) or "TimeoutException" in kinds:
            return ChatError(
                f"{where} gave no answer within {self._timeout:g} s", retryable=True
            ), None
        if isinstance(error, openai.APIConnectionError) or "TransportError" in kinds:
            cause = type(error.__cause__ or error).__name__
            return ChatError(
                f"{where} cannot be reached, or hung up ({cause})", retryable=True
            ), None
        return ChatError(f"{where}: {type(error).__name__}: {self._clean(error)}"), None

    def _where(self) -> str:
        return f"{self.model} at {self.host}"

    def _clean(self, error: Exception) -> str:
        said = " ".join(str(error).split())
        # a placeholder such as EMPTY is no secret, and a word that messages may hold
        return (said.replace(self._key, "***") if len(self._key) >= 8 else said)[:300]


class _Refused(ChatError):
    """The server wants nothing to do with any ask: a wrong key or model."""


class _Complaint(ChatError):
    """The server does not take this request as it is (400 or 422)."""


def _prose(reply: Reply) -> bool:
    if reply.finish != "stop":
        return False
    try:
        return not isinstance(json.loads(reply.text), dict)
    except ValueError:
        return True


def _retry_after(error: Any) -> float | None:
    headers = error.response.headers
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            return max(float(headers.get(name, "")) * unit, 0.0)
        except ValueError:
            continue  # absent, or a date: the ordinary backoff serves
    return None


async def _client(base_url: str, api_key: str, timeout: float) -> AsyncOpenAI:
    import openai

    # tries are counted and spaced here, not in the SDK
    return openai.AsyncOpenAI(base_url=base_url, api_key=api_key, timeout=timeout, max_retries=0)


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread, client: AsyncOpenAI) -> None:
    async def end() -> None:
        await client.close()
        await loop.shutdown_default_executor()

    asyncio.run_coroutine_threadsafe(end(), loop).result(timeout=10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(timeout=10)
    loop.close()


def open(
    rest: str,
    *,
    api_key: str | None = None,
    timeout: float = 120.0,
    max_retries: int = 4,
    concurrency: int = 8,
    backoff: float = 0.5,
) -> OpenAIChat:
    """Opens ``MODEL@BASE_URL``, or ``MODEL`` at ``OPENAI_BASE_URL`` (default: OpenAI's own).

    ``timeout`` (seconds) bounds each try, ``max_retries`` the tries after the first, ``concurrency`` the
    requests under way; ``backoff`` is the first pause in seconds and doubles. Nothing is sent yet. Raises
    `UsageError` for a spec that names no model or no usable address.
    """
    model, at, url = rest.partition("@http")
    url = at[1:] + url or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
    if not model or (not at and "@" in model) or not urlsplit(url).hostname:
        raise UsageError(f"openai:{rest} is not {FORM}; BASE_URL begins with http:// or https://")
    key = api_key or os.environ.get("OPENAI_API_KEY") or ""
    if not key and urlsplit(url).hostname == "api.openai.com":
        raise UsageError(
            "OpenAI's own server needs a key: set OPENAI_API_KEY, or name another as openai:MODEL@BASE_URL"
        )
    return OpenAIChat(
        model,
        url,
        api_key=key or "none",
        timeout=timeout,
        max_retries=max_retries,
        concurrency=concurrency,
        backoff=backoff,
    )
