"""Which embedder and which language model fit a machine, by the facts of the catalogue. Opens no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmrerank import catalog
from mmrerank.catalog import Card
from mmrerank.machine import Machine

EMBEDDERS_GPU = ("qwen3-vl-embedding-2b", "clip-l14-laion", "clip-b32")
EMBEDDERS_CPU = ("clip-b32",)
CHATS = ("qwen3-vl-8b", "qwen2-vl-2b")
"""What is recommended, the largest first. All may be used for anything, also for money."""
_SPARE = 0.9
"""The share of the memory that models may take."""
_ON_CPU = "without a GPU it takes many seconds for each image; a server or a hosted model is faster"


@dataclass(frozen=True, kw_only=True)
class Advice:
    """The embedder for a machine and the language model, None where none fits, with a reason for each."""

    embedder: Card
    chat: Card | None
    reasons: tuple[str, str]


def advise(machine: Machine) -> Advice:
    """What fits ``machine``: the best pair that its GPU holds at once, else what its processor can do.

    >>> advice = advise(Machine(cores=4, memory=8_000_000_000))
    >>> advice.embedder.name, advice.chat
    ('clip-b32', None)
    """
    room = int(machine.gpu_memory * _SPARE)
    for chat in _cards("chat", CHATS):
        for embedder in _cards("embedder", EMBEDDERS_GPU):
            if room and embedder.memory + chat.memory <= room:
                both = f"both fit into the {gigabytes(machine.gpu_memory)} of the GPU"
                return Advice(embedder=embedder, chat=chat, reasons=(both, both))
    if room:
        for embedder in _cards("embedder", EMBEDDERS_GPU):
            if embedder.memory <= room:
                why = f"the GPU has {gigabytes(machine.gpu_memory)}"
                return Advice(embedder=embedder, chat=None, reasons=(why, "no model fits beside it"))
    embedder = _cards("embedder", EMBEDDERS_CPU)[0]
    smallest = _cards("chat", CHATS)[-1]
    fast = "the fastest on a processor"
    if machine.memory * _SPARE >= embedder.memory + smallest.memory:
        return Advice(embedder=embedder, chat=smallest, reasons=(fast, _ON_CPU))
    why = "none fits into the memory; a server or a hosted model needs none"
    return Advice(embedder=embedder, chat=None, reasons=(fast, why))


def _cards(kind: str, names: Sequence[str]) -> list[Card]:
    return [catalog.resolve(kind, name) for name in names]


def gigabytes(size: int) -> str:
    """Bytes in words.

    >>> gigabytes(24_146_608_128), gigabytes(605_109_252)
    ('24 GB', '605 MB')
    """
    return (
        f"{size / 1e9:.0f} GB"
        if size >= 10e9
        else f"{size / 1e9:.1f} GB"
        if size >= 1e9
        else f"{size / 1e6:.0f} MB"
    )
