"""TREC files: runs of six columns (``qid Q0 docno rank score tag``) and qrels of four, read and written.

Ids may be anything: whitespace, control characters and ``%`` are percent-encoded in the file and decoded on
reading. A run is written with strictly decreasing scores, so that every reader that sorts by a float64 sees
our order (readers that keep scores as float32 may still see ties). Files ending in ``.gz`` are compressed.
No metric is computed here.
"""

from __future__ import annotations

import gzip
import json
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

from mmrerank.errors import InputError

Qrels = Mapping[str, Mapping[str, int]]
"""Relevance by query id and document id."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One line of a run: a document and its score."""

    id: str
    score: float


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one system returned: documents by query id, best first, each once. ``tag`` names the system."""

    rows: Mapping[str, Sequence[Scored]]
    tag: str = "mmrerank"


def encode_id(id_: str) -> str:
    """``id_`` as one column: whitespace, control characters, ``%`` and lone surrogates become ``%XX``."""
    return "".join(
        quote_from_bytes(c.encode("utf-8", "surrogatepass"), safe="") if _unsafe(c) else c
        for c in id_
    )


def _unsafe(character: str) -> bool:
    # the byte order mark would be taken for one at the start of a file
    return (
        character in "%\ufeff"
        or character.isspace()
        or unicodedata.category(character) in ("Cc", "Cs", "Zs", "Zl", "Zp")
    )


def decode_id(column: str) -> str:
    """Undoes `encode_id`. Raises `ValueError` when the escapes are no text."""
    if "%" not in column:
        return column
    return unquote_to_bytes(column).decode("utf-8", "surrogatepass")


def write_run(path: Path | str, run: Run, *, raw: Path | str | None = None) -> None:
    """Writes ``run``, replacing ``path`` in one step; equal scores are lowered by the least float64 step.

    The file ``raw`` gets the scores as they were: ``{"query", "id", "rank", "score"}`` a line. Raises
    `InputError` when a document occurs twice in a query, or a score is not finite or higher than the one
    before it: sorting by score would give another order.
    """
    lines: list[str] = []
    notes: list[str] = []
    tag = _column(run.tag, "the tag")
    for query, rows in run.rows.items():
        qid = _column(query, "a query id")
        scores = _decreasing(rows, f"query {query!r}")
        for rank, (row, score) in enumerate(zip(rows, scores, strict=True), start=1):
            docno = _column(row.id, f"query {query!r}: an id")
            lines.append(f"{qid} Q0 {docno} {rank} {score!r} {tag}\n")
            note = {"query": query, "id": row.id, "rank": rank, "score": float(row.score)}
            notes.append(json.dumps(note) + "\n")
    _write(Path(path), lines)
    if raw is not None:
        _write(Path(raw), notes)


def _column(id_: str, what: str) -> str:
    if not id_:
        raise InputError(f"{what} is empty, and a column cannot be")
    return encode_id(id_)


def _decreasing(rows: Sequence[Scored], where: str) -> list[float]:
    scores: list[float] = []
    seen: set[str] = set()
    above = math.inf
    for row in rows:
        score = float(row.score)
        if not math.isfinite(score):
            raise InputError(f"{where}: the score of {row.id!r} is {score}")
        if score > above:
            raise InputError(f"{where}: {row.id!r} scores {score}, more than the one before it")
        if row.id in seen:
            raise InputError(f"{where}: {row.id!r} occurs twice")
        seen.add(row.id)
        above = score
        if scores and score >= scores[-1]:
            score = math.nextafter(scores[-1], -math.inf)
            if not math.isfinite(score):
                raise InputError(f"{where}: no number lies below the score of {row.id!r}")
        scores.append(score)
    return scores


def read_run(path: Path | str) -> Run:
    """Reads a run: documents by descending score, as evaluation tools do; equal scores by rank, then line.

    Raises `InputError` naming the line that is wrong. The tag is the last line's.
    """
    found: dict[str, dict[str, tuple[float, int]]] = {}
    tag = Run.tag
    for where, columns in _lines(Path(path), 6):
        qid, docno, tag = (_decoded(columns[i], where) for i in (0, 2, 5))
        rank = _number(columns[3], int, "rank", where)
        score = _number(columns[4], float, "score", where)
        if not math.isfinite(score):
            raise InputError(f"{where}: the score {columns[4]!r} is not finite")
        rows = found.setdefault(qid, {})
        if docno in rows:
            raise InputError(f"{where}: {docno!r} occurs twice for query {qid!r}")
        rows[docno] = (-score, int(rank))
    ordered = {
        qid: tuple(
            Scored(id=i, score=-key[0]) for i, key in sorted(rows.items(), key=lambda r: r[1])
        )
        for qid, rows in found.items()
    }
    return Run(rows=ordered, tag=tag)


def write_qrels(path: Path | str, qrels: Qrels) -> None:
    """Writes ``qid 0 docno relevance`` lines, replacing ``path`` in one step."""
    lines = [
        f"{_column(qid, 'a query id')} 0 {_column(docno, 'an id')} {int(value)}\n"
        for qid, judged in qrels.items()
        for docno, value in judged.items()
    ]
    _write(Path(path), lines)


def read_qrels(path: Path | str) -> dict[str, dict[str, int]]:
    """Reads qrels. Raises `InputError` naming the line that is wrong or judges a document again."""
    found: dict[str, dict[str, int]] = {}
    for where, columns in _lines(Path(path), 4):
        judged = found.setdefault(_decoded(columns[0], where), {})
        docno = _decoded(columns[2], where)
        if docno in judged:
            raise InputError(f"{where}: {docno!r} is judged twice for query {columns[0]!r}")
        judged[docno] = int(_number(columns[3], int, "relevance", where))
    return found


def _lines(path: Path, width: int) -> Iterator[tuple[str, list[str]]]:
    """Each line's place and columns; empty lines are left out."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                # not `split()`: it also splits at characters that a foreign id may hold
                columns = re.split(r"[ \t]+", line.strip(" \t\r\n"))
                if columns == [""]:
                    continue
                where = f"{path}, line {number}"
                if len(columns) != width:
                    raise InputError(f"{where} has {len(columns)} columns, not {width}")
                yield where, columns
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def _decoded(column: str, where: str) -> str:
    try:
        return decode_id(column)
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: {column!r} is not percent-encoded text: {error}") from error


def _number(text: str, kind: type[int] | type[float], what: str, where: str) -> int | float:
    try:
        return kind(text)
    except ValueError:
        raise InputError(f"{where}: the {what} {text!r} is not a number") from None


def _write(path: Path, lines: Sequence[str]) -> None:
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(lines).encode()
        part.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
        part.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error
