"""Qwen3-VL-Embedding: ``qwen3_vl:PATH_OR_NAME``, or ``qwen3_vl:PATH_OR_NAME@DIM`` for shorter vectors.

The instruction stands in the system's turn, the vector is the state of the last token, and its first numbers
are a vector of their own (Matryoshka). Form after the model's card and code (QwenLM/Qwen3-VL-Embedding).
"""

from __future__ import annotations

from mmrerank.embed._instructed import Form, InstructedEmbedder, opened
from mmrerank.errors import UsageError

FORM = "qwen3_vl:PATH_OR_NAME[@DIM]"
TYPES = {"qwen3_vl": "Qwen3-VL-Embedding"}
_DEFAULT = "Represent the user's input."

ASKED = Form(
    role="system",
    image="",
    text="{text}",
    both="{text}",
    instructions={
        "document": _DEFAULT,
        "text": _DEFAULT,
        "dialogue": _DEFAULT,
        "image": _DEFAULT,
        "composed": _DEFAULT,
    },
    full_stop=True,
    image_tokens=1800,
)


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
    loaded. Raises `MismatchError` for another, `ModelError`
    when there is no such model or it has no such dimension, `UsageError` for a dimension that is no number.
    """
    name, at, number = rest.rpartition("@")
    if at and not number.isdecimal():
        raise UsageError(f"{number!r} is no dimension; write {FORM}, as in qwen3_vl:{name}@256")
    return opened(
        "qwen3_vl",
        name if at else rest,
        ASKED,
        TYPES,
        device=device,
        precision=precision,
        batch_size=batch_size,
        expect=expect,
        trust_remote_code=trust_remote_code,
        dim=int(number) if at else None,
    )
