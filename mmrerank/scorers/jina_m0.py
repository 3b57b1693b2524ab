"""jina-reranker-m0: ``jina_m0:PATH_OR_NAME``, Qwen2-VL with a scoring head instead of words.

jinaai/jina-reranker-m0 (CC-BY-NC-4.0: not for commercial use). No chat template; token 100 follows the
prompt, a head of two layers reads its state, and 2.65 is taken off before the sigmoid (the checkpoint's
modeling.py, and vLLM's models/jina_vl.py). The head is read here: no Python file of the checkpoint runs.
"""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, ClassVar

from mmrerank.chat.transformers import revision as revision
from mmrerank.scorers._local import BATCH, TOKENS, LocalScorer, sigmoid
from mmrerank.types import Candidate, Image, Query
from mmrerank.vl.load import HEADLESS, load
from mmrerank.vl.scoring import IMAGE, Pixels, Prompt, Reader, head_of

if TYPE_CHECKING:
    import torch

FORM = "jina_m0:PATH_OR_NAME"
TYPES = {"qwen2_vl": "jina-reranker-m0"}
SCORE_TOKEN = 100
"""What is appended to every prompt; its state is scored."""
LOGIT_BIAS = 2.65
PIXELS = Pixels(least=3136, most=602112, by="processor")
HEAD = ("score.0.weight", "score.0.bias", "score.2.weight", "score.2.bias")


class JinaM0(LocalScorer):
    """Document before query, as it was trained; of two images the document's comes first."""

    marks_of_form: ClassVar[re.Pattern[str] | None] = re.compile(r"\*(?=\*(?:Document|Query)\*\*)")

    def __init__(self, reader: Reader, *, spec: str) -> None:
        super().__init__(reader, spec=spec)
        head = head_of(reader.name, HEAD)
        self._first, self._first_bias, self._last, self._last_bias = (head[n] for n in HEAD)

    def prompt(self, query: Query, candidate: Candidate, instruction: str) -> Prompt:
        """An instruction stands before everything, as the checkpoint's code allows."""
        pieces = [*self.shown(candidate), "\n**Query**:\n", *self.shown(query)]
        text = "".join(IMAGE if isinstance(p, Image) else p for p in pieces)
        before = f"{self.reader.safe(instruction, self.marks_of_form)}\n" if instruction else ""
        return Prompt(
            text=f"{before}**Document**:\n{text}",
            images=tuple(p for p in pieces if isinstance(p, Image)),
            tail=(SCORE_TOKEN,),
        )

    def values(self, states: torch.Tensor) -> list[float]:
        """Linear, ReLU, linear; then a sigmoid."""
        import torch
        from torch.nn.functional import linear

        with torch.inference_mode():
            hidden = linear(states, self._first, self._first_bias).relu()
            logits = linear(hidden, self._last, self._last_bias)[:, 0]
        return [sigmoid(v - LOGIT_BIAS) for v in logits.tolist()]


def open(
    rest: str,
    *,
    device: str | None = None,
    dtype: str | None = None,
    batch_size: int = BATCH,
    batch_tokens: int = TOKENS,
    image_tokens: int = 0,
) -> JinaM0:
    """Loads ``PATH_OR_NAME``; options and errors as in `mmrerank.scorers.qwen3_vl_reranker.open`."""
    with warnings.catch_warnings():
        # its own Python files are not needed: what they compute is computed here
        warnings.filterwarnings("ignore", ".*names Python files of its own.*")
        loaded = load(rest, device=device, dtype=dtype, types=TYPES, spare=HEADLESS)
    reader = Reader(
        loaded, PIXELS, batch_size=batch_size, batch_tokens=batch_tokens, image_tokens=image_tokens
    )
    return JinaM0(reader, spec=f"jina_m0:{rest}")
