"""UniME and UniME-V2 on Qwen2-VL or LLaVA: ``unime:v1:PATH_OR_NAME``, ``unime:v2:PATH_OR_NAME``.

V1 (arXiv 2504.17432) asks for a summary in one word. V2 (arXiv 2510.13515) puts a task's instruction before
what the query says, as MMEB does, without any chat template on Qwen2-VL. Both take the state of the last
token. Sentences and sizes: deepglint/UniME@d565584 (README), GaryGuTC/UniME-v2@e3deb73
(Embedding/src/model_utils.py, Embedding/src/dataset.py, data/example_data.json).
"""

from __future__ import annotations

from collections.abc import Mapping

from mmrerank.embed._form import Form, Kind, Pixels
from mmrerank.embed._instructed import InstructedEmbedder, opened
from mmrerank.errors import UsageError
from mmrerank.vl.llava import MODEL_TYPES as LLAVA

FORM = "unime:v1:PATH_OR_NAME, unime:v2:PATH_OR_NAME"

CAPTION = "Find me an everyday image that matches the given caption:"
INSTRUCTIONS: Mapping[Kind, str] = {
    "text": CAPTION,
    "image": "Find a day-to-day image that looks similar to the provided image.",
    "composed": "Given an image, find a similar everyday image with the described changes:",
    "dialogue": "Represent the given dialogue about an image, which is used for image retrieval:",
    "document": "Represent the given image.",
    "document_both": "Represent the given image with related text information:",
}
"""MMEB's, for retrieving images."""
SAYS: Mapping[Kind, str] = {
    "text": "{instruction} {text}\n",
    "image": "{images}{instruction}\n",
    "composed": "{images}{instruction} {text}\n",
    "dialogue": "{instruction} {text}\n\n",
    "document": "{images}{instruction}\n",
    "document_text": "{text}",
    "document_both": "{images}{instruction} {text}\n",
}

_TEXT = "{text}\nSummary above sentence in one word: "
_IMAGE = "{images}Summary above image in one word: "
_BOTH = "{images}{text}\nSummary above image and sentence in one word: "
SUMMARIES: Mapping[Kind, str] = {
    "text": _TEXT, "dialogue": _TEXT, "document_text": _TEXT, "image": _IMAGE, "document": _IMAGE,
    "composed": _BOTH, "document_both": _BOTH,
}  # fmt: skip
"""The authors show words alone and an image alone."""

V1 = {
    "llava_next": Form(
        says={k: f"[INST] {v}[/INST]" for k, v in SUMMARIES.items()}, shown="<image>", after="\n"
    ),
    # the authors show no wrapper for this one
    "llava_onevision": Form(says=SUMMARIES, chat=True),
}
V2 = {
    "qwen2_vl": Form(
        says=SAYS, instructions=INSTRUCTIONS, shown="<|image_pad|>", after="\n", lines=True, told=True,
        positions="flat", pixels=Pixels(square=1344, limits=(256, 1280)),
    ),
    "llava_onevision": Form(
        says={k: v.strip() for k, v in SAYS.items()},
        instructions=INSTRUCTIONS, lines=True, told=True, chat=True,
    ),
}  # fmt: skip
VERSIONS = {"v1": V1, "v2": V2}
TYPES = {"qwen2_vl": "Qwen2-VL", **LLAVA}


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
    loaded. Raises `MismatchError` for another, `ModelError` when there is no such model, `UsageError` where
    the version is missing.
    """
    version, _, name = rest.partition(":")
    if version not in VERSIONS or not name:
        raise UsageError(f"unime:{rest} does not say which version; write {FORM.replace(',', ' or')}")
    forms = VERSIONS[version]
    return opened(
        "unime",
        name,
        forms,
        {k: TYPES[k] for k in forms},
        device=device,
        precision=precision,
        batch_size=batch_size,
        before=f"{version}:",
        expect=expect,
        trust_remote_code=trust_remote_code,
    )
