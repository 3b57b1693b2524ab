"""From a model's words to data: the one parser of replies. Tolerant, pure, and it never raises.

It finds the object that answers a question in a reply (after any thinking, in prose, in an envelope, as a
list of named rows) and says whether it was mended. What could mean two things is left out, never guessed.
Orders are read by `mmrerank.rerank.orders`; what the data *means* is the judgements' business.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from mmrerank.messages import Reply
from mmrerank.rerank.loose import loose_value, pairs
from mmrerank.rerank.tables import table_rows
from mmrerank.rerank.wording import field_name, known_labels, label_text, one_spaced

MAX_REPLY_CHARS = 2**17
"""Characters of a reply that are read, its last ones: an answer about 200 pictures has 50,000. A model that
is in a loop, or hostile, writes more; every reader takes time in proportion to what it reads."""
_THINK = re.compile(r"<think>.*?(</think>|\Z)", re.S)
_MAX_NOTE_CHARS = 2_000
_MAX_TRIES = 20  # how many beginnings of an object are read loosely: each try may read all that follows
_MAX_WORK = 2**17  # characters that all those tries together may read
_MAX_BEGINS = 2_000  # after so many, the search goes on in the last characters, where answers stand
_LAST, _MAX_LAST = 2**14, 1_000
_MAX_ENVELOPES = 8
_KEYS, _MAX_KEY = 2**12, 200  # a key is looked at several times; a hostile one may be as long as a reply
_BEGINS = re.compile(r"[{｛]|[\[［【]\s*(?=[{｛\[(]|[\"'][^\"'\n]{1,40}[\"']\s*,\s*-?\d)")
_LINE = re.compile(r"(?:[-*•] )?([^:：=]{1,60})[:：=](.*)")  # of a line of `one_spaced`

Match = Callable[[str], str | None]
"""Which name of ours a key stands for, or None."""
NAMES = ("label", "image", "image_label", "image_id", "id", "candidate", "key", "letter", "name", "option",
         "picture", "photo", "item", "component", "part", "element")  # fmt: skip
"""Fields by which a row says what it is about."""


def as_mapping(value: Any) -> Mapping[str, Any]:
    """``value`` if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_text(value: Any) -> str:
    """``value`` as one tidy line if it is a string or a list of them, else empty."""
    if isinstance(value, list) and value and all(isinstance(v, str) for v in value):
        value = " ".join(value)
    return " ".join(value.split())[:_MAX_NOTE_CHARS] if isinstance(value, str) else ""


# --- finding the object ------------------------------------------------------------------------------


def json_object(reply: Reply) -> tuple[dict[str, Any], bool]:
    """The last JSON object in a reply, and whether it had to be dug out. Empty when there is none.

    The last one counts because models quote the format, or an earlier draft, before they answer.
    """
    found, clean = _values(reply)
    objects = [v for v in found if isinstance(v, dict)]
    return (objects[-1], not clean) if objects else ({}, reply.error is None)


def answer(
    reply: Reply, match: Match, needed: Iterable[str] | None = None, *, rows: bool = False
) -> tuple[dict[str, Any], bool]:
    """The object of a reply that has a ``needed`` key (any that ``match`` knows), and whether it was mended.

    Keys are ours, as ``match`` says. The last such object counts, outside any envelope around it; two
    different ones in one envelope say nothing. With ``rows``, a list of rows that name their key
    (``[{"image": "A", ...}]``) and several objects with different keys are one object too. Without any, the
    last object of the reply as it is.
    """
    found, clean = _values(reply)
    wanted = None if needed is None else frozenset(needed)
    if rows and len(found) > 1 and (joined := _rows(found, match)) and len(joined) > 1:
        return joined, True
    for value in reversed(found):
        inner = _unwrapped(value, match, wanted, rows=rows)
        if len(inner) == 1:
            body, renamed = inner[0]
            return body, renamed or not clean
        if inner:
            return {}, True
    objects = [v for v in found if isinstance(v, dict)]
    return (objects[-1], not clean) if objects else ({}, reply.error is None)


def inner_object(value: Any, match: Match, *, rows: bool = True) -> tuple[dict[str, Any], bool]:
    """`answer` within a value that a reply holds: what is in it, and whether it was mended."""
    inner = _unwrapped(value, match, None, rows=rows)
    if len(inner) != 1:
        return {}, True
    return inner[0]


def _unwrapped(
    value: Any, match: Match, needed: frozenset[str] | None, *, rows: bool, depth: int = 0
) -> list[tuple[dict[str, Any], bool]]:
    """The outermost objects in ``value`` that have a key wanted, each once, and whether that took mending."""
    if depth > _MAX_ENVELOPES:
        return []
    if isinstance(value, str):
        # arguments of a call are JSON within JSON
        text = value.strip()
        begins = depth and text[:1] in ("{", "[", "`") and len(text) > 2
        found = _found_in(text)[0] if begins else []
        return _unwrapped(found[-1], match, needed, rows=rows, depth=depth + 1) if len(found) == 1 else []
    if isinstance(value, dict):
        body, renamed = _renamed(value, match)
        if any(k in body and (needed is None or k in needed) for k in map(match, value)):
            return [(body, renamed or depth > 0)]
    if isinstance(value, list) and rows and (body := _rows(value, match)):
        return [(body, True)]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    inner: list[tuple[dict[str, Any], bool]] = []
    for part in parts:
        for one in _unwrapped(part, match, needed, rows=rows, depth=depth + 1):
            if not inner or one[0] != inner[0][0]:
                inner.append(one)
        if len(inner) > 1:  # two that differ say nothing, however many follow
            break
    return inner


def _renamed(body: Mapping[str, Any], match: Match) -> tuple[dict[str, Any], bool]:
    """``body`` with our names for its keys; what two keys say differently is left out."""
    if all(match(k) in (None, k) for k in body):
        return dict(body), False
    exact = {k for k in body if match(k) == k}
    found = [(match(k) or k, v) for k, v in body.items() if k in exact or match(k) not in exact]
    spelt = [(match(k), v) for k, v in body.items() if k not in exact and match(k) in exact]
    clash = {name for name, v in spelt if name is not None and body[name] != v}
    return {k: v for k, v in pairs(found).items() if k not in clash}, True


def _rows(value: Sequence[Any], match: Match) -> dict[str, Any]:
    """An object out of rows that each name their key, or have a key of their own; else empty."""
    found: list[tuple[str, Any]] = []
    for row in value:
        one = _row(row, match)
        if one is None:
            return {}
        found += one
    return pairs(found) if len({n for n, _ in found}) == len(found) else {}


def _row(row: Any, match: Match) -> list[tuple[str, Any]] | None:
    if isinstance(row, list) and len(row) == 2 and isinstance(row[0], str):
        name = match(row[0])
        return None if name is None else [(name, row[1])]
    if not isinstance(row, dict):
        return None
    names = [(key, match(str(v))) for key, v in row.items() if field_name(key) in NAMES and _short(v)]
    named = [(key, name) for key, name in names if name is not None]
    if named and len({name for _, name in named}) == 1:
        rest = {k: v for k, v in row.items() if k not in {key for key, _ in named}}
        return [(str(named[0][1]), rest)]
    own, _ = _renamed(row, match)
    keys = [k for k in own if match(k) == k]
    return [(k, own[k]) for k in keys] if keys and len(keys) == len(own) else None


def _short(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def lines_object(reply: Reply, match: Match) -> dict[str, Any]:
    """``c1: met`` in lines and nothing else, as an object under our names; empty for any other text."""
    found: list[tuple[str, Any]] = []
    for line in map(one_spaced, text_of(reply).splitlines()):
        if not line or line.startswith("```"):
            continue
        pair = _LINE.fullmatch(line)
        if pair is None:
            return {}
        found.append((pair[1].strip(), pair[2].strip()))
    body, _ = _renamed(pairs(found), match)
    return body if any(match(k) == k for k in body) else {}


def words_of(reply: Reply) -> str:
    """The text of a reply without thoughts; empty for one that failed."""
    return _THINK.sub(" ", text_of(reply)).strip()


def text_of(reply: Reply) -> str:
    """As much of a reply's text as is read; empty for one that failed."""
    return "" if reply.error is not None else reply.text[-MAX_REPLY_CHARS:]


def top_rows(reply: Reply) -> list[Any]:
    """The last list of objects that a reply holds outside any object; empty without one."""
    lists = [v for v in _values(reply)[0] if isinstance(v, list) and all(isinstance(i, dict) for i in v)]
    return lists[-1] if lists else []


def _values(reply: Reply) -> tuple[list[Any], bool]:
    """Every object, and list of rows, of a reply, and whether it is nothing but one in strict JSON."""
    return ([], True) if reply.error is not None else _found_in(text_of(reply))


@lru_cache(maxsize=8)  # a reply is looked at for several things, one after the other
def _found_in(text: str) -> tuple[list[Any], bool]:
    try:
        whole = _DECODER.decode(text)
    except (ValueError, RecursionError):
        whole = None
    if isinstance(whole, dict) or (isinstance(whole, list) and _BEGINS.match(text.lstrip())):
        return [whole], isinstance(whole, dict)
    if isinstance(whole, str) and whole.lstrip()[:1] in ("{", "["):
        return _found_in(whole)[0], False  # JSON within JSON
    rest = text.lstrip("\ufeff")
    rest = _after_thoughts(rest)
    found: list[Any] = []
    begun = tries = work = 0
    begin = _BEGINS.search(rest)
    while begin and begun < _MAX_BEGINS + _MAX_LAST:
        begun += 1
        position = begin.start()
        if begun == _MAX_BEGINS and position < len(rest) - _LAST:
            rest = rest[-_LAST:]
            begin = _BEGINS.search(rest)
            continue
        try:
            value, end = _DECODER.raw_decode(rest, position)
        except ValueError:
            value, end = None, position
        except RecursionError:
            break
        if value is None and tries < _MAX_TRIES and work < _MAX_WORK:
            tries += 1
            work += len(rest) - position
            try:
                value, end, cut = loose_value(rest, position)
            except ValueError:
                value = None
            else:
                if value and cut:
                    found.append(value)
                    break  # nothing after it: the reply was cut off inside this one
        if value:
            found.append(value)
        begin = _BEGINS.search(rest, max(end, position + 1))
    if not found and '{\\"' in rest:  # written as the inside of a JSON text
        return _found_in(rest.replace('\\"', '"'))[0], False
    if not found and (rows := table_rows(rest)):
        found.append(rows)
    return found, False


def _after_thoughts(text: str) -> str:
    """``text`` without thoughts that stand before its first brace.

    A tag inside an answer is a word that it quotes, such as one an image shows.
    """
    kept: list[str] = []
    at, brace = 0, text.find("{")
    while (tag := text.find("<think>", at)) >= 0:
        if brace >= 0 and brace < at:
            brace = text.find("{", at)
        if 0 <= brace < tag:
            break
        close = text.find("</think>", tag)
        kept.append(text[at:tag])
        at = close + len("</think>") if close >= 0 else len(text)
    return " ".join([*kept, text[at:]]) if kept else text


_DECODER = json.JSONDecoder(object_pairs_hook=pairs)


def named(**names: Sequence[str]) -> Match:
    """A `Match` for fields: each name of ours and what else it is called."""
    table = {field_name(n): ours for ours, others in names.items() for n in (ours, *others)}

    @lru_cache(maxsize=_KEYS)
    def known(key: str) -> str | None:
        return key if key in names else table.get(field_name(key))

    return lambda key: known(key[:_MAX_KEY])


def labelled(labels: Sequence[str]) -> Match:
    """A `Match` for labels: ``"Image A"``, ``"image_a"``, ``"[A]"`` and ``"A)"`` are ``"A"``."""
    known = known_labels(labels)
    exact = frozenset(labels)

    @lru_cache(maxsize=_KEYS)
    def match(key: str) -> str | None:
        return key if key in exact else known.get(label_text(key))

    return lambda key: match(key[:_MAX_KEY])


GRADED = named(
    grade=("score", "rating", "mark", "relevance", "overall_grade", "relevance_score", "overall"),
    note=("notes", "reason", "reasoning", "explanation", "comment", "evidence", "observation", "remark"),
    verdict=("judgement", "judgment", "status", "assessment", "decision"),
)
"""The fields of what is said about one image, or about one part of a query."""


def entry_of(value: Any, match: Match) -> tuple[Mapping[str, Any], bool]:
    """The fields of a row under our names, and whether that took mending; empty for what is no object."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return _renamed(value, match) if isinstance(value, dict) else ({}, False)
