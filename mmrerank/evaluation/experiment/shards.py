"""INQUIRE's published embedding shards, searched as they lie: no index of five million rows is made.

``FOLDER/img_emb/img_emb_*.npy`` hold rows of vectors and ``FOLDER/metadata/*.parquet`` a row for each with
its ``image_path``, which has no extension. Read in blocks: memory is that of one block and the best so far.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from mmrerank.benchmark import Ranked
from mmrerank.errors import InputError, MismatchError
from mmrerank.evaluation.measure.files import read_rows
from mmrerank.evaluation.tasks import find_all
from mmrerank.ports import Vectors

Progress = Callable[[int, int], None]
_BLOCK = 65_536


def nearest_in_shards(
    folder: Path, vectors: Vectors, k: int, *, progress: Progress | None = None
) -> list[Ranked]:
    """The ``k`` nearest rows of each query vector ``(q, dim)`` by cosine, named by their ``image_path``.

    Equal scores are in the shards' order. Raises `InputError` when shards and metadata do not belong
    together, and `MismatchError` when their vectors have another width.
    """
    arrays = find_all(folder, "img_emb/img_emb_*.npy", "*/img_emb/img_emb_*.npy")
    tables = find_all(folder, "metadata/*.parquet", "*/metadata/*.parquet")
    if not arrays or len(arrays) != len(tables):
        raise InputError(
            f"{folder} has {len(arrays)} arrays img_emb/img_emb_*.npy and {len(tables)} tables "
            "metadata/*.parquet; there must be one table for each array"
        )
    queries = np.asarray(vectors, np.float32)
    scores = np.full((len(queries), 0), 0, np.float32)
    places = np.zeros((len(queries), 0), np.int64)
    names: list[str] = []
    for number, (array, table) in enumerate(zip(arrays, tables, strict=True), start=1):
        rows = _open(array, queries.shape[1])
        paths = [r.text("image_path") for r in read_rows(table, ("image_path",))]
        if len(paths) != len(rows):
            raise InputError(f"{array} has {len(rows)} rows, and {table} {len(paths)}")
        for start in range(0, len(rows), _BLOCK):
            block = np.asarray(rows[start : start + _BLOCK], np.float32)
            length = np.linalg.norm(block, axis=1, keepdims=True)
            if not (np.isfinite(length).all() and (length > 0).all()):
                bad = start + int((~np.isfinite(length) | (length == 0)).argmax())
                raise InputError(f"{array}, row {bad} (from 0): the vector is zero or not finite")
            near = queries @ (block / length).T
            at = np.arange(len(names) + start, len(names) + start + len(block))
            scores = np.concatenate([scores, near], axis=1)
            places = np.concatenate([places, np.broadcast_to(at, near.shape)], axis=1)
            best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            scores = np.take_along_axis(scores, best, axis=1)
            places = np.take_along_axis(places, best, axis=1)
        names += paths
        if progress:
            progress(number, len(arrays))
    return [
        Ranked([names[p] for p in at], [float(s) for s in near])
        for at, near in zip(places, scores, strict=True)
    ]


def _open(path: Path, width: int) -> Vectors:
    try:
        rows: Vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if rows.ndim != 2 or rows.shape[1] != width:
        raise MismatchError(f"{path} has the shape {rows.shape}; the queries' vectors have width {width}")
    return rows
