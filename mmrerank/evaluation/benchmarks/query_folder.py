"""Queries and right answers in a folder of one's own: what ``folder``, ``mrb`` and others read.

``queries.jsonl`` (or ``.json``, ``.csv``, ``.parquet``): ``id`` (or ``query_id``) and ``text``, and where
they apply ``relevant`` (a list of image ids, or an object from id to grade), ``image`` (or ``reference``),
``turns``, ``exclude``, ``candidates`` (the ids to choose among) and ``category``. Instead of ``relevant`` a
file ``qrels.txt`` may hold the right answers; ``gallery.txt``, an id a line, the images that there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mmrerank.benchmark import HIGHEST_GRADE, BenchmarkQuery
from mmrerank.errors import InputError
from mmrerank.evaluation.measure.files import TableRow, Unique, note, read_bytes, read_rows
from mmrerank.evaluation.measure.runs import read_qrels
from mmrerank.evaluation.tasks import find, find_all

TABLES = ("queries.jsonl", "queries.parquet", "queries.csv", "queries.json")
_OPTIONAL = (
    "id", "query_id", "text", "relevant", "image", "reference", "turns", "exclude", "candidates",
    "category",
)  # fmt: skip


@dataclass(kw_only=True)
class Content:
    """What a folder holds."""

    asked: dict[str, BenchmarkQuery] = field(default_factory=dict)
    qrels: dict[str, dict[str, int]] = field(default_factory=dict)
    lists: dict[str, list[str]] = field(default_factory=dict)
    categories: dict[str, str] = field(default_factory=dict)
    gallery: list[str] | None = None


def read(folder: Path, benchmark: str, prefix: str = "") -> Content:
    """The content of ``folder``; ``prefix`` is put before every query id.

    Raises `InputError` for a missing file or column, a repeated id, an image that the gallery lacks, and
    a query without a right answer.
    """
    table = find(folder, benchmark, *TABLES)
    content = Content(gallery=_gallery(folder))
    known = None if content.gallery is None else set(content.gallery)
    ids = Unique("query id")
    rows = read_rows(table, (), _OPTIONAL)
    id_column = "query_id" if any(r.has("query_id") and not r.has("id") for r in rows[:1]) else "id"
    qrels_file = find_all(folder, "qrels.txt")
    for path in qrels_file:
        note(path)
    judged = read_qrels(qrels_file[0]) if qrels_file else None
    for row in rows:
        own = row.text(id_column)
        ids.add(own, row, id_column)
        query = prefix + own
        content.asked[query] = _asked(row)
        if row.has("category"):
            content.categories[query] = row.text("category")
        if row.has("candidates"):
            content.lists[query] = _known(row, "candidates", row.texts("candidates"), known)
        given = judged.get(own) if judged is not None and not row.has("relevant") else None
        graded = _relevant(row) if given is None else given
        _known(row, "relevant", list(graded), known)
        if query in content.lists:
            _known(row, "relevant", [i for i, g in graded.items() if g > 0], set(content.lists[query]))
        content.qrels[query] = graded
    if judged is not None and (strange := [q for q in judged if prefix + q not in content.asked]):
        raise InputError(f"{qrels_file[0]} judges the query {strange[0]!r}, which {table.name} lacks")
    if not content.asked:
        raise InputError(f"{table} has no row")
    return content


def _asked(row: TableRow) -> BenchmarkQuery:
    column = "reference" if row.has("reference") else "image"
    image = row.text(column) if row.has(column) else ""
    turns = tuple(row.texts("turns", empty=True)) if row.has("turns") else ()
    text = row.text("text", empty=True) if row.has("text") else ""
    if not (text.strip() or image or turns):
        raise row.wrong("text", "a query needs a text, an image or turns")
    exclude = tuple(row.texts("exclude")) if row.has("exclude") else ()
    return BenchmarkQuery(text=text, image=image, turns=turns, exclude=exclude)


def _relevant(row: TableRow) -> dict[str, int]:
    value = row.get("relevant")
    if isinstance(value, Mapping):
        # a Parquet column of objects has every key in every row
        graded = {k: v for k, v in value.items() if v is not None}
        for grade in graded.values():
            if isinstance(grade, bool) or not isinstance(grade, int) or not 0 <= grade <= HIGHEST_GRADE:
                raise row.wrong(
                    "relevant", f"a grade is a whole number from 0 to {HIGHEST_GRADE}, not {grade!r}"
                )
        found = dict(graded)
    else:
        images = row.texts("relevant")
        if len(set(images)) != len(images):
            raise row.wrong("relevant", f"an image occurs twice in {images}")
        found = dict.fromkeys(images, 1)
    if not any(found.values()):
        raise row.wrong("relevant", "no image is right; leave the query out")
    return found


def _known(row: TableRow, column: str, images: list[str], known: set[str] | None) -> list[str]:
    strange = [i for i in images if known is not None and i not in known]
    if strange:
        raise row.wrong(column, f"there is no image {strange[0]!r} to be found")
    return images


def _gallery(folder: Path) -> list[str] | None:
    found = find_all(folder, "gallery.txt")
    if not found:
        return None
    lines = [line.strip() for line in read_bytes(found[0]).decode("utf-8-sig").splitlines()]
    ids: dict[str, None] = {}
    for number, line in enumerate(lines):
        if line in ids:
            raise InputError(f"{found[0]}, row {number} (from 0): the image {line!r} occurs again")
        if line:
            ids[line] = None
    return list(ids)
