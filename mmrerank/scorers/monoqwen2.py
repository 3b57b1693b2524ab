"""MonoQwen2-VL: ``monoqwen2:PATH_OR_NAME``, the probability of True over False that an image is relevant.

lightonai/MonoQwen2-VL-v0.1, a reranker of page images for queries in words. Prompt and labels (exactly
``True`` and ``False``) as in AnswerDotAI/rerankers@7bb2521, rerankers/models/monovlm_ranker.py. It was
trained with the processor of Qwen2-VL-2B-Instruct, which is taken where the checkpoint brings none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from mmrerank.chat.transformers import revision as revision
from mmrerank.scorers._files import completed
from mmrerank.scorers._local import BATCH, TOKENS, LocalScorer, label_ids, sigmoid
from mmrerank.types import Candidate, Query
from mmrerank.vl.load import load
from mmrerank.vl.scoring import Pixels, Prompt, Reader, Turn

if TYPE_CHECKING:
    import torch

FORM = "monoqwen2:PATH_OR_NAME"
TYPES = {"qwen2_vl": "MonoQwen2-VL"}
PROMPT = (
    "Assert the relevance of the previous image document to the following query, answer True or False. "
    "The query is: {query}"
)
PIXELS = Pixels(by="processor")
PROCESSOR = "Qwen/Qwen2-VL-2B-Instruct"


class MonoQwen2(LocalScorer):
    """One image before one query in words; anything else it was not trained on, and is not asked."""

    labels: ClassVar[tuple[str, str]] = ("True", "False")

    def __init__(self, reader: Reader, *, spec: str) -> None:
        super().__init__(reader, spec=spec)
        true, false = self.reader.weights(label_ids(reader, self.labels))
        self._line = true - false

    def unreadable(self, query: Query, candidate: Candidate) -> str:
        """It reads words against an image."""
        if query.images:
            return "takes queries in words only; this one has an image"
        return "" if candidate.image is not None else "takes images only; this candidate is a text"

    def left_out(self, query: Query, candidates: Sequence[Candidate]) -> tuple[str, ...]:
        """Captions."""
        said = any(c.text and c.image is not None for c in candidates)
        return ("texts beside images were left out: this reranker reads the image alone",) if said else ()

    def prompt(self, query: Query, candidate: Candidate, instruction: str) -> Prompt:
        """One turn of the user. An instruction of one's own stands before the query."""
        words = self.reader.safe(f"{instruction} {query.text}" if instruction else query.text)
        assert candidate.image is not None
        return Prompt(turns=(Turn(role="user", pieces=(candidate.image, PROMPT.format(query=words))),))

    def values(self, states: torch.Tensor) -> list[float]:
        """The softmax over False and True, of True."""
        return [sigmoid(v) for v in (states @ self._line).tolist()]


def open(
    rest: str,
    *,
    device: str | None = None,
    dtype: str | None = None,
    batch_size: int = BATCH,
    batch_tokens: int = TOKENS,
    image_tokens: int = 0,
    processor: str = PROCESSOR,
) -> MonoQwen2:
    """Loads ``PATH_OR_NAME``; ``processor`` is the folder or hub name of the processor for one without.

    Other options and errors as in `mmrerank.scorers.qwen3_vl_reranker.open`.
    """
    with completed(rest, processor) as folder:
        loaded = replace(load(folder, device=device, dtype=dtype, types=TYPES), name=rest)
    reader = Reader(
        loaded, PIXELS, batch_size=batch_size, batch_tokens=batch_tokens, image_tokens=image_tokens
    )
    return MonoQwen2(reader, spec=f"monoqwen2:{rest}")
