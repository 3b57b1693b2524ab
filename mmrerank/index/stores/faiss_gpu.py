"""Exact search on GPUs, through faiss-gpu: the same answers as ``exact``.

The vectors are copied to the GPUs at the first search, in pieces, as many as there is room for; the others
are copied again for each search. A GPU adds up in another order than a CPU does, so that it only proposes
rows: they are scored again with the vectors on the disk.

The default tests run the same functions with FAISS's classes for the CPU.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from mmrerank.errors import MissingExtraError
from mmrerank.index.stores._flat import SPARE, library, nearest, take
from mmrerank.index.stores._order import Blocks, Proposals, steps
from mmrerank.index.stores._scan import scan
from mmrerank.ports import Rows, Vectors, VectorStore

_PIECE_BYTES = 1 << 30
_WORK_BYTES = 2 << 30
"""Left free on each GPU, for the comparison itself."""
_MOST = 2048
"""The most results that faiss-gpu gives."""
_QUERIES = 1024


class Device(Protocol):
    """Where vectors are compared."""

    def room(self) -> int:
        """Bytes that vectors may take of it in all. Where others use it too, copying them may fail."""
        ...

    def index(self, width: int) -> Any:
        """An empty flat index by inner product on it."""
        ...


class Gpu:
    """A GPU of this machine, by its number."""

    def __init__(self, faiss: Any, number: int) -> None:
        self._faiss, self._number = faiss, number
        self._resources = faiss.StandardGpuResources()

    def room(self) -> int:
        """Its memory, but for what the comparison takes."""
        return max(0, total_memory(self._number) - _WORK_BYTES)

    def index(self, width: int) -> Any:
        """A flat index in float32."""
        config = self._faiss.GpuIndexFlatConfig()
        config.device = self._number
        return self._faiss.GpuIndexFlatIP(self._resources, width, config)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Piece:
    """Rows ``start`` to ``stop``, the length of the longest, and where they are; None: copied each time."""

    start: int
    stop: int
    longest: float
    index: Any


class FaissGpuStore(VectorStore):
    """Compares a query with every row on ``devices``. ``vectors`` are kept as given, too."""

    name: ClassVar[str] = "faiss_gpu"
    maps = True

    def __init__(self, devices: Sequence[Device], *, piece_bytes: int = _PIECE_BYTES) -> None:
        self._devices, self._piece_bytes = devices, piece_bytes
        self._blocks = Blocks(np.zeros((0, 0), dtype=np.float32))
        self._pieces: list[_Piece] | None = None
        self._lock = threading.Lock()  # a GPU's memory for work is one

    def build(self, vectors: Vectors | Rows) -> None:
        """Replaces the contents by ``vectors`` ``(n, dim)``; nothing is read."""
        self._blocks, self._pieces = Blocks(vectors), None

    def search(
        self, queries: Vectors, k: int, among: NDArray[np.int64] | None = None
    ) -> tuple[Vectors, NDArray[np.int64]]:
        """Scores and row numbers ``(q, min(k, n))``, best first; equal scores by row number.

        With ``among``, and for more than 2016 results, the CPU compares them.
        """
        k = min(k, len(self._blocks))
        if among is not None or not k or not len(queries) or k + SPARE > _MOST:
            return scan(self._blocks, queries, k, among)
        wide = np.ascontiguousarray(queries, dtype=np.float32)
        scores = np.zeros((len(wide), k), dtype=np.float32)
        rows = np.zeros((len(wide), k), dtype=np.int64)
        with self._lock:
            for start, stop in steps(len(wide), _QUERIES):
                scores[start:stop], rows[start:stop] = self._nearest(wide[start:stop], k)
        return scores, rows

    def _nearest(self, queries: Vectors, k: int) -> tuple[Vectors, NDArray[np.int64]]:
        found = [Proposals(query, self._blocks.vectors, k) for query in queries]
        for piece in self._uploaded():
            block = self._blocks.vectors[piece.start : piece.stop]
            with self._held(piece, block) as index:
                answer = index.search(queries, min(len(block), k + SPARE))
            take(found, answer, piece.start, block, piece.longest)
        return nearest(found)

    def _uploaded(self) -> list[_Piece]:
        """The pieces; those for which there is room are copied to their device once."""
        if self._pieces is None:
            vectors = self._blocks.vectors
            n, width = vectors.shape
            step = max(1, self._piece_bytes // (4 * width))
            pieces = []
            room = [device.room() for device in self._devices]
            for start, stop in steps(n, step):
                block = vectors[start:stop]
                # read through once, which also finds what is not finite
                longest = max(length for _, _, length in Blocks(block))
                index = self._copied(room, block)
                pieces.append(_Piece(start=start, stop=stop, longest=longest, index=index))
            self._pieces = pieces
        return self._pieces

    def _copied(self, room: list[int], block: Vectors) -> Any:
        """``block`` on the device with most ``room``, which becomes less; None where none has enough."""
        number = max(range(len(room)), key=room.__getitem__)
        if (
            room[number] < 2 * block.nbytes
        ):  # one more has to fit beside it, where others are copied each time
            return None
        index = self._devices[number].index(block.shape[1])
        try:
            index.add(np.ascontiguousarray(block))
        except RuntimeError:  # FAISS's only kind of error: somebody else has the memory
            room[number] = 0
            return None
        room[number] -= block.nbytes
        return index

    @contextmanager
    def _held(self, piece: _Piece, block: Vectors) -> Iterator[Any]:
        if piece.index is not None:
            yield piece.index
            return
        index = self._devices[0].index(block.shape[1])
        index.add(np.ascontiguousarray(block))
        try:
            yield index
        finally:
            index.reset()


def memory() -> int:
    """Bytes of memory of all GPUs that FAISS can use; 0 without faiss-gpu or without a GPU."""
    faiss = library(FaissGpuStore.name)
    if "StandardGpuResources" not in vars(faiss):
        return 0
    return sum(total_memory(number) for number in range(faiss.get_num_gpus()))


def total_memory(number: int) -> int:
    """Bytes of memory of a GPU, as the driver numbers them; 0 where it does not say. FAISS cannot tell."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    device, size = ctypes.c_int(), ctypes.c_size_t()
    fine = (
        driver.cuInit(0) == 0
        and driver.cuDeviceGet(ctypes.byref(device), number) == 0
        and driver.cuDeviceTotalMem_v2(ctypes.byref(size), device) == 0
    )
    return size.value if fine else 0


def open() -> FaissGpuStore:
    """An empty store. Raises `MissingExtraError` without faiss-gpu, or without a GPU."""
    faiss = library(FaissGpuStore.name)
    if "StandardGpuResources" not in vars(faiss):
        raise MissingExtraError(
            'the store "faiss_gpu" needs FAISS for GPUs: pip uninstall -y faiss-cpu, then '
            'pip install "mmrerank[gpu]"; the store "faiss" gives the same answers on the CPU'
        )
    count = faiss.get_num_gpus()
    if not count:
        raise MissingExtraError(
            'the store "faiss_gpu" needs a GPU, and FAISS sees none; the store "faiss" gives the same '
            "answers on the CPU"
        )
    return FaissGpuStore([Gpu(faiss, number) for number in range(count)])
