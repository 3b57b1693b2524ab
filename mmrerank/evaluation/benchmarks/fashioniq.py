"""FashionIQ: a garment and two wishes in words, over the garments of its category.

``gallery=original`` is the category's split file, ``gallery=union`` the candidates and targets alone, which
some papers use: the two are not comparable. The reference garment stays among the results. The two wishes
are joined by "and", without their closing punctuation. Source: Wu et al. 2021, arXiv 1905.12794.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mmrerank.benchmark import Answer, Benchmark, BenchmarkQuery, Measured, Ranked, Task
from mmrerank.errors import InputError
from mmrerank.evaluation.measure.files import json_names, json_rows, rows_of
from mmrerank.evaluation.measure.metrics import in_order
from mmrerank.evaluation.submission import Faults
from mmrerank.evaluation.tasks import count_warnings, find, find_all, merged, only, recall, renamed

NAME = "fashioniq"
CATEGORIES = ("dress", "shirt", "toptee")


@dataclass(frozen=True, kw_only=True)
class FashionOptions:
    """Which garments are searched: those of the split file, or only the candidates and targets."""

    gallery: Literal["original", "union"] = "original"


@dataclass(frozen=True, kw_only=True)
class FashionTask(Task):
    """``parts`` are the queries of each category."""

    parts: Mapping[str, Sequence[str]]


def joined(wishes: Sequence[str]) -> str:
    """The wishes as one text: ``["is red.", "has sleeves"]`` is ``is red and has sleeves``."""
    return " and ".join(w for w in (t.strip().strip(".,?! ") for t in wishes) if w)


class FashionIq(Benchmark):
    """A garment and two wishes; the figures are means over three categories."""

    SPLITS = ("val", "train", "test")
    Options = FashionOptions
    FILES_ARE_PARTS = True

    def load(self, data: Path, split: str, options: FashionOptions) -> FashionTask:
        """``captions/cap.CATEGORY.SPLIT.json`` and ``image_splits/split.CATEGORY.SPLIT.json``."""
        asked: dict[str, BenchmarkQuery] = {}
        qrels: dict[str, dict[str, int]] = {}
        lists: dict[str, Sequence[str]] = {}
        parts: dict[str, list[str]] = {}
        garments: dict[str, None] = {}
        warnings: list[str] = []
        there = [c for c in CATEGORIES if find_all(data, f"captions/cap.{c}.{split}.json")]
        if lacking := [c for c in CATEGORIES if c not in there]:
            if not there:
                find(data, NAME, f"captions/cap.{CATEGORIES[0]}.{split}.json")
            warnings.append(
                f"{data} lacks the captions of {', '.join(lacking)}: a plain name is the mean over "
                f"{', '.join(there)} alone"
            )
        labelled = split != "test"
        for category in there:
            captions = find(data, NAME, f"captions/cap.{category}.{split}.json")
            images = find(data, NAME, f"image_splits/split.{category}.{split}.json")
            known = dict.fromkeys(json_names(images, "an image id"))
            used: dict[str, None] = {}
            parts[category] = []
            named = ("candidate", "target") if labelled else ("candidate",)
            for number, row in enumerate(json_rows(captions, ("captions", *named))):
                query = f"{category}/{number}"
                for column in named:
                    if row.text(column) not in known:
                        raise row.wrong(column, f"the image {row.text(column)!r} is not in {images.name}")
                    used[row.text(column)] = None
                wishes = row.texts("captions", empty=True)
                if len(wishes) != 2:
                    raise row.wrong("captions", f"must hold two texts, not {len(wishes)}")
                asked[query] = BenchmarkQuery(text=joined(wishes), image=row.text("candidate"))
                if labelled:
                    qrels[query] = {row.text("target"): 1}
                parts[category].append(query)
            gallery = list(used) if options.gallery == "union" else list(known)
            lists |= dict.fromkeys(parts[category], gallery)
            garments |= known
            found = {f"{category} queries": len(parts[category])}
            warnings += count_warnings(NAME, split, found, str(captions))
            size = {f"{category} images": len(known)}
            warnings += count_warnings(NAME, split, size, str(images))
        return FashionTask(
            queries=asked,
            qrels=qrels,
            gallery=list(garments),
            lists=lists,
            categories={q: c for c, queries in parts.items() for q in queries},
            parts=parts,
            depth=50,
            warnings=tuple(warnings),
        )

    def canonical(self, task: FashionTask, rows: Mapping[str, Ranked]) -> Mapping[str, Ranked]:
        """A run may name garments by id or by file name."""
        known = set(task.gallery or ())

        def name(document: str) -> str:
            stem = document.rpartition("/")[2].rpartition(".")[0]
            return stem if document not in known and stem in known else document

        return renamed(rows, name)

    def read_own(self, task: FashionTask, path: Path, body: Any) -> Answer | None:
        """A prediction file ``CATEGORY.SPLIT.pred.json``: the caption file's rows, each with its ``ranking``;
        None for JSON lines.
        """
        if isinstance(body, str):
            return None
        category, _, rest = path.name.partition(".")
        if category not in task.parts:
            raise InputError(
                f"{path}: a prediction file is called CATEGORY.{task.split}.pred.json, with one of "
                f"{', '.join(task.parts)}"
            )
        if (split := rest.partition(".")[0]) in self.SPLITS and split != task.split:
            raise InputError(f"{path} is named as one of the split {split}, and this is {task.split}")
        found = rows_of(body, path, ("ranking",))
        if len(found) != len(task.parts[category]):
            raise InputError(f"{path} has {len(found)} rows, and the data {len(task.parts[category])}")
        known = frozenset(task.gallery or ())
        faults = Faults(path, task)
        rows = {}
        for query, row in zip(task.parts[category], found, strict=True):
            right = next(iter(task.qrels.get(query, ())), None)
            for column, own in (("candidate", task.queries[query].image), ("target", right)):
                if own is not None and row.has(column) and row.text(column) != own:
                    raise row.wrong(column, f"is not {own!r}, as in the data")
            ranked = Ranked.of(in_order(row.texts("ranking")))
            rows[query] = self.canonical(task, {query: ranked})[query]
            if len(set(ranked.ids)) != len(ranked):
                faults.add("lists that name an image twice", query)
            faults.strange(query, rows[query].ids, known)
        faults.raise_any()
        return Answer(path=str(path), kind="predictions", rows=rows)

    def warnings(self, task: FashionTask, answers: Sequence[Answer]) -> list[str]:
        """A warning where the lists of a category look like those over the smaller gallery."""
        rows = merged(answers)
        odd = []
        for category, queries in task.parts.items():
            union = {task.queries[q].image for q in queries} | {i for q in queries for i in task.qrels[q]}
            listed = {i for q in queries if q in rows for i in rows[q].ids}
            whole = set(task.lists[queries[0]]) if queries else set()
            # most of the union was listed, and nothing else
            if union < whole and listed <= union and 2 * len(listed) > len(union):
                odd.append(category)
        if not odd:
            return []
        return [
            f"the lists of {', '.join(odd)} hold candidates and targets alone: they look like a run over "
            "--gallery union, whose figures are higher and not comparable with those of --gallery original"
        ]

    def score(self, task: FashionTask, answers: Sequence[Answer]) -> dict[str, Measured]:
        """``CATEGORY.R@10`` and ``CATEGORY.R@50``, and their unweighted means over the categories."""
        # garments outside the gallery that was named are no answers; ids that are none at all are wrong ones
        known = set(task.gallery or ())
        outside = {c: known - set(task.lists[qs[0]]) for c, qs in task.parts.items() if qs}
        rows = {q: only(r, set(r.ids) - outside[task.categories[q]]) for q, r in merged(answers).items()}
        found: dict[str, Measured] = {}
        for k in (10, 50):
            for category, queries in task.parts.items():
                name = f"{category}.R@{k}"
                found[name] = recall(name, rows, task, k, expected=queries)
            found[f"R@{k}"] = recall(f"R@{k}", rows, task, k, parts=task.parts)
        return found


BENCHMARK = FashionIq()
