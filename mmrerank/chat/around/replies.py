"""Replies as plain data and back, for what keeps them. Nothing is pickled: files of others may be read."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmrerank.errors import BudgetError, ChatError, ReplyError
from mmrerank.messages import Reply
from mmrerank.types import Usage

_ERRORS = {"ChatError": ChatError, "ReplyError": ReplyError, "BudgetError": BudgetError}


def to_plain(reply: Reply) -> dict[str, Any]:
    """Everything of ``reply`` but its states, ready for JSON."""
    error = reply.error
    return {
        "text": reply.text,
        "logprobs": dict(reply.logprobs),
        **({} if reply.mass is None else {"mass": reply.mass}),
        "finish": reply.finish,
        "usage": dataclasses.asdict(reply.usage),
        "error": None
        if error is None
        else {"kind": type(error).__name__, "says": str(error), "retryable": error.retryable},
    }


def from_plain(body: Mapping[str, Any], states: bytes | None = None) -> Reply:
    """The inverse of `to_plain` and `packed`. Raises `ValueError`, `KeyError` or `TypeError`."""
    error = body["error"]
    known = {f.name for f in dataclasses.fields(Usage)}
    if body["finish"] not in ("stop", "length", "error") or not isinstance(body["text"], str):
        raise ValueError("no reply")
    return Reply(
        text=body["text"],
        logprobs={str(k): float(v) for k, v in body["logprobs"].items()},
        mass=None if body.get("mass") is None else float(body["mass"]),
        states=unpacked(states) if states else (),
        usage=Usage(**{k: v for k, v in body["usage"].items() if k in known}),
        finish=body["finish"],
        error=None
        if error is None
        else _ERRORS.get(error["kind"], ChatError)(str(error["says"]), retryable=bool(error["retryable"])),
    )


def packed(reply: Reply) -> bytes | None:
    """The states of ``reply`` as the bytes of an ``.npz``; None without any."""
    if not reply.states:
        return None
    file = io.BytesIO()
    np.savez(file, *reply.states)
    return file.getvalue()


def unpacked(data: bytes) -> tuple[np.ndarray[Any, Any], ...]:
    """The inverse of `packed`."""
    with np.load(io.BytesIO(data), allow_pickle=False) as found:
        return tuple(found[f"arr_{n}"] for n in range(len(found.files)))
