"""Query vectors as an index takes them: checked, and scaled to length 1."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmrerank.errors import InputError, MismatchError
from mmrerank.index.manifest import Manifest
from mmrerank.ports import Vectors


def scaled(vectors: Vectors, path: Path, facts: Manifest) -> Vectors:
    """``vectors`` ``(q, dim)`` of length 1. Raises `MismatchError` for another width than that of the index
    at ``path``, `InputError` for a vector that is zero or not finite.
    """
    wide = np.asarray(vectors, dtype=np.float64)
    if wide.ndim != 2 or wide.shape[1] != facts.dim:
        raise MismatchError(
            f"{path} holds {facts.dim}-d vectors of {facts.embedder}; the queries have the "
            f"shape {wide.shape} and need ({len(wide)}, {facts.dim})"
        )
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    bad = ~(np.isfinite(length) & (length > 0))[:, 0]
    if bad.any():
        raise InputError(f"query vector {int(bad.argmax())} (from 0) is zero or not finite")
    return np.ascontiguousarray(wide / length, dtype=np.float32)
