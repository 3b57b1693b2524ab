"""MMEB: 36 data sets in four groups; each query chooses among candidates of its own.

V1 and the image part of V2 are the same. The headline is Hit@1: the mean over a data set's queries, then over
data sets. A prediction file is judged in its own order. In a run, the right one is the last of those with
equal scores: the files have it first, and a constant score must not win. Repeated candidates count once.
Source: Jiang et al. 2024 (VLM2Vec), arXiv 2410.05160; TIGER-AI-Lab/VLM2Vec, src/eval_utils/metrics.py,
commit 6ac33bb.
"""

from __future__ import annotations

import hashlib
import json
import re
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
    Short,
    Task,
)
from mmrerank.errors import InputError
from mmrerank.evaluation.benchmarks._predictions import ENDING, DataSet, Predicted, read
from mmrerank.evaluation.measure.files import TableRow, read_rows
from mmrerank.evaluation.measure.metrics import measure
from mmrerank.evaluation.measure.short import either, room_of
from mmrerank.evaluation.tasks import count_warnings, facts_of, find_all, how_to_get, owners

NAME = "mmeb"
KS = (1, 5, 10)
FIELDS = {
    "Hit": "Hit",
    "Precision": "Precision",
    "Recall": "Recall",
    "F1": "F1",
    "mAP": "AP_min",
    "MRR": "MRR",
    "nDCG_linear": "nDCG_linear",
    "nDCG_exponential": "nDCG_exponential",
}
_ROWS = ("qry_text", "qry_img_path", "tgt_text", "tgt_img_path")
_INSTRUCTIONS = ("qry_inst", "tgt_inst")
_MARK = re.compile(r"<\|image_\d+\|>")


@dataclass(frozen=True, kw_only=True)
class MmebTask(Task):
    """``parts`` are the queries of each data set."""

    parts: Mapping[str, Sequence[str]]


def _predicted(data: Path, files: Sequence[Path]) -> MmebTask:
    sets: dict[str, DataSet] = {}
    for path in files:
        found = read(path)
        if found.name in sets:
            raise InputError(f"{path}: the data set {found.name} is there twice below {data}")
        sets[found.name] = found
    qrels: dict[str, Mapping[str, int]] = {}
    warnings = list(_unlike(data, sets))
    for name, found in sets.items():
        qrels.update(zip(found.queries, found.right, strict=True))
        warnings += count_warnings(NAME, "test", {f"{name} queries": len(found.right)}, f"{name}{ENDING}")
    parts = {name: found.queries for name, found in sets.items()}
    asked = dict.fromkeys(qrels, BenchmarkQuery())
    return _task(asked, qrels, Predicted(list(sets.values()), mixed), parts, warnings)


def _task(
    asked: Mapping[str, BenchmarkQuery],
    qrels: Qrels,
    lists: Mapping[str, Sequence[str]],
    parts: Mapping[str, Sequence[str]],
    warnings: Sequence[str],
    **more: Any,
) -> MmebTask:
    return MmebTask(
        queries=asked,
        qrels=qrels,
        lists=lists,
        categories={q: p for p, queries in parts.items() for q in queries},
        parts=parts,
        depth=10**6,
        warnings=tuple(warnings),
        **more,
    )


def groups() -> dict[str, list[str]]:
    """The data sets of each group: CLS, VQA, RET, GRD, and those in and out of training, IND and OOD."""
    return {name: list(sets) for name, sets in facts_of(NAME).groups.items()}


def _unlike(data: Path, sets: Mapping[str, Any]) -> list[str]:
    known = {s for name in ("CLS", "VQA", "RET", "GRD") for s in groups()[name]}
    warnings = []
    if lacking := known - set(sets):
        warnings.append(
            f"{data} has {len(known & set(sets))} of MMEB's {len(known)} data sets; means are over "
            "those alone and not comparable with published ones"
        )
    if strange := sorted(set(sets) - known):
        warnings.append(f"{data}: {', '.join(strange)} are not among MMEB's {len(known)} data sets")
    return warnings if lacking or strange else []


def mixed(query: str, candidates: Sequence[str]) -> list[str]:
    """Candidates, each once, in an order that only their names decide: the right one is not first."""
    return sorted(set(candidates), key=lambda c: hashlib.sha256(f"{query}\0{c}".encode()).digest())


def _rows(data: Path) -> MmebTask:
    known = {s for name in ("CLS", "VQA", "RET", "GRD") for s in groups()[name]}
    asked: dict[str, BenchmarkQuery] = {}
    qrels: dict[str, dict[str, int]] = {}
    lists: dict[str, list[str]] = {}
    parts: dict[str, list[str]] = {}
    texts: dict[str, str] = {}
    files: dict[str, str] = {}
    told: dict[str, str] = {}
    keys_known: dict[str, str] = {}
    for name in sorted(p.name for p in data.iterdir() if p.is_dir()):
        tables = find_all(data / name, "test*.parquet", "test*.jsonl")
        number = 0
        for path in tables:
            for row in read_rows(path, _ROWS, _INSTRUCTIONS):
                query = f"{name}/{number}"
                number += 1
                given = row.text("qry_inst", empty=True) if row.has("qry_inst") else ""
                image = row.text("qry_img_path", empty=True)
                instruction, words = parted(given, row.text("qry_text", empty=True), image=bool(image))
                # MMEB's dialogues have a line for each question and each answer
                *turns, last = words.splitlines() if name == "VisDial" and words else [words]
                asked[query] = BenchmarkQuery(
                    text=last, turns=tuple(turns), image=image, instruction=instruction
                )
                keys = _keys(row, image, texts, files, told, keys_known)
                qrels[query] = {keys[0]: 1}  # the positive is at index 0
                lists[query] = mixed(query, keys)
                parts.setdefault(name, []).append(query)
    if not parts:
        raise InputError(
            f"{NAME} needs DATASET{ENDING} files or MMEB-eval's DATASET/test*.parquet below {data}, "
            f"and there are none.\n{how_to_get(NAME)}"
        )
    warnings = _unlike(data, parts) if known else []
    for name, queries in parts.items():
        warnings += count_warnings(NAME, "test", {f"{name} queries": len(queries)}, str(data / name))
    return _task(asked, qrels, lists, parts, warnings, texts=texts, files=files, told=told)


def parted(instruction: str, text: str, *, image: bool) -> tuple[str, str]:
    """The instruction of a sentence and the words behind it, without the mark of an image.

    Older files hold both as one text, which has that mark where there is an image: there the instruction
    ends with its first colon, or is all that stands beside the image.

    >>> parted("", "<|image_1|>\\nFind changes: More red.\\n", image=True)
    ('Find changes:', 'More red.')
    """
    told, words = (_MARK.sub("", t).strip() for t in (instruction, text))
    if told or (image and not _MARK.search(text)):
        return told, words
    before, colon, after = words.partition(": ")
    if colon and after.strip():
        return f"{before}:", after.strip()
    return (words, "") if image else ("", words)


def _keys(
    row: TableRow,
    image: str,
    texts: dict[str, str],
    files: dict[str, str],
    told: dict[str, str],
    known: dict[str, str],
) -> list[str]:
    """The candidates' keys, as the official loader makes them, and what stands behind each."""
    given = row.text("tgt_inst", empty=True) if row.has("tgt_inst") else ""
    captions = row.texts("tgt_text", empty=True)
    paths = row.texts("tgt_img_path", empty=True)
    if len(captions) != len(paths) or not captions:
        raise row.wrong("tgt_img_path", f"has {len(paths)} paths for {len(captions)} texts")
    keys = []
    for caption, path in zip(captions, paths, strict=True):
        if not path:
            key = caption
        elif not image:
            key = path
        else:
            key = f"{path}:" + caption.strip('"')
        if not key:
            raise row.wrong("tgt_text", "a candidate has neither text nor image")
        # a key recurs from query to query: one text serves them all
        key = known.setdefault(key, key)
        if path:
            files.setdefault(key, path)
            instruction, caption = parted(given, caption, image=True)
            if instruction:
                told.setdefault(key, instruction)
        texts.setdefault(key, caption)
        keys.append(key)
    return keys


def ties_lose(task: MmebTask, rows: Mapping[str, Ranked]) -> dict[str, Ranked]:
    """The lists with the right ones last among equal scores."""
    found = {}
    for query, ranked in rows.items():
        judged = task.qrels.get(query, {})
        order = sorted(range(len(ranked)), key=lambda n: (-ranked.scores[n], judged.get(ranked.ids[n], 0)))
        found[query] = Ranked([ranked.ids[n] for n in order], [ranked.scores[n] for n in order])
    return found


def _part(whole: Measured, name: str, parts: Mapping[str, Sequence[str]]) -> Measured:
    queries = [q for own in parts.values() for q in own]
    return replace(
        whole,
        name=name,
        values={q: whole.values[q] for q in queries if q in whole.values},
        expected=queries,
        parts=parts if len(parts) > 1 else {},
    )


def _measured(task: MmebTask, owner: Mapping[str, Answer], names: Sequence[str]) -> dict[str, Measured]:
    """`measure` over all queries, one data set after the other: the lists of all would not fit in memory."""
    values: dict[str, dict[str, float]] = {n: {} for n in names}
    short: dict[str, Short | None] = dict.fromkeys(names)
    room = room_of(task)
    for queries in task.parts.values():
        # only here: what a reranker is given must not know the labels
        rows = {q: owner[q].rows[q] for q in queries if q in owner}
        rows |= ties_lose(task, {q: r for q, r in rows.items() if owner[q].kind == "run"})
        made = measure(Run(rows=rows), {q: task.qrels[q] for q in queries}, names, room=room)
        joined: dict[tuple[int, int], Short | None] = {}  # metrics of one cut-off share theirs
        for name, one in made.items():
            values[name].update(one.values)
            pair = id(one.short), id(short[name])
            if pair not in joined:
                joined[pair] = either(one.short, short[name])
            short[name] = joined[pair]
    return {
        n: replace(one, values=values[n], expected=tuple(task.qrels), short=short[n])
        for n, one in made.items()
    }


class Mmeb(Benchmark):
    """36 data sets; a file of predictions answers one of them."""

    SPLITS = ("test",)
    FILES_ARE_PARTS = True

    def load(self, data: Path, split: str, options: NoOptions) -> MmebTask:
        """Every ``SET_pred.jsonl`` below ``data``; without any, MMEB-eval's rows (``SET/test*.parquet``)."""
        files = self.own_runs(data)
        return _predicted(data, files) if files else _rows(data)

    def own_runs(self, data: Path) -> list[Path]:
        """The prediction files in ``data``: what is scored when no run is given."""
        return find_all(data, f"*{ENDING}", f"*/*{ENDING}", f"**/*{ENDING}")

    def read_own(self, task: MmebTask, path: Path, body: Any) -> Answer | None:
        """A prediction file; None for other JSON lines. Its data set is the one in its name."""
        if not isinstance(body, str) or not path.name.removesuffix(".gz").endswith(ENDING):
            return None
        found = read(path)
        queries = task.parts.get(found.name)
        if queries is None:
            raise InputError(f"{path}: the data has no set {found.name!r}; it has {', '.join(task.parts)}")
        if len(queries) != len(found.right):
            raise InputError(f"{path} has {len(found.right)} rows, and the data {len(queries)}")
        for number, (query, right) in enumerate(zip(queries, found.right, strict=True)):
            if right != task.qrels[query]:
                raise InputError(
                    f"{path}, row {number} (from 0), column 'label': is {json.dumps(list(right))}, and "
                    f"{json.dumps(list(task.qrels[query]))} in the data"
                )
        warnings = (f"{path}: {found.repeated} lists have a candidate twice; it counts once",)
        return Answer(
            path=str(path),
            kind="predictions",
            rows=Predicted([found], lambda _, shown: Ranked(shown, range(len(shown), 0, -1))),
            warnings=warnings if found.repeated else (),
        )

    def settle_ties(self, query: str, ranked: Ranked) -> Ranked:
        """Equal scores in the order of `mixed`, since files have the right one first."""
        place = {c: n for n, c in enumerate(mixed(query, ranked.ids))}
        order = sorted(range(len(ranked)), key=lambda n: (-ranked.scores[n], place[ranked.ids[n]]))
        return Ranked([ranked.ids[n] for n in order], [ranked.scores[n] for n in order])

    def score(self, task: MmebTask, answers: Sequence[Answer]) -> dict[str, Measured]:
        """``DATASET.FIELD@k`` at 1, 5 and 10; plain names and groups are means over data sets."""
        ties = (
            "the order of the file"
            if all(a.kind != "run" for a in answers)
            else "equal scores: right candidates last"
        )
        names = {f"{f}@{k}": f"{own}@{k}" for f, own in FIELDS.items() for k in KS}
        whole = _measured(task, owners(answers), list(names.values()))
        found: dict[str, Measured] = {}
        for name, own in names.items():
            made = replace(whole[own], name=name, tie_rule=ties)
            found[name] = replace(made, parts=task.parts)
            for group, members in groups().items():
                parts = {s: task.parts[s] for s in members if s in task.parts}
                if parts and name == f"Hit@{KS[0]}":
                    found[f"{group}.{name}"] = _part(made, f"{group}.{name}", parts)
            for part, queries in task.parts.items():
                found[f"{part}.{name}"] = _part(made, f"{part}.{name}", {part: queries})
        return found


BENCHMARK = Mmeb()
