"""Replies as plain data and back, for what keeps them. Nothing is pickled: files of others may be read."""

from __future__ import annotations

import dataclasses
import io
import zipfile
import zlib
from collections.abc import Mapping
from math import isnan, nan
from typing import Any, get_args

import numpy as np

from mmrerank.errors import DATA_ERRORS, BudgetError, ChatError, FailureKind, NoRoomError, ReplyError
from mmrerank.messages import Reply
from mmrerank.types import Usage

_ERRORS: dict[str, type[ChatError]] = {
    c.__name__: c for c in (ChatError, ReplyError, NoRoomError, BudgetError)
}
_KINDS = get_args(FailureKind)
UNREADABLE = (*DATA_ERRORS, OSError, EOFError, zipfile.BadZipFile, zlib.error)
"""What bytes raise that were not written here."""
MOST_UNPACKED = 2**28
"""Bytes of one reply's states; the largest are a vector for each token of a long question, some 10 MB."""
_MOST_COUNTED = 1e15


def to_plain(reply: Reply) -> dict[str, Any]:
    """Everything of ``reply`` but its states, ready for JSON."""
    error = reply.error
    return {
        "text": reply.text,
        "logprobs": dict(reply.logprobs),
        **({} if reply.mass is None else {"mass": reply.mass}),
        **({"bounds": list(reply.bounds)} if reply.bounds else {}),
        **({"scores": [None if isnan(s) else s for s in reply.scores]} if reply.scores else {}),
        **({"logits": True} if reply.logits else {}),
        "finish": reply.finish,
        "usage": dataclasses.asdict(reply.usage),
        **({"notes": list(reply.notes)} if reply.notes else {}),
        "error": None if error is None else _error_to_plain(error),
    }


def _error_to_plain(error: ChatError) -> dict[str, Any]:
    return {
        "kind": type(error).__name__,
        "says": str(error),
        "retryable": error.retryable,
        "why": error.kind,
        "systemic": error.systemic,
        **({} if error.retry_after is None else {"retry_after": error.retry_after}),
        **({} if error.limit is None else {"limit": error.limit}),
    }


def _error_from_plain(body: Mapping[str, Any]) -> ChatError:
    wait, limit, why = body.get("retry_after"), body.get("limit"), body.get("why")
    return _ERRORS.get(body["kind"], ChatError)(
        str(body["says"]),
        retryable=bool(body["retryable"]),
        kind=why if why in _KINDS else None,
        systemic=None if body.get("systemic") is None else bool(body["systemic"]),
        retry_after=None if wait is None else float(wait),
        limit=None if limit is None else int(limit),
    )


def from_plain(body: Mapping[str, Any], states: bytes | None = None) -> Reply:
    """The inverse of `to_plain` and `packed`. Raises those of `UNREADABLE`."""
    error = body["error"]
    known = {f.name for f in dataclasses.fields(Usage)}
    if body["finish"] not in ("stop", "length", "error") or not isinstance(body["text"], str):
        raise ValueError("no reply")
    return Reply(
        text=body["text"],
        logprobs={str(k): float(v) for k, v in body["logprobs"].items()},
        mass=None if body.get("mass") is None else float(body["mass"]),
        bounds=tuple(str(n) for n in body.get("bounds", ())),
        states=unpacked(states) if states else (),
        scores=tuple(nan if s is None else float(s) for s in body.get("scores", ())),
        logits=bool(body.get("logits")),
        usage=Usage(**{k: _count(v) for k, v in body["usage"].items() if k in known}),
        finish=body["finish"],
        notes=tuple(str(n) for n in body.get("notes", ())),
        error=None if error is None else _error_from_plain(error),
    )


def _count(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _MOST_COUNTED:
        raise ValueError("no count")
    return value


def packed(reply: Reply) -> bytes | None:
    """The states of ``reply`` as the bytes of an ``.npz``; None without any."""
    if not reply.states:
        return None
    file = io.BytesIO()
    np.savez(file, *reply.states)
    return file.getvalue()


def unpacked(data: bytes) -> tuple[np.ndarray[Any, Any], ...]:
    """The inverse of `packed`. Raises those of `UNREADABLE`."""
    with zipfile.ZipFile(io.BytesIO(data)) as members:
        size = sum(m.file_size for m in members.infolist())
    if size > MOST_UNPACKED:
        raise ValueError(f"states of {size:,} bytes; at most {MOST_UNPACKED:,} are read")
    with np.load(io.BytesIO(data), allow_pickle=False) as found:
        return tuple(found[f"arr_{n}"] for n in range(len(found.files)))
