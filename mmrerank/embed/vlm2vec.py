"""VLM2Vec-V2 on Qwen2-VL: ``vlm2vec:PATH_OR_NAME``, or ``vlm2vec:documents:PATH_OR_NAME`` for scanned pages.

No chat template, a task's instruction before what the query says, the state of the last token. For
photographs the sentences are MMEB's, in the form of UniME-V2; in its newer tasks, such as pages of documents,
a space stands after the image and nothing at the end. Images keep their shape: unlike UniME-V2's, this
evaluation leaves all resizing to the processor, by default to 4 to 1280 times 28 x 28 pixels. Sentences and
sizes: TIGER-AI-Lab/VLM2Vec@6e1e1d4 (src/model/processor.py, src/data/eval_dataset, src/arguments.py).
"""

from __future__ import annotations

from dataclasses import replace

from mmrerank.embed._form import Form, Pixels
from mmrerank.embed._instructed import InstructedEmbedder, opened
from mmrerank.embed.unime import V2

FORM = "vlm2vec:PATH_OR_NAME, vlm2vec:documents:PATH_OR_NAME"
TYPES = {"qwen2_vl": "VLM2Vec-V2 (Qwen2-VL)"}
PIXELS = Pixels(small=56, limits=(4, 1280))
FIND = "Find a document image that matches the given query:"
PAGE = "Understand the content of the provided document image."
_SAID = "{images}{instruction} {text}"

PHOTOGRAPHS = replace(V2["qwen2_vl"], pixels=PIXELS)
DOCUMENTS = Form(
    says={
        "text": _SAID, "composed": _SAID, "dialogue": _SAID, "image": "{images}{instruction}",
        "document": "{images}{instruction}", "document_text": "{text}", "document_both": _SAID,
    },
    instructions={
        "text": FIND, "composed": FIND, "dialogue": FIND, "image": PAGE, "document": PAGE,
        "document_both": PAGE,
    },
    shown="<|image_pad|>",
    after=" ",
    told=True,
    positions="flat",
    pixels=PIXELS,
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
    """The embedder ``[documents:]PATH_OR_NAME``; options and errors as in `mmrerank.embed.unime.open`."""
    before = "documents:" if rest.startswith("documents:") else ""
    return opened(
        "vlm2vec",
        rest.removeprefix(before),
        DOCUMENTS if before else PHOTOGRAPHS,
        TYPES,
        device=device,
        precision=precision,
        batch_size=batch_size,
        before=before,
        expect=expect,
        trust_remote_code=trust_remote_code,
    )
