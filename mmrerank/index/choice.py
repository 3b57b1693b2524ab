"""Which store searches an index where none is named: by the number of vectors, their width and the machine.

One rule, which docs/stores.md shows as a table. Exact stores are taken as long as they answer in well under a
second; where an approximate one is taken, that is said.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mmrerank import registry
from mmrerank.errors import MissingExtraError

AUTO = "auto"
SMALL = 50_000_000
"""Numbers (vectors times width) that NumPy compares in about 20 ms, which importing FAISS takes 20 times."""
LARGE = 2_000_000_000
"""Numbers that one core compares in about half a second. More take longer than a search should."""
_MEMORY_SHARE = 0.5
"""Vectors that are larger than this share of the memory are read from the disk again by each search."""
_GPU_SHARE = 0.8
_UNKNOWN_MEMORY = 8 << 30


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What the rule asks of a machine. Bytes; ``gpu_memory`` is that of all its GPUs that FAISS can use."""

    memory: int
    faiss: bool
    gpu_memory: int = 0


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The name of a store, and why it was taken."""

    name: str
    why: str


def choose(rows: int, dim: int, *, itemsize: int = 4, machine: Machine | None = None) -> Choice:
    """The store for ``rows`` vectors of ``dim`` numbers of ``itemsize`` bytes on the disk.

    >>> choose(290, 512).name
    'exact'
    """
    numbers, size = rows * dim, rows * dim * itemsize
    what = f"{rows:,} vectors of {dim} numbers"
    if numbers <= SMALL:
        return Choice(name="exact", why=f"{what} are compared faster than FAISS is imported")
    machine = machine or this_machine()
    if not machine.faiss:
        return Choice(name="exact", why=f"{what}; FAISS is not installed")
    if machine.gpu_memory:
        if 4 * numbers <= _GPU_SHARE * machine.gpu_memory:
            return Choice(name="faiss_gpu", why=f"{what} fit into the GPU")
        what += ", more than fit into the GPU"
    if numbers > LARGE:
        return Choice(name="faiss_ivfpq", why=f"{what} take an exact search over half a second")
    if size > _MEMORY_SHARE * machine.memory:
        return Choice(
            name="faiss_ivfpq", why=f"{what} are over half of the {machine.memory >> 30} GB of memory"
        )
    return Choice(name="faiss", why=f"{what} are all compared in well under a second")


def resolve(name: str, rows: int, dim: int, *, itemsize: int = 4) -> Choice:
    """The store that an index's ``name`` means here: ``auto`` is chosen, and so is one that cannot be opened.

    Raises `UsageError` for the name of none.
    """
    if name == AUTO:
        return choose(rows, dim, itemsize=itemsize)
    try:
        registry.load("store", name).open()
    except MissingExtraError as error:
        other = "faiss" if rows * dim > SMALL and faiss_is_there() else "exact"
        return Choice(name=other, why=f"{name} cannot be used here: {error}")
    return Choice(name=name, why="named")


def check(name: str) -> None:
    """Raises `UsageError` for a name of no store, `MissingExtraError` for one that cannot be opened here."""
    if name != AUTO:
        registry.load("store", name).open()


def faiss_is_there() -> bool:
    """Whether FAISS is installed; it is not imported."""
    try:
        return importlib.util.find_spec("faiss") is not None
    except ValueError:
        return False


def this_machine() -> Machine:
    """What this machine has. Imports FAISS where it is installed, to ask for GPUs."""
    there = faiss_is_there()
    return Machine(memory=_memory(), faiss=there, gpu_memory=_gpu_memory() if there else 0)


@cache
def _memory() -> int:
    """Bytes of memory, or of the part of it that this process's control group may use."""
    found = []
    with contextlib.suppress(AttributeError, ValueError, OSError):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(file).read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            found.append(int(text))
    return min(found, default=_UNKNOWN_MEMORY)


def _gpu_memory() -> int:
    from mmrerank.index.stores import faiss_gpu

    return faiss_gpu.memory()
