"""Sends one request and brings the response's bytes: tries again what may pass, says why the rest failed."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

from mmrerank.chat.openai.failures import LONGEST_WAIT, Refused, ServerFailure, classified, of_words
from mmrerank.chat.openai.limits import Limits
from mmrerank.chat.openai.place import Place
from mmrerank.chat.openai.reading import trouble
from mmrerank.chat.openai.said import ErrorText, error_text
from mmrerank.chat.openai.sdk import LARGEST, arguments
from mmrerank.chat.openai.secret import Secret
from mmrerank.chat.openai.stream import assembled
from mmrerank.errors import ChatError, ReplyError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

LONGEST_STREAM = 10
"""A stream may last so many times the timeout, which then bounds its silences only."""


class Sender:
    """The way to one server. ``answered`` says whether it ever gave an answer."""

    def __init__(self, client: AsyncOpenAI, place: Place, limits: Limits, key: str) -> None:
        self._client, self._place, self._limits, self._secret = client, place, limits, Secret(key)
        self.answered = False

    async def send(self, request: dict[str, Any]) -> bytes:
        """The response's bytes, after at most ``max_retries`` more tries where the failure may pass.

        Raises `ChatError`: `Refused` for what concerns every question, `Complaint` for this one.
        """
        for tried in range(self._limits.max_retries + 1):
            try:
                return await self._post(request)
            except Exception as error:  # what the SDK, its HTTP library or asyncio raise is put in words
                failure = self.classified(error)
                wait = failure.wait or 0.0
                last = tried == self._limits.max_retries or wait > LONGEST_WAIT
                # where nobody ever answered there is nobody to wait for
                nobody = isinstance(failure.error, Refused) and not self.answered
                if not failure.error.retryable or last or nobody:
                    raise failure.error from None  # the original may quote the request's headers
            # on top of what the server asks for, or all who got the same answer come back together
            pause = self._limits.backoff * 2**tried * random.uniform(0.5, 1.0)
            await asyncio.sleep(wait + min(pause, LONGEST_WAIT))
        raise AssertionError("the last try returns or raises")

    def classified(self, error: Exception) -> ServerFailure:
        """What an exception means, without the key."""
        found = classified(error, self._said(error), place=self._place, timeout=self._limits.timeout)
        # where a redirect points to, or what a transport quotes
        found.error.args = tuple(self.clean(a) if isinstance(a, str) else a for a in found.error.args)
        return found

    def _said(self, error: Any) -> ErrorText:
        said = error_text(error)
        return ErrorText(shown=self.clean(said.shown), codes=self.clean(said.codes))

    def clean(self, text: str) -> str:
        """``text`` without the key."""
        return self._secret.clean(text)

    async def _post(self, request: dict[str, Any]) -> bytes:
        call = self._client.chat.completions.with_streaming_response.create(**arguments(request))
        received = bytearray()
        stream, patience = bool(request.get("stream")), self._limits.timeout
        clock = asyncio.get_running_loop().time
        end = clock() + LONGEST_STREAM * patience
        async with asyncio.timeout(patience) as limit, call as response:
            async for piece in response.iter_bytes():
                received += piece
                if len(received) > LARGEST:
                    raise ReplyError(f"{self._place} sent more than {LARGEST >> 20} MB; given up")
                if stream:
                    limit.reschedule(min(clock() + patience, end))
        whole = assembled(bytes(received)) if stream else bytes(received)
        if whole is None:
            raise ChatError(f"{self._place} broke its stream off", retryable=True, kind="server")
        if (found := trouble(whole)) is not None:
            error, code = found
            raise of_words(code, self._said(error), self._place).error
        # a server that quotes the request's headers must not put the key into a trace
        return self._secret.clean_bytes(whole)
