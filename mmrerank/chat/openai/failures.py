"""What went wrong with one request to a server: whether it may pass, and how long the server asks to wait."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from mmrerank.errors import ChatError

FATAL = (401, 403, 404)
"""Answers that concern every question: the key, the right to use the model, its name or the address."""


_WRONG_KEY = re.compile(
    r"(?i)(invalid|incorrect|missing).{0,20}api.key|api.key.{0,20}(not valid|invalid|incorrect|expired)"
)
_SHOWN = 300  # characters of what a server text


class Refused(ChatError):
    """The server wants nothing to do with any ask: a wrong key or model."""


class Complaint(ChatError):
    """The server does not take this request as it is (400 or 422). ``whole`` is all that it text."""

    def __init__(self, message: str, whole: str) -> None:
        super().__init__(message)
        self.whole = whole


@dataclass(frozen=True, kw_only=True)
class ServerFailure:
    """``error`` to report; ``wait`` is the seconds that the server asks for, None where it does not."""

    error: ChatError
    wait: float | None = None


def classified(error: Exception, *, where: str, text: str, timeout: float, key: str) -> ServerFailure:
    """What ``error`` of the SDK or of asyncio means.

    ``where`` names model and host, ``text`` is `error_text` without secrets, ``key`` the variable of the
    server's key.
    """
    import openai

    # by name: depending on its version, the SDK's HTTP library is httpx or httpx2
    kinds = {c.__name__ for c in type(error).__mro__}
    if isinstance(error, ChatError):
        return ServerFailure(error=error)
    if isinstance(error, openai.APIStatusError):
        code, whole, text = error.status_code, text, text[:_SHOWN]
        if code < 400:
            elsewhere = urlsplit(error.response.headers.get("location", ""))
            there = f"{elsewhere.scheme}://{elsewhere.netloc.rpartition('@')[2]}{elsewhere.path}"
            return ServerFailure(
                error=Refused(
                    f"{where} answered {code} and points to {there}; name the base URL that answers itself"
                )
            )
        if code == 403 and "logprob" in whole.casefold():
            # of OpenAI's reasoning models: it concerns questions with choices alone
            return ServerFailure(error=Complaint(f"{where} answered {code}: {text}", whole))
        if code in FATAL or (code == 400 and _WRONG_KEY.search(whole)):
            hint = (
                "check the model's name and that the base URL ends as the server wants, often in /v1"
                if code == 404
                else f"check {key}"
            )
            return ServerFailure(error=Refused(f"{where} answered {code}; {hint}"))
        if code in (400, 422):
            return ServerFailure(error=Complaint(f"{where} answered {code}: {text}", whole))
        again = code in (408, 409, 429) or code >= 500
        return ServerFailure(
            error=ChatError(f"{where} answered {code}: {text}", retryable=again),
            wait=retry_after(error.response.headers),
        )
    if isinstance(error, openai.APITimeoutError | TimeoutError) or "TimeoutException" in kinds:
        late = ChatError(f"{where} gave no answer within {timeout:g} s", retryable=True)
        return ServerFailure(error=late)
    if isinstance(error, openai.APIConnectionError) or "TransportError" in kinds:
        cause = type(error.__cause__ or error).__name__
        gone = ChatError(f"{where} cannot be reached, or hung up ({cause})", retryable=True)
        return ServerFailure(error=gone)
    return ServerFailure(error=ChatError(f"{where}: {type(error).__name__}: {text[:_SHOWN]}"))


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
