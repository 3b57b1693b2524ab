"""Reads the requests of ``mmrerank rerank``: JSON lines to queries and rankings, checked before any call."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, BinaryIO

from mmrerank.cli._files import STDIN, no_file_name
from mmrerank.cli.options import existing_image, is_file
from mmrerank.errors import InputError
from mmrerank.paths import expanded
from mmrerank.reading import blocks
from mmrerank.types import Candidate, Image, Query, Ranking, Term

_QUERY = ("text", "images", "exclude", "turns", "instruction", "id", "terms")
_TERM = ("text", "image", "weight")
_CANDIDATE = ("id", "image", "text", "score", "metadata")


def read_requests(path: Path, stdin: BinaryIO) -> list[tuple[Query, Ranking]]:
    """Every request of the file (``-``: of ``stdin``). Raises `InputError` naming the line that is wrong."""
    piped = path == STDIN
    folder, name = (Path(), "stdin") if piped else (path.parent, str(path))
    try:
        with nullcontext(stdin) if piped else path.open("rb") as file:
            requests = [
                _request(line, f"{name}, line {number}", folder)
                for number, line in enumerate(_lines(file, name), start=1)
                if line.strip()
            ]
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    if not requests:
        raise InputError(f"{name} holds no request")
    return requests


def _lines(file: BinaryIO, name: str) -> Iterator[str]:
    rows = (line for lines in blocks(file, name) for line in lines)
    for number, line in enumerate(rows, start=1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{name} is not UTF-8 (line {number}): {error}") from error


def _request(line: str, where: str, folder: Path) -> tuple[Query, Ranking]:
    try:
        body = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not JSON: {error}") from error
    body = _object(body, ("query", "candidates"), f"{where}: a request")
    for key in ("query", "candidates"):
        if key not in body:
            raise InputError(f"{where}: a request needs {key!r}")
    if not isinstance(body["candidates"], list):
        raise InputError(f"{where}: 'candidates' must be a list, not {_kind(body['candidates'])}")
    candidates = [
        _candidate(c, f"{where}, candidate {n}", folder) for n, c in enumerate(body["candidates"], start=1)
    ]
    _check_pictures(candidates, where)
    query = _query(body["query"], f"{where}, query", folder)
    try:
        return query, Ranking(tuple(candidates))
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error


def _query(value: Any, where: str, folder: Path) -> Query:
    body = {"text": value} if isinstance(value, str) else _object(value, _QUERY, f"{where}: a query")
    try:
        return Query(
            text=_text(body.get("text"), f"{where}: text"),
            images=tuple(
                _image(folder, name, where) for name in _texts(body.get("images"), f"{where}: images")
            ),
            exclude=_texts(body.get("exclude"), f"{where}: exclude"),
            turns=_texts(body.get("turns"), f"{where}: turns"),
            instruction=_text(body.get("instruction"), f"{where}: instruction"),
            id=_text(body.get("id"), f"{where}: id"),
            terms=_terms(body.get("terms"), where, folder),
        )
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error


def _terms(value: Any, where: str, folder: Path) -> tuple[Term, ...]:
    if not isinstance(value, list | None):
        raise InputError(f"{where}: terms must be a list of objects, not {_kind(value)}")
    found = []
    for number, row in enumerate(value or (), start=1):
        what = f"{where}, term {number}"
        body = _object(row, _TERM, f"{what}: a term")
        image = _text(body.get("image"), f"{what}: image")
        found.append(
            Term(
                text=_text(body.get("text"), f"{what}: text"),
                image=_image(folder, image, what) if image else None,
                weight=body.get("weight", 1.0),
            )
        )
    return tuple(found)


def _image(folder: Path, name: str, where: str) -> Image:
    return Image(path=existing_image(_place(folder, name, where), where))


def _place(folder: Path, name: str, where: str) -> Path:
    if not name.strip():
        raise InputError(f"{where}: an image's path is empty")
    if problem := no_file_name(name):
        raise InputError(f"{where}: {problem}")
    return folder / expanded(name)


def _candidate(value: Any, where: str, folder: Path) -> Candidate:
    body = _object(value, _CANDIDATE, f"{where}: a candidate")
    id_ = _text(body.get("id"), f"{where}: id")
    if not id_:
        raise InputError(f"{where} needs an id")
    score = body.get("score")
    if isinstance(score, bool) or not isinstance(score, int | float | None):
        raise InputError(f"{where}: score must be a number, not {_kind(score)}")
    try:
        number = None if score is None else float(score)
    except OverflowError:  # a whole number of hundreds of digits
        number = math.inf
    if number is not None and not math.isfinite(number):
        raise InputError(f"{where}: score must be finite, not {score}")
    image = _text(body.get("image"), f"{where}: image")
    try:
        return Candidate(
            id=id_,
            image=Image(path=_place(folder, image, where)) if image else None,
            text=None if body.get("text") is None else _text(body["text"], f"{where}: text"),
            score=number,
            metadata=_object(body.get("metadata") or {}, None, f"{where}: metadata"),
        )
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error


def _check_pictures(candidates: Sequence[Candidate], where: str) -> None:
    """Raises `InputError` where no picture is there; some that are not cost their places, and are named."""
    pictures = [
        (n, c.image.path) for n, c in enumerate(candidates, start=1) if c.image is not None and c.image.path
    ]
    there = [is_file(path, f"{where}, candidate {n}") for n, path in pictures]
    if pictures and not any(there):
        n, path = pictures[0]
        raise InputError(f"{where}, candidate {n}: there is no image file {str(path)!r}")


def _object(value: Any, known: tuple[str, ...] | None, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{what} must be a JSON object, not {_kind(value)}")
    if known is not None and (unknown := sorted(value.keys() - set(known))):
        raise InputError(f"{what} has no {unknown[0]!r}; it may have {', '.join(known)}")
    return value


def _text(value: Any, what: str) -> str:
    # ids are often numbers elsewhere; the same id comes back as text
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is not None and not isinstance(value, str):
        raise InputError(f"{what} must be a text, not {_kind(value)}")
    if value is not None and "\0" in value:
        raise InputError(f"{what} holds a NUL character")
    return value or ""


def _texts(value: Any, what: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list):
        raise InputError(f"{what} must be a list of texts, not {_kind(value)}")
    return tuple(_text(v, what) for v in value)


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
