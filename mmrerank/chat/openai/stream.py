"""A streamed chat completion put together again: server-sent events in, the plain response's bytes out."""

from __future__ import annotations

import json
from typing import Any


def assembled(received: bytes) -> bytes | None:
    """The response that a stream tells piece by piece; None when the stream broke off before its end.

    Bytes that are no stream (servers that ignore ``stream``, error pages) come back as they are.
    """
    if not received.lstrip().startswith((b"data:", b"event:", b"id:", b":")):
        return received
    message: dict[str, Any] = {"role": "assistant", "content": ""}
    whole: dict[str, Any] = {}
    finish: str | None = None
    ended = False
    for line in received.replace(b"\r\n", b"\n").split(b"\n"):
        field, _, value = line.partition(b":")
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
        if "error" in event:
            return json.dumps({"error": event["error"]}).encode()
        whole.update({k: v for k, v in event.items() if k in ("model", "usage") and v})
        choices = event.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            continue
        delta = choice.get("delta")
        for name, text in (delta if isinstance(delta, dict) else {}).items():
            if isinstance(text, str) and name in ("content", "reasoning_content", "reasoning"):
                message[name] = message.get(name, "") + text
        finish = choice.get("finish_reason") or finish
    if not ended and finish is None:
        return None
    whole["choices"] = [{"index": 0, "message": message, "finish_reason": finish or "stop"}]
    return json.dumps(whole).encode()
