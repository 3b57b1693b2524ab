"""A streamed chat completion put together again: server-sent events in, the plain response's bytes out."""

from __future__ import annotations

import json
from typing import Any

_CALL = "tool_calls"


def assembled(received: bytes) -> bytes | None:
    """The response that a stream tells piece by piece; None when the stream broke off before its end.

    Bytes that are no stream (servers that ignore ``stream``, error pages) come back as they are.
    """
    received = received.removeprefix(b"\xef\xbb\xbf")
    if not received.lstrip().startswith((b"data:", b"event:", b"id:", b"retry:", b":")):
        return received
    pieces: dict[str, list[str]] = {"content": []}
    whole: dict[str, Any] = {}
    finish: str | None = None
    ended, name = False, b""
    for line in received.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"):
        field, _, value = line.partition(b":")
        if field == b"event":
            name = value.strip()
        if field != b"data":
            continue
        if value.strip() == b"[DONE]":
            ended = True
            break
        try:
            event = json.loads(value)
        except (ValueError, RecursionError):
            continue  # a piece that was cut, and then there is no end either
        if not isinstance(event, dict):
            continue
        # many servers write "error": null into every piece
        if event.get("error"):
            return json.dumps({"error": event["error"]}).encode()
        if event.get("object") == "error" or (name == b"error" and "choices" not in event):
            return json.dumps({"error": event}).encode()
        whole.update({k: v for k, v in event.items() if k in ("model", "usage") and v})
        choices = event.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            continue
        if choice.get("error"):
            return json.dumps({"error": choice["error"]}).encode()
        # some send the message whole
        _add(pieces, choice.get("delta") or choice.get("message"))
        finish = choice.get("finish_reason") or finish
    if not ended and finish is None:
        return None
    message: dict[str, Any] = {
        "role": "assistant",
        **{n: "".join(p) for n, p in pieces.items() if n != _CALL},
    }
    if _CALL in pieces:
        message["tool_calls"] = [{"function": {"arguments": "".join(pieces[_CALL])}}]
    whole["choices"] = [{"index": 0, "message": message, "finish_reason": finish or "stop"}]
    return json.dumps(whole).encode()


def _add(pieces: dict[str, list[str]], delta: Any) -> None:
    """Adds a piece's texts to ``pieces``, those of a tool's arguments included."""
    if not isinstance(delta, dict):
        return
    for name in ("content", "reasoning_content", "reasoning", "refusal"):
        value = delta.get(name)
        parts = value if isinstance(value, list) else [{"text": value}]
        for part in parts:
            text = part.get("text") if isinstance(part, dict) else None
            if isinstance(text, str):
                pieces.setdefault(name, []).append(text)
    calls = delta.get("tool_calls")
    for call in calls if isinstance(calls, list) else []:
        function = call.get("function") if isinstance(call, dict) else None
        text = function.get("arguments") if isinstance(function, dict) else None
        if isinstance(text, str):
            pieces.setdefault(_CALL, []).append(text)
