"""Lists around centres, and two bits for each number (RaBitQ), with what its estimate of a score needs.

Gao, Long: RaBitQ: Quantizing High-Dimensional Vectors with a Theoretical Error Bound for Approximate Nearest
Neighbor Search, SIGMOD 2024; with more bits: Gao and others, SIGMOD 2025 (arXiv 2409.09913). The numbers were
turned at random before, as it requires.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from mmrerank.index.stores._flat import library
from mmrerank.index.stores._ivf import IvfStore

_BITS = 2


class FaissRabitqStore(IvfStore):
    """Proposes by bits, and scores what is proposed with the true vectors on the disk."""

    name: ClassVar[str] = "faiss_rabitq"

    def _empty(self, quantizer: Any, width: int, lists: int) -> Any:
        metric = self._faiss.METRIC_INNER_PRODUCT
        return self._faiss.IndexIVFRaBitQ(quantizer, width, lists, metric, True, _BITS)

    def _packed(self, index: Any) -> Any:
        return self._faiss.IndexIVFRaBitQFastScan(index)

    def _learnt(self) -> dict[str, NDArray[Any]]:
        return {}  # it turns nothing itself, and has no codebook

    def _relearn(self, folder: Path, coder: Any) -> None:
        """There is nothing."""


def open() -> FaissRabitqStore:
    """An empty store. Raises `MissingExtraError` when FAISS is not installed."""
    return FaissRabitqStore(library(FaissRabitqStore.name))
