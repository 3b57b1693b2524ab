"""What every embedder must do: unit vectors of one space, the same for an image in whatever company."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from command import tiny_clip
from contract_specs import contract_specs
from tiny_llava import build as build_llava

from mmrerank import registry
from mmrerank.embed.open import open_embedder
from mmrerank.errors import UsageError
from mmrerank.ports import Embedder
from mmrerank.types import Query

FOREIGN = contract_specs("embedder")
QWEN = {"gme": "qwen2_vl", "jina_v4": "qwen2_5_vl", "qwen3_vl": "qwen3_vl", "vlm2vec": "qwen2_vl"}
SPECS = {**dict.fromkeys(("open_clip", "unime", *QWEN), ""), **FOREIGN}
EACH = [
    pytest.param(name, marks=pytest.mark.slow) if name in (*QWEN, "unime") else name
    for name in registry.names("embedder")
]


@pytest.fixture(scope="module")
def make(
    tiny_qwen: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Embedder]:
    opened: dict[str, Embedder] = {}

    def embedder(name: str) -> Embedder:
        if name not in opened:
            place = tmp_path_factory.mktemp(name)
            spec = FOREIGN.get(name)
            if name == "open_clip":
                spec = f"open_clip:local-dir:{tiny_clip(place)}"
            elif name in QWEN:
                spec = f"{name}:{tiny_qwen(QWEN[name])}"
            elif name == "unime":
                spec = f"unime:v2:{build_llava(place)}"
            assert spec is not None, f"say in MMRERANK_CONTRACT how the embedder {name!r} is named"
            opened[name] = open_embedder(spec)
        return opened[name]

    return embedder


def pictures() -> list[PIL.Image.Image]:
    return [PIL.Image.new("RGB", (40 + 9 * n, 36), (70 * n, 200 - 60 * n, 30)) for n in range(3)]


def test_every_plug_in_is_covered() -> None:
    assert set(SPECS) == set(registry.names("embedder"))


@pytest.mark.parametrize("name", EACH)
def test_vectors_are_unit_and_of_one_width(make: Callable[[str], Embedder], name: str) -> None:
    embedder = make(name)
    assert isinstance(embedder, Embedder)
    assert embedder.spec
    assert embedder.fingerprint
    images = pictures()
    found = embedder.embed_images(images)
    assert (found.dtype, found.shape) == (np.float32, (3, embedder.dim))
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)
    asked = embedder.embed_queries([Query(text="red"), Query(text="blue", turns=("a boat",))])
    assert (asked.dtype, asked.shape) == (np.float32, (2, embedder.dim))
    assert np.linalg.norm(asked, axis=1) == pytest.approx(1, abs=1e-5)
    assert embedder.embed_images([]).shape == (0, embedder.dim)
    assert embedder.embed_queries([]).shape == (0, embedder.dim)
    found = embedder.embed_documents([Query(text="a red square")])
    assert (found.dtype, found.shape) == (np.float32, (1, embedder.dim))


@pytest.mark.parametrize("name", EACH)
def test_an_image_has_one_vector(make: Callable[[str], Embedder], name: str) -> None:
    embedder = make(name)
    images = pictures()
    together = embedder.embed_images(images)
    alone = np.concatenate([embedder.embed_images([i]) for i in images])
    assert together == pytest.approx(alone, abs=1e-5)
    if embedder.prepares:
        assert embedder.embed_images([embedder.prepare(i) for i in images]) == pytest.approx(
            together, abs=1e-5
        )


def test_a_wrong_name_is_explained() -> None:
    with pytest.raises(UsageError, match="forms are"):
        open_embedder("nonesuch:x")
