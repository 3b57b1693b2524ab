"""Models by path, file and repository, in the forms that people write (clip-retrieval#372, open_clip#671)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from denied import denied

from mmrerank.chat.open import open_chat
from mmrerank.embed.open import open_embedder
from mmrerank.errors import ModelError
from mmrerank.ports import Embedder

TINY = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
PREPROCESS = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic"}


@pytest.fixture(scope="module")
def state() -> dict[str, Any]:
    """The weights of a tiny model."""
    import torch
    from open_clip.model import CLIP

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return {k: v.contiguous() for k, v in CLIP(**TINY).state_dict().items()}


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """An architecture ``tiny`` among those of open_clip."""
    import open_clip.factory

    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", TINY)


@pytest.fixture(scope="module")
def folder(state: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny model."""
    import json

    from safetensors.torch import save_file

    place = tmp_path_factory.mktemp("models") / "tiny clip"
    place.mkdir()
    config = {"model_cfg": TINY, "preprocess_cfg": PREPROCESS}
    (place / "open_clip_config.json").write_text(json.dumps(config))
    save_file(state, str(place / "open_clip_model.safetensors"))
    return place


@pytest.mark.parametrize("kind", ["safetensors", "pt", "epoch"])
def test_weights_in_a_file_of_their_own(
    kind: str, state: dict[str, Any], known: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from safetensors.torch import save_file

    file = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pt")
    if kind == "safetensors":
        save_file(state, str(file))
    elif kind == "pt":
        torch.save(state, file)
    else:  # as a training of open_clip leaves it
        torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, file)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    names = {"safetensors": str(file), "pt": f"~/{file.name}", "epoch": file.name}
    opened = [open_embedder(f"open_clip:tiny:{names[kind]}")]
    assert {e.spec for e in opened} == {f"open_clip:tiny:{file}"}
    moved = tmp_path / "moved" / file.name
    moved.parent.mkdir()
    file.rename(moved)
    again = open_embedder(f"open_clip:tiny:{moved}")
    assert again.fingerprint == opened[0].fingerprint
    vectors = [vars(type(e))["embed_texts"](e, ["a boat"]) for e in (again, opened[0])]
    assert np.array_equal(*vectors)
    moved.write_bytes(b"x" if kind == "pt" else b"")
    with pytest.raises(ModelError, match=rf"{file.name} cannot be loaded: .*local-dir:PATH"):
        open_embedder(f"open_clip:tiny:{moved}")


def test_a_folder_in_every_form_is_one_embedder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.chdir(folder.parent)
    opened = [open_embedder(f"open_clip:{n}") for n in ("local-dir:tiny clip", str(folder), "~/tiny clip")]
    assert {e.spec for e in opened} == {f"open_clip:local-dir:{folder}"}
    moved = shutil.copytree(folder, tmp_path / "elsewhere")
    assert {e.fingerprint for e in [*opened, open_embedder(f"open_clip:{moved}")]} == {opened[0].fingerprint}


def test_a_repository_of_the_hub_is_a_folder_in_its_cache(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    commit = "0" * 40
    place = tmp_path / "models--org--tiny"
    shutil.copytree(folder, place / "snapshots" / commit)
    (place / "refs").mkdir()
    (place / "refs/main").write_text(commit)
    found: Embedder = open_embedder("open_clip:hf-hub:org/tiny")
    assert found.spec == "open_clip:hf-hub:org/tiny"
    assert found.fingerprint == open_embedder(f"open_clip:local-dir:{folder}").fingerprint
    assert open_embedder(f"open_clip:hf-hub:org/tiny@{commit}").fingerprint == found.fingerprint
    with pytest.raises(ModelError, match=r"(?s)hf-hub:org/other.*local-dir:FOLDER"):
        open_embedder("open_clip:hf-hub:org/other")


def test_a_vision_language_model_of_the_hub_is_a_folder_in_its_cache(
    tiny_qwen: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    commit = "0" * 40
    place = tmp_path / "models--org--tiny"
    shutil.copytree(tiny_qwen("qwen3_vl"), place / "snapshots" / commit)
    (place / "refs").mkdir()
    (place / "refs/main").write_text(commit)
    found = open_embedder("qwen3_vl:org/tiny", device="cpu")
    assert found.spec == "qwen3_vl:org/tiny"
    assert found.fingerprint == open_embedder(f"qwen3_vl:{tiny_qwen('qwen3_vl')}", device="cpu").fingerprint
    with pytest.raises(ModelError, match=r"the hub|hf download org/other"):
        open_embedder("qwen3_vl:org/other", device="cpu")


@pytest.mark.parametrize(
    ("rest", "says"),
    [
        ("ViT-B-32:~/none.pt", r"no file of weights @/none\.pt"),
        ("ViT-B-32:none.safetensors", r"no file of weights @/none\.safetensors"),
        ("ViT-B-32:@", r"@ is a folder; write open_clip:local-dir:@"),
        ("local-dir:@/epoch_3.pt", r"is a file; .*open_clip:ARCH:@/epoch_3\.pt"),
        ("local-dir:", "no model folder was named"),
        ("local-dir:~/none", "no model folder @/none"),
        ("@/none", "no model folder @/none"),
        ("~/epoch_3.pt", r"holds weights alone.*open_clip:ARCH:@/epoch_3\.pt"),
        ("@", "no open_clip model.*its config.json is of clip"),
        ("C:\\models\\clip", "a path of Windows"),
        ("ViT-B-32:C:\\models\\w.pt", "a path of Windows"),
        ("ViT-B-32/laion2b_s34b_b79k", "did you mean open_clip:ViT-B-32:laion2b_s34b_b79k"),
        ("ViT-B/32:opena", "no weights 'opena' for ViT-B-32.*local-dir:PATH"),
        ("timm/ViT-B-16-SigLIP", "did you mean open_clip:hf-hub:timm/ViT-B-16-SigLIP"),
    ],
)
def test_what_is_not_there_names_the_way(
    rest: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "epoch_3.pt").write_bytes(b"x")
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(ModelError, match=says.replace("@", str(tmp_path))):
        open_embedder(f"open_clip:{rest.replace('@', str(tmp_path))}")


def test_a_model_that_may_not_be_read_or_was_not_fetched_is_named(folder: Path, tmp_path: Path) -> None:
    place = shutil.copytree(folder, tmp_path / "clip")
    weights = place / "open_clip_model.safetensors"
    for file in (weights, place / "open_clip_config.json", place):
        with denied(file), pytest.raises(ModelError, match="cannot be read: Permission denied"):
            open_embedder(f"open_clip:local-dir:{place}")
    weights.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ModelError, match="git lfs pull"):
        open_embedder(f"open_clip:local-dir:{place}")


@pytest.mark.parametrize("form", ["qwen3_vl:@", "unime:v2:@", "transformers:@"])
def test_vision_language_models_too(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    opener = open_chat if form.startswith("transformers") else open_embedder
    place = tmp_path / "my models"
    place.mkdir()
    with pytest.raises(ModelError, match=rf"{place} holds no config\.json"):
        opener(f" {form.replace('@', '~/my models')}")
    kind = "qwen2_vl" if "unime" in form else "qwen3_vl"
    (place / "config.json").write_text(f'{{"model_type": "{kind}"}}')
    (place / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ModelError, match=r"model\.safetensors is a git-LFS pointer"):
        opener(form.replace("@", str(place)))
    with denied(place / "config.json"), pytest.raises(ModelError, match="cannot be read: Permission denied"):
        opener(form.replace("@", str(place)))
