"""GME-Qwen2-VL: ``gme:PATH_OR_NAME``, or ``gme:PATH_OR_NAME@DIM`` for shorter vectors.

The instruction stands in the system's turn, and the prompt ends with ``<|endoftext|>``, whose state is the
vector. Positions count tokens, those of images too. Sentences and sizes: TIGER-AI-Lab/VLM2Vec@6e1e1d4
(src/model/vlm_backbone/gme/gme_inference.py), after the model's own code.
"""

from __future__ import annotations

from mmrerank.embed._form import Form, Pixels
from mmrerank.embed._instructed import InstructedEmbedder, opened, shortened

FORM = "gme:PATH_OR_NAME[@DIM]"
TYPES = {"qwen2_vl": "GME (Qwen2-VL)"}
DEFAULT = "You are a helpful assistant."
IMAGES = "Find an image that matches the given text."
"""Of the authors' example; they name none for queries with an image."""
_PROMPT = (
    "<|im_start|>system\n{instruction}<|im_end|>\n<|im_start|>user\n{images}{text}<|im_end|>\n"
    "<|im_start|>assistant\n<|endoftext|>"
)

ASKED = Form(
    says={
        "text": _PROMPT, "image": _PROMPT, "composed": _PROMPT, "dialogue": _PROMPT,
        "document": _PROMPT, "document_text": _PROMPT, "document_both": _PROMPT,
    },
    instructions={
        "text": IMAGES, "dialogue": IMAGES, "image": DEFAULT, "composed": DEFAULT,
        "document": DEFAULT, "document_text": DEFAULT, "document_both": DEFAULT,
    },
    shown="<|vision_start|><|image_pad|><|vision_end|>",
    positions="flat",
    pixels=Pixels(whole=(4, 16384), limits=(256, 1280)),
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
    """The embedder ``PATH_OR_NAME[@DIM]``; options and errors as those of `mmrerank.embed.qwen3_vl.open`."""
    name, dim = shortened("gme", rest)
    return opened(
        "gme",
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
