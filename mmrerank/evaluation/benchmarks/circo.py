"""CIRCO: a picture and a change in words, with every right answer among 123,403 COCO pictures labelled.

AP@k is over min(number of right answers, k); R@k asks for the target alone. The reference picture stays
among the results, as in the official code. Source: Baldrati et al. 2023, arXiv 2303.15247; miccunifi/CIRCO,
src/evaluation.py, commit 6db0150.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from mmrerank import writing
from mmrerank.benchmark import Answer, Benchmark, BenchmarkQuery, Measured, Qrels, Ranked, Run, Task
from mmrerank.errors import InputError
from mmrerank.evaluation.measure.files import Unique, json_rows, read_json, rows_of
from mmrerank.evaluation.measure.list_metrics import LIST_TIES, Listed, ap_min, hit
from mmrerank.evaluation.measure.metrics import in_order
from mmrerank.evaluation.measure.scoring import unknown_queries
from mmrerank.evaluation.measure.short import room_of, too_short
from mmrerank.evaluation.submission import Faults
from mmrerank.evaluation.tasks import count_warnings, find, find_all, one_run, renamed

NAME = "circo"
KS = (5, 10, 25, 50)
ASPECTS = (
    "cardinality",
    "addition",
    "negation",
    "direct_addressing",
    "compare_change",
    "comparative_statement",
    "statement_with_conjunction",
    "spatial_relations_background",
    "viewpoint",
)


@dataclass(frozen=True, kw_only=True)
class CircoOptions:
    """``concept=with`` puts the shared concept before the caption, as some papers do."""

    concept: Literal["without", "with"] = "without"


@dataclass(frozen=True, kw_only=True)
class CircoTask(Task):
    """``targets``: the picture each caption was written for; ``aspects``: the queries of each aspect."""

    targets: Mapping[str, str]
    aspects: Mapping[str, Sequence[str]]


class _Files(Mapping[str, str]):
    """COCO's file of any image id: where no gallery lies in the data, a run names images that no row does."""

    def __init__(self, ids: Sequence[str]) -> None:
        self._ids = ids

    def __getitem__(self, id_: str) -> str:
        if not (id_.isascii() and id_.isdigit()):
            raise KeyError(id_)
        return f"{int(id_):012d}.jpg"

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)


def _gallery(data: Path) -> list[str] | None:
    name = "image_info_unlabeled2017.json"
    found = find_all(data, f"COCO2017_unlabeled/annotations/{name}", f"annotations/{name}", name)
    if not found:
        return None
    body = read_json(found[0])
    rows = rows_of(body.get("images") if isinstance(body, dict) else body, found[0], ("id",))
    ids = Unique("image id")
    for row in rows:
        ids.add(row.integer("id"), row, "id")
    return [str(row.integer("id")) for row in rows]


def _number(name: str) -> str:
    stem = name.rsplit("/", 1)[-1].removesuffix(".jpg")
    return str(int(stem)) if stem.isascii() and stem.isdigit() else name


def _count(task: Task) -> int:
    """How many ids a list of a submission has: 50, or all that there are."""
    return KS[-1] if task.gallery is None else min(KS[-1], len(task.gallery))


class Circo(Benchmark):
    """A picture and a change in words, with every right answer labelled."""

    SPLITS = ("val", "test")
    Options = CircoOptions

    def load(self, data: Path, split: str, options: CircoOptions) -> CircoTask:
        """``annotations/SPLIT.json``; also COCO's ``image_info_unlabeled2017.json``, the gallery."""
        path = find(data, NAME, f"annotations/{split}.json", f"{split}.json")
        gallery = _gallery(data)
        known = None if gallery is None else set(gallery)
        labelled = split == "val"
        asked: dict[str, BenchmarkQuery] = {}
        qrels: dict[str, dict[str, int]] = {}
        targets: dict[str, str] = {}
        aspects: dict[str, list[str]] = {a: [] for a in ASPECTS}
        ids = Unique("query id")
        labels = ("target_img_id", "gt_img_ids", "semantic_aspects") if labelled else ()
        for row in json_rows(path, ("id", "reference_img_id", "relative_caption", *labels)):
            query, reference = str(row.integer("id")), row.integer("reference_img_id")
            ids.add(query, row, "id")
            caption = row.text("relative_caption")
            if options.concept == "with":
                caption = f"{row.text('shared_concept')}, {caption}"
            asked[query] = BenchmarkQuery(text=caption, image=str(reference))
            used = {"reference_img_id": [reference]}
            if labelled:
                target, right = row.integer("target_img_id"), row.integers("gt_img_ids")
                if not right or right[0] != target:
                    raise row.wrong("gt_img_ids", f"must begin with the target {target}, and is {right}")
                if len(set(right)) != len(right):
                    raise row.wrong("gt_img_ids", f"an image occurs twice in {right}")
                for aspect in row.texts("semantic_aspects"):
                    if aspect not in aspects:
                        raise row.wrong(
                            "semantic_aspects",
                            f"no aspect is called {aspect!r}; they are {', '.join(ASPECTS)}",
                        )
                    aspects[aspect].append(query)
                qrels[query] = {str(i): 1 for i in right}
                targets[query] = str(target)
                used |= {"target_img_id": [target], "gt_img_ids": right}
            for column, images in used.items():
                for image in images:
                    if image < 0 or (known is not None and str(image) not in known):
                        raise row.wrong(column, f"there is no image {image} in the gallery")
        sizes = {"queries": len(asked)} | ({} if gallery is None else {"images": len(gallery)})
        return CircoTask(
            queries=asked,
            qrels=qrels,
            gallery=gallery,
            files=_Files(gallery or ()),
            targets=targets,
            aspects=aspects,
            depth=50,
            warnings=count_warnings(NAME, split, sizes, str(path)),
        )

    def canonical(self, task: CircoTask, rows: Mapping[str, Ranked]) -> Mapping[str, Ranked]:
        """Images by id, or by COCO's file name of twelve digits."""
        return renamed(rows, _number)

    def read_own(self, task: CircoTask, path: Path, body: Any) -> Answer | None:
        """A submission file: ``{"0": [50 image ids], ...}``; None for JSON lines.

        An image twice in a list is an error there too.
        """
        if isinstance(body, str):
            return None
        if not isinstance(body, dict):
            raise InputError(f"{path} must hold an object with a list of image ids for each query id")
        unknown_queries(body, task.queries, str(path), f"{NAME} {task.split}")
        known = None if task.gallery is None else frozenset(task.gallery)
        faults = Faults(path, task)
        faults.queries(body)
        rows: dict[str, Ranked] = {}
        for query, images in body.items():
            where = f"{path}, entry {query!r}"
            if not isinstance(images, list):
                raise InputError(f"{where}: must be a list of image ids")
            ids: list[str] = []
            for place, image in enumerate(images):
                if isinstance(image, str) and image.isascii() and image.isdigit():
                    image = int(image)  # as the official code reads them
                if isinstance(image, bool) or not isinstance(image, int) or image < 0:
                    raise InputError(f"{where}, place {place}: an image id is a whole number, not {image!r}")
                ids.append(str(image))
            if query in task.queries:
                faults.names(query, ids, known=known, count=_count(task))
                rows[query] = Ranked.of(in_order(ids))
        faults.raise_any()
        return Answer(path=str(path), kind="submission", rows=rows)

    def write_own(self, task: CircoTask, run: Run, folder: Path) -> list[Path]:
        """Writes ``circo_SPLIT.json`` as the server takes it. Raises `InputError` where queries are missing
        or lists too short.
        """
        rows = self.canonical(task, {q: Ranked.of(r) for q, r in run.rows.items()})
        known = None if task.gallery is None else frozenset(task.gallery)
        faults = Faults(run.tag, task)
        faults.queries([q for q in rows if q in task.queries])
        body: dict[str, list[int]] = {}
        for query in (q for q in task.queries if q in rows):
            ids = rows[query].ids[: (count := _count(task))]
            if len(ids) < count:
                faults.add(f"lists of fewer than the {count} images asked for", query, f" with {len(ids)}")
            faults.strange(query, ids, known)
            if odd := [i for i in ids if not (i.isascii() and i.isdigit())]:
                faults.add("lists with a name that is no COCO image id", query, f": {odd[0]!r}")
            else:
                body[query] = [int(i) for i in ids]
        faults.raise_any()
        path = folder / f"{NAME}_{task.split}.json"
        writing.write(path, json.dumps(body).encode())
        return [path]

    def score(self, task: CircoTask, answers: Sequence[Answer]) -> dict[str, Measured]:
        """mAP@k and R@k at 5, 10, 25 and 50, and ``ASPECT.mAP@10`` over the queries of each aspect."""
        rows = one_run(task, answers).rows
        asked: Qrels = {q: {t: 1} for q, t in task.targets.items()}
        room = room_of(task)
        found: dict[str, Measured] = {}
        for name, metric, right in (("mAP", ap_min, task.qrels), ("R", hit, asked)):
            lists = {q: Listed.of(r, right[q]) for q, r in rows.items()}
            for k in KS:
                found[f"{name}@{k}"] = Measured(
                    name=f"{name}@{k}",
                    values={q: metric(listed, k) for q, listed in lists.items()},
                    expected=list(task.qrels),
                    tie_rule=LIST_TIES,
                    short=too_short(rows, right, k, room=room),
                )
        ten = found["mAP@10"]
        for aspect, queries in task.aspects.items():
            if queries:
                name = f"{aspect}.mAP@10"
                found[name] = replace(
                    ten,
                    name=name,
                    values={q: ten.values[q] for q in queries if q in ten.values},
                    expected=queries,
                )
        return found


BENCHMARK = Circo()
