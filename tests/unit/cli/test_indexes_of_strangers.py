"""Indexes that name a model folder of their own: no command opens it before a user names it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import data, run, tiny_clip
from hostile_models import hostile_chat, hostile_clip, write_module
from index_world import ColourEmbedder, build, paint

from mmrerank import ImageSearch, catalog
from mmrerank.catalog import Card
from mmrerank.errors import ImageIndexError, MismatchError, ModelError
from mmrerank.index import manifest
from mmrerank.index.index import ImageIndex
from mmrerank.query_embedder import check_remembered

pytestmark = pytest.mark.filterwarnings("ignore:.*Python files of its own:UserWarning")


@pytest.fixture
def evil(tmp_path: Path, marker: Path) -> Path:
    """A model folder whose tokenizer is code."""
    return hostile_clip(
        tmp_path / "m", marker, hf_tokenizer_name="m", tokenizer_kwargs={"trust_remote_code": True}
    )


@pytest.fixture
def index(tmp_path: Path) -> Path:
    paint(tmp_path / "pictures", ["a.png", "b.png"])
    build(tmp_path / "x", tmp_path / "pictures")
    return tmp_path / "x"


def say(index: Path, **facts: Any) -> None:
    """Its manifest with other facts, and a checksum that fits: whoever makes an index makes that too."""
    made = dataclasses.replace(manifest.read(index), **facts)
    (index / manifest.FILE).write_bytes(made.render())


def commands(index: Path) -> list[list[str]]:
    pictures = str(index.parent / "pictures")
    return [
        ["search", "a boat", "--index", str(index)],
        ["search", "a boat", "--index", str(index), "--dry-run", "--rerank", "pointwise"],
        ["index", pictures, "--index", str(index)],
        ["index", pictures, "--index", str(index), "--rebuild"],
        ["app", "--index", str(index), "--no-browser", "--chat", "fake:"],
    ]


@pytest.mark.parametrize(
    "form", ["open_clip:local-dir:@", "open_clip:@", "open_clip: @", "qwen3_vl:@", "unime:v2:@"]
)
def test_no_command_opens_a_folder_that_only_the_manifest_names(
    form: str, evil: Path, index: Path, marker: Path
) -> None:
    spec = form.replace("@", str(evil))
    say(index, embedder=spec)
    for command in commands(index):
        error = run(*command, code=5).stderr
        assert spec in error
        assert "nothing was opened" in error
        assert "--embedder" in error
    with pytest.raises(ModelError, match="embedder=..."):
        ImageSearch.open(index).search("a boat")
    told = run("verify", index)
    assert told.stdout == "its files are whole; its model was not looked at\n"
    assert spec in told.stderr
    body = data("verify", index)
    assert body["ok"] is True
    assert "--embedder" in body["warnings"][0]
    assert not marker.exists()


def test_an_evaluation_does_not_either(evil: Path, index: Path, tmp_path: Path) -> None:
    from mmrerank.benchmark import Task
    from mmrerank.evaluation.experiment.make_first_stage import make_first_stage

    say(index, embedder=f"open_clip:local-dir:{evil}")
    with pytest.raises(ModelError, match="nothing was opened"):
        make_first_stage(Task(benchmark="b", queries=(), qrels={}), tmp_path / "runs", index=index)


def test_a_folder_that_is_named_is_compared_before_its_model_runs(
    evil: Path, index: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = json.loads((evil / "open_clip_config.json").read_text())
    body["model_cfg"]["text_cfg"] |= {"tokenizer_kwargs": {}, "hf_tokenizer_name": ""}
    (evil / "open_clip_config.json").write_text(json.dumps(body))
    monkeypatch.setattr("mmrerank.embed._open_clip_load._create", None)  # never called
    spec = f"open_clip:local-dir:{evil}"
    say(index, embedder=spec)
    error = run("search", "a boat", "--index", index, "--embedder", spec, code=4).stderr
    assert "were not loaded: the files have the fingerprint" in error
    monkeypatch.setenv("MMRERANK_EMBEDDER", spec)
    assert "were not loaded" in run("search", "a boat", "--index", index, code=4).stderr
    assert "were not loaded" in run("index", index.parent / "pictures", "--index", index, code=4).stderr
    with pytest.raises(MismatchError, match="were not loaded"):
        ImageSearch.open(index, embedder=spec).search("a boat")
    assert not marker.exists()


def test_a_folder_of_ones_own_is_named_once(
    tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint(tmp_path / "pictures", ["a.png", "b.png"])
    (tmp_path / "m").mkdir()
    folder = tiny_clip(tmp_path / "m")
    write_module(folder, marker)
    spec = f"open_clip:local-dir:{folder}"
    pictures, index = tmp_path / "pictures", tmp_path / "x"
    assert data("index", pictures, "--index", index, "--embedder", spec)["added"] == 2
    assert run("search", "a boat", "--index", index, code=5)
    assert len(data("search", "a boat", "--index", index, "--embedder", spec)["hits"]) == 2
    # commands that are printed to be run again name it
    shutil.rmtree(pictures)
    warnings = data("search", "a boat", "--index", index, "--embedder", spec)["warnings"]
    assert f"--index {index} --embedder {spec}" in " ".join(warnings)
    monkeypatch.setenv("MMRERANK_EMBEDDER", spec)
    assert len(data("search", "a boat", "--index", index)["hits"]) == 2
    recipe = tmp_path / "r.yaml"
    monkeypatch.delenv("MMRERANK_EMBEDDER")
    recipe.write_text(f"embedder: {spec}\nindex: {index}\n")
    assert len(data("search", "a boat", "--config", recipe)["hits"]) == 2
    assert not marker.exists()


def test_relative_names_mean_folders_where_there_are_some(
    index: Path, evil: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(evil, tmp_path / "Qwen/Model")
    (tmp_path / "weights.pt").write_bytes(b"x")
    for spec in (
        "qwen3_vl:Qwen/Model", "qwen3_vl:m", "qwen3_vl:Qwen/Model@256", "unime:v1:Qwen/Model",
        "open_clip:./m", "open_clip:ViT-B-32:weights.pt", "open_clip:ViT-B-32:../w.pt",
        "open_clip:local-dir:gone", "unime:v2:~/m", "open_clip:hf-hub:Qwen/Model", r"qwen3_vl:C:\m",
        r"qwen3_vl:\\host\m", "qwen3_vl:file:///m",
    ):  # fmt: skip
        assert catalog.is_local("embedder", spec), spec
        say(index, embedder=spec)
        assert run("search", "a boat", "--index", index, code=5)


def test_names_that_mean_the_same_everywhere_are_remembered(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Card(name="mine", kind="embedder", spec=f"open_clip:local-dir:{tmp_path / 'package'}")
    every = (*catalog.cards(), own)
    monkeypatch.setattr(catalog, "cards", lambda: every)
    for spec in ("clip-b32", "open_clip:ViT-B-32:openai", "open_clip:ViT-B-32:random", "mine", own.spec,
                 "qwen3-vl-embedding-2b", "qwen3_vl:Qwen/Qwen3-VL-Embedding-2B"):  # fmt: skip
        assert not catalog.is_local("embedder", spec), spec
        say(index, embedder=spec)
        check_remembered(ImageIndex.open(index).manifest, index)


def test_a_repository_is_not_downloaded_on_the_word_of_an_index(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for spec in ("open_clip:hf-hub:evil/model", "qwen3_vl:evil/model@256", "unime:v2:evil/model"):
        say(index, embedder=spec)
        assert "evil/model is not in the hub's cache" in run("search", "x", "--index", index, code=5).stderr
    commit = "0" * 40
    place = tmp_path / "hub/models--evil--model"
    (place / "snapshots" / commit).mkdir(parents=True)
    (place / "snapshots" / commit / "config.json").write_text("{}")
    (place / "refs").mkdir()
    (place / "refs/main").write_text(commit)
    say(index, embedder="unime:v2:evil/model")
    check_remembered(ImageIndex.open(index).manifest, index)


def test_a_manifest_chooses_among_installed_plug_ins_only(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, marker: Path
) -> None:
    (tmp_path / "evil_plug_in.py").write_text(f"open({str(marker)!r}, 'w')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for spec in ("evil_plug_in:open", "evil_plug_in", "mmrerank.embed.open_clip:x", "../evil_plug_in:x", ""):
        say(index, embedder=spec)
        with pytest.raises(ImageIndexError, match="not installed here"):
            ImageSearch.open(index).search("x")
    embedder = ColourEmbedder()
    sound = (index / manifest.FILE).read_bytes()
    for store in ("evil_plug_in", "../evil_plug_in", "evil_plug_in:open", ""):
        (index / manifest.FILE).write_bytes(sound)
        say(index, embedder=embedder.spec, store=store)
        with pytest.raises(Exception, match="store"):
            ImageIndex.open(index).search(np.ones((1, embedder.dim), np.float32), 1)
    assert not marker.exists()


@pytest.mark.parametrize("options", ["{trust_remote_code: true}", "'{\"trust_remote_code\": true}'"])
def test_a_recipe_does_not_allow_code(options: str, index: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"chat: transformers:/m\nchat_options: {options}\nrerank: pointwise\n")
    says = "trust_remote_code cannot be set in a file"
    assert says in run("search", "x", "--index", index, "--config", recipe, code=2).stderr
    assert "trust_remote_code" in run("eval", "demo", "--config", recipe, code=2).stderr


def test_an_embedder_that_may_run_code_has_to_be_named(index: Path) -> None:
    for command in commands(index)[:3]:
        assert "goes with --embedder" in run(*command, "--trust-remote-code", code=2).stderr


def test_code_of_a_language_model_needs_the_option(tmp_path: Path, marker: Path) -> None:
    folder = hostile_chat(tmp_path / "chat", marker)
    paint(tmp_path, ["a.png"])
    requests = tmp_path / "r.jsonl"
    row = {"query": "a boat", "candidates": [{"id": "a", "image": "a.png"}]}
    requests.write_text(json.dumps(row))
    ask = ["rerank", "--input", requests, "--rerank", "pointwise", "--chat", f"transformers:{folder}"]
    error = run(*ask, code=5).stderr
    assert "--chat-option trust_remote_code=true" in error
    assert str(folder) in error
    assert not marker.exists()
