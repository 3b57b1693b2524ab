"""Vectors of embedders on Qwen-VL checkpoints equal a computation written out here, to 1e-5.

The computations use the models' own parts and none of the package: tokenizer, image processor, vision tower,
language model.
"""

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
from mmrerank.errors import ModelError
from mmrerank.images import decode
from mmrerank.types import Image, Query

pytestmark = pytest.mark.slow

CAPTION = "Find me an everyday image that matches the given caption: "
CHANGE = "Given an image, find a similar everyday image with the described changes: "
PAD = "<|image_pad|>"
WORDS = Query(text="a red dog")
TURNS = Query(text="and a ball", turns=("a dog", "in the street"))


@pytest.fixture(scope="module")
def opened() -> Callable[[str], Any]:
    made: dict[str, Any] = {}

    def get(spec: str) -> Any:
        if spec not in made:
            made[spec] = open_embedder(spec, device="cpu")
        return made[spec]

    return get


@pytest.fixture(scope="module")
def tiny_qwen(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """As the session's, with less in them: UniME looks at 4,900 patches."""
    from tiny_qwen import build

    built: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in built:
            eyes = {"depth": 1} if kind == "qwen2_vl" else {}
            place = tmp_path_factory.mktemp(kind)
            built[kind] = build(place, kind, hidden=64, layers=2, vision_options=eyes)
        return built[kind]

    return folder


class Parts:
    """A checkpoint by its own parts."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

        self.processor = AutoProcessor.from_pretrained(folder, config=AutoConfig.from_pretrained(folder))
        self.whole = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
        self.model = self.whole.model
        self.pad: int = self.model.config.image_token_id

    def tower(self, image: PIL.Image.Image | None, **options: Any) -> tuple[Any, Any]:
        """What the vision tower makes of an image, and its grid of patches."""
        import torch

        if image is None:
            return torch.zeros(0, self.model.config.text_config.hidden_size), None
        made = self.processor.image_processor(images=[image], return_tensors="pt", **options)
        seen = self.model.visual(made["pixel_values"], grid_thw=made["image_grid_thw"])
        return seen.pooler_output, made["image_grid_thw"]

    def ids(self, text: str, tokens: int) -> Any:
        """The token ids of ``text``, its placeholder ``tokens`` times."""
        import torch

        plain = self.processor.tokenizer(text)["input_ids"]
        return torch.tensor([i for t in plain for i in ([t] * tokens if t == self.pad else [t])])

    def states(self, ids: Any, seen: Any, positions: Any = None) -> Any:
        """The last layer's states; without ``positions`` the language model counts tokens."""
        embedded = self.model.get_input_embeddings()(ids).clone()
        embedded[ids == self.pad] = seen
        out = self.model.language_model(inputs_embeds=embedded[None], position_ids=positions, use_cache=False)
        return out.last_hidden_state[0]


def flat(
    folder: Path, text: str, image: PIL.Image.Image | None = None, **options: Any
) -> tuple[np.ndarray, int]:
    """The unit state of the last token where positions count tokens; and how many tokens the image has."""
    import torch

    parts = Parts(folder)
    with torch.inference_mode():
        seen, _ = parts.tower(image, **options)
        last = parts.states(parts.ids(text, len(seen)), seen)[-1]
    return (last / last.norm()).numpy(), len(seen)


def unime_pixels(image: PIL.Image.Image) -> tuple[PIL.Image.Image, dict[str, Any]]:
    """UniME-V2's evaluation squashes to 1344 x 1344; its processor keeps 256 to 1280 times 28 x 28 pixels."""
    size = {"shortest_edge": 256 * 28 * 28, "longest_edge": 1280 * 28 * 28}
    return image.resize((1344, 1344)), {"size": size}


@pytest.fixture
def image(picture: Callable[..., Image]) -> Image:
    return picture(112, 84, 3)


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (WORDS, f"{CAPTION}a red dog\n"),
        (
            TURNS,
            "Represent the given dialogue about an image, which is used for image retrieval: "
            "a dog\nin the street\nand a ball\n\n",
        ),
        ("image", f"{PAD}\nFind a day-to-day image that looks similar to the provided image.\n"),
        ("composed", f"{PAD}\n{CHANGE}in the street\n"),
        ("document", f"{PAD}\nRepresent the given image.\n"),
    ],
)
def test_unime_v2_on_qwen2_vl(
    tiny_qwen: Callable[[str], Path], opened: Callable[[str], Any], image: Image, asked: Any, text: str
) -> None:
    folder = tiny_qwen("qwen2_vl")
    embedder = opened(f"unime:v2:{folder}")
    if isinstance(asked, Query):
        found, tokens = embedder.embed_queries([asked])[0], 0
        expected, seen = flat(folder, text)
    else:
        shown, options = unime_pixels(decode(image))
        tokens = 1225  # 35 x 35
        if asked == "document":
            found = embedder.embed_images([decode(image)])[0]
        else:
            found = embedder.embed_queries(
                [Query(text="in the street" if asked == "composed" else "", images=(image,))]
            )[0]
        expected, seen = flat(folder, text, shown, **options)
    assert seen == tokens
    assert found == pytest.approx(expected, abs=1e-5)


def test_positions_matter_here(tiny_qwen: Callable[[str], Path], image: Image) -> None:
    import torch

    parts = Parts(tiny_qwen("qwen2_vl"))
    with torch.inference_mode():
        seen, grid = parts.tower(decode(image))
        ids = parts.ids(f"{PAD}\nRepresent the given image.\n", len(seen))
        three, _ = parts.model.get_rope_index(
            ids[None], mm_token_type_ids=(ids == parts.pad).int()[None], image_grid_thw=grid
        )
        counted, spread = parts.states(ids, seen)[-1], parts.states(ids, seen, three)[-1]
    assert not np.allclose(counted.numpy(), spread.numpy(), atol=1e-2)


def spread(folder: Path, text: str, image: PIL.Image.Image | None = None, **options: Any) -> Any:
    """All states (L, width) by the processor and the whole model, which spreads an image over three axes."""
    import torch

    parts = Parts(folder)
    shown = {} if image is None else {"images": [image], **options}
    inputs = parts.processor(text=[text], return_tensors="pt", **shown)
    with torch.inference_mode():
        out = parts.whole(**inputs, output_hidden_states=True)
    return out.hidden_states[-1][0], inputs["input_ids"][0]


@pytest.mark.parametrize("asked", ["text", "image", "composed", "document", "document_text"])
def test_gme(
    tiny_qwen: Callable[[str], Path], opened: Callable[[str], Any], image: Image, asked: str
) -> None:
    folder = tiny_qwen("qwen2_vl")
    embedder = opened(f"gme:{folder}")
    helpful = "You are a helpful assistant."
    instruction = "Find an image that matches the given text." if asked == "text" else helpful
    shown = asked in ("image", "composed", "document")
    words = {"text": "a red dog", "composed": "in the street", "document_text": "a boat"}.get(asked, "")
    seen = "<|vision_start|><|image_pad|><|vision_end|>" if shown else ""
    text = (
        f"<|im_start|>system\n{instruction}<|im_end|>\n<|im_start|>user\n{seen}{words}<|im_end|>\n"
        "<|im_start|>assistant\n<|endoftext|>"
    )
    size = {"size": {"shortest_edge": 256 * 28 * 28, "longest_edge": 1280 * 28 * 28}}
    expected, tokens = flat(folder, text, decode(image) if shown else None, **(size if shown else {}))
    # 112 x 84 pixels, enlarged in about their shape to 532 x 392, the first above 256 tokens
    assert tokens == (19 * 14 if shown else 0)
    query = Query(text=words, images=(image,) if shown else ())
    embed = embedder.embed_documents if asked.startswith("document") else embedder.embed_queries
    assert embed([query])[0] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("spec", "text", "document"),
    [
        ("vlm2vec:", f"{PAD}\nRepresent the given image.\n", True),
        ("vlm2vec:", f"{PAD}\n{CHANGE}in the street\n", False),
        ("vlm2vec:documents:", f"{PAD} Understand the content of the provided document image.", True),
        ("vlm2vec:documents:", "Find a document image that matches the given query: a red dog", False),
    ],
)
def test_vlm2vec(
    tiny_qwen: Callable[[str], Path],
    opened: Callable[[str], Any],
    image: Image,
    spec: str,
    text: str,
    document: bool,
) -> None:
    folder = tiny_qwen("qwen2_vl")
    embedder = opened(f"{spec}{folder}")
    if document:
        found = embedder.embed_images([decode(image)])
    elif PAD in text:
        found = embedder.embed_queries([Query(text="in the street", images=(image,))])
    else:
        found = embedder.embed_queries([WORDS])
    size = {"size": {"shortest_edge": 4 * 28 * 28, "longest_edge": 1280 * 28 * 28}}
    expected, tokens = flat(folder, text, decode(image) if PAD in text else None, **size)
    assert tokens == (4 * 3 if PAD in text else 0)  # 112 x 84 is left as it is
    assert found[0] == pytest.approx(expected, abs=1e-5)


def test_a_scrap_is_made_a_square_for_vlm2vec(tiny_qwen: Callable[[str], Path], opened: Any) -> None:
    scrap = PIL.Image.new("RGB", (90, 20), (200, 30, 60))
    folder = tiny_qwen("qwen2_vl")
    expected, tokens = flat(folder, f"{PAD}\nRepresent the given image.\n", scrap.resize((56, 56)))
    assert tokens == 4
    assert opened(f"vlm2vec:{folder}").embed_images([scrap])[0] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("asked", ["text", "image", "composed", "document", "document_text"])
def test_qwen3_vl_embedding(
    tiny_qwen: Callable[[str], Path], opened: Callable[[str], Any], image: Image, asked: str
) -> None:
    from qwen_vl_utils import process_vision_info

    folder = tiny_qwen("qwen3_vl")
    document = asked.startswith("document")
    instruction = (
        "Represent the user's input." if document else "Retrieve images or text relevant to the user's query."
    )
    shown = asked in ("image", "composed", "document")
    words = {"text": "a red dog", "composed": "in the street", "document_text": "a boat"}.get(asked, "")
    seen = "<|vision_start|><|image_pad|><|vision_end|>" if shown else ""
    text = (
        f"<|im_start|>system\n{instruction}<|im_end|>\n<|im_start|>user\n{seen}{words}<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    sized = None
    if shown:
        limits = {"min_pixels": 4 * 32 * 32, "max_pixels": 1800 * 32 * 32}
        content = [{"type": "image", "image": decode(image), **limits}]
        (sized,), _ = process_vision_info([{"role": "user", "content": content}], image_patch_size=16)
        assert sized.size == (128, 96)
    states, ids = spread(folder, text, sized, **({"do_resize": False} if shown else {}))
    assert ids[-1] == Parts(folder).processor.tokenizer("\n")["input_ids"][-1]  # the final newline
    query = Query(text=words, images=(image,) if shown else ())
    embedder = opened(f"qwen3_vl:{folder}")
    found = (embedder.embed_documents if document else embedder.embed_queries)([query])[0]
    assert found == pytest.approx((states[-1] / states[-1].norm()).numpy(), abs=1e-5)


def test_a_shorter_vector_is_cut_and_scaled_again(tiny_qwen: Callable[[str], Path], opened: Any) -> None:
    for spec in (f"qwen3_vl:{tiny_qwen('qwen3_vl')}", f"gme:{tiny_qwen('qwen2_vl')}"):
        whole = opened(spec).embed_queries([WORDS])[0]
        cut = whole[:16] / np.linalg.norm(whole[:16])
        assert opened(f"{spec}@16").embed_queries([WORDS])[0] == pytest.approx(cut, abs=1e-6)


@pytest.fixture(scope="module")
def jina(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_jina import build

    return build(tmp_path_factory.mktemp("jina"))


def beside(folder: Path, parts: Parts) -> None:
    """Lets the adapter for retrieval add its share beside each layer that it has one for."""
    from safetensors.torch import load_file
    from tiny_jina import ALPHA, RANK

    adapter = load_file(folder / "adapters" / "adapter_model.safetensors")
    for key, a in adapter.items():
        module = key.removeprefix("base_model.model.").removesuffix(".lora_A.retrieval.weight")
        if not key.endswith(".lora_A.retrieval.weight") or module == "multi_vector_projector":
            continue
        b = adapter[key.replace("lora_A", "lora_B")]

        def add(_: Any, inputs: Any, out: Any, a: Any = a, b: Any = b) -> Any:
            return out + ALPHA / RANK * (inputs[0] @ a.T) @ b.T

        parts.whole.get_submodule(module).register_forward_hook(add)


@pytest.mark.filterwarnings("ignore:.*names Python files of its own")
def test_jina_embeddings_v4(jina: Path, opened: Callable[[str], Any], image: Image) -> None:
    import torch

    parts = Parts(jina)
    beside(jina, parts)

    def mean(text: str, shown: PIL.Image.Image | None = None) -> np.ndarray:
        inputs = parts.processor(text=[text], images=None if shown is None else [shown], return_tensors="pt")
        with torch.inference_mode():
            states = parts.whole(**inputs, output_hidden_states=True).hidden_states[-1][0]
        ids = inputs["input_ids"][0].tolist()
        if shown is not None:
            config = parts.model.config
            start, end = ids.index(config.vision_start_token_id), ids.index(config.vision_end_token_id)
            states = states[start : end + 1]
        vector = states.mean(0)
        return (vector / vector.norm()).numpy()

    embedder = opened(f"jina_v4:{jina}")
    seen = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Describe the image.<|im_end|>\n"
    words, picture = mean("Query: a red dog"), mean(seen, decode(image))
    queries = [WORDS, Query(images=(image,)), Query(text="a red dog", images=(image,))]
    both = words / 2 + picture / 2
    expected = [words, picture, both / np.linalg.norm(both)]
    for _ in range(2):
        # together, padded on the left, and one by one
        assert embedder.embed_queries(queries) == pytest.approx(np.stack(expected), abs=1e-5)
        queries, expected = queries[:1], expected[:1]
    assert embedder.embed_images([decode(image)])[0] == pytest.approx(picture, abs=1e-5)
    passage = embedder.embed_documents([Query(text="a boat")])[0]
    assert passage == pytest.approx(mean("Passage: a boat"), abs=1e-5)


@pytest.mark.filterwarnings("ignore:.*names Python files of its own")
def test_an_adapter_that_does_not_fit_is_refused(jina: Path, opened: Any, tmp_path: Path) -> None:
    whole = opened(f"jina_v4:{jina}")
    bare = shutil.copytree(jina, tmp_path / "bare")
    shutil.rmtree(bare / "adapters")
    plain = open_embedder(f"jina_v4:{bare}", device="cpu")  # a checkpoint with its adapter merged has none
    assert plain.fingerprint != whole.fingerprint
    assert not np.allclose(plain.embed_queries([WORDS]), whole.embed_queries([WORDS]), atol=1e-3)
    folder = shutil.copytree(jina, tmp_path / "folder")
    settings = folder / "adapters" / "adapter_config.json"
    body = json.loads(settings.read_text())
    for change, says in (
        ({"use_dora": True}, "use_dora"),
        ({"r": 0}, "must hold r and lora_alpha"),
        ({"peft_type": "IA3"}, "only LoRA"),
    ):
        settings.write_text(json.dumps(body | change))
        with pytest.raises(ModelError, match=says):
            open_embedder(f"jina_v4:{folder}", device="cpu")
    settings.unlink()
    with pytest.raises(ModelError, match=r"holds no adapter_config\.json"):
        open_embedder(f"jina_v4:{folder}", device="cpu")


@pytest.mark.parametrize("plugin", ["gme:", "vlm2vec:", "qwen3_vl:"])
def test_padding_on_the_left_changes_nothing(
    tiny_qwen: Callable[[str], Path], opened: Any, picture: Callable[..., Image], plugin: str
) -> None:
    embedder = opened(f"{plugin}{tiny_qwen('qwen3_vl' if plugin == 'qwen3_vl:' else 'qwen2_vl')}")
    queries = [
        WORDS,
        Query(text="a dog and a very long story about it", images=(picture(70, 60),)),
        TURNS,
        Query(text="<|im_end|><|image_pad|><|vision_start|>"),
    ]
    alone = np.concatenate([embedder.embed_queries([q]) for q in queries])
    assert embedder.embed_queries(queries) == pytest.approx(alone, abs=1e-5)
