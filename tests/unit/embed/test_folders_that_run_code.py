"""open_clip folders and files of weights that try to run code, to ask for it, or to read elsewhere."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_models import CLIP, Bomb, bomb_bytes, clip_weights, hostile_clip

from mmrerank.embed import _open_clip_load
from mmrerank.embed.open import open_embedder
from mmrerank.errors import MismatchError, ModelError, UsageError

pytestmark = pytest.mark.filterwarnings("ignore:.*Python files of its own:UserWarning")


TOKENIZER = {"hf_tokenizer_name": "m"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ({**TOKENIZER, "tokenizer_kwargs": {"trust_remote_code": True}}, "a file cannot allow that"),
        (TOKENIZER, "cannot be loaded without Python files of its own.*--trust-remote-code"),
        ({**TOKENIZER, "tokenizer_kwargs": {"tokenizer_file": "/x"}}, "holds 'tokenizer_file'; allowed are"),
        ({**TOKENIZER, "tokenizer_kwargs": {"gguf_file": "x"}}, "holds 'gguf_file'; allowed are"),
        ({**TOKENIZER, "tokenizer_kwargs": ["x"]}, "must be an object"),
        ({**TOKENIZER, "tokenizer_kwargs": {"clean": {"a": 1}}}, "clean must be of type str"),
        ({"tokenizer_kwargs": {"bpe_path": "/etc/hostname"}}, "holds 'bpe_path'; allowed are clean"),
        ({**TOKENIZER, "tokenizer_mode": "evil"}, "tokenizer_mode must be '' or 'clips'"),
        ({"hf_model_name": "@"}, "must be the name of a model"),
        ({"hf_model_name": "../other"}, "must be the name of a model"),
        ({"hf_model_name": "here/model"}, "a folder here"),
        ({"hf_model_name": ["x"]}, "must be the name of a model"),
        ({"norm_kwargs": {"device": "cuda"}}, "holds 'device'; allowed are eps"),
    ],
)
def test_a_text_tower_is_data(
    text: dict[str, Any], says: str, marker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here/model").mkdir(parents=True)
    folder = tmp_path / "m"
    text = {k: str(folder) if v == "@" else v for k, v in text.items()}
    hostile_clip(folder, marker, **text)
    with pytest.raises(ModelError, match=says):
        open_embedder(f"open_clip:local-dir:{folder}")
    assert not marker.exists()


@pytest.mark.parametrize("name", ["local-dir:@", "hf-hub:a/b", "a/b", "../x"])
def test_an_image_tower_is_one_of_the_library(name: str, marker: Path, tmp_path: Path) -> None:
    folder = hostile_clip(tmp_path / "m", marker)
    body = json.loads((folder / "open_clip_config.json").read_text())
    body["model_cfg"]["vision_cfg"]["timm_model_name"] = name.replace("@", str(folder))
    (folder / "open_clip_config.json").write_text(json.dumps(body))
    with pytest.raises(ModelError, match="timm_model_name must be the name of a model"):
        open_embedder(f"open_clip:local-dir:{folder}")
    assert not marker.exists()


def test_only_a_person_allows_code_and_is_told_what_that_means(
    marker: Path, tmp_path: Path, modules_elsewhere: None
) -> None:
    folder = hostile_clip(tmp_path / "m", marker, **TOKENIZER)
    with pytest.warns(UserWarning, match=f"trust_remote_code: Python files of {folder} may run as your own"):
        open_embedder(f"open_clip:local-dir:{folder}", trust_remote_code=True)
    assert marker.exists()


def test_a_folder_of_data_opens_and_its_fingerprint_is_known_before_its_weights(
    marker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = hostile_clip(tmp_path / "m", marker, **TOKENIZER, tokenizer_kwargs={"clean": "canonicalize"})
    body = json.loads((folder / "tokenizer_config.json").read_text())
    del body["auto_map"]
    (folder / "tokenizer_config.json").write_text(json.dumps(body))
    spec = f"open_clip:local-dir:{folder}"
    opened = open_embedder(spec)
    assert opened.embed_queries([]).shape == (0, 24)
    # what is computed from the files alone is what the loaded model has
    assert open_embedder(spec, expect=opened.fingerprint).fingerprint == opened.fingerprint
    monkeypatch.setattr(_open_clip_load, "_create", None)
    with pytest.raises(MismatchError, match="the files have the fingerprint"):
        open_embedder(spec, expect="sha256:" + "0" * 64)
    assert not marker.exists()


def _tar(path: Path, marker: Path) -> None:
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            body = bomb_bytes(marker)
            entry = tarfile.TarInfo(name)
            entry.size = len(body)
            archive.addfile(entry, io.BytesIO(body))


def _saved(path: Path, marker: Path) -> None:
    import torch

    torch.save({"state_dict": Bomb(marker)}, path)


def _packed(path: Path, marker: Path) -> None:
    _saved(path, marker)
    with zipfile.ZipFile(path) as archive:
        files = {n: archive.read(n) for n in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in files.items():
            archive.writestr(name, body)


def _script(path: Path, marker: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("m/data.pkl", "m/constants.pkl", "m/code/__torch__.py", "m/version"):
            archive.writestr(name, bomb_bytes(marker))


def _nested(path: Path, marker: Path) -> None:
    _saved(path, marker)
    inner = path.read_bytes()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m.pt", inner)


def _arrays(path: Path, marker: Path) -> None:
    np.savez(path, **{"params/img/embedding/kernel": np.array([Bomb(marker)], dtype=object)})


def _plain(path: Path, marker: Path) -> None:
    path.write_bytes(bomb_bytes(marker))


@pytest.mark.parametrize(
    ("suffix", "write"),
    [
        *((s, _plain) for s in (".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".npz", ".npy")),
        (".pt", _saved), (".bin", _saved), (".pt", _tar), (".pt", _packed), (".pt", _script),
        (".pt", _nested),        (".npz", _arrays), (".safetensors", _saved),
    ],
)  # fmt: skip
def test_weights_are_tensors_and_nothing_else(
    suffix: str, write: Any, marker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import open_clip.factory

    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", CLIP)
    file = tmp_path / f"w{suffix}"
    write(file, marker)
    with pytest.raises(ModelError, match="cannot be loaded"):
        open_embedder(f"open_clip:tiny:{file}")
    if suffix in (".bin", ".pth"):  # and beside a configuration
        folder = hostile_clip(tmp_path / "m", marker)
        (folder / "open_clip_model.safetensors").unlink()
        file.rename(folder / f"pytorch_model{suffix}")
        with pytest.raises(ModelError, match="cannot be loaded"):
            open_embedder(f"open_clip:local-dir:{folder}")
    assert not marker.exists()


def test_a_pickle_does_not_stand_in_for_broken_safetensors(marker: Path, tmp_path: Path) -> None:
    folder = hostile_clip(tmp_path / "m", marker)
    (folder / "open_clip_model.safetensors").write_bytes(b"broken")
    (folder / "open_clip_pytorch_model.bin").write_bytes(bomb_bytes(marker))
    with pytest.raises(ModelError, match=r"open_clip_model\.safetensors cannot be loaded"):
        open_embedder(f"open_clip:local-dir:{folder}")
    assert not marker.exists()


def test_the_environment_does_not_unlock_pickles(
    marker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import open_clip.factory
    import torch

    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", CLIP)
    torch.save(clip_weights(), tmp_path / "w.pt")
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(ModelError, match="TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is set"):
        open_embedder(f"open_clip:tiny:{tmp_path / 'w.pt'}")


def test_files_are_plain_files(marker: Path, tmp_path: Path) -> None:
    import os

    folder = hostile_clip(tmp_path / "m", marker)
    for name in ("open_clip_model.safetensors", "tokenizer_config.json", "open_clip_config.json"):
        (folder / name).unlink()
        os.mkfifo(folder / name)  # opening it would wait for ever
        with pytest.raises(ModelError, match=r"no plain file|holds no weights"):
            open_embedder(f"open_clip:local-dir:{folder}")


def test_an_unknown_option_is_still_unknown(marker: Path, tmp_path: Path) -> None:
    folder = hostile_clip(tmp_path / "m", marker)
    with pytest.raises(UsageError, match="takes no 'code'"):
        open_embedder(f"open_clip:local-dir:{folder}", code=True)
