"""jina-embeddings-v4 on Qwen2.5-VL: ``jina_v4:PATH_OR_NAME``, or ``jina_v4:PATH_OR_NAME@DIM``.

A vector is the mean over the tokens of a text, or over those of an image from its start to its end, and
its first numbers are a vector of their own. Words and images are never read together: their vectors are
mixed. The checkpoint's ``adapters`` (LoRA) for retrieval are added to its weights as it is loaded; merged
checkpoints have none. Sentences, pooling and adapters: the model's own code (jinaai/jina-embeddings-v4,
modeling_jina_embeddings_v4.py, custom_lora_module.py).
"""

from __future__ import annotations

from mmrerank.embed._form import Form, Pixels
from mmrerank.embed._instructed import InstructedEmbedder, opened, shortened
from mmrerank.embed._lora import adapter_digest, fetched, merge
from mmrerank.errors import UsageError
from mmrerank.vl.load import Checkpoint

FORM = "jina_v4:PATH_OR_NAME[@DIM]"
TYPES = {"qwen2_5_vl": "jina-embeddings-v4 (Qwen2.5-VL)"}
TASK = "retrieval"
_IMAGE = "<|im_start|>user\n{images}Describe the image.<|im_end|>\n"

ASKED = Form(
    says={
        "text": "Query: {text}", "dialogue": "Query: {text}", "document_text": "Passage: {text}",
        "image": _IMAGE, "document": _IMAGE,
    },
    shown="<|vision_start|><|image_pad|><|vision_end|>",
    pooling="mean",
    apart=True,
    pixels=Pixels(limits="own"),
)  # fmt: skip


def open(
    rest: str,
    *,
    device: str | None = None,
    precision: str | None = None,
    batch_size: int = 8,
    text_weight: float = 0.5,
    expect: str = "",
    trust_remote_code: bool = False,
) -> InstructedEmbedder:
    """The embedder ``PATH_OR_NAME[@DIM]``; options and errors as those of `mmrerank.embed.qwen3_vl.open`.

    ``text_weight`` (0 to 1) is the share of the words in what has words and images. A query's ``instruction``
    is ignored: the model follows none.
    """
    if not 0 <= text_weight <= 1:
        raise UsageError(f"text_weight must be between 0 and 1, not {text_weight}")
    name, dim = shortened("jina_v4", rest)

    def adapt(checkpoint: Checkpoint) -> None:
        merge(checkpoint.model, fetched(checkpoint.name), TASK)

    return opened(
        "jina_v4",
        name,
        ASKED,
        TYPES,
        device=device,
        precision=precision,
        batch_size=batch_size,
        expect=expect,
        trust_remote_code=trust_remote_code,
        dim=dim,
        text_weight=text_weight,
        adapt=adapt,
        extra=lambda place: adapter_digest(fetched(place)),
    )
