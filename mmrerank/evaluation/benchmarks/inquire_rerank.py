"""INQUIRE-Rerank: 100 given pictures for each query are put in order, and the whole list is judged.

R counts the positives among the 100; one that a shorter list lacks is not found. Source as
`inquire_fullrank`; the rows are those of the data set INQUIRE-Rerank (validation 40 queries, test 160).
Without them, from the annotation file alone, the list that a run holds is taken for the 100.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmrerank.benchmark import (
    Answer,
    Benchmark,
    BenchmarkQuery,
    Measured,
    NoOptions,
    Qrels,
    Ranked,
    Run,
    Task,
)
from mmrerank.errors import InputError
from mmrerank.evaluation.benchmarks import _inquire
from mmrerank.evaluation.measure.files import Unique, read_rows
from mmrerank.evaluation.measure.metrics import relisted
from mmrerank.evaluation.measure.short import room_of
from mmrerank.evaluation.tasks import count_warnings, find_all, one_run, renamed
from mmrerank.types import Image

NAME = "inquire-rerank"
_LISTED = 100
_NEEDED = ("query", "relevant", "inat24_image_id", "inat24_file_name")
_OPTIONAL = ("clip_score", "supercategory", "category", "iconic_group")


@dataclass(frozen=True, kw_only=True)
class InquireRerankTask(Task):
    """``given`` says whether the rows of the task are there, or only INQUIRE's annotations."""

    names: Mapping[str, str]
    given: bool


def _rows(data: Path, files: Sequence[Path], split: str) -> InquireRerankTask:
    ids: dict[str, str] = {}
    if find_all(data, f"inquire_queries_{split}.csv"):
        known = _inquire.read_queries(data, split, NAME)
        ids = {text: query for query, text in known.texts.items()}
    asked: dict[str, BenchmarkQuery] = {}
    qrels: dict[str, dict[str, int]] = {}
    images: dict[str, str] = {}
    categories: dict[str, str] = {}
    scores: dict[str, dict[str, float]] = {}
    places: dict[str, tuple[Path, int]] = {}
    pairs = Unique("the pair of query and image")
    total = 0
    for path in files:
        for row in read_rows(path, _NEEDED, _OPTIONAL):
            total += 1
            text = row.text("query").strip()
            if ids and text not in ids:
                raise row.wrong("query", f"no query file has the query {text!r}")
            query = ids.get(text, text)
            image, file = str(row.integer("inat24_image_id")), row.text("inat24_file_name").strip()
            pairs.add((query, image), row, "inat24_image_id")
            if images.setdefault(image, file) != file:
                raise row.wrong("inat24_file_name", f"image {image!r} was {images[image]!r} before")
            asked[query] = BenchmarkQuery(text=text)
            qrels.setdefault(query, {})[image] = _inquire.label(row, "relevant")
            if isinstance(row.row, int):
                places.setdefault(image, (path, row.row))
            if row.has("supercategory"):
                categories[query] = row.text("supercategory")
            if row.has("clip_score"):
                scores.setdefault(query, {})[image] = float(row.get("clip_score"))
    lists = {q: list(judged) for q, judged in qrels.items()}
    odd = [q for q, images_ in lists.items() if len(images_) != _LISTED]
    warnings = count_warnings(NAME, split, {"queries": len(asked), "rows": total}, str(files[0]))
    if odd:
        warnings += (f"{len(odd)} queries have other than {_LISTED} images, such as {odd[0]!r}",)
    names = {n: i for i, file in images.items() for n in (i, *_inquire.spellings(file))}
    return InquireRerankTask(
        queries=asked,
        qrels=qrels,
        gallery=list(images),
        lists=lists,
        files=images,
        categories=categories,
        names=names,
        given=True,
        pictures=_Pictures(places).picture,
        first={
            q: Ranked(order := sorted(s, key=s.__getitem__, reverse=True), [s[i] for i in order])
            for q, s in scores.items()
        },
        warnings=warnings,
    )


class _Pictures:
    """The pictures that the Parquet rows hold in the column ``image``, read a row group at a time."""

    def __init__(self, places: Mapping[str, tuple[Path, int]]) -> None:
        self._places = places
        self._group: tuple[Path, int, int, list[Any]] | None = None

    def picture(self, image: str) -> Image:
        """Raises `InputError` when the rows hold no pictures."""
        path, row = self._places[image]
        if ".parquet" not in path.name:
            raise InputError(f"{path} holds no pictures; give their folder as --images DIR")
        group = self._group
        if group is None or group[0] != path or not group[1] <= row < group[1] + group[2]:
            group = self._group = self._read(path, row)
        value = group[3][row - group[1]]
        data = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(data, bytes):
            raise InputError(
                f"{path}, row {row} (from 0), column 'image': there is no picture; "
                "give their folder as --images DIR"
            )
        return Image(data=data)

    def _read(self, path: Path, row: int) -> tuple[Path, int, int, list[Any]]:
        import pyarrow.parquet as parquet

        with parquet.ParquetFile(path) as file:
            if "image" not in file.schema_arrow.names:
                raise InputError(f"{path} has no column 'image'; give a folder as --images DIR")
            start = 0
            for number in range(file.num_row_groups):
                size = file.metadata.row_group(number).num_rows
                if row < start + size:
                    column = file.read_row_group(number, columns=["image"]).column("image")
                    return path, start, size, column.to_pylist()
                start += size
        raise InputError(f"{path} has no row {row} any more")


def _annotations(data: Path, split: str) -> InquireRerankTask:
    queries = _inquire.read_queries(data, split, NAME)
    annotated = _inquire.read_annotations(data, queries, NAME)
    return InquireRerankTask(
        queries={q: BenchmarkQuery(text=t) for q, t in queries.texts.items()},
        qrels=annotated.positives,
        files=annotated.files,
        categories=queries.categories,
        names=annotated.names,
        given=False,
        warnings=(
            f"{data} has no rows of INQUIRE-Rerank: the queries and images of the run are taken for the "
            "task's own, and positives are those of the annotation file among them",
            *count_warnings(NAME, split, {"queries": len(queries.texts)}, str(queries.path)),
        ),
    )


class InquireRerank(Benchmark):
    """A hundred given pictures for each query, judged on the whole list."""

    SPLITS = _inquire.SPLITS
    TIES = True

    def load(self, data: Path, split: str, options: NoOptions) -> InquireRerankTask:
        """The rows ``*SPLIT*.parquet`` (or csv, jsonl) below ``data``; else INQUIRE's own two files."""
        hub = {"val": "validation", "test": "test"}[split]
        places = [
            f"{folder}{name}*.{ending}"
            for ending in ("parquet", "csv", "jsonl")
            for folder in ("", "data/")
            for name in (hub, f"inquire_rerank_{split}", f"inquire_rerank_{hub}", f"rerank_{split}")
        ]
        files = find_all(data, *places)
        return _rows(data, files, split) if files else _annotations(data, split)

    def canonical(self, task: InquireRerankTask, rows: Mapping[str, Ranked]) -> Mapping[str, Ranked]:
        """Queries by id or text; images by id, path or file name, with or without extension."""
        known = {asked.text: q for q, asked in task.queries.items()}
        by_id = {known.get(q, q): r for q, r in rows.items()}
        return renamed(by_id, _inquire.by_name(task.names))

    def expected(self, task: InquireRerankTask, answers: Sequence[Answer]) -> list[str]:
        """The task's queries; those of the run where the task's own rows are missing."""
        if task.given:
            return list(task.qrels)
        answered = one_run(task, answers).rows
        return [q for q in task.qrels if q in answered]

    def warnings(self, task: InquireRerankTask, answers: Sequence[Answer]) -> list[str]:
        """A warning where lists are not those that the benchmark judges."""
        rows = one_run(task, answers).rows
        lengths = {q: len(task.lists[q]) if task.given else _LISTED for q in rows}
        odd = [q for q, ranked in rows.items() if len(ranked) != lengths[q]]
        if not odd:
            return []
        what = "a positive that they lack is not found" if task.given else "these are other lists"
        return [
            f"{len(odd)} lists have other than the {lengths[odd[0]]} images that {NAME} judges, such as "
            f"{odd[0]!r} with {len(rows[odd[0]])}; {what}"
        ]

    def score(self, task: InquireRerankTask, answers: Sequence[Answer]) -> dict[str, Measured]:
        """AP, nDCG and MRR over the 100, as the benchmark defines them, precision and recall."""
        answer = one_run(task, answers)
        rows = answer.rows
        qrels: Qrels = task.qrels
        if task.given:
            for query, ranked in rows.items():
                strange = [i for i in ranked.ids if i not in qrels[query]]
                if strange:
                    raise InputError(
                        f"{answer.path}: query {query!r} lists {strange[0]!r}, which is not among its images"
                    )
        else:
            qrels = {
                q: {i: 1 for i in rows[q].ids if i in task.qrels[q]} for q in self.expected(task, answers)
            }
        k = _LISTED
        whole = ("INQUIRE_AP", "INQUIRE_nDCG", "INQUIRE_MRR")
        found = relisted(
            Run(rows=rows),
            qrels,
            {
                # k is 100 whatever a run lists: without a cut-off a short list would have a short denominator
                **{name: f"{name}@{k}" for name in whole},
                **{f"{name}@{k}": f"{name}@{k}" for name in whole},
                f"P@{k}": f"Precision@{k}",
                f"R@{k}": f"Recall@{k}",
            },
            room=room_of(task) if task.given else lambda _: k,
        )
        # the warning above says what follows
        return {n: replace(m, short=m.short and replace(m.short, explained=True)) for n, m in found.items()}


BENCHMARK = InquireRerank()
