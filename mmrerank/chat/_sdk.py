"""The OpenAI SDK as this package uses it: a client on one event loop, foreign fields, and the end of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_KNOWN = {
    *(
        "model",
        "messages",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "seed",
        "top_p",
        "stop",
    ),
    *(
        "stream",
        "stream_options",
        "logprobs",
        "top_logprobs",
        "response_format",
        "reasoning_effort",
    ),
}


def arguments(request: Mapping[str, Any]) -> dict[str, Any]:
    """``request`` as the SDK takes it: fields that it does not know go into ``extra_body``."""
    known = {k: v for k, v in request.items() if k in _KNOWN}
    more = {k: v for k, v in request.items() if k not in _KNOWN}
    return {**known, "extra_body": more} if more else known


async def connected(base_url: str, api_key: str, timeout: float) -> AsyncOpenAI:
    """A client of the running loop; ``timeout`` in seconds. Tries are counted and spaced elsewhere."""
    import openai

    return openai.AsyncOpenAI(base_url=base_url, api_key=api_key, timeout=timeout, max_retries=0)


def stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread, client: AsyncOpenAI) -> None:
    """Closes the client's connections, then the loop and the thread that runs it."""

    async def end() -> None:
        await client.close()
        await loop.shutdown_default_executor()

    asyncio.run_coroutine_threadsafe(end(), loop).result(timeout=10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(timeout=10)
    loop.close()
