"""What went wrong with one request to a server: whether it may pass, what to do, how long it asks to wait."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from mmrerank.chat.openai.amounts import wait_in_words
from mmrerank.chat.openai.complaints import about_the_request, meaning
from mmrerank.chat.openai.place import Place
from mmrerank.chat.openai.said import PAGE, ErrorText, retry_after
from mmrerank.errors import ChatError, FailureKind

LONGEST_WAIT = 60.0
"""Seconds waited at most between two tries; a server that asks for more is given up, and the run with it."""
_SHOWN = 300  # characters of what a server said
_READ = 8000  # characters that are searched for what it means
_EVERYBODYS: tuple[FailureKind, ...] = (
    "auth", "payment", "quota", "forbidden", "not_found", "address", "web_page",
)  # fmt: skip
_QUESTIONS: tuple[FailureKind, ...] = ("content_filter", "context", "too_large", "no_images", "image")


class Refused(ChatError):
    """The server wants nothing to do with any ask: a wrong key or model, or nobody is there."""


class Complaint(ChatError):
    """The server does not take this request as it is. ``whole`` is all that it said, codes included."""

    def __init__(self, message: str, whole: str, *, kind: FailureKind = "bad_request") -> None:
        super().__init__(message, kind=kind)
        self.whole = whole


@dataclass(frozen=True, kw_only=True)
class ServerFailure:
    """``error`` to report; ``wait`` is the seconds that the server asks for, None where it does not."""

    error: ChatError
    wait: float | None = None


def classified(error: Exception, said: ErrorText, *, place: Place, timeout: float) -> ServerFailure:
    """What ``error`` of the SDK or of asyncio means; ``said`` holds no secret."""
    import openai

    # by name: depending on its version, the SDK's HTTP library is httpx or httpx2
    kinds = {c.__name__ for c in type(error).__mro__}
    # what our own hooks raise is the cause of what the SDK raises then
    own = next((c for c in _causes(error) if isinstance(c, ChatError)), None)
    if own is not None:
        return ServerFailure(error=own, wait=own.retry_after)
    if isinstance(error, openai.APIStatusError):
        code, headers = error.status_code, error.response.headers
        if code < 400:
            return ServerFailure(error=_moved(code, headers, place))
        return of_words(code, said, place, wait=retry_after(headers))
    if isinstance(error, openai.APITimeoutError | TimeoutError) or "TimeoutException" in kinds:
        late = f"{place} gave no answer within {timeout:g} s"
        return ServerFailure(error=ChatError(late, retryable=True, kind="timeout"))
    if isinstance(error, openai.APIConnectionError) or "TransportError" in kinds:
        return ServerFailure(error=_unreachable(error, place))
    return ServerFailure(error=ChatError(f"{place}: {type(error).__name__}: {said.shown[:_SHOWN]}"))


def _moved(code: int, headers: Any, place: Place) -> ChatError:
    elsewhere = urlsplit(headers.get("location", ""))
    there = f"{elsewhere.scheme}://{elsewhere.netloc.rpartition('@')[2]}{elsewhere.path}"
    why = f"{place} answered {code} and points to {there}; name the base URL that answers itself"
    return Refused(why, kind="address")


def of_words(code: int, said: ErrorText, place: Place, *, wait: float | None = None) -> ServerFailure:
    """What an answer means whose status is ``code`` (0: none) and that asks to ``wait`` so many seconds."""
    whole = f"{said.shown[:_READ]} {said.codes}".strip()
    answered = f"{place} answered {code}" if code else f"{place} answered with an error"
    shown = f": {said.shown[:_SHOWN].rstrip('. ')}" if said.shown else ""
    if code == 403 and "logprob" in whole.casefold():
        # of OpenAI's reasoning models: it concerns questions with choices alone
        return ServerFailure(error=Complaint(f"{answered}{shown}", whole, kind="no_logprobs"))
    kind = meaning(code, whole)
    if code in (400, 501) and said.shown.startswith(PAGE):
        kind = "address"  # no server of this protocol answers with pages, but what stands at another port
    todo = remedy(kind, place)
    if kind in _EVERYBODYS:
        quoted = f" (it says{shown})" if shown else ""
        return ServerFailure(error=Refused(f"{answered}; {todo}{quoted}", kind=kind))
    hint = f". {todo}" if todo else ""
    # what lies in the question does not pass by waiting, whatever the status
    if (
        code in (400, 422)
        or kind in _QUESTIONS
        or (code in (424, *range(500, 600)) and about_the_request(whole))
    ):
        return ServerFailure(error=Complaint(f"{answered}{shown}{hint}", whole, kind=kind))
    wait = wait_in_words(whole) if wait is None else wait
    long = wait is not None and wait > LONGEST_WAIT
    asks = f"; it asks to wait {wait:,.0f} s: give the same command again then" if long else ""
    failed = ChatError(
        f"{answered}{shown}{hint}{asks}",
        retryable=kind in ("rate_limit", "timeout", "server") or code in (408, 409, 429) or code >= 500,
        kind=kind,
        systemic=long or None,
        retry_after=wait,
    )
    return ServerFailure(error=failed, wait=wait)


_REMEDIES: Mapping[FailureKind, str] = {
    "quota": "the quota is used up: wait until it is renewed or pay, then give the same command again",
    "payment": "the account has no credit left: pay, then give the same command again",
    "address": "name the base URL of the API, which often ends in /v1",
    "too_large": "Ask with fewer or smaller pictures (a smaller window or group_size, -o image_tokens=), or "
    "raise the server's limit",
    "context": "The question is longer than the model reads: ask with fewer or smaller pictures (a smaller "
    "window or group_size, -o image_tokens=), or start the server with more context",
    "content_filter": "A filter refused this question: leave that picture or text out, or ask another model",
    "no_images": "This model is not shown images there: name one that takes them",
}


def remedy(kind: FailureKind, place: Place) -> str:
    """What a person can do about a failure of ``kind``; empty where the server's own words must do."""
    if kind == "auth":
        return f"check {place.server.key}"
    if kind == "forbidden":
        return f"check {place.server.key} and what it allows"
    if kind == "not_found":
        split = urlsplit(place.url)
        usual = split.path.rstrip("/").endswith("/v1") or "/deployments/" in split.path
        base = "" if usual else f", as in {split.scheme}://{place.host}/v1"
        return (
            "check the model's name (`mmrerank doctor --chat` lists those there) and that the base URL ends "
            f"as the server wants, often in /v1{base}"
        )
    return _REMEDIES.get(kind, "")


def _unreachable(error: BaseException, place: Place) -> ChatError:
    """Nobody is there, which no later try mends soon; or a connection that was lost, which may pass."""
    causes = list(_causes(error))
    name = next((c for c in causes if isinstance(c, socket.gaierror)), None)
    unsafe = next((c for c in causes if isinstance(c, ssl.SSLError)), None)
    here = f"{place} cannot be reached"
    if name is not None:
        return Refused(f"{here}: no host of that name is found ({name.strerror})", kind="unreachable")
    if unsafe is not None:
        why = f"{here}: no safe connection ({unsafe.reason or unsafe}); is it http:// or https://?"
        return Refused(why, kind="unreachable")
    if any(isinstance(c, ConnectionRefusedError) for c in causes):
        where = "with" if place.local else "there with"
        start = f". Start it {where}: {place.start}" if place.start else ""
        return Refused(f"{here}: nothing listens there{start}", retryable=True, kind="unreachable")
    cause = type(error.__cause__ or error).__name__
    return ChatError(f"{here}, or hung up ({cause})", retryable=True, kind="unreachable")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """``error`` and what led to it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        if isinstance(error, BaseExceptionGroup):
            for one in error.exceptions:
                yield from _causes(one)
        error = error.__cause__ or error.__context__
