"""Both recipes run for a few steps and give folders that open by the ordinary doors."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from mmrerank.config import read_yaml
from mmrerank.errors import InputError, UsageError
from mmrerank.picturebook import cards
from mmrerank.picturebook.training.demo_vlm import VlmRecipe
from mmrerank.picturebook.training.pacing import share_done
from mmrerank.picturebook.training.run import train
from mmrerank.picturebook.training.vlm_model import VlmShape
from mmrerank.rerank import prompting
from mmrerank.types import Candidate, Image, Query

ROOT = Path(__file__).resolve().parents[3]
PROMPTS = ("deconstruct", "evaluate", "order", "score", "prefer", "pick", "grade")
SMALL_VLM = """model: vlm
steps: 3
batch_tokens: 1200
scenes: 24
vocabulary: 1100
eyes_steps: 2
eyes_batch: 4
words_steps: 2
warmup: 1
shape: {side: 48, vision_hidden: 32, vision_layers: 1, vision_heads: 1, hidden: 64, layers: 1, heads: 2,
        intermediate: 64}
phases:
  - {share: 0.5, mix: {list: 1, deconstruct: 1}}
  - {share: 0.5, mix: {evaluate: 2, order: 1, score: 1}}
"""
SMALL_CLIP = """model: clip
batch: 8
warmup: 1
scenes: 16
validation_scenes: 8
vocabulary: 300
evaluate_every: 1
eyes_steps: 1
eyes_batch: 4
shape: {side: 32, patch: 16, width: 32, layers: 1, text_layers: 1, context: 24, dim: 32}
"""


def recipe(folder: Path, text: str) -> Path:
    file = folder / "recipe.yaml"
    file.write_text(text, "utf-8")
    return file


@pytest.mark.parametrize("name", ["clip", "vlm"])
def test_a_recipe_runs_for_one_step(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmrerank.picturebook.training import demo_clip, demo_vlm

    monkeypatch.setattr(demo_vlm, "_CORPUS", 60)
    monkeypatch.setattr(demo_clip, "validate", lambda *_: {"recall@20": 0.1})
    text = SMALL_VLM if name == "vlm" else SMALL_CLIP
    done = train(recipe(tmp_path, text), out=tmp_path / "out", steps=1)
    assert done["steps"] == 1
    assert (tmp_path / "out/model/README.md").is_file()


@pytest.mark.slow
def test_the_multimodal_recipe_runs_and_resumes(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    from mmrerank.chat.open import open_chat
    from mmrerank.rerank import comparisons

    file, out = recipe(tmp_path, SMALL_VLM), tmp_path / "out"
    done = train(file, out=out)
    assert done["steps"] == 3
    assert (out / "loss.png").stat().st_size > 1000
    with pytest.raises(InputError, match="--resume"):
        train(file, out=out)
    file = recipe(tmp_path, SMALL_VLM + "workers: 1\n")  # a helper draws the exercises
    longer = train(file, out=out, steps=5, resume=True)
    assert longer["steps"] == 5
    assert longer["samples"] > done["samples"]  # counted over the whole run
    assert len((out / "log.csv").read_text("utf-8").splitlines()) == 6
    assert train(file, out=out, steps=5, resume=True)["steps"] == 5  # it was over: nothing is added
    before, after = (load_file(out / part / "model.safetensors") for part in ("eyes/model", "model"))
    tower = [name for name in after if "visual" in name]
    assert tower
    assert all(torch.equal(before[name], after[name]) for name in tower)
    words = next(name for name in after if name.endswith("embed_tokens.weight"))
    assert not torch.equal(before[words], after[words])
    chat = open_chat(f"transformers:{out / 'model'}")
    picture = Image(data=_png(np.zeros((60, 80, 3), np.uint8)))
    ask = comparisons.score(Query(text="a boat"), Candidate(id="a", image=picture))
    (reply,) = chat.reply([ask])
    assert reply.error is None
    assert set(reply.logprobs) == {"yes", "no"}


@pytest.mark.slow
def test_two_processes_train_one_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, out = (recipe(tmp_path, SMALL_VLM.replace("steps: 3", "steps: 4\nprocesses: 2")), tmp_path / "out")
    done = train(file, out=out)
    assert done["steps"] == 4
    assert not (out / "meeting").exists()
    rows = (out / "log.csv").read_text("utf-8").splitlines()
    assert len(rows) == 5  # one process keeps the books
    # scenes that were thrown away are drawn again before a second process starts, which cannot draw many
    shutil.rmtree(out / "pool")

    def stop(method: str) -> None:
        raise RuntimeError(f"{method}: {len(list((out / 'pool').glob('*.jsonl')))} pools")

    monkeypatch.setattr("mmrerank.picturebook.training.demo_vlm.multiprocessing.get_context", stop)
    with pytest.raises(RuntimeError, match="spawn: 1 pools"):
        train(file, out=out, steps=5, resume=True)


def test_a_wrong_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown option 'stepz'.*Did you mean 'steps'"):
        train(recipe(tmp_path, "model: vlm\nstepz: 3\n"), out=tmp_path / "out")
    with pytest.raises(UsageError, match="model must be one of clip, vlm"):
        train(recipe(tmp_path, "model: gpt\n"), out=tmp_path / "out")


@pytest.mark.parametrize("name", ["clip", "vlm"])
def test_the_shipped_recipes_are_valid(name: str) -> None:
    from mmrerank.config import build as build_options
    from mmrerank.picturebook.training.demo_clip import ClipRecipe, ClipShape

    values = read_yaml(ROOT / f"mmrerank/picturebook/training/{name}.yaml")
    assert values.pop("model") == name
    kind = VlmRecipe if name == "vlm" else ClipRecipe
    settings = build_options(kind, values, where=name)
    shape = VlmShape(**settings.shape) if name == "vlm" else ClipShape(**settings.shape)
    assert dataclasses.asdict(shape)


@pytest.mark.parametrize("name", PROMPTS)
def test_the_shipped_model_was_trained_on_todays_prompts(name: str) -> None:
    card = (ROOT / "mmrerank/picturebook/models/vlm/README.md").read_text("utf-8")
    with prompting.profile(cards.PROMPTS):
        assert f"{name}: `{prompting.load(name).digest}`" in card


def test_a_run_ends_by_steps_or_by_time() -> None:
    assert share_done(5, 10, 1e6, None) == 0.5
    assert share_done(5, 10, 45, 1.0) == 0.75
    assert share_done(10, 10, 0, 1.0) == 1


def _png(pixels: np.ndarray) -> bytes:  # type: ignore[type-arg]
    import io

    from PIL import Image as Pillow

    file = io.BytesIO()
    Pillow.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
