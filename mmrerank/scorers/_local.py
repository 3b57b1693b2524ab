"""What the rerankers that run in this process share: prompts in, states read, one score out of each.

A family says how a question looks (`LocalScorer.prompt`) and how its last state is read
(`LocalScorer.values`). The rest, such as batches, failures and costs, is the same for all.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from mmrerank.errors import ChatError, ModelError
from mmrerank.ports import Marks, Scorer
from mmrerank.types import Candidate, Query
from mmrerank.vl.scoring import Piece, Prompt, Reader, State

if TYPE_CHECKING:
    import torch

BATCH, TOKENS = 8, 16384
"""Rows of a batch, and their padded tokens, by default."""


class LocalScorer(Scorer):
    """A reranker over a checkpoint, one candidate a prompt. Safe to call from several threads."""

    FORM_VERSION: ClassVar[int] = 1
    """Raised when prompts or readings change: what was kept then counts no more."""
    marks_of_form: ClassVar[re.Pattern[str] | None] = None
    """What a text of somebody's must not spell: the marks of this model's own prompt."""

    def __init__(self, reader: Reader, *, spec: str, instruction: str = "") -> None:
        self.reader, self.spec, self.instruction = reader, spec, instruction
        self.image_tokens, self.batch = reader.image_tokens, reader.batch_size
        self.fingerprint = json.dumps([type(self).__name__, self.FORM_VERSION, reader.identity, instruction])

    def prompt(self, query: Query, candidate: Candidate, instruction: str) -> Prompt:
        """The question about one candidate."""
        raise NotImplementedError

    def values(self, states: torch.Tensor) -> list[float]:
        """Scores out of last states (n, width) float32."""
        raise NotImplementedError

    def unreadable(self, query: Query, candidate: Candidate) -> str:
        """Why this model cannot read such a pair; empty where it can."""
        return ""

    def left_out(self, query: Query, candidates: Sequence[Candidate]) -> tuple[str, ...]:
        """What it is not shown of them, in words for a person."""
        return ()

    def score(self, query: Query, candidates: Sequence[Candidate], instruction: str = "") -> Sequence[float]:
        """A number for each candidate, NaN where its picture cannot be shown."""
        return self.marks(query, candidates, instruction).scores

    def marks(self, query: Query, candidates: Sequence[Candidate], instruction: str = "") -> Marks:
        """`score` with the tokens that were read and the reasons of what is NaN."""
        import torch

        told = instruction.strip() or self.instruction
        failures: dict[int, ChatError] = {
            n: ChatError(f"{self.spec} {why}")
            for n, c in enumerate(candidates)
            if (why := self.unreadable(query, c))
        }
        places = [n for n in range(len(candidates)) if n not in failures]
        states = self.reader.states([self.prompt(query, candidates[n], told) for n in places])
        found = [State()] * len(candidates)
        for n, state in zip(places, states, strict=True):
            found[n] = state
        there = [(n, s.state) for n, s in enumerate(found) if s.state is not None]
        scores = [math.nan] * len(found)
        if there:
            for (n, _), value in zip(there, self.values(torch.stack([s for _, s in there])), strict=True):
                scores[n] = value
        failures |= {n: s.error for n, s in enumerate(found) if s.error is not None}
        failures |= {
            n: ChatError(f"{self.spec}: the model's numbers overflowed; try dtype=bfloat16 or float32")
            for n, _ in there
            if not math.isfinite(scores[n])
        }
        scores = [math.nan if n in failures else v for n, v in enumerate(scores)]
        return Marks(
            scores=tuple(scores),
            failures=failures,
            tokens=tuple(s.tokens for s in found),
            notes=self.left_out(query, candidates),
        )

    def shown(self, item: Query | Candidate) -> list[Piece]:
        """A query or candidate as every family shows it: images, then words."""
        images = item.images if isinstance(item, Query) else (item.image,)
        words = self.reader.safe(item.text or "", self.marks_of_form)
        return [*(i for i in images if i is not None), *([words] if words else [])]


def label_ids(reader: Reader, labels: Sequence[str]) -> list[int]:
    """The one token of each label, exactly as it is spelt. Raises `ModelError` where it is none."""
    found = [reader.tokenizer(label, add_special_tokens=False)["input_ids"] for label in labels]
    for label, ids in zip(labels, found, strict=True):
        if len(ids) != 1:
            raise ModelError(
                f"{reader.name}: {label!r} is {len(ids)} tokens of its vocabulary, and this reranker reads "
                "it as one; give a checkpoint of the family that this scorer is for"
            )
    return [ids[0] for ids in found]


def sigmoid(value: float) -> float:
    """1 / (1 + e^-value), in double precision on the side where the exponential cannot overflow."""
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))
