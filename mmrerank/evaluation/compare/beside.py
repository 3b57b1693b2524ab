"""What is known of runs beside their lists: queries, usage, and the results that a run was written from.

Files that a flag names must be right; a ``.jsonl`` that merely lies beside a run is taken when it is one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from mmrerank.errors import InputError
from mmrerank.reading import whole
from mmrerank.types import Usage

_USAGE = tuple(f.name for f in fields(Usage))


@dataclass(frozen=True, kw_only=True)
class Notes:
    """What is known of queries, each by query id."""

    texts: Mapping[str, str] = field(default_factory=dict)
    categories: Mapping[str, str] = field(default_factory=dict)
    seen: Mapping[str, bool] = field(default_factory=dict)
    images: Mapping[str, Sequence[Path]] = field(default_factory=dict)


def read_queries(path: Path) -> Notes:
    """Reads lines of ``{"id", "text", "turns", "category", "seen", "images"}``: all but ``id`` may be left
    out, and more may be there. ``images`` (or ``reference``, one) are what a query was asked with, relative
    to the file. Raises `InputError` naming the line that is wrong.
    """
    texts: dict[str, str] = {}
    categories: dict[str, str] = {}
    seen: dict[str, bool] = {}
    images: dict[str, Sequence[Path]] = {}
    known: set[str] = set()
    for where, row in _rows(path):
        if not isinstance(row, dict):
            raise InputError(f"{where} is no JSON object")
        id_ = row.get("id")
        if isinstance(id_, bool) or not isinstance(id_, str | int) or id_ == "":
            raise InputError(f"{where}: a query needs an id, a text or a whole number")
        name = str(id_)
        if name in known:
            raise InputError(f"{where}: query {name!r} occurs twice")
        known.add(name)
        if words := _words(row, where):
            texts[name] = words
        category = row.get("category")
        if category is not None:
            if isinstance(category, bool) or not isinstance(category, str | int):
                raise InputError(f"{where}: category must be a text, not {category!r}")
            categories[name] = str(category)
        if row.get("seen") is not None:
            if not isinstance(row["seen"], bool):
                raise InputError(f"{where}: seen must be true or false, not {row['seen']!r}")
            seen[name] = row["seen"]
        given = row.get("images") or row.get("reference") or []
        files = [given] if isinstance(given, str) else given
        if not isinstance(files, list) or not all(isinstance(f, str) for f in files):
            raise InputError(f"{where}: images must be a list of paths, not {given!r}")
        if files:
            images[name] = [path.parent / f for f in files]
    if not known:
        raise InputError(f"{path} holds no query")
    return Notes(texts=texts, categories=categories, seen=seen, images=images)


def read_usage(path: Path, runs: Sequence[str]) -> dict[str, Usage]:
    """Reads ``{"RUN": {"calls", "input_tokens", "output_tokens", "images", "seconds"}}``: totals over all
    queries. Raises `InputError` for a run that is not compared, and for anything but such numbers.
    """
    try:
        body = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise InputError(f'{path} must hold an object, such as {{"{runs[0]}": {{"calls": 100}}}}')
    found = {}
    for run, row in body.items():
        if run not in runs:
            raise InputError(f"{path}: {run!r} is not compared; the runs are {', '.join(runs)}")
        found[run] = _usage(row, f"{path}, {run!r}")
    return found


def _usage(row: Any, where: str) -> Usage:
    if not isinstance(row, dict):
        raise InputError(f"{where} must be an object of {', '.join(_USAGE)}")
    for name, value in row.items():
        if name not in _USAGE:
            raise InputError(f"{where} has no {name!r}; it may have {', '.join(_USAGE)}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(f"{where}: {name} must be a number, not {value!r}")
        if not 0 <= value < math.inf:
            raise InputError(f"{where}: {name} must be a finite number from 0, not {value}")
    return Usage(**row)


@dataclass(frozen=True, kw_only=True)
class Results:
    """What the results beside a run say: texts by query, the usage of all, and in how many of ``queries``
    judgements ``failed``; ``why`` is how one did.
    """

    texts: Mapping[str, str]
    usage: Usage
    queries: int = 0
    failed: int = 0
    why: str = ""


def read_results(run: Path) -> Results | None:
    """What ``METHOD.jsonl`` beside ``METHOD.trec`` or ``METHOD.raw.jsonl`` says.

    None where there is no such file, or it does not hold results as ``mmrerank eval`` and ``mmrerank rerank``
    write them.
    """
    path = run.with_name(_stem(run) + ".jsonl")
    if path.name == run.name:
        return None
    texts: dict[str, str] = {}
    used, failed, why = Usage(), 0, ""
    try:
        if not path.is_file():
            return None
        for where, row in _rows(path):
            query = row.get("query") if isinstance(row, dict) else None
            if not isinstance(query, dict) or not isinstance(query.get("id"), str):
                return None
            texts[query["id"]] = _words(query, where)
            used += _usage(row.get("usage"), where)
            if reason := _failure(row):
                failed, why = failed + 1, why or reason
    except (InputError, OSError):
        return None
    if not texts:
        return None
    return Results(texts=texts, usage=used, queries=len(texts), failed=failed, why=why)


def _stem(run: Path) -> str:
    """``METHOD`` of ``METHOD.trec`` and ``METHOD.raw.jsonl``, gzipped or not."""
    return run.name.removesuffix(".gz").removesuffix(".trec").removesuffix(".raw.jsonl")


def _failure(row: Mapping[str, Any]) -> str:
    """How a judgement of a result failed; empty where none did. Results of older versions say less."""
    repairs = row.get("repairs")
    if not isinstance(repairs, dict) or not repairs.get("failed"):
        return ""
    given = [row.get("failures"), row.get("warnings")]
    said = [one for some in given if isinstance(some, list) for one in some]
    texts = [one.get("example") if isinstance(one, dict) else one for one in said]
    return next((t for t in texts if isinstance(t, str) and t), "no reason is known")


_ALIKE = ("benchmark", "split", "set", "depth", "candidates", "data", "first_stage")
"""What provenance must say alike of runs that are compared."""


def unlike_settings(runs: Mapping[str, Any]) -> list[str]:
    """A warning for each setting that the provenance beside runs (``METHOD.json``) does not have alike.

    Runs without provenance are left out: nothing is known of them.
    """
    told = {name: origin for name, run in runs.items() if (origin := _origin(run))}
    warnings = []
    for key in _ALIKE:
        values = {name: origin[key] for name, origin in told.items() if key in origin}
        texts = {name: json.dumps(v, sort_keys=True) for name, v in values.items()}
        if len(set(texts.values())) > 1:
            each = "; ".join(f"{name} {_brief(values[name])}" for name in texts)
            warnings.append(f"the runs were made with different settings, {key}: {each}")
    return warnings


def _brief(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _origin(run: Any) -> dict[str, Any]:
    """The settings in the provenance beside a run; empty where there is none."""
    if not isinstance(run, Path):
        return {}
    path = run.with_name(_stem(run) + ".json")
    try:
        body = json.loads(path.read_bytes()) if path != run and path.is_file() else None
    except (OSError, ValueError, RecursionError):
        return {}
    config = body.get("config") if isinstance(body, dict) else None
    if not isinstance(body, dict) or not isinstance(config, dict):
        return {}
    more = {"data": body.get("data"), "first_stage": body.get("first_stage")}
    return {k: v for k, v in {**config, **more}.items() if k in _ALIKE and v not in (None, "")}


def _words(row: Mapping[str, Any], where: str) -> str:
    """Every word of a query on one line, a dialogue's earlier turns first."""
    turns, text = row.get("turns") or [], row.get("text") or ""
    words = [*turns, text] if isinstance(turns, list) else [turns, text]
    if not all(isinstance(t, str) for t in words):
        raise InputError(f"{where}: text must be a text, and turns a list of texts")
    return ", ".join(t.strip() for t in words if t.strip())


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            try:
                yield where, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{where} is not JSON: {error}") from error


def _text(path: Path) -> str:
    try:
        return whole(path).decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: {error}") from error
