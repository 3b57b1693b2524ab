"""SigLIP2, PE-Core and MobileCLIP2 through open_clip: vectors equal those of open_clip itself, to 1e-5.

Each folder has the configuration of the released one, with smaller towers and random weights.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from mmrerank.embed import text_tower
from mmrerank.embed.open import open_embedder
from mmrerank.ports import Embedder

pytestmark = pytest.mark.slow

HALF = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"}
TEXT = {"width": 64, "heads": 2, "layers": 2}
FAMILIES: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "SigLIP2": (
        {
            "embed_dim": 192, "init_logit_bias": -10, "custom_text": True,
            "vision_cfg": {"image_size": 224, "timm_model_name": "vit_tiny_patch16_224", "timm_pool": "map",
                           "timm_proj": "none"},
            "text_cfg": {**TEXT, "context_length": 64, "vocab_size": 640, "hf_tokenizer_name": "org/words",
                         "tokenizer_kwargs": {"clean": "canonicalize"}, "no_causal_mask": True,
                         "proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-06},
                         "act_kwargs": {"approximate": "tanh"}},
        },
        {**HALF, "interpolation": "bicubic"},
        64,
    ),
    "PE-Core": (
        {
            "embed_dim": 64, "custom_text": True,
            "vision_cfg": {"image_size": 384, "timm_model_name": "vit_pe_core_tiny_patch16_384",
                           "timm_pool": "map", "timm_proj": None},
            "text_cfg": {**TEXT, "context_length": 32, "vocab_size": 49408},
        },
        {**HALF, "interpolation": "bilinear"},
        32,
    ),
    "MobileCLIP2": (
        {
            "embed_dim": 64, "custom_text": True,
            "vision_cfg": {"timm_model_name": "fastvit_mci0", "timm_pool": "avg", "timm_proj": None,
                           "timm_drop": 0.0, "timm_drop_path": 0.0, "image_size": 256},
            "text_cfg": {**TEXT, "context_length": 77, "vocab_size": 49408, "no_causal_mask": True},
        },
        {"mean": [0.0] * 3, "std": [1.0] * 3, "interpolation": "bilinear", "resize_mode": "shortest"},
        77,
    ),
    "DFN, QuickGELU": (
        {
            "embed_dim": 64, "quick_gelu": True,
            "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
            "text_cfg": {**TEXT, "context_length": 77, "vocab_size": 49408},
        },
        {"interpolation": "bicubic", "resize_mode": "squash"},
        77,
    ),
}  # fmt: skip
TEXTS = ["A Red, dog!", f"a photo of a {'very ' * 90}long dog"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    import open_clip
    import torch
    from safetensors.torch import save_file
    from tiny_qwen import tokenizer
    from transformers import PreTrainedTokenizerFast

    made = {}
    for name, (config, preprocess, _) in FAMILIES.items():
        place = made[name] = tmp_path_factory.mktemp(name)
        body = {"model_cfg": config, "preprocess_cfg": preprocess}
        (place / "open_clip_config.json").write_text(json.dumps(body))
        if "hf_tokenizer_name" in config["text_cfg"]:
            words = tokenizer().backend_tokenizer
            PreTrainedTokenizerFast(
                tokenizer_object=words, pad_token="<|endoftext|>", eos_token="<|im_end|>"
            ).save_pretrained(place)
            (place / "config.json").write_text(json.dumps({"model_type": "siglip"}))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = open_clip.create_model(f"local-dir:{place}", load_weights=False)
        state = {k: v.contiguous() for k, v in model.state_dict().items()}
        save_file(state, str(place / "open_clip_model.safetensors"))
    return made


def pictures() -> list[PIL.Image.Image]:
    noise = np.random.default_rng(0)
    return [
        PIL.Image.fromarray(noise.integers(0, 255, (90 + 60 * n, 150, 3), dtype=np.uint8)) for n in range(2)
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_vectors_are_those_of_open_clip(folders: dict[str, Path], family: str) -> None:
    import open_clip
    import torch

    place = f"local-dir:{folders[family]}"
    model, _, transform = open_clip.create_model_and_transforms(place)
    words = open_clip.get_tokenizer(place)
    limit = FAMILIES[family][2]
    assert words.context_length == limit
    model.eval()
    with torch.inference_mode():
        seen = model.encode_image(torch.stack([transform(i) for i in pictures()])).numpy()
        read = model.encode_text(words(TEXTS)).numpy()
    embedder: Any = open_embedder(f"open_clip:{place}", device="cpu")
    for found, expected in ((embedder.embed_images(pictures()), seen), (embedder.embed_texts(TEXTS), read)):
        unit = expected / np.linalg.norm(expected, axis=1, keepdims=True)
        assert found == pytest.approx(unit, abs=1e-5)
    assert embedder.overlong(TEXTS[0]) is None
    assert embedder.overlong(TEXTS[1])[1] == limit


def test_every_file_of_a_tokenizer_is_in_the_fingerprint(folders: dict[str, Path], tmp_path: Path) -> None:
    first = opened(folders["SigLIP2"])
    for name in ("merges.txt", "tokenizer.model", "special_tokens_map.json", "vocab.txt"):
        folder = shutil.copytree(folders["SigLIP2"], tmp_path / name)
        assert opened(folder).fingerprint == first.fingerprint
        (folder / name).write_text("{}")
        assert opened(folder).fingerprint != first.fingerprint


def test_a_file_of_weights_is_prepared_for_as_its_architecture_was_released() -> None:
    from mmrerank.embed import _open_clip_part
    from mmrerank.embed._open_clip_identity import released

    open_clip = _open_clip_part.part()
    for arch in ("ViT-B-16-SigLIP2", "PE-Core-B-16"):
        found = released(open_clip, arch)
        assert (found["mean"], found["std"], found["resize_mode"]) == ((0.5,) * 3, (0.5,) * 3, "squash")
    small = released(open_clip, "MobileCLIP2-S0")
    assert (small["mean"], small["std"], small["resize_mode"]) == ((0.0,) * 3, (1.0,) * 3, "shortest")
    assert released(open_clip, "ViT-L-14") == {}  # OpenAI's and LAION's differ


def opened(folder: Path) -> Embedder:
    return open_embedder(f"open_clip:local-dir:{folder}", device="cpu")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_text_tower_is_the_models(folders: dict[str, Path], family: str) -> None:
    model: Any = open_embedder(f"open_clip:local-dir:{folders[family]}")
    files = dict(model.text_tower())  # compares tokens and vectors
    facts = text_tower.facts_of(files["tower.json"])
    tower = text_tower.TextTower(files, facts, spec=model.spec, domain="", whole=lambda: model)
    for text in (*TEXTS, "näher, 寺 ½ &amp; <b>"):
        assert tower.embed_texts([text]) == pytest.approx(model.embed_texts([text]), abs=1e-5)
        assert tower.overlong(text) == model.overlong(text)
