"""Checkpoints whose configurations ask for more than data: code, classes, other models, files elsewhere."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hostile_models import MODULE, bomb_bytes, write_module

from mmrerank.chat.open import open_chat
from mmrerank.embed.open import open_embedder
from mmrerank.errors import MismatchError, ModelError
from mmrerank.types import Query
from mmrerank.vl.model_folder import check_folder, plain

EVIL = f"{MODULE}.EvilTokenizer"


@pytest.fixture
def folder(tiny_qwen: Callable[[str], Path], tmp_path: Path, marker: Path) -> Path:
    """A sound checkpoint with Python files beside it that nothing names yet."""
    place = shutil.copytree(tiny_qwen("qwen3_vl"), tmp_path / "m")
    write_module(place, marker)
    return place


def change(file: Path, **more: Any) -> None:
    body = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**body, **more}))


def code_everywhere(folder: Path) -> None:
    """``auto_map`` in every configuration, for every class that transformers looks for, and at depth."""
    names = ("Config", "Model", "ModelForImageTextToText", "Processor", "ImageProcessor", "VideoProcessor")
    auto = {f"Auto{n}": EVIL for n in names} | {"AutoTokenizer": [EVIL, EVIL]}
    body = json.loads((folder / "config.json").read_text())
    for part in ("text_config", "vision_config"):
        body[part] |= {"auto_map": auto, "_attn_implementation": "evil/kernel"}
    change(folder / "config.json", **body, auto_map=auto, attn_implementation="evil/kernel@main:x")
    for name in ("tokenizer_config.json", "processor_config.json", "generation_config.json"):
        change(folder / name, auto_map=auto, trust_remote_code=True)


@pytest.mark.parametrize("form", ["transformers:@", "qwen3_vl:@"])
def test_a_known_model_is_run_by_the_library_alone(form: str, folder: Path, marker: Path) -> None:
    code_everywhere(folder)
    (folder / "pytorch_model.bin").write_bytes(bomb_bytes(marker))
    opener: Any = open_chat if form.startswith("transformers") else open_embedder
    with pytest.warns(UserWarning, match=f"{folder} names Python files of its own .*which are not run"):
        opened = opener(form.replace("@", str(folder)), device="cpu")
    assert not marker.exists()
    if form.startswith("qwen3"):
        with pytest.raises(MismatchError, match="the files have"), pytest.warns(UserWarning, match="not run"):
            opener(form.replace("@", str(folder)), device="cpu", expect="sha256:" + "0" * 64)
        return
    assert opened.qwen.model.config._attn_implementation in ("sdpa", "eager")


def test_a_tokenizer_that_is_code_is_refused_with_the_way_to_allow_it(folder: Path, marker: Path) -> None:
    change(folder / "config.json", model_type="qwen3_vl", tokenizer_class=None)
    change(
        folder / "processor_config.json", processor_class="EvilProcessor", auto_map={"AutoProcessor": EVIL}
    )
    change(folder / "tokenizer_config.json", tokenizer_class="EvilTokenizer", processor_class="EvilProcessor")
    says = r"--chat-option trust_remote_code=true"
    with pytest.raises(ModelError, match=says), pytest.warns(UserWarning, match="not run"):
        open_chat(f"transformers:{folder}", device="cpu")
    assert not marker.exists()


def test_code_that_a_person_allows_runs_with_a_warning(
    folder: Path, marker: Path, modules_elsewhere: None
) -> None:
    shutil.rmtree(folder / "custom_generate")
    change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": [EVIL, EVIL]})
    with pytest.warns(UserWarning, match=f"trust_remote_code: Python files of {folder} may run"):
        open_chat(f"transformers:{folder}", device="cpu", trust_remote_code=True)
    assert marker.exists()


def test_a_chat_template_is_no_way_into_python(folder: Path, marker: Path) -> None:
    text = "{{ cycler.__init__.__globals__.os.popen('touch " + str(marker) + "').read() }}"
    (folder / "chat_template.jinja").write_text(text)
    embedder = open_embedder(f"qwen3_vl:{folder}", device="cpu")
    with pytest.raises(ModelError, match=f"the chat template of {folder} cannot be used: .*unsafe"):
        embedder.embed_queries([Query(text="a boat")])
    assert not marker.exists()


@pytest.mark.parametrize(
    ("file", "body", "says"),
    [
        ("adapter_config.json", {"base_model_name_or_path": "/elsewhere"}, "is an adapter.*merge it"),
        (".metadata", {}, "is a distributed checkpoint"),
        ("__0_0.metadata", {}, "is a distributed checkpoint"),
        ("shard-00000-model-00001-of-00001.safetensors", {}, "is a distributed checkpoint"),
        ("audio_tokenizer_config.json", {}, "names another model"),
        (
            "processor_config.json",
            {"audio_tokenizer": {"audio_tokenizer_class": "AutoModel"}},
            "another model",
        ),
        ("processor_config.json", {"processor_class": "AutoModel"}, "processor_class is 'AutoModel'"),
        ("processor_config.json", {"image_processor": {"image_processor_type": "Trainer"}}, "is 'Trainer'"),
        (
            "tokenizer_config.json",
            {"tokenizer_class": "RagRetriever"},
            "is 'RagRetriever', which is no class",
        ),
        ("tokenizer_config.json", {"tokenizer_class": "os.system"}, "which is no class"),
        ("tokenizer_config.json", {"tokenizer_class": ["AutoModel"]}, "which is no class"),
        ("config.json", {"transformers_weights": "adapter_model.bin"}, "must be a .safetensors file"),
        ("config.json", {"transformers_weights": "../x.safetensors"}, "must be a .safetensors file"),
        ("config.json", {"quantization_config": {"quant_method": "evil"}}, "quantised by 'evil'.*allowed"),
        (
            "config.json",
            {"text_config": {"quantization_config": {"quant_method": "torchao"}}},
            "quantised by 'torchao'",
        ),
        ("model.safetensors.index.json", {"weight_map": {"a": "../x.safetensors"}}, "of the same folder"),
        ("model.safetensors.index.json", {"weight_map": {"a": "/x.safetensors"}}, "of the same folder"),
        ("model.safetensors.index.json", {"weight_map": {"a": "model.bin"}}, "of the same folder"),
        ("model.safetensors.index.json", {"weight_map": {"a": "no.safetensors"}}, "cannot be read"),
        ("model.safetensors.index.json", {"weight_map": []}, "has no weight_map"),
        ("config.json", [], "holds no object"),
    ],
)
def test_what_asks_for_more_than_data_is_refused(file: str, body: Any, says: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(json.dumps(body))
    with pytest.raises(ModelError, match=says):
        check_folder(tmp_path)


def test_files_end_and_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config.json"
    config.write_text("[" * 100_000)
    with pytest.raises(ModelError, match="cannot be read"):
        check_folder(tmp_path)
    monkeypatch.setattr("mmrerank.vl.model_folder.MAX_CONFIG_BYTES", 10)
    with pytest.raises(ModelError, match=r"has 100,000 bytes; a configuration has at most 10"):
        check_folder(tmp_path)
    config.unlink()
    os.mkfifo(config)
    with pytest.raises(ModelError, match="no plain file"):
        check_folder(tmp_path)
    config.unlink()
    config.symlink_to("/dev/zero")
    with pytest.raises(ModelError, match="no plain file"):
        check_folder(tmp_path)


def test_a_link_to_data_is_data(tiny_qwen: Callable[[str], Path], tmp_path: Path) -> None:
    """As in the hub's cache, whose folders are links only."""
    for file in tiny_qwen("qwen3_vl").iterdir():
        (tmp_path / file.name).symlink_to(file)
    check_folder(tmp_path)


def test_keys_that_choose_code_are_left_out_at_any_depth() -> None:
    body = {
        "a": 1,
        "auto_map": {},
        "b": [{"_attn_implementation": "x/y", "c": 2}],
        "d": {"fusion_config": {}},
    }
    assert plain(body) == {"a": 1, "b": [{"c": 2}], "d": {}}
