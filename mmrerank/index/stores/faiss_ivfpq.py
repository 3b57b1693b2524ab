"""Lists around centres, and product quantisation with four bits for two numbers (FAISS's fast scan).

16 bytes a vector where 64 numbers are compared. Jégou, Douze, Schmid: Product quantization for nearest
neighbor search, IEEE TPAMI 33(1), 2011; André, Kermarrec, Le Scouarnec: Quicker ADC, IEEE TPAMI 43(5), 2021.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mmrerank.index import arrays
from mmrerank.index.stores._flat import library
from mmrerank.index.stores._ivf import IvfStore

_BITS = 4


class FaissIvfPqStore(IvfStore):
    """Proposes by product codes, and scores what is proposed with the true vectors on the disk."""

    name: ClassVar[str] = "faiss_ivfpq"

    def _empty(self, quantizer: Any, width: int, lists: int) -> Any:
        metric = self._faiss.METRIC_INNER_PRODUCT
        return self._faiss.IndexIVFPQ(quantizer, width, lists, width // 2, _BITS, metric)

    def _packed(self, index: Any) -> Any:
        return self._faiss.IndexIVFPQFastScan(index)

    def _learnt(self) -> dict[str, NDArray[Any]]:
        return {"words": self._faiss.vector_to_array(self._coder.pq.centroids)}

    def _relearn(self, folder: Path, coder: Any) -> None:
        words = arrays.read(folder, "words", np.float32, (coder.pq.centroids.size(),))
        arrays.check_finite(words)
        self._faiss.copy_array_to_vector(words, coder.pq.centroids)


def open() -> FaissIvfPqStore:
    """An empty store. Raises `MissingExtraError` when FAISS is not installed."""
    return FaissIvfPqStore(library(FaissIvfPqStore.name))
