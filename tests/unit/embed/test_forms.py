"""What embedders ask, word for word, and as ids of Qwen3's vocabulary. No model is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmrerank.embed import unime
from mmrerank.embed._form import Form
from mmrerank.types import Image, Query

PICTURE = Image(data=b"")
CAPTION = "Find me an everyday image that matches the given caption: "
CHANGE = "Given an image, find a similar everyday image with the described changes: "
DIALOGUE = "Represent the given dialogue about an image, which is used for image retrieval: "
SIMILAR = "Find a day-to-day image that looks similar to the provided image."

ASKED: dict[str, tuple[Query, bool]] = {
    "text": (Query(text="a red dog"), False),
    "image": (Query(images=(PICTURE,)), False),
    "composed": (Query(text="Paint the tables blue", images=(PICTURE,)), False),
    "dialogue": (
        Query(text="A:no", turns=("Q:is this a shop", "A:can't tell", "Q:is it behind glass")),
        False,
    ),
    "document": (Query(images=(PICTURE,)), True),
    "document_text": (Query(text="parking/standing"), True),
    "document_both": (Query(text="Obama on police", images=(PICTURE,)), True),
    "instruction": (Query(text="a red dog", instruction="Find drawings of: "), False),
}

GOLDEN: dict[str, tuple[Form, dict[str, str]]] = {
    "unime v2 on Qwen2-VL": (
        unime.V2["qwen2_vl"],
        {
            "text": f"{CAPTION}a red dog\n",
            "image": f"<|image_pad|>\n{SIMILAR}\n",
            "composed": f"<|image_pad|>\n{CHANGE}Paint the tables blue\n",
            "dialogue": f"{DIALOGUE}Q:is this a shop\nA:can't tell\nQ:is it behind glass\nA:no\n\n",
            "document": "<|image_pad|>\nRepresent the given image.\n",
            "document_text": "parking/standing",
            "document_both": "<|image_pad|>\nRepresent the given image with related text information: "
            "Obama on police\n",
            "instruction": "Find drawings of: a red dog\n",
        },
    ),
    "unime v2 on LLaVA-OneVision": (
        unime.V2["llava_onevision"],
        {
            "text": f"{CAPTION}a red dog",
            "image": SIMILAR,
            "composed": f"{CHANGE}Paint the tables blue",
            "dialogue": f"{DIALOGUE}Q:is this a shop\nA:can't tell\nQ:is it behind glass\nA:no",
            "document": "Represent the given image.",
            "document_text": "parking/standing",
            "document_both": "Represent the given image with related text information: Obama on police",
            "instruction": "Find drawings of: a red dog",
        },
    ),
    "unime v1 on LLaVA-1.6": (
        unime.V1["llava_next"],
        {
            "text": "[INST] a red dog\nSummary above sentence in one word: [/INST]",
            "image": "[INST] <image>\nSummary above image in one word: [/INST]",
            "document": "[INST] <image>\nSummary above image in one word: [/INST]",
            "document_text": "[INST] parking/standing\nSummary above sentence in one word: [/INST]",
        },
    ),
}


def written(form: Form, name: str) -> str:
    query, document = ASKED[name]
    return form.write(query, document=document, defuse=lambda text: text).text


@pytest.mark.parametrize(
    ("family", "name"), [(family, name) for family, (_, said) in GOLDEN.items() for name in said]
)
def test_every_sentence_is_the_authors_own(family: str, name: str) -> None:
    form, said = GOLDEN[family]
    assert written(form, name) == said[name]


# fmt: off
IDS: dict[str, dict[str, list[int]]] = {
    "unime v2 on Qwen2-VL": {  # one 151655 stands for the image, 624 is ".\n", 198 and 271 are one and two newlines
        "text": [9885, 752, 458, 17778, 2168, 429, 9071, 279, 2661, 17256, 25, 264, 2518, 5562, 198],
        "image": [151655, 198, 9885, 264, 1899, 4686, 11228, 2168, 429, 5868, 4428, 311, 279, 3897, 2168, 624],
        "composed": [151655, 198, 22043, 458, 2168, 11, 1477, 264, 4428, 17778, 2168, 448, 279, 7481, 4344, 25,
                     17203, 279, 12632, 6303, 198],
        "dialogue": [65743, 279, 2661, 21276, 911, 458, 2168, 11, 892, 374, 1483, 369, 2168, 56370, 25, 1207, 25,
                     285, 419, 264, 8061, 198, 32, 25, 4814, 944, 3291, 198, 48, 25, 285, 432, 4815, 8991, 198,
                     32, 66479, 271],
        "document": [151655, 198, 65743, 279, 2661, 2168, 624],
        "document_text": [28736, 287, 14, 10070],
        "document_both": [151655, 198, 65743, 279, 2661, 2168, 448, 5435, 1467, 1995, 25, 7105, 389, 4282, 198],
        "instruction": [9885, 37840, 315, 25, 264, 2518, 5562, 198],
    },
}
# fmt: on


@pytest.mark.slow
@pytest.mark.parametrize(("family", "name"), [(f, n) for f, ids in IDS.items() for n in ids])
def test_their_ids_are_those_of_the_real_vocabulary(qwen3: Any, family: str, name: str) -> None:
    assert qwen3.encode(written(GOLDEN[family][0], name)).ids == IDS[family][name]


@pytest.fixture(scope="module")
def qwen3(qwen3_vocabulary: Path) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(qwen3_vocabulary / "tokenizer.json"))
