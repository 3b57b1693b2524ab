"""Vectors with fewer numbers, whose inner products are nearly the same: what approximate stores look through.

The directions in which a sample of the rows is longest are kept (principal components, not centred, so that
inner products stay), and turned at random so that every number carries as much as the next. What is proposed
by them is scored again with the whole vectors.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmrerank.index.stores._order import steps
from mmrerank.ports import Rows, Vectors

ENERGY = 0.95
"""The share of the squared lengths that is kept, where `MOST` numbers are enough for it."""
LEAST, MOST = 64, 256
_MULTIPLE = 16
_SAMPLE = 50_000
_WIDE = 1024
"""Wider vectors than this are decomposed through the products of as many rows."""
PORTION = 16_384
"""Rows that are read at once."""


def sample(vectors: Vectors | Rows, most: int) -> Vectors:
    """At most ``most`` rows ``(n, d)``, drawn evenly, in their order; the same each time."""
    n = len(vectors)
    if n <= most:
        return np.ascontiguousarray(vectors[0:n], dtype=np.float32)
    at = np.sort(np.random.default_rng(n).choice(n, most, replace=False).astype(np.int64))
    return np.ascontiguousarray(vectors[at], dtype=np.float32)


def fit(vectors: Vectors | Rows) -> Vectors:
    """The matrix ``(r, d)`` that makes them shorter, r a multiple of 16; rows of zeros where r > d."""
    d = vectors.shape[1]
    rows = sample(vectors, _SAMPLE if d <= _WIDE else _WIDE).astype(np.float64)
    if d <= _WIDE:
        energy, directions = np.linalg.eigh(rows.T @ rows)
    else:
        energy, among_rows = np.linalg.eigh(rows @ rows.T)
        directions = rows.T @ (among_rows / np.sqrt(np.maximum(energy, 1e-12)))
    energy, directions = np.maximum(energy[::-1], 0), directions[:, ::-1]
    enough = int(np.searchsorted(np.cumsum(energy), ENERGY * energy.sum())) + 1
    width = -(-min(max(enough, LEAST), MOST) // _MULTIPLE) * _MULTIPLE
    kept = np.zeros((width, d))
    count = min(width, directions.shape[1])
    kept[:count] = directions[:, :count].T
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(width, width)))
    return np.ascontiguousarray(turn @ kept, dtype=np.float32)


def reduced(vectors: Vectors | Rows, matrix: Vectors, start: int, stop: int) -> Vectors:
    """Rows ``start`` to ``stop``, made shorter: ``(stop - start, r)``."""
    found = np.empty((stop - start, len(matrix)), dtype=np.float32)
    for low, high in steps(stop - start, PORTION):
        np.matmul(vectors[start + low : start + high], matrix.T, out=found[low:high])
    return found


def reduced_among(vectors: Vectors | Rows, matrix: Vectors, at: NDArray[np.int64]) -> Vectors:
    """The rows ``at``, made shorter."""
    found = np.empty((len(at), len(matrix)), dtype=np.float32)
    for low, high in steps(len(at), PORTION):
        np.matmul(vectors[at[low:high]], matrix.T, out=found[low:high])
    return found
