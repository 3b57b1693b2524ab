"""What went wrong with one request to a server: whether it may pass, and how long the server asks to wait."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from mmrerank.chat.openai.complaints import meaning, wait_in_words
from mmrerank.chat.openai.place import Place
from mmrerank.errors import ChatError, FailureKind

_SHOWN = 300  # characters of what a server said
LONGEST_WAIT = 60.0
"""Seconds waited at most between two tries; a server that asks for more is given up, and the run with it."""


class Refused(ChatError):
    """The server wants nothing to do with any ask: a wrong key or model, or nobody is there."""


class Complaint(ChatError):
    """The server does not take this request as it is (400 or 422). ``whole`` is all that it said."""

    def __init__(self, message: str, whole: str, **more: Any) -> None:
        super().__init__(message, **more)
        self.whole = whole


@dataclass(frozen=True, kw_only=True)
class ServerFailure:
    """``error`` to report; ``wait`` is the seconds that the server asks for, None where it does not."""

    error: ChatError
    wait: float | None = None


def classified(error: Exception, *, place: Place, text: str, timeout: float) -> ServerFailure:
    """What ``error`` of the SDK or of asyncio means. ``text`` is `error_text` without secrets."""
    import openai

    # by name: depending on its version, the SDK's HTTP library is httpx or httpx2
    kinds = {c.__name__ for c in type(error).__mro__}
    if isinstance(error, ChatError):
        return ServerFailure(error=error, wait=error.retry_after)
    if isinstance(error, openai.APIStatusError):
        return _answered(error, place, text)
    if isinstance(error, openai.APITimeoutError | TimeoutError) or "TimeoutException" in kinds:
        late = f"{place} gave no answer within {timeout:g} s"
        return ServerFailure(error=ChatError(late, retryable=True, kind="timeout"))
    if isinstance(error, openai.APIConnectionError) or "TransportError" in kinds:
        return ServerFailure(error=_unreachable(error, place))
    return ServerFailure(error=ChatError(f"{place}: {type(error).__name__}: {text[:_SHOWN]}"))


def _answered(error: Any, place: Place, text: str) -> ServerFailure:
    """An answer of a status that is no success."""
    code, headers = error.status_code, error.response.headers
    if code < 400:
        elsewhere = urlsplit(headers.get("location", ""))
        there = f"{elsewhere.scheme}://{elsewhere.netloc.rpartition('@')[2]}{elsewhere.path}"
        why = f"{place} answered {code} and points to {there}; name the base URL that answers itself"
        return ServerFailure(error=Refused(why, kind="address"))
    wait = retry_after(headers)
    return of_words(code, text, place, wait if wait is not None else wait_in_words(text))


def of_words(code: int, text: str, place: Place, wait: float | None = None) -> ServerFailure:
    """What an answer means whose status is ``code`` (0: none) and that says ``text``."""
    if code == 403 and "logprob" in text.casefold():
        # of OpenAI's reasoning models: it concerns questions with choices alone
        return ServerFailure(
            error=Complaint(f"{place} answered {code}: {text[:_SHOWN]}", text, kind="no_logprobs")
        )
    kind = meaning(code, text)
    said = f"{place} answered {code}" if code else f"{place} answered with an error"
    shown = f": {text[:_SHOWN]}" if text else ""
    if kind in ("auth", "payment", "quota", "forbidden", "not_found", "address"):
        hint = remedy(kind, place, text)
        return ServerFailure(
            error=Refused(f"{said}; {hint}{f' (it says{shown})' if shown else ''}", kind=kind)
        )
    if wait is not None and wait > LONGEST_WAIT and kind in ("rate_limit", "server"):
        asks = f"it asks to wait {wait:,.0f} s; give the same command again then"
        lasting = ChatError(
            f"{said}{shown}; {asks}", retryable=True, kind=kind, systemic=True, retry_after=wait
        )
        return ServerFailure(error=lasting, wait=wait)
    hint = f". {remedy(kind, place, text)}" if kind in REMEDIES else ""
    if code in (400, 422):
        return ServerFailure(error=Complaint(f"{said}{shown}{hint}", text, kind=kind))
    # what a question cannot help does not pass by waiting
    own = kind in ("content_filter", "context", "too_large", "no_images", "image")
    again = kind in ("rate_limit", "timeout", "server") or code in (408, 409, 429) or code >= 500
    failed = ChatError(f"{said}{shown}{hint}", retryable=again and not own, kind=kind, retry_after=wait)
    return ServerFailure(error=failed, wait=wait)


REMEDIES: Mapping[FailureKind, str] = {
    "too_large": "Ask with fewer or smaller pictures: a smaller window or group_size, or -o image_tokens=",
    "context": "The question is longer than the model reads: a smaller window or group_size, a smaller "
    "-o image_tokens=, or a server started with more context",
    "content_filter": "Its filter refused this question's text or pictures; leave that picture out, or ask "
    "another model",
    "no_images": "Name a model that takes images",
}
"""What to do, by kind, where the server's own words do not say it."""


def remedy(kind: FailureKind, place: Place, text: str = "") -> str:
    """What a person can do about a failure of ``kind``."""
    if kind == "auth":
        return f"check {place.server.key}"
    if kind == "forbidden":
        return f"check {place.server.key} and what it may use"
    if kind in ("quota", "payment"):
        return "its quota is spent: wait until it is renewed or pay, then give the same command again"
    if kind == "not_found":
        path = urlsplit(place.url).path.rstrip("/")
        most = "check the model's name (`mmrerank doctor --chat` lists what is there)"
        return f"{most} and that the base URL ends as the server wants, " + (
            f"often in /v1 (now {path or 'nothing'})" if not path.endswith("/v1") else "often in /v1"
        )
    if kind == "address":
        return "name the base URL of the API, which often ends in /v1"
    return REMEDIES.get(kind, "")


def _unreachable(error: BaseException, place: Place) -> ChatError:
    """Nobody is there, which no later try mends soon; or a connection that was lost, which may pass."""
    causes = list(_causes(error))
    name = next((c for c in causes if isinstance(c, socket.gaierror)), None)
    refused = any(isinstance(c, ConnectionRefusedError) for c in causes)
    secret = next((c for c in causes if isinstance(c, ssl.SSLError)), None)
    start = f"; start it with: {place.start}" if place.start else ""
    if name is not None:
        return Refused(
            f"{place} cannot be reached: there is no host of that name ({name})", kind="unreachable"
        )
    if secret is not None:
        why = f"{place} cannot be reached: no safe connection ({secret}); is it http:// or https://?"
        return Refused(why, kind="unreachable")
    if refused:
        why = f"{place} cannot be reached: nothing listens there (ConnectionRefusedError){start}"
        return Refused(why, kind="unreachable")
    cause = type(error.__cause__ or error).__name__
    gone = f"{place} cannot be reached, or hung up ({cause})"
    return ChatError(gone, retryable=True, kind="unreachable")


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


def error_text(error: Any) -> str:
    """What a server text, in whichever shape, on one line: the body of an exception, or a body itself."""
    body = vars(error).get("body") if isinstance(error, Exception) else None
    text = _message(body) or _message(error) or str(error)
    return " ".join(text.split())


def _message(body: Any) -> str:
    """``{"error": {"message": ...}}`` and its relatives (Gemini's list, FastAPI's detail, a plain text)."""
    if isinstance(body, str):
        return "" if body.lstrip().startswith("<") else body  # a page for people
    if isinstance(body, list):
        return "; ".join(filter(None, map(_message, body[:5])))
    if not isinstance(body, dict):
        return ""
    found = next((m for name in ("message", "error", "detail", "msg") if (m := _message(body.get(name)))), "")
    parameter = body.get("param")
    named = found and isinstance(parameter, str) and parameter not in found
    return f"{found} ({parameter})" if named else found


def retry_after(headers: Any) -> float | None:
    """Seconds to wait, from ``retry-after-ms`` or ``Retry-After`` in seconds or as an HTTP date."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            wait = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        return max(wait, 0.0) if wait < float("inf") else None
    try:
        until = parsedate_to_datetime(headers.get("retry-after", "")).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
    try:  # by the server's own clock, where it tells it
        now = parsedate_to_datetime(headers.get("date", "")).timestamp()
    except (TypeError, ValueError, OverflowError):
        now = time.time()
    return max(until - now, 0.0)
