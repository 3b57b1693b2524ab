"""UniME and Qwen3-VL-Embedding on tiny random checkpoints: vectors are those of a plain computation."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from mmrerank.embed.open import open_embedder
from mmrerank.errors import MismatchError, ModelError, UsageError
from mmrerank.images import decode
from mmrerank.ports import Embedder
from mmrerank.types import Image, Query

pytestmark = pytest.mark.slow

SYSTEM = "<|im_start|>system\nRepresent the user's input.<|im_end|>\n"
ASKS = "<|im_start|>system\nRetrieve images or text relevant to the user's query.<|im_end|>\n"
ANSWER = "<|im_end|>\n<|im_start|>assistant\n"
SEEN = "<|vision_start|><|image_pad|><|vision_end|>"
CAPTION = "Find me an everyday image that matches the given caption:"
CHANGE = "Given an image, find a similar everyday image with the described changes:"


@pytest.fixture(scope="session")
def tiny_llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_llava import build

    return build(tmp_path_factory.mktemp("tiny-llava"))


@pytest.fixture(scope="session")
def tiny_llava_next(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_llava import build_next

    return build_next(tmp_path_factory.mktemp("tiny-llava-next"))


@pytest.fixture(scope="session")
def embedders(
    tiny_qwen: Callable[[str], Path], tiny_llava: Path, tiny_llava_next: Path
) -> Callable[[str], Any]:
    made: dict[str, Any] = {}
    folders = {"qwen3_vl": tiny_qwen("qwen3_vl"), "next": tiny_llava_next, "llava": tiny_llava}

    def get(name: str) -> Any:
        if name not in made:
            plugin, _, family = name.rpartition(":")
            made[name] = open_embedder(f"{plugin}:{folders[family]}", device="cpu")
        return made[name]

    return get


ALL = ("qwen3_vl:qwen3_vl", "unime:v1:llava", "unime:v2:llava", "unime:v1:next")


def written_out(folder: Path, text: str, image: PIL.Image.Image | None = None) -> np.ndarray:
    """The checkpoint by its own classes, one prompt: last layer, last token, unit length."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    if "next" in folder.name:  # which was saved without them, as older ones were
        processor.patch_size, processor.vision_feature_select_strategy = 14, "default"
        processor.num_additional_image_tokens = 1
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    inputs = processor(text=[text], images=None if image is None else [image], return_tensors="pt")
    with torch.inference_mode():
        last = model(**inputs, output_hidden_states=True).hidden_states[-1][0, -1]
    return (last / last.norm()).numpy()


@pytest.fixture
def image(picture: Callable[..., Image]) -> Image:
    return picture(112, 112)  # a size that every resizer leaves alone, or enlarges in the same way


QUERIES = {
    "text": lambda image: Query(text="a red dog"),
    "composed": lambda image: Query(text="in the street", images=(image,)),
    "image": lambda image: Query(images=(image,)),
    "document": lambda image: image,
}
PROMPTS = {
    ("qwen3_vl", "text"): f"{ASKS}<|im_start|>user\na red dog{ANSWER}",
    ("qwen3_vl", "composed"): f"{ASKS}<|im_start|>user\n{SEEN}in the street{ANSWER}",
    ("qwen3_vl", "image"): f"{ASKS}<|im_start|>user\n{SEEN}{ANSWER}",
    ("qwen3_vl", "document"): f"{SYSTEM}<|im_start|>user\n{SEEN}{ANSWER}",
    ("v1", "text"): "a red dog\nSummary above sentence in one word: ",
    ("v1", "composed"): "in the street\nSummary above image and sentence in one word: ",
    ("v1", "image"): "Summary above image in one word: ",
    ("v1", "document"): "Summary above image in one word: ",
    ("v2", "text"): f"{CAPTION} a red dog",
    ("v2", "composed"): f"{CHANGE} in the street",
    ("v2", "image"): "Find a day-to-day image that looks similar to the provided image.",
    ("v2", "document"): "Represent the given image.",
}


@pytest.mark.parametrize("kind", QUERIES)
@pytest.mark.parametrize("name", ALL)
def test_vectors_are_those_of_the_computation_written_out(
    embedders: Callable[[str], Any], image: Image, name: str, kind: str
) -> None:
    embedder = embedders(name)
    *_, version, family = name.split(":")
    prompt = PROMPTS[version, kind]
    if family == "llava":
        seen = "" if kind == "text" else "<image>"
        prompt = f"<|im_start|>user {seen}\n{prompt}<|im_end|><|im_start|>assistant\n"
    elif family == "next":
        seen = "" if kind == "text" else "<image>\n"
        prompt = f"[INST] {seen}{prompt}[/INST]"  # behind <s>, which the tokenizer adds
    folder = Path(embedder.spec.rpartition(":")[2])
    asked = QUERIES[kind](image)
    shown = None if kind == "text" else decode(image)
    if family == "qwen3_vl" and shown is not None:
        shown = shown.resize((96, 96))  # to multiples of its 32 pixels, below
        image = _png(shown)
        asked = QUERIES[kind](image)
    found = embedder.embed_images([decode(image)]) if kind == "document" else embedder.embed_queries([asked])
    assert found[0] == pytest.approx(written_out(folder, prompt, shown), abs=1e-5)


def _png(shown: PIL.Image.Image) -> Image:
    import io

    file = io.BytesIO()
    shown.save(file, "png")
    return Image(data=file.getvalue())


@pytest.mark.parametrize("name", ALL)
def test_it_meets_the_port_and_a_batch_gives_what_single_images_give(
    embedders: Callable[[str], Any], picture: Callable[..., Image], name: str
) -> None:
    embedder = embedders(name)
    assert isinstance(embedder, Embedder)
    assert embedder.embed_images([]).shape == embedder.embed_queries([]).shape == (0, embedder.dim)
    images = [decode(picture(60 + 30 * n, 150 - 20 * n, n)) for n in range(5)]
    together = embedder.embed_images(images)
    assert together.dtype == np.float32
    assert np.linalg.norm(together, axis=1) == pytest.approx(np.ones(5), abs=1e-6)
    assert together == pytest.approx(np.concatenate([embedder.embed_images([i]) for i in images]), abs=1e-5)
    queries = [
        Query(text="a red dog"),
        Query(text="a dog and a very long story about it", images=(picture(80, 80),)),
        Query(text="the blue one", turns=("a cup", "on a table")),
        Query(text="<|im_end|><|image_pad|><image>"),
    ]
    found = embedder.embed_queries(queries)
    alone = np.concatenate([embedder.embed_queries([q]) for q in queries])
    assert found == pytest.approx(alone, abs=1e-5)


def test_an_instruction_of_the_query_is_used(embedders: Callable[[str], Any]) -> None:
    plain, told = Query(text="a dog"), Query(text="a dog", instruction="Find drawings")
    for name in ("qwen3_vl:qwen3_vl", "unime:v2:llava"):
        one, other = embedders(name).embed_queries([plain, told])
        assert not np.allclose(one, other, atol=1e-3)
    folder = Path(embedders("qwen3_vl:qwen3_vl").spec.partition(":")[2])
    prompt = f"<|im_start|>system\nFind drawings.<|im_end|>\n<|im_start|>user\na dog{ANSWER}"
    found = embedders("qwen3_vl:qwen3_vl").embed_queries([told])[0]
    assert found == pytest.approx(written_out(folder, prompt), abs=1e-5)


def test_excluded_words_are_taken_away(embedders: Callable[[str], Any]) -> None:
    embedder = embedders("qwen3_vl:qwen3_vl")
    with_, cat, without = embedder.embed_queries(
        [Query(text="a dog"), Query(text="a cat"), Query(text="a dog", exclude=("a cat", " "))]
    )
    less = with_ - 0.5 * cat
    assert without == pytest.approx(less / np.linalg.norm(less), abs=1e-5)


def test_shorter_vectors_are_the_first_numbers_of_the_long_ones(
    embedders: Callable[[str], Any], tiny_qwen: Callable[[str], Path]
) -> None:
    whole = embedders("qwen3_vl:qwen3_vl")
    short = open_embedder(f"qwen3_vl:{tiny_qwen('qwen3_vl')}@16", device="cpu")
    assert short.dim == 16
    assert short.spec.endswith("@16")
    assert short.fingerprint != whole.fingerprint
    query = [Query(text="a red dog")]
    cut = whole.embed_queries(query)[:, :16]
    assert short.embed_queries(query) == pytest.approx(cut / np.linalg.norm(cut), abs=1e-6)


def test_the_fingerprint_names_weights_form_and_preprocessing(
    embedders: Callable[[str], Any], tiny_qwen: Callable[[str], Path], tmp_path: Path
) -> None:
    prints = [embedders(n).fingerprint for n in ALL]
    assert len(set(prints)) == len(ALL)
    changes = ("processor_config.json", "config.json", "tokenizer.json", "chat_template.jinja")
    for change in (*changes, "model.safetensors", "merges.txt"):
        folder = tmp_path / change
        shutil.copytree(tiny_qwen("qwen3_vl"), folder)
        same = open_embedder(f"qwen3_vl:{folder}", device="cpu", precision="bfloat16")
        assert same.fingerprint == prints[0]
        if change == "merges.txt":
            (folder / change).write_text("#version: 0.2")
        elif change.endswith(".json"):
            text = json.loads((folder / change).read_text())
            if change == "tokenizer.json":
                text["model"]["merges"][-1:] = []
            elif change == "config.json":
                text["text_config"]["rms_norm_eps"] = 1e-5
            else:
                text["image_processor"]["image_mean"] = [0.4, 0.5, 0.5]
            (folder / change).write_text(json.dumps(text))
        elif change.endswith(".jinja"):
            (folder / change).write_text((folder / change).read_text() + " ")
        else:
            from safetensors.torch import load_file, save_file

            tensors = load_file(folder / change)
            next(iter(tensors.values())).add_(1e-3)
            save_file(tensors, folder / change, metadata={"format": "pt"})
        assert open_embedder(f"qwen3_vl:{folder}", device="cpu").fingerprint != prints[0]


def test_an_embedding_model_may_lack_the_output_layer(
    tiny_qwen: Callable[[str], Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(tiny_qwen("qwen3_vl"), tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert open_embedder(f"qwen3_vl:{folder}", device="cpu").dim == 128


def test_what_is_wrong_is_said(tiny_qwen: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tiny_qwen("qwen3_vl")
    phi = shutil.copytree(folder, tmp_path / "phi")
    (phi / "config.json").write_text(json.dumps({"model_type": "phi3_v"}))
    for spec, error, says in (
        (f"qwen3_vl:{folder}@x", UsageError, "no dimension"),
        (f"qwen3_vl:{folder}@4096", ModelError, "1 to 128 numbers"),
        ("qwen3_vl:/no/such/folder", ModelError, "there is no folder"),
        ("qwen3_vl:", ModelError, "no model was named"),
        (f"unime:{folder}", UsageError, "which version"),
        (f"unime:v2:{folder}", ModelError, "Qwen2-VL or LLaVA-OneVision"),
        (f"unime:v1:{phi}", ModelError, "transformers has no .*Phi-3.5-Vision.*LLaVA-1.6 or LLaVA-OneVision"),
        (f"unime:v1:{folder}", ModelError, "LLaVA-1.6 or LLaVA-OneVision"),
    ):
        with pytest.raises(error, match=says):
            open_embedder(spec, device="cpu")
    with pytest.raises(UsageError, match="batch_size"):
        open_embedder(f"qwen3_vl:{folder}", batch_size=0)


def test_an_index_can_be_built_and_searched_but_not_with_another_form(
    tiny_qwen: Callable[[str], Path], tmp_path: Path, picture: Callable[..., Image]
) -> None:
    from typer.testing import CliRunner

    from mmrerank import ImageSearch
    from mmrerank.cli.main import cli

    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for n in range(3):
        (pictures / f"{n}.png").write_bytes(picture(70, 80, n).read())
    folder = tiny_qwen("qwen3_vl")
    command = ["index", str(pictures), "--index", str(tmp_path / "i"), "--device", "cpu"]
    done = CliRunner().invoke(cli, [*command, "--embedder", f"qwen3_vl:{folder}@32"])
    assert done.exit_code == 0, done.output
    opened = ImageSearch.open(tmp_path / "i", embedder=f"qwen3_vl:{folder}@32")
    found = opened.search("", images=[pictures / "1.png"], k=3)
    assert {hit.id for hit in found.hits} == {"0.png", "1.png", "2.png"}
    with pytest.raises(MismatchError):
        ImageSearch.open(tmp_path / "i", embedder=f"qwen3_vl:{folder}").search("a dog")
