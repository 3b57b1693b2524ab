"""The figures of a run, saved beside it: ``RUN.metrics.json``, and ``RUN.per-query.tsv`` where wanted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmrerank.benchmark import Scores
from mmrerank.evaluation.experiment.settings import file_digest
from mmrerank.evaluation.experiment.two_stage import write
from mmrerank.evaluation.per_query import lines

_ENDINGS = (".gz", ".trec", ".run", ".jsonl", ".json", ".raw")


def stem(run: Path | str) -> str:
    """The name of a run without its endings."""
    name = Path(run).name
    for ending in _ENDINGS:
        name = name.removesuffix(ending) or name
    return name


def save_figures(
    run: Path,
    scores: Scores,
    folder: Path,
    *,
    by_query: bool = False,
    provenance: Mapping[str, Any] | None = None,
    told: str = "",
) -> Path:
    """Writes the figures of the file ``run`` into ``folder``; returns the path of the metrics.

    ``told`` is a further warning, such as that judgements failed.
    Raises `InputError` where that cannot be written.
    """
    path = folder / f"{stem(run)}.metrics.json"
    body: dict[str, Any] = {"run": run.name, "sha256": file_digest(run) if run.is_file() else None}
    body |= scores.to_dict()
    if told:
        body["warnings"] = [*body["warnings"], told]
    if provenance:
        body["provenance"] = dict(provenance)
    write(path, json.dumps(body, indent=2) + "\n")
    if by_query:
        text = "".join(line + "\n" for line in lines(scores, digits=None))
        write(folder / f"{stem(run)}.per-query.tsv", text)
    return path


def save_first(
    run: Path, scores: Scores | None, origin: Mapping[str, Any], *, by_query: bool = False
) -> None:
    """Writes where a first stage came from (``first-stage.json``), and its figures, beside it."""
    write(run.with_suffix(".json"), json.dumps(dict(origin), indent=2) + "\n")
    if scores is not None:
        save_figures(run, scores, run.parent, by_query=by_query)
