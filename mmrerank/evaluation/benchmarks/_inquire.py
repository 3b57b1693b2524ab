"""What both INQUIRE tasks share: the query files, the annotation file, and the names an image goes by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mmrerank.errors import InputError
from mmrerank.evaluation.measure.files import TableRow, Unique, read_rows
from mmrerank.evaluation.tasks import find, find_all

SPLITS = ("test", "val")
_QUERIES = ("query_id", "query_text", "supercategory", "category", "iconic_group")
_ANNOTATIONS = ("query_id", "image_id", "image_path")


@dataclass(frozen=True, kw_only=True)
class Queries:
    """The rows of a split's query file: texts and categories by query id."""

    path: Path
    texts: Mapping[str, str]
    categories: Mapping[str, str]


def read_queries(data: Path, split: str, benchmark: str) -> Queries:
    """``inquire_queries_SPLIT.csv``. Raises `InputError` for repeated ids or texts."""
    path = find(data, benchmark, f"inquire_queries_{split}.csv")
    ids, words = Unique("query id"), Unique("query")
    texts: dict[str, str] = {}
    categories: dict[str, str] = {}
    for row in read_rows(path, _QUERIES):
        id_ = str(row.integer("query_id"))
        text = row.text("query_text").strip()  # some texts of the real file end in spaces
        ids.add(id_, row, "query_id")
        words.add(text, row, "query_text")
        texts[id_], categories[id_] = text, row.text("supercategory")
    if not texts:
        raise InputError(f"{path} has no row")
    return Queries(path=path, texts=texts, categories=categories)


@dataclass(frozen=True, kw_only=True)
class Annotations:
    """Every positive of a split, and what its image is called."""

    path: Path
    positives: Mapping[str, Mapping[str, int]]
    files: Mapping[str, str]

    @property
    def names(self) -> dict[str, str]:
        """The image id by every name a run may use for it."""
        return {n: i for i, file in self.files.items() for n in (i, *spellings(file))}


def spellings(file: str) -> Iterable[str]:
    """What an image may be called: its path, also below ``train/``, its name, each without extension too.

    The metadata of the published embedding shards has no extension; indexes of the folder have one.
    """
    whole = file.strip().replace("\\", "/")
    for name in (whole, whole.removeprefix("train/"), whole.rsplit("/", 1)[-1]):
        yield name
        stem, dot, ending = name.rpartition(".")
        if dot and "/" not in ending:
            yield stem


def read_annotations(data: Path, queries: Queries, benchmark: str) -> Annotations:
    """The positives of ``queries`` in ``inquire_annotations.csv``, which holds those of both splits."""
    path = find(data, benchmark, "inquire_annotations.csv")
    known = set(queries.texts)
    every = [find_all(data, f"inquire_queries_{s}.csv") for s in SPLITS]
    if all(every):
        for found in every:
            known |= {str(r.integer("query_id")) for r in read_rows(found[0], _QUERIES)}
    pairs = Unique("the pair of query and image")
    positives: dict[str, dict[str, int]] = {q: {} for q in queries.texts}
    files: dict[str, str] = {}
    owner: dict[str, str] = {}
    for row in read_rows(path, _ANNOTATIONS):
        query, image = str(row.integer("query_id")), str(row.integer("image_id"))
        file = row.text("image_path").strip()
        if all(every) and query not in known:
            raise row.wrong("query_id", f"no query file has the query {query!r}")
        pairs.add((query, image), row, "image_id")
        if files.setdefault(image, file) != file:
            raise row.wrong("image_path", f"image {image!r} was {files[image]!r} before")
        if owner.setdefault(file, image) != image:
            raise row.wrong("image_id", f"{file!r} was image {owner[file]!r} before")
        if query in positives:
            positives[query][image] = 1
    return Annotations(path=path, positives=positives, files=files)


def by_name(names: Mapping[str, str]) -> Callable[[str], str]:
    """The image id by any path that ends in a known file name; a name not known is itself."""

    def name(document: str) -> str:
        return names.get(document) or names.get(document.rpartition("/")[2], document)

    return name


def label(row: TableRow, column: str) -> int:
    """0 or 1. Raises `InputError` for any other label."""
    value = row.integer(column)
    if value not in (0, 1):
        raise row.wrong(column, f"a label is 0 or 1, not {value}")
    return value
