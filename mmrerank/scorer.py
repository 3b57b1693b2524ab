"""The interface of dedicated rerankers; a part of `mmrerank.ports`, which stands here for its length.

A query and candidates to scores. The method ``scorer`` asks one that ``--chat`` names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from mmrerank.errors import ChatError
from mmrerank.types import Candidate, Query


@dataclass(frozen=True, kw_only=True)
class Marks:
    """What a scorer says of some candidates, in their order, and what that cost.

    ``scores``: higher is better, NaN where it cannot say; ``failures`` says by place why. ``tokens`` that
    were read by place (empty: not known), ``written`` in all. ``text`` is what it wrote, ``notes`` what a
    person should know of how the scores came about.
    """

    scores: tuple[float, ...]
    failures: Mapping[int, ChatError] = field(default_factory=dict)
    tokens: tuple[int, ...] = ()
    written: int = 0
    text: str = ""
    notes: tuple[str, ...] = ()


@runtime_checkable
class Scorer(Protocol):
    """A dedicated reranker: a query and candidates to scores. It is opened where ``--chat`` is.

    Law: `score` returns one number a candidate, in order; with ``group`` 1 a candidate's number depends on
    the query and itself alone. A picture that cannot be shown is NaN, never a candidate without a picture.

    >>> class Longest(Scorer):
    ...     spec = "longest"
    ...     def score(self, query, candidates, instruction=""):
    ...         return [1 - 1 / (1 + len(c.text or "")) for c in candidates]
    """

    spec: str
    fingerprint: str = ""
    """What else than the spec can change a score: precision, pixels, versions."""
    domain: str = ""
    """Empty for a general model; otherwise what little it knows. The catalogue's row sets it."""
    group: int = 1
    """How many candidates it reads together at most; 1: each by itself."""
    batch: int = 8
    """How many candidates are given to it at a time where somebody waits for each score."""
    logits: bool = False
    """Whether scores are logits, whose sigmoid is the relevance; else they are 0 to 1."""
    concurrency: int = 1
    """How many rankings may ask at once. Servers take more than 1."""
    image_tokens: int = 1280
    """Visual tokens of an image at most, for budgets."""
    writes: int = 1
    """Tokens that it writes a question at most, for budgets."""

    def score(self, query: Query, candidates: Sequence[Candidate], instruction: str = "") -> Sequence[float]:
        """A number for each candidate, higher is better, NaN where it cannot say.

        An empty ``instruction`` is the model's own. Raises `ChatError` where every question would fail.
        """
        ...

    def marks(self, query: Query, candidates: Sequence[Candidate], instruction: str = "") -> Marks:
        """`score` with its cost and the reasons of what is NaN; by default without either."""
        return Marks(scores=tuple(self.score(query, candidates, instruction)))

    def cancel(self) -> None:
        """Gives up what is under way, from another thread."""
        return

    def close(self) -> None:
        """Frees what it holds; it is not asked again."""
        return


class ScorerPlugin(Protocol):
    """The file of a dedicated reranker. ``FORM`` is how it is named on the command line, as ``mine:PATH``.

    It may define ``revision(rest)``: what tells these weights from others of that name, such as a commit.
    """

    FORM: str

    def open(self, rest: str, /) -> Scorer:
        """The scorer for ``NAME:rest``; further keywords, each with a default, are its options.

        Raises `ModelError` when there is no such model here, `UsageError` for a wrong option.
        """
        ...
