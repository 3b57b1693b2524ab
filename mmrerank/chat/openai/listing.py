"""Labels in the list of likeliest tokens that servers give: values, bounds, or nothing. Pure functions.

A list holds at most some twenty tokens. A label none of whose spellings is among them has at most the
log-probability of the least likely one: that bounds it, and is no value. What is not listed is added to
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mmrerank.chat.labels import id_of, label_of, log_sum, normalised
from mmrerank.errors import FailureKind, ReplyError
from mmrerank.messages import Ask, Reply

MOST_LOG = 1e4
"""A log-probability farther from 0 than this is cut to it: some servers write -inf as -9999."""
IMPOSSIBLE = -9e3
"""What lies below is a token that a mask forbids."""
_ROUNDING, _ODD = 1e-6, 1e-2  # of probabilities, which may add up to a little more than 1
BOUND = (
    "some labels were not among the likeliest tokens that the server lists: at most the probability of the "
    "least of them is known"
)


class NoLogprobsError(ReplyError):
    """The server sent no log-probabilities at all."""

    kind: FailureKind = "no_logprobs"


class UnlistedError(ReplyError):
    """The server listed likely tokens, and none of the labels is one of them."""

    kind: FailureKind = "labels"


def chosen(
    ask: Ask, choice: Any, *, asked: int = 0, ids: Mapping[int, str] | None = None, masked: bool = False
) -> Reply:
    """The log-probabilities that a response's ``choice`` gives the labels of ``ask``.

    ``asked`` is how many were asked for, ``ids`` the label of each token that was asked for by its id;
    ``masked`` whether the server was told to consider labels alone: then their share of the probability may
    be one that the mask made. Raises `NoLogprobsError` or `UnlistedError`.
    """
    tokens = _tokens(choice)
    if not tokens:
        raise NoLogprobsError("the server returned no log-probabilities")
    values: dict[str, list[float]] = {}
    for token, (value, spelt) in tokens.items():
        label = _label(token, spelt, ask, ids or {})
        if label is not None and value > IMPOSSIBLE:
            values.setdefault(label, []).append(value)
    if not values:
        raise UnlistedError(_unlisted(ask, tokens))
    known, total = normalised({n: log_sum(v) for n, v in values.items()})
    bound = _bound([value for value, _ in tokens.values()])
    bounds = tuple(n for n in ask.choices if n not in known)
    # a share of all is what a mask leaves of any distribution
    hidden = masked and total > -1e-3
    few = len(tokens) < asked
    return Reply(
        logprobs={n: known.get(n, bound - total) for n in ask.choices},
        mass=None if hidden else min(total, 0.0),
        bounds=bounds,
        notes=() if not bounds or not asked else (_few(len(tokens), asked) if few else BOUND,),
    )


def complete(choice: Any, ids: Mapping[int, str]) -> bool:
    """Whether a response lists all of ``ids``: a server that does not know the field ignores it."""
    return ids.keys() <= {id_of(token) for token in _tokens(choice)}


def _label(token: str, spelt: str, ask: Ask, ids: Mapping[int, str]) -> str | None:
    by_id = id_of(token)
    if by_id is not None and ids:
        return ids.get(by_id)
    found = label_of(token, ask.choices, exact=ask.exact)
    return label_of(spelt, ask.choices, exact=ask.exact) if found is None and spelt else found


def _bound(values: Sequence[float]) -> float:
    """What a token that is not listed has at most: the least of what is, or all that is left."""
    left = 1.0 - sum(math.exp(min(v, 0.0)) for v in values)
    if left < -_ODD:  # they are no probabilities
        return min(values)
    return min(min(values), math.log(max(left, 0.0) + _ROUNDING))


def _tokens(choice: Any) -> dict[str, tuple[float, str]]:
    """Log-probabilities of the likeliest first tokens, and what their bytes spell.

    As chats have them, or as completions did before.
    """
    logprobs = _at(choice, "logprobs")
    content, older = _at(logprobs, "content"), _at(logprobs, "top_logprobs")
    first = content[0] if isinstance(content, list) and content else None
    listed = _at(first, "top_logprobs")
    rows: list[tuple[Any, Any, Any]] = []
    if isinstance(listed, list):
        rows = [(_at(e, "token"), _at(e, "logprob"), _at(e, "bytes")) for e in listed]
    elif isinstance(older, list) and older and isinstance(older[0], dict):
        rows = [(token, value, None) for token, value in older[0].items()]
    found: dict[str, tuple[float, str]] = {}
    for token, value, raw in rows:
        number = isinstance(value, int | float) and not isinstance(value, bool) and value == value  # no NaN
        if isinstance(token, str) and number:
            # cut before any arithmetic: an integer may have 400 digits
            found.setdefault(token, (float(max(min(value, MOST_LOG), -MOST_LOG)), _spelt(raw)))
    return found


def _spelt(raw: Any) -> str:
    """The text of a token's bytes; empty where there are none, or they are no text."""
    if not isinstance(raw, list) or not all(isinstance(b, int) and 0 <= b < 256 for b in raw):
        return ""
    return bytes(raw).decode("utf-8", "ignore")


def _unlisted(ask: Ask, tokens: Mapping[str, tuple[float, str]]) -> str:
    best = max(tokens, key=lambda t: tokens[t][0])
    share = math.exp(min(tokens[best][0], 0.0))
    spelling = "" if ask.exact else ", in any spelling,"
    return (
        f"none of the choices {', '.join(ask.choices)}{spelling} is among the {len(tokens)} likeliest "
        f"tokens, of which {best[:40]!r} is the first ({share:.0%}): their order is not known"
    )


def _few(given: int, asked: int) -> str:
    return (
        f"the server gives {given} log-probabilities, not the {asked} asked for: of a choice that is not "
        "among them only a bound is known, the least of them"
    )


def _at(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None
