"""The OpenAI SDK as this package uses it: a client on one event loop, foreign fields, and the end of it.

The client goes where it is told and nowhere else (no redirect is followed: the next host would get images and
headers), reads no more of a response than makes sense, and leaves headers of OpenAI's own at home.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
import threading
import zlib
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from mmrerank.chat.openai.place import LOCAL
from mmrerank.errors import ReplyError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

LARGEST = 8 * 2**20
"""Bytes of a response that are read; a chat completion is a few thousand."""
LARGEST_ERROR = 2**16
"""Bytes that are read of a response that says what went wrong."""
_PLAIN = ("", "identity")
_UNPACKED = ("gzip", "x-gzip", "deflate")
"""Encodings that some gateways use although none is asked for; unpacked no further than is read."""

_KNOWN = {
    *("model", "messages", "max_tokens", "max_completion_tokens", "temperature", "seed", "top_p", "stop"),
    *("stream", "stream_options", "logprobs", "top_logprobs", "response_format", "reasoning_effort"),
}


def arguments(request: Mapping[str, Any]) -> dict[str, Any]:
    """``request`` as the SDK takes it: fields that it does not know go into ``extra_body``."""
    known = {k: v for k, v in request.items() if k in _KNOWN}
    more = {k: v for k, v in request.items() if k not in _KNOWN}
    return {**known, "extra_body": more} if more else known


async def connected(base_url: str, api_key: str, timeout: float) -> AsyncOpenAI:
    """A client of the running loop; ``timeout`` in seconds. Tries are counted and spaced elsewhere.

    The query of ``base_url``, as Azure's ``?api-version=...``, goes behind the path of every call.
    """
    import openai

    split = urlsplit(base_url)
    query = dict(parse_qsl(split.query, keep_blank_values=True))
    host = split.hostname or ""
    # Azure reads its keys from a header of its own
    azure = f".{host}".endswith((".azure.com", ".azure.us", ".azure.cn"))

    web = openai.DefaultAsyncHttpxClient(
        timeout=timeout,
        follow_redirects=False,
        # a body of 1.6 KB may unpack to gigabytes: no encoding is asked for
        headers={"accept-encoding": "identity"},
        event_hooks={"response": [_shorten]},
        # without https no certificate is read, which takes longer than all the rest
        verify=True if split.scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        trust_env=not host.startswith(LOCAL),  # a proxy of the environment is not for this machine
    )
    client = openai.AsyncOpenAI(
        base_url=split._replace(query="").geturl(), api_key=api_key, timeout=timeout, max_retries=0,
        http_client=web, default_query=query,
    )  # fmt: skip
    if not f".{host}".endswith(".openai.com"):
        # the SDK reads these from the environment, for whatever server
        client.organization = client.project = None
        client._custom_headers = {"api-key": api_key} if azure else {}
    return client


async def _shorten(response: Any) -> None:
    """Ends the body of ``response`` where nobody would read on; error pages are read whole by the SDK."""
    # by name: depending on its version, the SDK's HTTP library is httpx or httpx2
    web: Any = sys.modules[type(response).__module__.partition(".")[0]]
    whole = response.stream
    encoding = ", ".join(response.headers.get_list("content-encoding")).strip().casefold()
    if encoding not in (*_PLAIN, *_UNPACKED):
        # the SDK would keep this exception as the cause of its own
        raise ReplyError(
            f"the server packed its answer ({encoding[:40]}), not unpacked since it was asked for plain, "
            f"and at most {LARGEST >> 20} MB are read. Switch compression off at the server or its proxy"
        )
    response.headers.pop("content-encoding", None)  # or it would be unpacked again, without a bound

    class Beginning(web.AsyncByteStream):  # type: ignore[misc] # a class of a module found at run time
        async def __aiter__(self) -> AsyncIterator[bytes]:
            # one byte more than may be, so that who reads it knows
            left = LARGEST_ERROR if response.status_code >= 300 else LARGEST + 1
            unpacker = None if encoding in _PLAIN else zlib.decompressobj(wbits=47)
            async for piece in whole:
                try:
                    read = piece[:left] if unpacker is None else unpacker.decompress(piece, left)
                except zlib.error as error:
                    raise ReplyError(f"the server's answer is not packed as it says ({encoding})") from error
                yield read
                left -= len(read)
                if left <= 0:
                    break

        async def aclose(self) -> None:
            await whole.aclose()

    response.stream = Beginning()


def stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread, client: AsyncOpenAI) -> None:
    """Gives up what is under way, closes the client's connections, then the loop and its thread."""

    async def end() -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await client.close()
        await loop.shutdown_default_executor()

    asyncio.run_coroutine_threadsafe(end(), loop).result(timeout=10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(timeout=10)
    loop.close()
