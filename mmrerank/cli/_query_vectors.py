"""What ``mmrerank search --query-vectors`` does: ready-made query vectors to a run. Loads no model."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mmrerank.cli._files import STDIN, piped_bytes
from mmrerank.cli.console import Output, emit, working
from mmrerank.errors import InputError, UsageError
from mmrerank.paths import reason, refused

if TYPE_CHECKING:
    from mmrerank.config import Settings


def search_vectors(
    settings: Settings, source: Path, target: Path | None, others: Mapping[str, Any], output: Output
) -> None:
    """Searches with the rows of ``source`` into the run ``target``.

    ``others`` are the flags given beside. Raises `UsageError` for one that needs a query in words,
    `InputError` for a file that holds no vectors.
    """
    if wrong := [name for name, value in others.items() if value]:
        raise UsageError(f"--query-vectors searches without a model and takes no {wrong[0]}")
    if target is None:
        raise UsageError("--query-vectors needs --run FILE.trec to write to")
    if settings.rerank != "none":
        raise UsageError("--query-vectors has no words to rerank by; leave --rerank out")
    from mmrerank.benchmark import Run, Scored
    from mmrerank.evaluation.measure.runs import write_run
    from mmrerank.index.index import ImageIndex

    start = time.monotonic()
    with working():
        index = ImageIndex.open(settings.index)
        vectors = _read_vectors(source)
        rows = {
            str(number): [Scored(id=hit.id, score=hit.score) for hit in found]
            for number, found in enumerate(index.search(vectors, settings.k, where=settings.where or None))
        }
        write_run(target, Run(rows=rows))
    seconds = round(time.monotonic() - start, 3)
    if output is Output.json:
        emit({"index": settings.index or index.path.name, "queries": len(rows), "k": settings.k,
              "run": str(target), "seconds": seconds})  # fmt: skip
    else:
        typer.echo(f"{len(rows)} queries, {settings.k} images each, {seconds} s: {target}")


def _read_vectors(path: Path) -> Any:
    """The rows of a ``.npy`` file ``(q, d)`` as float32. Raises `InputError` for anything else."""
    import numpy as np

    try:
        piped = path == STDIN
        array = np.load(io.BytesIO(piped_bytes("--query-vectors")) if piped else path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        if refused(error):
            raise InputError(f"{path} cannot be read: {reason(error)}") from error
        raise InputError(f"{path} cannot be read as a .npy file of vectors: {error}") from error
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind != "f":
        raise InputError(f"{path} must hold rows of float16, float32 or float64")
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        raise InputError(f"{path}: row {int(finite.argmin())} is not finite (rows from 0)")
    return array.astype(np.float32)
