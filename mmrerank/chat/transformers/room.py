"""Room to finish: how many bytes a half-written JSON reply needs at most until it is whole.

A grammar says what may come next but not how much is left to say; a model that rambles in one text would be
cut off in the middle. Knowing the room, the decoding loop closes a reply while its tokens last (`Allowance`).
Covers what the judgements' schemas are made of; `shape_of` says None of any other, and nothing is guarded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

_SAID = {"title", "description", "default", "examples"}
_WHOLE_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_OPEN_ESCAPE = re.compile(rb"\\(?:u[0-9a-fA-F]{0,3})?\Z")
_BLANKS = re.compile(rb"[ \n\r\t]*")
_MOST_NUMBERS = 10_000


class Shape(Protocol):
    """A JSON value, with or without white space between its signs.

    ``room``: bytes of the longest one that says no more than it must.
    ``more``: what a value begun may need beyond ``room``, because it says more than it must already.
    """

    @property
    def room(self) -> int:
        """Bytes of the shortest whole value."""
        ...

    @property
    def more(self) -> int:
        """Bytes needed beyond ``room``."""
        ...

    def rest(self, data: bytes, at: int) -> tuple[int, int] | None:
        """Where the value that begins at ``at`` ends, and the bytes it still needs at most.

        None where ``data`` holds no such value there.
        """


@dataclass(frozen=True)
class _Text:
    room: int = 2
    more: int = 5

    def rest(self, data: bytes, at: int) -> tuple[int, int] | None:
        if at == len(data):
            return at, 2
        if data[at] != ord('"'):
            return None
        if whole := _WHOLE_TEXT.match(data, at):
            return whole.end(), 0
        inside = data[at + 1 :]
        # an escape is open only after an even number of backslashes before it
        escape = _OPEN_ESCAPE.search(inside)
        if escape and not _backslashes(inside[: escape.start()]) % 2:
            return len(data), 2 if len(escape[0]) == 1 else 7 - len(escape[0])
        return len(data), 1 + _half_a_character(inside)


def _backslashes(data: bytes) -> int:
    return len(data) - len(data.rstrip(b"\\"))


def _half_a_character(data: bytes) -> int:
    """Bytes that the last character of UTF-8 ``data`` still lacks."""
    for back in range(1, min(4, len(data) + 1)):
        byte = data[-back]
        if byte >= 0xC0:
            return (2 if byte < 0xE0 else 3 if byte < 0xF0 else 4) - back
        if byte < 0x80:
            break
    return 0


@dataclass(frozen=True)
class _OneOf:
    options: tuple[bytes, ...]
    room: int
    more: int = 0

    def rest(self, data: bytes, at: int) -> tuple[int, int] | None:
        given = data[at : at + self.room]
        longer = [o for o in self.options if o.startswith(given)]
        if at + len(given) == len(data) and longer:
            return len(data), max(map(len, longer)) - len(given)
        whole = [len(o) for o in self.options if given.startswith(o)]
        return (at + max(whole), 0) if whole else None


@dataclass(frozen=True)
class _Object:
    members: tuple[tuple[bytes, bytes, Shape], ...]
    """What opens a member (a brace, then commas), its key and its value."""
    room: int
    more: int

    def rest(self, data: bytes, at: int) -> tuple[int, int] | None:
        need = self.room
        for sign, key, value in self.members:
            for text in (sign, key, b":"):
                found = _fixed(data, at if text == b"{" else _spaced(data, at), text)
                if found is None:
                    return None
                at, missing = found
                need -= len(text)
                if missing:
                    return at, missing + need
            inside = value.rest(data, _spaced(data, at))
            if inside is None:
                return None
            at, missing = inside
            need -= value.room
            if missing:
                return at, missing + need
        return _fixed(data, _spaced(data, at), b"}")


@dataclass(frozen=True)
class _Array:
    item: Shape
    least: int
    most: float
    room: int
    more: int

    def rest(self, data: bytes, at: int) -> tuple[int, int] | None:
        opened = _fixed(data, at, b"[")
        if opened is None or opened[1]:
            return opened and (at, self.room)
        at += 1
        count = 0
        while True:
            at = _spaced(data, at)
            due = max(0, self.least - count)
            if at == len(data):
                return at, due * (self.item.room + 1) - (due > 0 and not count) + 1
            if data[at : at + 1] == b"]" and not due:
                return at + 1, 0
            if count:
                if data[at : at + 1] != b"," or count >= self.most:
                    return None
                at = _spaced(data, at + 1)
            inside = self.item.rest(data, at)
            if inside is None:
                return None
            at, missing = inside
            count += 1
            if missing:
                return at, missing + max(0, self.least - count) * (self.item.room + 1) + 1


def _spaced(data: bytes, at: int) -> int:
    """The place of the first byte from ``at`` on that is no white space."""
    found = _BLANKS.match(data, at)
    return found.end() if found else at


def _fixed(data: bytes, at: int, text: bytes) -> tuple[int, int] | None:
    """`Shape.rest` of ``text`` itself."""
    given = data[at : at + len(text)]
    if not text.startswith(given):
        return None
    return at + len(given), len(text) - len(given)


def shape_of(schema: Mapping[str, Any]) -> Shape | None:
    """The shape that replies under ``schema`` have, or None where it says something unknown here."""
    kind, keys = schema.get("type"), schema.keys() - _SAID
    if "enum" in schema or "const" in schema:
        values = schema["enum"] if "enum" in schema else [schema["const"]]
        plain = keys <= {"enum", "const", "type"} and not any(
            isinstance(v, dict | list | float) for v in values
        )
        return _one_of([json.dumps(v) for v in values]) if plain else None
    if kind == "integer" and keys == {"type", "minimum", "maximum"}:
        low, high = schema["minimum"], schema["maximum"]
        few = all(isinstance(n, int) for n in (low, high)) and 0 <= high - low < _MOST_NUMBERS
        return _one_of([str(n) for n in range(low, high + 1)]) if few else None
    if kind == "boolean" and keys == {"type"}:
        return _one_of(["true", "false"])
    if kind == "string" and keys <= {"type", "maxLength"}:
        return _Text()
    if kind == "object" and keys == {"type", "properties", "required", "additionalProperties"}:
        return _object(schema)
    if kind == "array" and keys <= {"type", "items", "minItems", "maxItems"} and "items" in schema:
        item, least = shape_of(schema["items"]), schema.get("minItems", 0)
        if item is None:
            return None
        room = 2 + least * (item.room + 1) - (least > 0)
        most = schema.get("maxItems", float("inf"))
        return _Array(item, least, most, room, 1 + item.room + item.more)
    return None


def _one_of(options: Sequence[str]) -> Shape | None:
    encoded = tuple(o.encode() for o in options)
    # what stands between quotes in another spelling could not be recognised
    plain = encoded and all(o.isascii() and b"\\" not in o for o in encoded)
    return _OneOf(encoded, max(map(len, encoded))) if plain else None


def _object(schema: Mapping[str, Any]) -> Shape | None:
    names = list(schema["properties"])
    if schema["additionalProperties"] is not False or set(schema["required"]) != set(names) or not names:
        return None
    members = []
    for n, (name, inner) in enumerate(schema["properties"].items()):
        value, key = shape_of(inner), json.dumps(name).encode()
        if value is None or b"\\" in key:
            return None
        members.append((b"," if n else b"{", key, value))
    room = 1 + sum(2 + len(key) + value.room for _, key, value in members)
    return _Object(tuple(members), room, max(value.more for *_, value in members))


class Allowance:
    """The tokens that one reply may still take, and whether a next token leaves enough of them.

    Law: where ``limit`` tokens are enough for ``shape`` at all, each token that is allowed leaves enough to
    finish byte by byte and to stop, and there always is a byte that is allowed.
    """

    def __init__(self, shape: Shape, spelling: Sequence[bytes], limit: int) -> None:
        self._shape, self._spelling = shape, spelling
        self._left = limit
        self._most = shape.room + shape.more + 1
        self._written = b""
        self._guards = limit > shape.room

    def allows(self, token: int) -> bool:
        """True when the reply can be finished after ``token``; asked only where it is running out."""
        if not self._guards or self._left - 1 >= self._most:
            return True
        found = self._shape.rest(self._written + self._spelling[token], 0)
        # every byte is a token of its own, so bytes bound tokens; one more for the token that stops
        return found is not None and found[1] + 1 <= self._left - 1

    def take(self, token: int) -> None:
        """Counts ``token`` as written."""
        self._left -= 1
        self._written += self._spelling[token]
