"""From a model's words to data: the one parser of replies. Tolerant, pure, and it never raises.

It finds the last JSON object in a reply (after any thinking), reads labels out of whatever shape an order
came in, and counts what it mended. What the data *means* is the judgements' business.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mmrerank.messages import Reply
from mmrerank.types import Repairs

MAX_REPLY_CHARS = 1_000_000
_THINK = re.compile(r"<think>.*?(</think>|\Z)", re.S)
_MAX_NOTE_CHARS = 2_000
_MAX_CUTS = 20  # how many beginnings of an object are tried as cut off: each try reads all that follows
_LABEL = re.compile(r"[A-Z0-9]{1,4}")


def as_mapping(value: Any) -> Mapping[str, Any]:
    """``value`` if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_text(value: Any) -> str:
    """``value`` as one tidy line if it is a string, else empty."""
    return " ".join(value.split())[:_MAX_NOTE_CHARS] if isinstance(value, str) else ""


def json_object(reply: Reply) -> tuple[dict[str, Any], bool]:
    """The last JSON object in a reply, and whether it had to be dug out. Empty when there is none.

    The last one counts because models quote the format, or an earlier draft, before they answer.
    """
    if reply.error is not None:
        return {}, False
    text = reply.text[:MAX_REPLY_CHARS]
    whole = _loads(text)
    if isinstance(whole, dict):
        return whole, False
    answer = text
    # thoughts stand before the answer; a tag inside it is a word that it quotes, such as one an image shows
    while 0 <= answer.find("<think>") < (answer.find("{") % (len(answer) + 1)):
        answer = _THINK.sub(" ", answer, count=1)
    found: dict[str, Any] = {}
    position, cuts = answer.find("{"), 0
    while position >= 0:
        value, end = _raw_decode(answer, position)
        if value is None and cuts < _MAX_CUTS:
            cuts += 1
            if cut := _closed(answer[position:]):
                return cut, True  # nothing after it: the reply was cut off inside this object
        if isinstance(value, dict) and value:
            found = value
        position = answer.find("{", max(end, position + 1))
    return found, True


def _loads(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


_DECODER = json.JSONDecoder()


def _raw_decode(text: str, position: int) -> tuple[Any, int]:
    try:
        return _DECODER.raw_decode(text, position)
    except (ValueError, RecursionError):
        return None, position


def _closed(text: str) -> dict[str, Any]:
    """The object that ``text`` begins and is cut off in, its open strings and brackets closed.

    Cuts back to the last complete value, so a half-written one is lost rather than guessed. Empty when
    the text is not cut off (its brackets match) or nothing of it is complete.
    """
    stack: list[str] = []
    safe: list[tuple[int, str]] = []  # (cut position, closing brackets) after each complete value
    in_string = escaped = False
    for index, char in enumerate(text):
        if in_string:
            if escaped:
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == '"':
                in_string = False
        elif char == '"':
            in_string = True
        elif char in "{[":
            stack.append("}" if char == "{" else "]")
        elif char in "}]":
            if not stack or stack.pop() != char or not stack:
                return {}
            safe.append((index + 1, "".join(reversed(stack))))
        elif char == ",":
            safe.append((index, "".join(reversed(stack))))
    for cut, closing in reversed(safe[-50:]):
        value = _loads(text[:cut] + closing)
        if isinstance(value, dict) and value:
            return value
    return {}


def labels_in_order(answer: Any, labels: Sequence[str]) -> tuple[list[str], Repairs]:
    """Known labels, best first, out of an order in any shape, and what was wrong with it.

    * an object ``{label: score}``: by descending score, equal scores in the order of ``labels``;
    * a list of labels (or of objects that name one): as it stands;
    * text: the labels in its last line that is a list of them and nothing else (``C > A``, ``[3], [1]``).

    Nothing usable gives an empty list.
    """
    known = {_plain(n): n for n in labels}
    unknown = repeated = 0
    order: dict[str, None] = {}
    if isinstance(answer, dict):
        scores: dict[str, float] = {}
        for key, value in answer.items():
            label = known.get(_plain(key))
            number = _number(value)
            if label is None:
                unknown += 1
            elif label in scores:
                repeated += 1
            elif number is not None:
                scores[label] = number
        position = {n: i for i, n in enumerate(labels)}
        order = dict.fromkeys(sorted(scores, key=lambda n: (-scores[n], position[n])))
    else:
        for item in _items(answer):
            label = known.get(_plain(item))
            if label is None:
                unknown += 1
            elif label in order:
                repeated += 1
            else:
                order[label] = None
    if not order:
        return [], Repairs()
    missing = len(labels) - len(order)
    return list(order), Repairs(unknown=unknown, repeated=repeated, missing=missing)


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _plain(item: Any) -> str:
    """``"Image C"``, ``"[C]"``, ``" c. "`` -> ``"C"``; numbers as written."""
    if isinstance(item, dict):
        item = next((item[k] for k in ("label", "image", "id") if k in item), "")
    if isinstance(item, bool) or not isinstance(item, str | int | float):
        return ""
    text = re.sub(r"(?i)^\W*image\b", "", str(item)[:40])
    return text.strip(" \t\r\n[](){}<>\"'`*#:.;").upper()


def _items(answer: Any) -> list[Any]:
    if isinstance(answer, list):
        return answer
    if not isinstance(answer, str):
        return []
    # prose is not an order: "the 3 dogs" is not candidate 3, and "A, D and G show none" does not put A first
    for line in reversed(answer.splitlines()):
        pieces = re.split(r"[>,]", line.rpartition(":")[2])
        if len(pieces) > 1 and all(_LABEL.fullmatch(_plain(p)) for p in pieces):
            return pieces
    return []
