"""Vectors of embedders on Qwen-VL checkpoints equal a computation written out here, to 1e-5.

The computations use the models' own parts and none of the package: tokenizer, image processor, vision tower,
language model.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from mmrerank.embed.open import open_embedder
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


class Parts:
    """A checkpoint by its own parts."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForImageTextToText, AutoProcessor

        self.processor = AutoProcessor.from_pretrained(folder)
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
