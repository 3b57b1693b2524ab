"""The tokens of a vLLM server's vocabulary that spell a label, by its ``/tokenize``.

Labels asked for by the ids of their tokens come back with their own log-probabilities, however unlikely they
are (``logprob_token_ids``, vLLM's chat protocol); otherwise only the likeliest tokens are listed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mmrerank.chat.labels import NEWLINE, spelt, token_ids
from mmrerank.errors import UsageError
from mmrerank.messages import Ask

if TYPE_CHECKING:
    from openai import AsyncOpenAI

MOST = 128
"""Tokens that one request may ask for by id."""
_LARGEST_ID = 2**31
_SECONDS = 20.0  # for one text; it takes milliseconds


class Vocabulary:
    """What one server says of its tokens; each text is sent once. All calls are of one event loop."""

    def __init__(self, client: AsyncOpenAI, base_url: str, model: str) -> None:
        self._client, self._model = client, model
        split = urlsplit(base_url)
        # beside /v1, not below it
        path = split.path.rstrip("/").removesuffix("/v1")
        self._url = split._replace(path=f"{path}/tokenize", query="", fragment="").geturl()
        self._known: dict[tuple[tuple[str, ...], bool], dict[int, str]] = {}
        self._texts: dict[str, list[int]] = {}
        self._lock = asyncio.Lock()
        self.silent = False
        """Whether the server has no ``/tokenize`` that answers; it is then not asked again."""

    async def ids(self, ask: Ask) -> dict[int, str]:
        """The label of ``ask`` by each token that spells it; empty where the server does not tell."""
        key = (ask.choices, ask.exact)
        async with self._lock:
            if key not in self._known and not self.silent:
                self._known[key] = await self._found(ask)
        return self._known.get(key, {})

    async def _found(self, ask: Ask) -> dict[int, str]:
        texts = [s for own in spelt(ask.choices, exact=ask.exact).values() for s in own]
        for text in (NEWLINE, *(f"{NEWLINE}{s}" for s in texts), *ask.choices):
            if text not in self._texts:
                tokens = await self._tokens(text)
                if tokens is None:
                    self.silent = True
                    return {}
                self._texts[text] = tokens
        last = {self._texts[f"{NEWLINE}{s}"][-1]: s for s in texts if self._texts[f"{NEWLINE}{s}"]}
        try:
            found = token_ids(ask.choices, self._texts.__getitem__, last.__getitem__, exact=ask.exact)
        except UsageError:
            return {}  # the likeliest tokens tell what they can
        ids = {n: label for label, own in found.items() for n in own}
        return ids if len(ids) <= MOST else {}

    async def _tokens(self, text: str) -> list[int] | None:
        """The ids of ``text``, or None where there is no answer of that form."""
        request = {"model": self._model, "prompt": text, "add_special_tokens": False}
        try:
            async with asyncio.timeout(_SECONDS):
                answer: Any = await self._client.post(self._url, body=request, cast_to=object)
        except Exception:  # whatever the SDK raises: labels can be asked for without, and a 404 is usual
            return None
        tokens = answer.get("tokens") if isinstance(answer, dict) else None
        if not isinstance(tokens, list) or not all(type(n) is int and 0 <= n < _LARGEST_ID for n in tokens):
            return None
        return tokens
