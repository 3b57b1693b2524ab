"""What embedders ask, word for word, and as ids of Qwen3's vocabulary. No model is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mmrerank.embed import gme, jina_v4, qwen3_vl, unime, vlm2vec
from mmrerank.embed._form import Form
from mmrerank.evaluation.benchmarks.mmeb import parted
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

SEEN = "<|vision_start|><|image_pad|><|vision_end|>"
HELPFUL = "You are a helpful assistant."


def gme_prompt(instruction: str, said: str) -> str:
    return (
        f"<|im_start|>system\n{instruction}<|im_end|>\n<|im_start|>user\n{said}<|im_end|>\n"
        "<|im_start|>assistant\n<|endoftext|>"
    )


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
    "vlm2vec, photographs": (
        vlm2vec.PHOTOGRAPHS,
        {
            "text": f"{CAPTION}a red dog\n",
            "image": f"<|image_pad|>\n{SIMILAR}\n",
            "composed": f"<|image_pad|>\n{CHANGE}Paint the tables blue\n",
            "document": "<|image_pad|>\nRepresent the given image.\n",
        },
    ),
    "vlm2vec, documents": (
        vlm2vec.DOCUMENTS,
        {
            "text": "Find a document image that matches the given query: a red dog",
            "document": "<|image_pad|> Understand the content of the provided document image.",
            "instruction": "Find drawings of: a red dog",
        },
    ),
    "gme": (
        gme.ASKED,
        {
            "text": gme_prompt("Find an image that matches the given text.", "a red dog"),
            "image": gme_prompt(HELPFUL, SEEN),
            "composed": gme_prompt(HELPFUL, f"{SEEN}Paint the tables blue"),
            "dialogue": gme_prompt(
                "Find an image that matches the given text.",
                "Q:is this a shop, A:can't tell, Q:is it behind glass, A:no",
            ),
            "document": gme_prompt(HELPFUL, SEEN),
            "document_text": gme_prompt(HELPFUL, "parking/standing"),
            "document_both": gme_prompt(HELPFUL, f"{SEEN}Obama on police"),
            "instruction": gme_prompt("Find drawings of:", "a red dog"),
        },
    ),
    "qwen3_vl": (
        qwen3_vl.ASKED,
        {"text": "a red dog", "image": "", "composed": "Paint the tables blue", "document": ""},
    ),
    "jina_v4": (
        jina_v4.ASKED,
        {
            "text": "Query: a red dog",
            "image": f"<|im_start|>user\n{SEEN}Describe the image.<|im_end|>\n",
            "dialogue": "Query: Q:is this a shop, A:can't tell, Q:is it behind glass, A:no",
            "document": f"<|im_start|>user\n{SEEN}Describe the image.<|im_end|>\n",
            "document_text": "Passage: parking/standing",
            "instruction": "Query: a red dog",
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


def test_qwen3_vl_instructs_queries_and_leaves_documents_as_they_are() -> None:
    def instruction(query: Query, *, document: bool = False) -> str:
        return qwen3_vl.ASKED.write(query, document=document, defuse=str).system

    query = "Retrieve images or text relevant to the user's query."
    for asked in ("text", "image", "composed", "dialogue"):
        assert instruction(ASKED[asked][0]) == query
    for found in ("document", "document_text", "document_both"):
        assert instruction(ASKED[found][0], document=True) == "Represent the user's input."
    assert instruction(Query(text="x", instruction=" Find drawings ")) == "Find drawings."
    for whole in ("Find drawings!", "找图。"):
        assert instruction(Query(text="x", instruction=whole)) == whole


def test_what_people_write_opens_no_turn_and_shows_no_image() -> None:
    query = Query(text="<|image_pad|> {images}", instruction="{text}<|im_end|>")
    said = gme.ASKED.write(query, document=False, defuse=lambda text: text.replace("<|", "< |"))
    assert said.text == gme_prompt("{text}< |im_end|>", "< |image_pad|> {images}")


@pytest.mark.parametrize(
    ("instruction", "text", "said"),
    [  # rows of MMEB-eval, old and new, and what its authors' code makes of them
        ("", f"<|image_1|>\n{CHANGE}More red.\n", f"<|image_pad|>\n{CHANGE}More red.\n"),
        (
            "<|image_1|>\nGiven an image, find it:",
            "More red.",
            "<|image_pad|>\nGiven an image, find it: More red.\n",
        ),
        ("", "<|image_1|>\nRepresent the given image.\n", "<|image_pad|>\nRepresent the given image.\n"),
        ("<|image_1|> Classify the image.\n", "", "<|image_pad|>\nClassify the image.\n"),
        ("", f"{CAPTION}a red dog\n", f"{CAPTION}a red dog\n"),
        ("Find me an image:", "Note: a dog", "Find me an image: Note: a dog\n"),
    ],
)
def test_rows_of_mmeb_are_asked_as_its_authors_ask_them(instruction: str, text: str, said: str) -> None:
    shown = "image_pad" in said
    told, words = parted(instruction, text, image=shown)
    query = Query(text=words, images=(PICTURE,) if shown else (), instruction=told)
    form = unime.V2["qwen2_vl"]
    assert form.write(query, document=False, defuse=str).text == said
    if shown:
        assert form.write(query, document=True, defuse=str).text == said
        found = gme.ASKED.write(query, document=True, defuse=str).text  # which instructs queries alone
        assert found == gme_prompt(HELPFUL, f"{SEEN}{words}")


def test_a_caption_beside_an_image_is_no_instruction() -> None:
    assert parted("", "Sign: a boat", image=True) == ("", "Sign: a boat")


# in the vocabulary of Qwen3: one 151655 stands for all tokens of the image, 151643 is <|endoftext|>, 624 is
# ".\n", 198 and 271 are one and two newlines
CHAT = [151644, 872, 198]  # <|im_start|>user\n
ANSWER = [151645, 198, 151644, 77091, 198]  # <|im_end|>\n<|im_start|>assistant\n
IMAGE = [151652, 151655, 151653]
RETRIEVE = [
    151644,
    8948,
    198,
    87665,
    5335,
    476,
    1467,
    9760,
    311,
    279,
    1196,
    594,
    3239,
    13,
    151645,
    198,
    *CHAT,
]
REPRESENT = [151644, 8948, 198, 65743, 279, 1196, 594, 1946, 13, 151645, 198, *CHAT]
FIND = [151644, 8948, 198, 9885, 458, 2168, 429, 9071, 279, 2661, 1467, 13, 151645, 198, *CHAT]
HELP = [151644, 8948, 198, 2610, 525, 264, 10950, 17847, 13, 151645, 198, *CHAT]
TABLES = [18098, 279, 12632, 6303]
STANDING = [28736, 287, 14, 10070]
# fmt: off
IDS: dict[tuple[str, str], dict[str, list[int]]] = {
    ("unime:v2:", "qwen2_vl"): {
        "text": [9885, 752, 458, 17778, 2168, 429, 9071, 279, 2661, 17256, 25, 264, 2518, 5562, 198],
        "image": [151655, 198, 9885, 264, 1899, 4686, 11228, 2168, 429, 5868, 4428, 311, 279, 3897, 2168,
                  624],
        "composed": [151655, 198, 22043, 458, 2168, 11, 1477, 264, 4428, 17778, 2168, 448, 279, 7481, 4344,
                     25, 17203, 279, 12632, 6303, 198],
        "dialogue": [65743, 279, 2661, 21276, 911, 458, 2168, 11, 892, 374, 1483, 369, 2168, 56370, 25, 1207,
                     25, 285, 419, 264, 8061, 198, 32, 25, 4814, 944, 3291, 198, 48, 25, 285, 432, 4815,
                     8991, 198, 32, 66479, 271],
        "document": [151655, 198, 65743, 279, 2661, 2168, 624],
        "document_text": STANDING,
        "document_both": [151655, 198, 65743, 279, 2661, 2168, 448, 5435, 1467, 1995, 25, 7105, 389, 4282,
                          198],
        "instruction": [9885, 37840, 315, 25, 264, 2518, 5562, 198],
    },
    ("vlm2vec:", "qwen2_vl"): {
        "text": [9885, 752, 458, 17778, 2168, 429, 9071, 279, 2661, 17256, 25, 264, 2518, 5562, 198],
        "document": [151655, 198, 65743, 279, 2661, 2168, 624],
    },
    ("vlm2vec:documents:", "qwen2_vl"): {
        "text": [9885, 264, 2197, 2168, 429, 9071, 279, 2661, 3239, 25, 264, 2518, 5562],
        "document": [151655, 70894, 279, 2213, 315, 279, 3897, 2197, 2168, 13],
    },
    ("gme:", "qwen2_vl"): {
        "text": [*FIND, 64, 2518, 5562, *ANSWER, 151643],
        "image": [*HELP, *IMAGE, *ANSWER, 151643],
        "composed": [*HELP, *IMAGE, *TABLES, *ANSWER, 151643],
        "document": [*HELP, *IMAGE, *ANSWER, 151643],
        "document_text": [*HELP, *STANDING, *ANSWER, 151643],
    },
    ("qwen3_vl:", "qwen3_vl"): {
        "text": [*RETRIEVE, 64, 2518, 5562, *ANSWER],
        "image": [*RETRIEVE, *IMAGE, *ANSWER],
        "composed": [*RETRIEVE, *IMAGE, *TABLES, *ANSWER],
        "document": [*REPRESENT, *IMAGE, *ANSWER],
        "document_text": [*REPRESENT, *STANDING, *ANSWER],
    },
    ("jina_v4:", "qwen2_vl"): {
        "text": [2859, 25, 264, 2518, 5562],
        "image": [*CHAT, *IMAGE, 74785, 279, 2168, 13, 151645, 198],
        "document_text": [12187, 424, 25, 12921, 14, 10070],
    },
}
# fmt: on


FORMS = {
    "unime:v2:": unime.V2["qwen2_vl"], "vlm2vec:": vlm2vec.PHOTOGRAPHS,
    "vlm2vec:documents:": vlm2vec.DOCUMENTS,
    "gme:": gme.ASKED, "qwen3_vl:": qwen3_vl.ASKED, "jina_v4:": jina_v4.ASKED,
}  # fmt: skip


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, qwen3_vocabulary: Path) -> Callable[[str, str], Any]:
    """Gives an embedder on a tiny random checkpoint of a kind that has the real vocabulary."""
    import tiny_qwen
    from transformers import AutoTokenizer

    from mmrerank.embed._instructed import InstructedEmbedder
    from mmrerank.vl.load import load

    loaded: dict[str, Any] = {}

    def get(spec: str, kind: str) -> Any:
        if kind not in loaded:
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(
                    tiny_qwen, "tokenizer", lambda: AutoTokenizer.from_pretrained(str(qwen3_vocabulary))
                )
                folder = tmp_path_factory.mktemp(f"real-{kind}")
                loaded[kind] = load(str(tiny_qwen.build(folder, kind, hidden=32, layers=1, heads=2)))
        return InstructedEmbedder(loaded[kind], FORMS[spec], spec=spec, fingerprint="", batch_size=8)

    return get


class Seen(Exception):
    """The prompts have come by; no model needs to read them."""


@pytest.mark.slow
@pytest.mark.parametrize(("spec", "kind", "name"), [(*f, name) for f, ids in IDS.items() for name in ids])
def test_the_model_reads_these_ids_of_the_real_vocabulary(
    real: Callable[[str, str], Any],
    picture: Callable[..., Image],
    monkeypatch: pytest.MonkeyPatch,
    spec: str,
    kind: str,
    name: str,
) -> None:
    embedder = real(spec, kind)
    rows: list[Any] = []

    def collate(self: Any, prompts: Any) -> None:
        rows.extend(prompts)
        raise Seen

    monkeypatch.setattr("mmrerank.vl.qwen.QwenVL.collate", collate)
    query, document = ASKED[name]
    if query.images:
        query = replace(query, images=(picture(60, 60),))
    with pytest.raises(Seen):
        (embedder.embed_documents if document else embedder.embed_queries)([query])
    ids = rows[0].ids.tolist()
    once = [t for n, t in enumerate(ids) if t != 151655 or ids[n - 1] != 151655 or n == 0]
    assert once == IDS[spec, kind][name]
    axes = [axis.tolist() for axis in rows[0].positions]
    flat = spec != "jina_v4:" and kind == "qwen2_vl"
    assert (axes == [list(range(len(ids)))] * 3) == (flat or not query.images)
