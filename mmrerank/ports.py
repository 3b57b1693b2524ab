"""The doors: what a backend of each kind must offer. Plug-ins meet these by shape, not by inheritance.

`mmrerank.registry` finds plug-ins by file name; one contract test per kind runs over all of them.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mmrerank.messages import Ask, Reply, Retrieve
from mmrerank.types import Candidate, Explanation, Image, Query, Ranking, Repairs

Capability = Literal[
    "generate", "choice_logprobs", "attention", "embed", "token_embeddings", "retrieve"
]
"""What a method may need: all but ``retrieve`` (an index to search again) of the language model."""
Vectors = NDArray[np.float32]


@runtime_checkable
class Embedder(Protocol):
    """Turns images and queries into unit vectors of one space.

    ``spec`` is what the user typed to get it; ``fingerprint`` names model, weights and preprocessing, so
    that two embedders with one fingerprint give the same vectors. ``dim`` is the vectors' width.
    ``domain`` is empty, or says what little the model knows.
    """

    spec: str
    fingerprint: str
    dim: int
    domain: str

    def embed_images(self, images: Sequence[Any]) -> Vectors:
        """Unit vectors ``(n, dim)`` of decoded RGB images (``PIL.Image``)."""

    def embed_queries(self, queries: Sequence[Query]) -> Vectors:
        """Unit vectors ``(n, dim)`` of queries: text, image, composed or dialogue."""


@runtime_checkable
class VectorStore(Protocol):
    """Nearest neighbours by inner product over rows ``0..n-1``; a view that can be rebuilt at any time."""

    name: ClassVar[str]

    def build(self, vectors: Vectors) -> None:
        """Replaces the contents by ``vectors`` ``(n, dim)``."""

    def search(self, queries: Vectors, k: int) -> tuple[Vectors, NDArray[np.int64]]:
        """Scores and row numbers ``(q, min(k, n))``, best first; equal scores by row number."""


@runtime_checkable
class Chat(Protocol):
    """A multimodal language model. ``capabilities`` says which asks it can answer.

    Law: `reply` returns one reply per ask, in order, and the reply to an ask depends on nothing but that
    ask (not its neighbours, not its ``kind`` or ``shown``). A failed ask is a reply with ``error``; only
    what concerns every ask (no such model, no such capability) is raised.
    """

    spec: str
    capabilities: frozenset[Capability]
    domain: str

    def reply(self, asks: Sequence[Ask]) -> list[Reply]:
        """Answers every ask."""


class Retriever(Protocol):
    """A first stage that can be asked again in the middle of a ranking: an index with its embedder."""

    def retrieve(self, requests: Sequence[Retrieve]) -> list[tuple[Candidate, ...]]:
        """Images with their scores, best first, for each request."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a strategy returns: the order, why, and what had to be mended.

    ``ranking`` holds every candidate it was given, and those that a `Retrieve` found besides.
    """

    ranking: Ranking
    explanation: Explanation = field(default_factory=Explanation)
    repairs: Repairs = field(default_factory=Repairs)


Judging = Generator[list[Ask], list[Reply], Outcome]
"""A strategy at work: yields questions, receives the replies in the same order, returns an `Outcome`."""


class Strategy(Protocol):
    """A reranking method: a module ``mmrerank/rerank/strategies/NAME.py`` with these names.

    ``NEEDS`` lists the capabilities asked of the backend; ``Options`` is a frozen dataclass whose fields
    become ``-o name=value`` flags and app controls. ``rank`` does no I/O and knows no backend.
    """

    NEEDS: tuple[Capability, ...]
    FAMILY: str
    PAPER: str
    Options: type[Any]

    def rank(self, query: Query, ranking: Ranking, options: Any) -> Judging:
        """Judges ``ranking`` for ``query``."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One thing a corpus yields: an id, where its image is, and what is known about it.

    ``error`` is set, and ``image`` is not, when the source itself is unreadable there.
    """

    id: str
    image: Image | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""


class Corpus(Protocol):
    """A source of images. ``location`` is written into the index so that images are found again."""

    @property
    def location(self) -> str:
        """The source as the user named it."""

    def samples(self) -> Iterable[Sample]:
        """Every sample once, in a stable order, with unique ids."""
