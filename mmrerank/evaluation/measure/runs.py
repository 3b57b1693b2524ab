"""TREC files: runs of six columns (``qid Q0 docno rank score tag``) and qrels of four, read and written.

Ids may be anything: whitespace, control characters and ``%`` are percent-encoded in the file and decoded on
reading. A run is written with scores that decrease strictly even in single precision, which is what
trec_eval keeps, so that every reader sees our order. Files ending in ``.gz`` are compressed. No metric is
computed here.
"""

from __future__ import annotations

import gzip
import json
import math
import re
import unicodedata
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from itertools import groupby, islice
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

import numpy as np

from mmrerank import writing
from mmrerank.benchmark import HIGHEST_GRADE, Qrels, Ranked, Run, Scored
from mmrerank.errors import InputError
from mmrerank.paths import expanded, reason
from mmrerank.reading import blocks


def encode_id(id_: str) -> str:
    """``id_`` as one column: whitespace, control characters, ``%`` and lone surrogates become ``%XX``."""
    return "".join(
        quote_from_bytes(c.encode("utf-8", "surrogatepass"), safe="") if _unsafe(c) else c for c in id_
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
    """Writes ``run``, replacing ``path`` in one step; a score that is not below the one before it, in single
    precision, is lowered by the least step. Where no float32 can say it, ranks are counted down instead.

    The file ``raw`` gets the scores as they were: ``{"query", "id", "rank", "score"}`` a line. Raises
    `InputError` when a document occurs twice in a query, or a score is not finite or higher than the one
    before it: sorting by score would give another order.
    """
    _write(Path(path), _run_lines(run))
    if raw is not None:
        _write(Path(raw), _raw_lines(run))


def _run_lines(run: Run) -> Iterator[str]:
    tag = _column(run.tag, "the tag")
    for query, rows in run.rows.items():
        qid = _column(query, "a query id")
        scores = _decreasing(rows, f"query {query!r}")
        for rank, (row, score) in enumerate(zip(rows, scores, strict=True), start=1):
            docno = _column(row.id, f"query {query!r}: an id")
            yield f"{qid} Q0 {docno} {rank} {score!r} {tag}\n"


def _raw_lines(run: Run) -> Iterator[str]:
    for query, rows in run.rows.items():
        for rank, row in enumerate(rows, start=1):
            note = {"query": query, "id": row.id, "rank": rank, "score": float(row.score)}
            yield json.dumps(note) + "\n"


def _column(id_: str, what: str) -> str:
    if not id_:
        raise InputError(f"{what} is empty, and a column cannot be")
    return encode_id(id_)


def _decreasing(rows: Sequence[Scored], where: str) -> list[float]:
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
    scores: list[float] = []
    last = np.float32(np.inf)
    with np.errstate(over="ignore"):
        for row in rows:
            value = float(row.score)
            single = np.float32(value)
            if np.isfinite(single) and not single < last:
                single = np.nextafter(last, np.float32(-np.inf))
                value = float(single)
            if not np.isfinite(single):
                return [float(len(rows) - n) for n in range(len(rows))]
            scores.append(value)
            last = single
    return scores


def read_run(path: Path | str) -> Run:
    """Reads a run: documents by descending score, as evaluation tools do; equal scores by rank, then line.

    Raises `InputError` naming the line that is wrong. The tag is the last line's.
    """
    path = Path(path)
    found: _Found = {}
    known: dict[bytes, str] = {}  # ids recur from query to query: each is kept once
    tag = Run.tag
    try:
        tag = _gather(path, found, known) or tag
    except UnicodeDecodeError:
        for number, columns in _lines(path, 6):
            _complain(f"{path}, line {number}", columns)
        raise
    rows: dict[str, Sequence[Scored]] = {}
    for qid in list(found):
        ids, scores, ranks = found.pop(qid)
        if len(set(ids)) != len(ids) or not all(map(math.isfinite, scores)):
            _name_the_line(path)
        rows[qid] = _sorted(ids, scores, ranks)
    return Run(rows=rows, tag=tag)


def read_raw(path: Path | str) -> Run:
    """Reads what `write_run` writes as ``raw``: a line ``{"query", "id", "score"}`` for each document.

    The order is that of `read_run`, but equal scores stay equal. Raises `InputError` naming the line.
    """
    path = Path(path)
    found: _Found = {}
    known: dict[str, str] = {}
    for number, query, id_, score, rank in _notes(path):
        if not math.isfinite(score):
            raise InputError(f"{path}, line {number}: the score {score} is not finite")
        ids, scores, ranks = found.setdefault(query, ([], array("d"), array("d")))
        ids.append(known.setdefault(id_, id_))
        scores.append(score)
        ranks.append(rank)
    rows: dict[str, Sequence[Scored]] = {}
    for query in list(found):
        ids, scores, ranks = found.pop(query)
        if len(set(ids)) != len(ids):
            _name_the_note(path)
        rows[query] = _sorted(ids, scores, ranks)
    return Run(rows=rows)


def _notes(path: Path) -> Iterator[tuple[int, str, str, float, float]]:
    """Each line's number, query, document, score and rank."""
    for first, lines in _blocks(path):
        for number, line in enumerate(lines, start=first):
            if not line.strip():
                continue
            try:
                note = json.loads(line)
                query, id_, score = str(note["query"]), str(note["id"]), float(note["score"])
                yield number, query, id_, score, float(note.get("rank", number))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                where = f"{path}, line {number}"
                raise InputError(
                    f'{where} is not a line like {{"query": "q", "id": "a.jpg", "score": 0.5}}: {error}'
                ) from None


def _name_the_note(path: Path) -> None:
    """Reads raw scores again, which have a document twice, to say where."""
    seen: set[tuple[str, str]] = set()
    for number, query, id_, _, _ in _notes(path):
        if (query, id_) in seen:
            raise InputError(f"{path}, line {number}: {id_!r} occurs twice for query {query!r}")
        seen.add((query, id_))


def _sorted(ids: Sequence[str], scores: array[float], ranks: array[float]) -> Ranked:
    """By descending score, equal ones by rank, then as they came."""
    if (np.diff(scores) <= 0).all() and (np.diff(ranks) >= 0).all():
        return Ranked(ids, scores)
    order = sorted(range(len(ids)), key=lambda n: (-scores[n], ranks[n]))
    return Ranked([ids[n] for n in order], [scores[n] for n in order])


_Found = dict[str, tuple[list[str], "array[float]", "array[float]"]]
"""Documents, scores and ranks by query. Runs have millions of lines: numbers are no objects here."""
_Portion = tuple[list[bytes], list[bytes], list[int], list[float], list[bytes]]
_HIGHEST_RANK = 1 << 53
_MOST_KNOWN = 2_000_000
_TOGETHER = 10_000  # lines that are written together
_PORTION = 1 << 22  # bytes of a run that are taken apart together


def _portions(path: Path) -> Iterator[_Portion]:
    """Query ids, documents, ranks, scores and tags of a run, some thousand lines at a time.

    Splitting many lines at once is several times faster, and safe where every line is plainly a run's:
    the second column is ``Q0`` throughout. Otherwise lines are looked at one by one.
    """
    for first, lines in _blocks(path):
        words = b"".join(lines).split()
        if len(words) == 6 * len(lines) and set(words[1::6]) == {b"Q0"}:
            try:
                ranks, scores = list(map(int, words[3::6])), list(map(float, words[4::6]))
                yield words[0::6], words[2::6], ranks, scores, words[5::6]
                continue
            except ValueError:
                pass  # the line is named below
        rows = list(_columns(path, 6, first, lines))
        for number, columns in rows:
            _complain(f"{path}, line {number}", columns)
        if rows:
            qids, _, docnos, places, values, tags = (list(c) for c in zip(*(r[1] for r in rows), strict=True))
            yield qids, docnos, list(map(int, places)), list(map(float, values)), tags


def _gather(path: Path, found: _Found, known: dict[bytes, str]) -> str:
    """Fills ``found`` with ids, scores and ranks by query; returns the last tag."""
    tag = ""
    for qids, docnos, ranks, scores, tags in _portions(path):
        tag = _known(tags[-1], known)
        if len(known) > _MOST_KNOWN:
            known.clear()  # ids that do not recur are not worth a place of their own
        start = 0
        for qid, group in groupby(qids):
            end = start + sum(1 for _ in group)
            ids, values, places = found.setdefault(_known(qid, known), ([], array("d"), array("d")))
            ids += [known.get(d) or _known(d, known) for d in docnos[start:end]]
            values.extend(scores[start:end])
            places.extend(min(r, _HIGHEST_RANK) for r in ranks[start:end])
            start = end
    return tag


def _known(column: bytes, known: dict[bytes, str]) -> str:
    text = known.get(column)
    if text is None:
        text = known[column] = decode_id(column.decode("utf-8"))
    return text


def _complain(where: str, columns: Sequence[bytes]) -> None:
    """Says which column of a line of a run is wrong, if one is."""
    for place in (0, 2, 5):
        _decoded(columns[place].decode("utf-8", "backslashreplace"), where)
    # as ASCII: `int` and `float` take digits of other scripts from a text, but not from bytes
    _number(columns[3].decode("ascii", "backslashreplace"), int, "rank", where)
    _number(columns[4].decode("ascii", "backslashreplace"), float, "score", where)


def _name_the_line(path: Path) -> None:
    """Reads a run again, which has a document twice or a score that is no number, to say where."""
    seen: set[tuple[bytes, bytes]] = set()
    for number, columns in _lines(path, 6):
        where = f"{path}, line {number}"
        qid, docno = columns[0], columns[2]
        if not math.isfinite(float(columns[4])):
            raise InputError(f"{where}: the score {columns[4].decode()!r} is not finite")
        if (qid, docno) in seen:
            pair = decode_id(docno.decode()), decode_id(qid.decode())
            raise InputError(f"{where}: {pair[0]!r} occurs twice for query {pair[1]!r}")
        seen.add((qid, docno))
    raise InputError(f"{path} names a document twice for one query, once percent-encoded")


def write_qrels(path: Path | str, qrels: Qrels) -> None:
    """Writes ``qid 0 docno relevance`` lines, replacing ``path`` in one step."""
    lines = (
        f"{_column(qid, 'a query id')} 0 {_column(docno, 'an id')} {int(value)}\n"
        for qid, judged in qrels.items()
        for docno, value in judged.items()
    )
    _write(Path(path), lines)


def read_qrels(path: Path | str) -> dict[str, dict[str, int]]:
    """Reads qrels. Raises `InputError` naming the line that is wrong or judges a document again."""
    found: dict[str, dict[str, int]] = {}
    path = Path(path)
    for number, columns in _lines(path, 4):
        where = f"{path}, line {number}"
        qid, docno, value = (columns[n].decode("utf-8", "backslashreplace") for n in (0, 2, 3))
        judged = found.setdefault(_decoded(qid, where), {})
        docno = _decoded(docno, where)
        if docno in judged:
            raise InputError(f"{where}: {docno!r} is judged twice for query {qid!r}")
        grade = int(_number(value, int, "relevance", where))
        if abs(grade) > HIGHEST_GRADE:
            raise InputError(f"{where}: a grade is at most {HIGHEST_GRADE}, not {grade}")
        judged[docno] = grade
    return found


def _blocks(path: Path) -> Iterator[tuple[int, list[bytes]]]:
    """The file's lines in blocks, each with its first line's number."""
    opener = gzip.open if path.suffix == ".gz" else open
    number = 1
    try:
        with opener(expanded(path), "rb") as file:
            for lines in blocks(file, str(path), _PORTION):
                if number == 1:
                    lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")
                yield number, lines
                number += len(lines)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {reason(error)}") from error


def _lines(path: Path, width: int) -> Iterator[tuple[int, list[bytes]]]:
    for first, lines in _blocks(path):
        yield from _columns(path, width, first, lines)


def _columns(path: Path, width: int, first: int, lines: Sequence[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """Each line's number and columns; empty lines are left out."""
    for number, line in enumerate(lines, start=first):
        columns = line.split()
        if len(columns) != width:
            # a foreign id may hold what `split` takes for white space
            columns = re.split(rb"[ \t]+", line.strip(b" \t\r\n"))
        if columns in ([], [b""]):
            continue
        if len(columns) != width:
            raise InputError(f"{path}, line {number} has {len(columns)} columns, not {width}")
        yield number, columns


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


def _write(path: Path, lines: Iterable[str]) -> None:
    """Writes lines as they come: a run of millions is never held as text."""
    rows, path = iter(lines), expanded(path)
    packed = path.suffix == ".gz"
    try:
        with (
            writing.replaced(path) as whole,
            gzip.open(whole, "wb") if packed else nullcontext(whole) as file,
        ):
            while some := list(islice(rows, _TOGETHER)):
                file.write("".join(some).encode())
    except OSError as error:
        raise InputError(f"{path} cannot be written: {reason(error)}") from error
