"""Qwen3-VL-Reranker: ``qwen3_vl_reranker:PATH_OR_NAME``, the probability of yes over no for each candidate.

Prompt, labels (exactly ``yes`` and ``no``), positions and pixels as the authors' code has them
(QwenLM/Qwen3-VL-Embedding@8ce3aab, src/models/qwen3_vl_reranker.py). That code shows the word NULL in the
place of a picture that cannot be read; here such a candidate has no score.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from mmrerank.chat.transformers import revision as revision
from mmrerank.scorers._local import BATCH, TOKENS, LocalScorer, label_ids, sigmoid
from mmrerank.types import Candidate, Query
from mmrerank.vl.load import load
from mmrerank.vl.scoring import Pixels, Prompt, Reader, Turn

if TYPE_CHECKING:
    import torch

FORM = "qwen3_vl_reranker:PATH_OR_NAME"
TYPES = {"qwen3_vl": "Qwen3-VL-Reranker"}
SYSTEM = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. Note "
    'that the answer can only be "yes" or "no".'
)
INSTRUCTION = "Given a search query, retrieve relevant candidates that answer the query."
"""What the authors' code says where nothing else is said."""
PIXELS = Pixels(least=4 * 32 * 32, most=1800 * 32 * 32)


class Qwen3VLReranker(LocalScorer):
    """Also the form of other rerankers that were trained on this prompt."""

    marks_of_form: ClassVar[re.Pattern[str] | None] = re.compile(r"<(?=(?:Instruct|Query|Document)>)")
    labels: ClassVar[tuple[str, str]] = ("yes", "no")

    def __init__(self, reader: Reader, *, spec: str, instruction: str = INSTRUCTION) -> None:
        super().__init__(reader, spec=spec, instruction=instruction)
        yes, no = self.reader.weights(label_ids(reader, self.labels))
        # the difference of two logits is the state times the difference of their weights, as the authors
        # compute it: in bfloat16 the logits themselves would be rounded to the same number
        self._line = yes - no

    def prompt(self, query: Query, candidate: Candidate, instruction: str) -> Prompt:
        """Instruction, query and document in one turn; images before words on each side."""
        told = self.reader.safe(instruction, self.marks_of_form)
        pieces = [
            f"<Instruct>: {told}", "<Query>:", *self.shown(query), "\n<Document>:", *self.shown(candidate)
        ]  # fmt: skip
        system = Turn(role="system", pieces=(SYSTEM,))
        return Prompt(turns=(system, Turn(role="user", pieces=tuple(pieces))))

    def values(self, states: torch.Tensor) -> list[float]:
        """P(yes) / (P(yes) + P(no))."""
        return [sigmoid(v) for v in (states @ self._line).tolist()]


def open(
    rest: str,
    *,
    device: str | None = None,
    dtype: str | None = None,
    batch_size: int = BATCH,
    batch_tokens: int = TOKENS,
    image_tokens: int = 0,
    instruction: str = INSTRUCTION,
    trust_remote_code: bool = False,
) -> Qwen3VLReranker:
    """Loads ``PATH_OR_NAME``.

    ``device``, ``dtype`` and ``trust_remote_code`` as in `mmrerank.vl.load.load`; ``batch_size`` rows and
    ``batch_tokens`` padded tokens bound a batch. ``image_tokens`` bounds the visual tokens of an image (0: as
    the authors have it). ``instruction`` is what the model is told where a question says nothing else.
    Raises `ModelError` when there is no such model.
    """
    loaded = load(rest, device=device, dtype=dtype, types=TYPES, trust_remote_code=trust_remote_code)
    reader = Reader(
        loaded, PIXELS, batch_size=batch_size, batch_tokens=batch_tokens, image_tokens=image_tokens
    )
    return Qwen3VLReranker(reader, spec=f"qwen3_vl_reranker:{rest}", instruction=instruction)
