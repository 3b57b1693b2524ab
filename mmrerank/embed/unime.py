"""UniME and UniME-V2 on Qwen2-VL or LLaVA-OneVision: ``unime:v1:PATH_OR_NAME``, ``unime:v2:PATH_OR_NAME``.

V1 (arXiv 2504.17432) asks for a summary in one word; V2 (arXiv 2510.13515) puts a task's instruction before
what the query says, as MMEB does, and both take the state of the last token. Wordings: the authors' code
(deepglint/UniME) and MMEB's instructions for retrieving images.
"""

from __future__ import annotations

from mmrerank.embed._instructed import Form, InstructedEmbedder, opened
from mmrerank.errors import UsageError
from mmrerank.vl.llava import MODEL_TYPES as LLAVA

FORM = "unime:v1:PATH_OR_NAME, unime:v2:PATH_OR_NAME"
TYPES = {"qwen2_vl": "Qwen2-VL", **LLAVA}

ASKED = {
    "v1": Form(
        role="user",
        image="Summary above image in one word: ",
        text="{text}\nSummary above sentence in one word: ",
        both="{text}\nSummary above image and sentence in one word: ",
        image_tokens=1024,
    ),
    "v2": Form(
        role="user",
        image="{instruction}",
        text="{instruction}\n{text}",
        both="{instruction}\n{text}",
        instructions={
            "document": "Represent the given image.",
            "text": "Find me an everyday image that matches the given caption.",
            "image": "Find a day-to-day image that looks similar to the provided image.",
            "composed": "Given an image, find a similar everyday image with the described changes:",
            "dialogue": "Represent the given dialogue about an image, which is used for image retrieval:",
        },
        image_tokens=1024,
    ),
}


def open(
    rest: str,
    *,
    device: str | None = None,
    precision: str | None = None,
    batch_size: int = 8,
    expect: str = "",
    trust_remote_code: bool = False,
) -> InstructedEmbedder:
    """The embedder ``v1:PATH_OR_NAME`` or ``v2:PATH_OR_NAME``.

    ``device`` and ``precision`` as ``device`` and ``dtype`` of `mmrerank.vl.load.load`, and so is
    ``trust_remote_code``. ``expect`` is the fingerprint that it must have, compared before its weights are
    loaded. Raises `MismatchError` for another, `ModelError`
    when there is no such model, `UsageError` where the version is missing.
    """
    version, _, name = rest.partition(":")
    if version not in ASKED or not name:
        raise UsageError(f"unime:{rest} does not say which version; write {FORM.replace(',', ' or')}")
    return opened(
        "unime",
        name,
        ASKED[version],
        TYPES,
        device=device,
        precision=precision,
        batch_size=batch_size,
        expect=expect,
        trust_remote_code=trust_remote_code,
        before=f"{version}:",
    )
