"""What a server said, whatever the shape: words for a person, codes for a program, how long to wait."""

from __future__ import annotations

import html
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from mmrerank.chat.openai.amounts import LONGEST_NAMED

PAGE = "a web page"
"""How the words for a page begin, whatever it says."""
_CODES = ("code", "type", "status", "reason", "quotaId", "raw")
_DEEP = 12
"""Levels of a body that are looked through; the id of Gemini's quota stands on the seventh."""
_SDK = re.compile(r"^Error code: \d+( - )?")
"""What the SDK puts before a body, or in the place of an empty one."""
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>|<h1[^>]*>(.*?)</h1>", re.I | re.S)


@dataclass(frozen=True, kw_only=True)
class ErrorText:
    """``shown`` to a person, on one line; ``codes`` beside it."""

    shown: str
    codes: str = ""


def error_text(error: Any) -> ErrorText:
    """What stands in the body of an exception of the SDK, or in a body itself."""
    body = vars(error).get("body") if isinstance(error, Exception) else error
    text = _message(body) or _page(body if body is not None else str(error)) or _SDK.sub("", str(error))
    return ErrorText(shown=" ".join(text.split()), codes=" ".join(dict.fromkeys(_codes(body, _DEEP)))[:500])


def _message(body: Any) -> str:
    """``{"error": {"message": ...}}`` and its relatives (Gemini's list, FastAPI's detail, a plain text)."""
    if isinstance(body, str):
        return "" if _page(body) else body
    if isinstance(body, list):
        return "; ".join(filter(None, map(_message, body[:5])))
    if not isinstance(body, dict):
        return ""
    found = next((m for name in ("message", "error", "detail", "msg") if (m := _message(body.get(name)))), "")
    parameter = body.get("param")
    named = found and isinstance(parameter, str) and parameter not in found
    return f"{found} ({parameter})" if named else found


def _codes(body: Any, depth: int) -> Iterator[str]:
    """What stands under keys that are meant for programs: OpenAI's code, FastAPI's loc, Gemini's quotaId."""
    if isinstance(body, list):
        for item in body[:5]:
            yield from _codes(item, depth - 1)
    if not isinstance(body, dict) or not depth:
        return
    for name, value in body.items():
        if name in _CODES and isinstance(value, str):
            yield value
        elif name == "retryDelay" and isinstance(value, str):
            yield f"{name}: {value}"
        elif name == "loc" and isinstance(value, list):
            yield ".".join(v for v in value if isinstance(v, str))
        elif isinstance(value, dict | list):
            yield from _codes(value, depth - 1)


def _page(body: Any) -> str:
    """A page for people in one line; empty for anything else."""
    if not isinstance(body, str) or not body.lstrip().startswith("<"):
        return ""
    title = _TITLE.search(body)
    inner = (title[1] or title[2] or "") if title else ""
    words = " ".join(html.unescape(re.sub(r"<[^>]*>", " ", inner)).split())[:100]
    return f"{PAGE}, titled {words!r}" if words else PAGE


def retry_after(headers: Any) -> float | None:
    """Seconds to wait, from ``retry-after-ms`` or ``Retry-After`` in seconds or as an HTTP date."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            wait = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        return min(max(wait, 0.0), LONGEST_NAMED) if wait < float("inf") else None
    try:
        until = parsedate_to_datetime(headers.get("retry-after", "")).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
    try:  # by the server's own clock, where it tells it
        now = parsedate_to_datetime(headers.get("date", "")).timestamp()
    except (TypeError, ValueError, OverflowError):
        now = time.time()
    return max(until - now, 0.0)
