"""CIRR: a picture and a change in words; the whole gallery, and the five pictures most like the first.

The reference picture is never among the results. The subset question is answered by the order that a list
has the five in; with ``subset``, methods rank those five by themselves. Source: Liu et al. 2021, arXiv
2108.04024; Cuberick-Orion/CIRR, version rc2. Soft labels are ignored, as the standard metrics do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmrerank import writing
from mmrerank.benchmark import APART, Answer, Benchmark, BenchmarkQuery, Measured, Ranked, Run, Task
from mmrerank.errors import InputError, UsageError
from mmrerank.evaluation.measure.files import TableRow, Unique, json_rows, read_json
from mmrerank.evaluation.measure.metrics import in_order
from mmrerank.evaluation.measure.scoring import unknown_queries
from mmrerank.evaluation.measure.short import either
from mmrerank.evaluation.submission import Faults
from mmrerank.evaluation.tasks import count_warnings, find, only, recall, renamed, without

NAME = "cirr"
VERSION = "rc2"
_RECALL, _SUBSET = "recall", "recall_subset"
_LENGTH = {_RECALL: 50, _SUBSET: 3}
_LARGEST = 5_000_000  # bytes the server takes


@dataclass(frozen=True, kw_only=True)
class CirrOptions:
    """How the subset question is put."""

    subset: bool = False
    """Methods rank the five pictures of each query's set by themselves for Rsub@k"""


@dataclass(frozen=True, kw_only=True)
class CirrTask(Task):
    """``members`` are the five other pictures of a query's set."""

    members: Mapping[str, frozenset[str]]


def _members(group: TableRow, reference: str, files: Mapping[str, str], images: Path) -> list[str]:
    """The six images of a query's set. Raises `InputError` where they are not."""
    listed = group.texts("members")
    if strange := [m for m in listed if m not in files]:
        raise group.wrong("members", f"the image {strange[0]!r} is not in {images.name}")
    if len(set(listed)) != len(listed):
        raise group.wrong("members", f"an image occurs twice in {listed}")
    if reference not in listed:
        raise group.wrong("members", f"the reference {reference!r} is not among them")
    return listed


def _target(
    row: TableRow, reference: str, listed: Sequence[str], files: Mapping[str, str], images: Path
) -> str:
    target = row.text("target_hard")
    if target not in files:
        raise row.wrong("target_hard", f"the image {target!r} is not in {images.name}")
    if target == reference:
        raise row.wrong("target_hard", f"is the reference {reference!r} itself")
    if target not in listed:
        raise row.wrong("target_hard", f"{target!r} is not in the query's img_set.members")
    return target


def _gallery(path: Path) -> dict[str, str]:
    body = read_json(path)
    if not isinstance(body, dict) or not all(isinstance(v, str) for v in body.values()):
        raise InputError(f"{path} must hold an object of image names and their files")
    return {name: file.removeprefix("./") for name, file in body.items()}


class Cirr(Benchmark):
    """A picture and a change in words; a run gives every figure, a submission file those of its metric."""

    SPLITS = ("val", "test1", "train")
    Options = CirrOptions

    def load(self, data: Path, split: str, options: CirrOptions) -> CirrTask:
        """``captions/cap.rc2.SPLIT.json`` and ``image_splits/split.rc2.SPLIT.json``."""
        captions = find(data, NAME, f"captions/cap.rc2.{split}.json", f"cap.rc2.{split}.json")
        images = find(data, NAME, f"image_splits/split.rc2.{split}.json", f"split.rc2.{split}.json")
        files = _gallery(images)
        labelled = split != "test1"
        asked: dict[str, BenchmarkQuery] = {}
        qrels: dict[str, dict[str, int]] = {}
        members: dict[str, frozenset[str]] = {}
        removed: dict[str, frozenset[str]] = {}
        pairs = Unique("pairid")
        sets: set[int] = set()
        needed = ("pairid", "reference", "caption", "img_set", *(("target_hard",) if labelled else ()))
        for row in json_rows(captions, needed):
            query = str(row.integer("pairid"))
            pairs.add(query, row, "pairid")
            reference = row.text("reference")
            if reference not in files:
                raise row.wrong("reference", f"the image {reference!r} is not in {images.name}")
            group = row.record("img_set")
            sets.add(group.integer("id"))
            listed = _members(group, reference, files, images)
            if labelled:
                qrels[query] = {_target(row, reference, listed, files, images): 1}
            # one caption of the test split is empty
            asked[query] = BenchmarkQuery(text=row.text("caption", empty=True), image=reference)
            members[query] = frozenset(listed) - {reference}
            removed[query] = frozenset({reference})
        odd = sum(len(m) != 5 for m in members.values())
        return CirrTask(
            queries=asked,
            qrels=qrels,
            gallery=list(files),
            files=files,
            members=members,
            removed=removed,
            kept=members,  # Rsub is over these, however far down they are
            apart=members if options.subset else {},
            depth=50,
            warnings=(
                *count_warnings(NAME, split, {"queries": len(asked), "sets": len(sets)}, str(captions)),
                *count_warnings(NAME, split, {"images": len(files)}, str(images)),
                *((f"{captions}: {odd} sets have other than six images",) if odd else ()),
            ),
        )

    def canonical(self, task: CirrTask, rows: Mapping[str, Ranked]) -> Mapping[str, Ranked]:
        """A run may name images by name, file or file name."""
        names = {n: name for name, file in task.files.items() for n in (file, file.rpartition("/")[2])}
        return renamed(rows, lambda i: i if i in task.files else names.get(i.removeprefix("./"), i))

    def read_own(self, task: CirrTask, path: Path, body: Any) -> Answer | None:
        """A submission file: ``{"version": "rc2", "metric": "recall" | "recall_subset", PAIRID: [names]}``;
        None for JSON lines.
        """
        if isinstance(body, str):
            return None
        if not isinstance(body, dict):
            raise InputError(
                f"{path} must hold an object with 'version', 'metric' and a list for each pairid"
            )
        kind = body.get("metric")
        if not isinstance(kind, str) or kind not in _LENGTH:
            raise InputError(f"{path}, key 'metric': must be {_RECALL} or {_SUBSET}, not {kind!r}")
        if body.get("version") != VERSION:
            raise InputError(f"{path}, key 'version': must be {VERSION!r}, not {body.get('version')!r}")
        lists = {str(k): v for k, v in body.items() if k not in ("version", "metric")}
        unknown_queries(lists, task.queries, str(path), f"{NAME} {task.split}")
        faults = Faults(path, task)
        faults.queries(lists)
        gallery = frozenset(task.gallery or ())
        rows: dict[str, Ranked] = {}
        own = 0
        for query, names in lists.items():
            if query not in task.queries:
                continue
            if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
                raise InputError(f"{path}, entry {query!r}: must be a list of image names")
            faults.names(query, names, known=gallery, count=_count(task, query, kind))
            inside = task.members[query] | task.removed[query]
            if kind == _SUBSET and (odd := [n for n in names if n in gallery and n not in inside]):
                faults.add("lists with an image that is not in the query's set", query, f": {odd[0]!r}")
            own += any(n in task.removed[query] for n in names)
            rows[query] = Ranked.of(in_order(names))
        faults.raise_any()
        if (size := path.stat().st_size) > _LARGEST:
            raise InputError(f"{path} has {size:,} bytes, and the server takes {_LARGEST:,} at most")
        left_out = f"{path}: {own} lists hold their own reference image, which the protocol leaves out"
        return Answer(path=str(path), kind=kind, rows=rows, warnings=(left_out,) if own else ())

    def write_own(self, task: CirrTask, run: Run, folder: Path) -> list[Path]:
        """Writes ``recall.json`` and ``recall_subset.json`` as the server takes them; returns their paths.

        Raises `InputError` when the run lacks queries or cannot fill lists.
        """
        rows = without(task, {q: Ranked.of(r) for q, r in run.rows.items()})
        faults = Faults(run.tag, task)
        faults.queries([q for q in rows if q in task.queries])
        gallery = frozenset(task.gallery or ())
        bodies: dict[str, dict[str, Any]] = {}
        for kind in _LENGTH:
            body: dict[str, Any] = {"version": VERSION, "metric": kind}
            for query in (q for q in task.queries if q in rows):
                ranked = only(rows[query], task.members[query]) if kind == _SUBSET else rows[query]
                body[query] = list(ranked.ids[: (count := _count(task, query, kind))])
                if len(body[query]) < count:
                    what = (
                        f"lists of fewer than the {count} images that {kind} needs (rank the whole gallery)"
                    )
                    faults.add(what, query, f" with {len(body[query])}")
                faults.strange(query, body[query], gallery)
            bodies[kind] = body
        faults.raise_any()
        return [_written(folder, kind, body) for kind, body in bodies.items()]

    def write_apart(self, task: CirrTask, run: Run, folder: Path) -> None:
        """Writes ``recall_subset.json`` again, in the order that the five were ranked in by themselves."""
        lists = {q: [r.id for r in run.rows[q]][: _count(task, q, _SUBSET)] for q in task.queries}
        _written(folder, _SUBSET, {"version": VERSION, "metric": _SUBSET, **lists})

    def score(self, task: CirrTask, answers: Sequence[Answer]) -> dict[str, Measured]:
        """R@1/5/10/50, Rsub@1/2/3 and the mean of R@5 and Rsub@1.

        A run gives all of them; a submission file those of its metric; beside a run of the five by themselves
        another gives those of the gallery. Raises `UsageError` when two files give the same.
        """
        found: dict[str, Measured] = {}
        for answer in _parted(task, answers):
            rows = without(task, answer.rows)
            some: dict[str, Measured] = {}
            if answer.kind not in (_SUBSET, APART):
                own = _own_sets(task, rows)
                some |= {f"R@{k}": recall(f"R@{k}", rows, task, k, partial=own) for k in (1, 5, 10, 50)}
            if answer.kind != _RECALL:
                few = {q: only(r, task.members[q]) for q, r in rows.items()}
                size = {q: len(m) for q, m in task.members.items()}
                some |= {f"Rsub@{k}": recall(f"Rsub@{k}", few, task, k, room=size.get) for k in (1, 2, 3)}
            if both := some.keys() & found.keys():
                raise UsageError(
                    f"{answer.path} gives {sorted(both)[0]} a second time; one run gives every figure, "
                    "two files must be submission files of the two metrics, or a run of the gallery and one "
                    "of the sets"
                )
            found |= some
        if {"R@5", "Rsub@1"} <= found.keys():
            five, one = found["R@5"].values, found["Rsub@1"].values
            found["mean(R@5,Rsub@1)"] = Measured(
                name="mean(R@5,Rsub@1)",
                values={q: (five[q] + one[q]) / 2 for q in five if q in one},
                expected=found["R@5"].expected,
                tie_rule=found["R@5"].tie_rule,
                short=either(found["R@5"].short, found["Rsub@1"].short),
            )
        return found

    def warnings(self, task: CirrTask, answers: Sequence[Answer]) -> list[str]:
        """A warning where lists are of the query's own set alone."""
        found = []
        for answer in _parted(task, answers):
            apart = answer.kind in (_SUBSET, APART)
            own = () if apart else _own_sets(task, without(task, answer.rows))
            if own:
                found.append(
                    f"{answer.path}: {len(own)} of {len(answer.rows)} lists hold images of their query's own "
                    f"set alone, such as {min(own)!r}: they answer Rsub@k, and their R@k is not "
                    "that of the gallery"
                )
        return found


def _parted(task: CirrTask, answers: Sequence[Answer]) -> list[Answer]:
    """Of two runs the one whose lists are of the queries' own sets alone answers the subset question."""
    kinds = [a.kind for a in answers]
    if len(answers) == 2 and kinds == ["run", "run"]:
        own = [len(_own_sets(task, without(task, a.rows))) == len(a.rows) for a in answers]
        kinds = [APART if o else "run" for o in own] if own.count(True) == 1 else kinds
    if APART in kinds:
        kinds = [_RECALL if k == "run" else k for k in kinds]
    return [replace(a, kind=k) for a, k in zip(answers, kinds, strict=True)]


def _written(folder: Path, kind: str, body: Mapping[str, Any]) -> Path:
    path = folder / f"{kind}.json"
    writing.write(path, json.dumps(body).encode())
    return path


def _count(task: CirrTask, query: str, kind: str) -> int:
    """How many names a list of a submission has: 50 or 3, or all that there are."""
    there = len(task.members[query]) if kind == _SUBSET else len(task.gallery or ()) - 1
    return min(_LENGTH[kind], there)


def _own_sets(task: CirrTask, rows: Mapping[str, Ranked]) -> frozenset[str]:
    """The queries whose lists are answers to the subset question: their whole set and nothing else, or
    nothing else in any list of the run. ``rows`` are without the references.
    """
    within = [q for q, r in rows.items() if len(r) and task.members[q].issuperset(r.ids)]
    smaller = {q for q in within if len(task.members[q]) < len(task.gallery or ()) - 1}
    if len(within) < len(rows) or all(len(rows[q]) == 1 for q in within):
        smaller = {q for q in smaller if len(rows[q]) == len(task.members[q])}
    return frozenset(smaller)


BENCHMARK = Cirr()
