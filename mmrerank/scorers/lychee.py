"""lychee-rerank-mm: ``lychee:PATH_OR_NAME``, Qwen2.5-VL with the prompt and labels of Qwen3-VL-Reranker.

vec-ai/lychee-rerank-mm, "SFT or CL" (arXiv 2510.14824). Its code is not public; the form is that of a script
of others who use it: softmax over ``no`` and ``yes``, 4 to 1280 times 28 x 28 pixels.
"""

from __future__ import annotations

from mmrerank.chat.transformers import revision as revision
from mmrerank.scorers._local import BATCH, TOKENS
from mmrerank.scorers.qwen3_vl_reranker import Qwen3VLReranker
from mmrerank.vl.load import load
from mmrerank.vl.scoring import Pixels, Reader

FORM = "lychee:PATH_OR_NAME"
TYPES = {"qwen2_5_vl": "lychee-rerank-mm"}
INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
PIXELS = Pixels(least=4 * 28 * 28, most=1280 * 28 * 28)


class Lychee(Qwen3VLReranker):
    """The same question; a softmax over two logits is the sigmoid of their difference."""


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
) -> Lychee:
    """Loads ``PATH_OR_NAME``; options and errors as in `mmrerank.scorers.qwen3_vl_reranker.open`."""
    loaded = load(rest, device=device, dtype=dtype, types=TYPES, trust_remote_code=trust_remote_code)
    reader = Reader(
        loaded, PIXELS, batch_size=batch_size, batch_tokens=batch_tokens, image_tokens=image_tokens
    )
    return Lychee(reader, spec=f"lychee:{rest}", instruction=instruction)
