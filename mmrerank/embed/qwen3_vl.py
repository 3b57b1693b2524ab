"""Qwen3-VL-Embedding: ``qwen3_vl:PATH_OR_NAME``, or ``qwen3_vl:PATH_OR_NAME@DIM`` for shorter vectors.

The instruction stands in the system's turn, the vector is the state of the last token, and its first numbers
are a vector of their own (Matryoshka). Sentences, roles and sizes: QwenLM/Qwen3-VL-Embedding@8ce3aab
(src/models/qwen3_vl_embedding.py, README).
"""

from __future__ import annotations

from mmrerank.embed._form import Form, Pixels
from mmrerank.embed._instructed import InstructedEmbedder, opened, shortened

FORM = "qwen3_vl:PATH_OR_NAME[@DIM]"
TYPES = {"qwen3_vl": "Qwen3-VL-Embedding"}
QUERY = "Retrieve images or text relevant to the user's query."
DOCUMENT = "Represent the user's input."

ASKED = Form(
    says={
        "text": "{text}", "image": "", "composed": "{text}", "dialogue": "{text}",
        "document": "", "document_text": "{text}", "document_both": "{text}",
    },
    instructions={
        "text": QUERY, "image": QUERY, "composed": QUERY, "dialogue": QUERY,
        "document": DOCUMENT, "document_text": DOCUMENT, "document_both": DOCUMENT,
    },
    chat=True,
    system="{instruction}",
    full_stop=True,
    pixels=Pixels(whole=(4, 1800)),
)  # fmt: skip


def open(
    rest: str,
    *,
    device: str | None = None,
    precision: str | None = None,
    batch_size: int = 8,
    expect: str = "",
    trust_remote_code: bool = False,
) -> InstructedEmbedder:
    """The embedder ``PATH_OR_NAME[@DIM]``.

    ``device`` and ``precision`` as ``device`` and ``dtype`` of `mmrerank.vl.load.load`, and so is
    ``trust_remote_code``. ``expect`` is the fingerprint that it must have, compared before its weights are
    loaded. Raises `MismatchError` for another, `ModelError` when there is no such model or it has no such
    dimension, `UsageError` for a dimension that is no number.
    """
    name, dim = shortened("qwen3_vl", rest)
    return opened(
        "qwen3_vl",
        name,
        ASKED,
        TYPES,
        device=device,
        precision=precision,
        batch_size=batch_size,
        expect=expect,
        trust_remote_code=trust_remote_code,
        dim=dim,
    )
