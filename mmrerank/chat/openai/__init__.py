"""OpenAI-compatible servers: ``openai:MODEL@BASE_URL``, or by name, ``ollama:MODEL``, ``vllm:MODEL@HOST``.

Sends with bounded concurrency, tries again only what may succeed again, and finds out what the server
really does instead of trusting a 200. Whether a text means anything is for the parser to say. The key
comes from the server's own variable (``OPENAI_API_KEY`` for ``openai:``) and is never written anywhere.
"""

from __future__ import annotations

import asyncio
import json
import time
import weakref
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from urllib.parse import urlsplit

from mmrerank.answering import Numbered, in_order
from mmrerank.budget import PER_MESSAGE, bound
from mmrerank.chat.openai.address import address
from mmrerank.chat.openai.amounts import most_images
from mmrerank.chat.openai.dialect import Dialect
from mmrerank.chat.openai.failures import Complaint, Refused
from mmrerank.chat.openai.learning import Trial
from mmrerank.chat.openai.limits import Limits as Limits
from mmrerank.chat.openai.loop import Loop
from mmrerank.chat.openai.offers import offers
from mmrerank.chat.openai.outage import Outage
from mmrerank.chat.openai.place import Place
from mmrerank.chat.openai.reading import answered_as, follows, lists, notes, off_schema, reading
from mmrerank.chat.openai.sdk import connected, stop
from mmrerank.chat.openai.sending import Sender
from mmrerank.chat.openai.vocabulary import Vocabulary
from mmrerank.chat.openai.wire import body, fields, images_of, in_words
from mmrerank.chat.thinking import each_with_thoughts
from mmrerank.errors import DATA_ERRORS, ChatError, InputError, ReplyError, UsageError, in_short
from mmrerank.images.budget import pixels_per_token as per_token
from mmrerank.messages import Ask, Reply
from mmrerank.ports import LEAST_SHARE, Capability, Chat, ChatFacts, Room
from mmrerank.types import Usage

FORM = "openai:MODEL[@BASE_URL]"  # read from the source text by `mmrerank list`
IN_VAIN = 3
"""Replies off their schema after which the schema always stands in the prompt."""
_MOST_LISTED, _LONGEST_NAME = 10_000, 500
"""Models of a server that are listed, and characters of a name; hosted gateways list some hundreds."""


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
        self.dialect = self._wanted = dialect or Dialect()
        self._place = place or Place(model=model, url=base_url)
        self.cached_tokens = 0
        """Prompt tokens that the server reports to have read before."""
        self.thought = False
        """Whether an answer came with thoughts."""
        self.room = Room(images=self.limits.images, tokens=self.limits.context)
        self.most_images: int | None = self.limits.images or None
        """Images a question may hold, once the server has refused more."""
        self._accepted: set[str] = set()  # fields of requests that were answered
        self._obeyed = False  # whether a reply ever followed its schema without being told in words
        self._in_vain = 0
        self._most_shown = 0  # images of a question that was answered
        self._outage = Outage()
        self._capabilities: frozenset[Capability] | None = None
        self._loop = Loop(f"chat {self.host}", self._place)
        self._room = asyncio.Semaphore(self.concurrency)
        self._client = self._loop.wait(connected(base_url, api_key, self.limits.timeout))
        self._vocabulary = Vocabulary(self._client, base_url, model)
        self._sender = Sender(self._client, self._place, self.limits, api_key)
        self._end = weakref.finalize(self, stop, self._loop.loop, self._loop.thread, self._client)

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

        Only what the server showed or said itself counts as lacking. A server that is down, a spent quota and
        the like are raised as the `ChatError` that they are; an odd answer counts as nothing. Either is asked
        about again next time.
        """
        if self._capabilities is None:
            found, known = offers(lambda ask: self.reply([ask])[0].error)
            if not known:
                return found
            self._capabilities = found
        return self._capabilities

    @capabilities.setter
    def capabilities(self, value: frozenset[Capability]) -> None:
        self._capabilities = value

    def reply(self, asks: Sequence[Ask]) -> list[Reply]:
        """Answers every ask. Raises `ChatError` when the server refuses the key or knows no such model."""
        return self.reply_within(asks, None)

    def reply_within(self, asks: Sequence[Ask], seconds: float | None) -> list[Reply]:
        """`reply`, where what is not answered after so many seconds gets a reply with a `BudgetError`."""
        return in_order(self.reply_each(asks, seconds))

    def reply_each(self, asks: Sequence[Ask], seconds: float | None = None) -> Numbered:
        """Replies as the server gives them; each bears the wall time since the one before."""
        start = last = time.perf_counter()

        def within(some: Sequence[Ask]) -> Numbered:
            left = None if seconds is None else max(seconds - (time.perf_counter() - start), 0.0)
            return self._loop.each(self._one, some, left)

        with closing(each_with_thoughts(asks, within)) as found:
            for place, reply in found:
                waited, last = time.perf_counter() - last, time.perf_counter()
                yield place, replace(reply, usage=reply.usage + Usage(seconds=waited))

    def bound(self, ask: Ask) -> Usage:
        """The most that ``ask`` is taken to cost: `budget.bound`, with thoughts and a schema in words."""
        most = bound(ask)
        if ask.schema is not None and not ask.choices and self.dialect.schema_in_prompt:
            words = len(in_words(ask).encode()) + PER_MESSAGE
            most += Usage(input_tokens=words)
        thinks = not ask.choices or ask.think
        return most + Usage(output_tokens=self.limits.thinking if thinks else 0)

    def cancel(self) -> None:
        """Gives up every question under way; the calls that wait for them end with an error."""
        self._loop.cancel()

    def facts(self) -> ChatFacts:
        """What the server does, as far as it was asked."""
        held = not self.dialect.schema_in_prompt
        return ChatFacts(
            model=self.model,
            cached_tokens=self.cached_tokens,
            thinks=self.thought,
            schema="obeyed" if held else "ignored" if self.dialect.schema == "strict" else "refused",
        )

    def models(self) -> list[str]:
        """The names of the models that the server lists; none where it lists none. Raises `ChatError`."""

        async def listed() -> list[str]:
            try:
                async with asyncio.timeout(self.limits.timeout):
                    page = await self._client.models.list()
                # whatever a server that only resembles the protocol sends
                rows = vars(page).get("data")
                found = [vars(m).get("id") for m in rows] if isinstance(rows, list) else []
            except Exception as error:  # as in `Sender`: whatever the SDK raises is put in words
                raise self._sender.classified(error).error from None
            return [name[:_LONGEST_NAME] for name in found if isinstance(name, str)][:_MOST_LISTED]

        return self._loop.wait(listed())

    def close(self) -> None:
        """Closes connections and the thread; later calls of `reply` fail."""
        self._end()

    async def _one(self, ask: Ask, asked: float) -> Reply:
        images = images_of(ask.messages)
        usage = Usage(calls=1, images=images)
        async with self._room:
            if (gone := self._outage.since(asked)) is not None:
                return Reply(error=gone, finish="error")  # not sent
            try:
                if ask.read:
                    raise ChatError(f"{self._place}: a server does not give {ask.read}")
                if self.most_images is not None and images > self.most_images:
                    raise self._too_many_images(images)
                reply = await self._ask(ask)
            except (InputError, OSError) as error:
                shown = ChatError(f"an image of the question cannot be shown: {error}", kind="image")
                return Reply(error=shown, finish="error", usage=Usage(calls=1))
            except ChatError as error:
                # refused at once is refused for good; later on it is this question's own trouble
                if isinstance(error, Refused) and not self._sender.answered:
                    raise
                reply = Reply(error=error, finish="error")
            except DATA_ERRORS as error:  # of one answer, whatever is wrong with it; the others have theirs
                odd = ReplyError(f"{self._place} gave an answer that cannot be read: {in_short(error)}")
                reply = Reply(error=odd, finish="error")
        self._outage.note(reply.error)
        if reply.error is None:
            self._sender.answered = True
        else:
            reply.error.args = (self._sender.clean(str(reply.error)),)  # it may quote what the server said
        return replace(reply, usage=reply.usage + usage)

    async def _ask(self, ask: Ask) -> Reply:
        """One answer, in the plainest dialect that it takes; the dialect that worked is remembered."""
        trial, spent, in_words_now = Trial(self.dialect), Usage(), False
        images = images_of(ask.messages)
        while True:
            by_id = ask.choices and trial.dialect.by_id
            ids = await self._vocabulary.ids(ask) if by_id else {}
            request = await asyncio.to_thread(
                body, ask, self.model, trial.dialect, thinking=self.limits.thinking, wanted=self._wanted,
                ids=ids,
            )  # fmt: skip
            try:
                payload = await self._sender.send(request.fields)
            except Complaint as complaint:
                most = most_images(complaint.whole, images)
                if most is not None and most >= self._most_shown:
                    self.most_images, self.room = most, replace(self.room, images=most)
                    raise self._too_many_images() from None
                if trial.goes_on(complaint, request.fields, frozenset(self._accepted)):
                    continue
                if ask.choices and "logprob" in complaint.whole.casefold():
                    complaint.kind = "no_logprobs"
                if own := [n for n in self.dialect.extra if n in complaint.whole]:
                    complaint.args = (f"{complaint}. It was sent for --chat-option extra: {', '.join(own)}",)
                return Reply(error=complaint, finish="error", usage=spent)
            except ChatError as error:
                if isinstance(error, Refused):
                    raise
                # an answer before this one has been paid for
                return Reply(error=error, finish="error", usage=spent)
            if not self.limits.any_model and (other := answered_as(payload, self.model)):
                raise Refused(
                    f"{self._place} answered as {other!r}; name that model, or take it with "
                    "--chat-option any_model=true",
                    kind="address",
                )
            self._accepted |= request.fields.keys()
            self._most_shown = max(self._most_shown, images)
            seen = notes(payload)
            self.cached_tokens += seen.cached_tokens
            self.thought = self.thought or seen.thought
            if ids and not lists(payload, ids):  # older servers pass over fields that they do not know
                self.dialect = replace(self.dialect, by_id=False)
                trial, spent = Trial(self.dialect), spent + reading(ask, payload).usage
                continue
            few = trial.dialect.top < self._wanted.top  # then the request's notes say so
            masked = "structured_outputs" in request.fields
            reply = reading(ask, payload, top=0 if few else trial.dialect.top, ids=ids, masked=masked)
            asked = ask.schema is not None and "response_format" in request.fields and reply.error is None
            if not in_words_now or self._formless(ask, reply):
                self.dialect = self.dialect.after(trial.known, trial.dialect)
                trial.known = trial.dialect
            # a server that ignores response_format answers 200 and prose: tell it in words, once
            if asked and not trial.dialect.schema_in_prompt:
                if off_schema(reply, ask.schema or {}):
                    trial.dialect = replace(trial.dialect, schema_in_prompt=True)
                    in_words_now, spent = True, reply.usage
                    continue
                self._obeyed = True
            return replace(reply, usage=reply.usage + spent, notes=(*request.notes, *reply.notes))

    def _formless(self, ask: Ask, reply: Reply) -> bool:
        """Whether the schema must stand in the prompt from now on, after a reply to that.

        One that followed it proves it, and so do a few that did not; but not where the server held to
        schemas before: there it was this question's own trouble.
        """
        if self._obeyed:
            return False
        self._in_vain += 1
        return follows(reply, ask.schema or {}) or self._in_vain >= IN_VAIN

    def _too_many_images(self, images: int | None = None) -> ChatError:
        held = "" if images is None else f"; this one holds {images}"
        return ChatError(
            f"{self._place} takes at most {self.most_images} image(s) a question{held}. Ask with fewer "
            "(a smaller window or group_size), or start the server with a higher limit "
            "(vLLM: --limit-mm-per-prompt)",
            kind="too_many_images",
            limit=self.most_images,
        )


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
    pixels_per_token: int = 0,
    any_model: bool = False,
    label_share: float = LEAST_SHARE,
    images: int = 0,
    context: int = 0,
    extra: str = "",
) -> OpenAIChat:
    """Opens ``MODEL@BASE_URL``, ``MODEL@SERVER+BASE_URL`` (a name of ``servers.toml``), or ``MODEL`` at
    ``OPENAI_BASE_URL`` (default: OpenAI's own). Nothing is sent yet.

    ``timeout`` (seconds) bounds each try, with ``stream`` its silences; ``max_retries`` the tries after the
    first, ``concurrency`` the requests under way; ``backoff`` is the first pause in seconds and doubles.
    ``thinking`` tokens may go before an answer (0: none wanted). A visual token of the model sees
    ``pixels_per_token`` pixels (0: as its name has it). ``extra`` is a JSON object of more fields for every
    request; labels that hold less than ``label_share`` of the probability are asked for again as
    text; ``any_model``, ``images`` and ``context`` as in `Limits`. Raises `UsageError` for a spec that names
    no model or no usable address.
    """
    if pixels_per_token < 0:
        raise UsageError(f"pixels_per_token is a number of pixels, such as 1024, not {pixels_per_token}")
    found = address(rest)
    chat = OpenAIChat(
        found.model,
        found.url,
        api_key=found.key(api_key),
        limits=Limits(
            timeout=timeout, max_retries=max_retries, concurrency=concurrency, backoff=backoff,
            thinking=thinking, any_model=any_model, images=images, context=context,
        ),
        dialect=Dialect(
            limit=found.limit, stream=stream, extra=fields(extra), quiet=found.server.quiet,
            chooses=found.server.chooses, by_id=found.server.chooses,
            pixels_per_token=pixels_per_token or per_token(found.model),
        ),
        place=Place(model=found.model, url=found.url, server=found.server),
    )  # fmt: skip
    chat.label_share = label_share
    return chat
