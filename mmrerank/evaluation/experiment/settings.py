"""Every setting that an evaluation is carried out with, and digests of its data, as plain data.

Defaults are filled in: two runs that differ in anything differ here. Keys of servers are left out.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmrerank import catalog, registry
from mmrerank.benchmark import Answer, Task
from mmrerank.errors import InputError
from mmrerank.evaluation.experiment.make_first_stage import MadeFirstStage
from mmrerank.ports import Chat

if TYPE_CHECKING:
    from mmrerank.evaluation.experiment.carry_out import Experiment

_SECRET = ("api_key",)


def settings(
    wanted: Experiment, task: Task, answers: Sequence[Answer], first: MadeFirstStage | None, depth: int
) -> dict[str, Any]:
    """What decides the lists of an evaluation; ``first`` is a first stage that was made, of ``depth``."""
    embedder = wanted.embedder if isinstance(wanted.embedder, str) else wanted.embedder.spec
    return {
        "benchmark": task.benchmark,
        "split": task.split,
        "set": dataclasses.asdict(wanted.own_options),
        "queries": len(task.queries),
        "runs": [_run(a) for a in answers],
        "index": str(wanted.index),
        "shards": str(wanted.shards),
        "embedder": first.embedder.spec if first else embedder,
        "embedder_options": dict(wanted.embedder_options),
        "images": "" if wanted.images is None else str(wanted.images),
        "depth": depth if first else None,
    }


def _run(answer: Answer) -> dict[str, Any]:
    """Which lists: the file, its digest, and how long they are."""
    lengths = [len(r) for r in answer.rows.values()]
    path = Path(answer.path)
    there = bool(answer.path) and path.is_file()
    return {
        "path": answer.path,
        "sha256": file_digest(path) if there else None,
        "kind": answer.kind,
        "queries": len(lengths),
        "shortest": min(lengths, default=0),
        "longest": max(lengths, default=0),
    }


def data_digests(task: Task, folder: Path | None) -> dict[str, Any]:
    """SHA-256 of each file that the task was read from, of its right answers and of its gallery."""
    files = {}
    for path in task.sources:
        inside = folder is not None and path.is_relative_to(folder)
        files[str(path.relative_to(folder)) if inside and folder else str(path)] = file_digest(path)
    judged = ([q, d, g] for q, own in sorted(task.qrels.items()) for d, g in sorted(own.items()))
    gallery = task.gallery
    return {
        "folder": "" if folder is None else str(folder),
        "files": files,
        "qrels": _digest(judged) if task.qrels else None,
        "gallery": None if gallery is None else {"images": len(gallery), "sha256": _digest(gallery)},
    }


def index_facts(first: MadeFirstStage | None) -> dict[str, Any]:
    """Which images a first stage was made from."""
    if first is None or first.index is None:
        return {}
    ids = first.index.ids
    return {"index": {"images": len(ids), "sha256": _digest(ids)}}


def chat_options(chat: str | Chat, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a model is opened with, those of its backend's defaults too."""
    if not isinstance(chat, str):
        return dict(chat.settings)
    plugin = catalog.resolve("chat", chat).spec.partition(":")[0] if chat else ""
    kind = registry.kind_of("chat", plugin)
    if plugin not in registry.names(kind):
        return _plain(given)
    known = inspect.signature(registry.load(kind, plugin).open).parameters.values()
    defaults = {p.name: p.default for p in known if p.default is not inspect.Parameter.empty}
    return _plain({**defaults, **{k: v for k, v in given.items() if v is not None}})


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options as JSON can hold them, without keys of servers."""
    kinds = (str, int, float, bool, type(None))
    return {k: v if isinstance(v, kinds) else repr(v) for k, v in options.items() if k not in _SECRET}


def file_digest(path: Path) -> str:
    """SHA-256 of a file. Raises `InputError` where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def _digest(rows: Iterable[Any]) -> str:
    total = hashlib.sha256()
    for row in rows:
        total.update(json.dumps(row).encode() + b"\n")
    return total.hexdigest()
