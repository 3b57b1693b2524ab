"""The bundled dual encoder: its recipe runs, and its batches count every right answer as one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from mmrerank.errors import UsageError
from mmrerank.picturebook.caption import caption
from mmrerank.picturebook.facts import grade
from mmrerank.picturebook.training.clip_batches import BLOCK, blocks_of, choose, contrastive_loss, truth_of
from mmrerank.picturebook.training.run import train
from mmrerank.picturebook.world import sample_scene, stream
from mmrerank.types import Query

SMALL_CLIP = """model: clip
steps: 2
batch: 8
warmup: 1
scenes: 24
validation_scenes: 1200
vocabulary: 300
evaluate_every: 2
eyes_steps: 2
eyes_batch: 4
shape: {side: 32, patch: 16, width: 32, layers: 1, text_layers: 1, context: 24, dim: 32}
"""


def recipe(folder: Path, text: str) -> Path:
    file = folder / "recipe.yaml"
    file.write_text(text, "utf-8")
    return file


@pytest.mark.slow
def test_the_dual_encoder_recipe_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image as Pillow

    from mmrerank.embed.open import open_embedder
    from mmrerank.picturebook.training import demo_clip

    original = demo_clip.make_queries
    monkeypatch.setattr(
        demo_clip, "make_queries", lambda scenes, n, *a, **k: original(scenes, 10, *a, min_match=1, **k)
    )
    out = tmp_path / "out"
    done = train(recipe(tmp_path, SMALL_CLIP), out=out)
    assert 0 <= done["recall@20"] <= 1
    embedder = open_embedder(f"open_clip:local-dir:{out / 'model'}")
    images = embedder.embed_images([Pillow.new("RGB", (50, 40), "red")])
    queries = embedder.embed_queries([Query(text="a red boat")])
    assert images.shape == queries.shape == (1, 32)
    assert np.allclose(np.linalg.norm(images, axis=1), 1, atol=1e-5)


def test_a_batch_larger_than_the_pool_is_refused(tmp_path: Path) -> None:
    few = SMALL_CLIP.replace("scenes: 24", "scenes: 7", 1)
    with pytest.raises(UsageError, match="batch: 8 different scenes cannot be drawn from scenes: 7"):
        train(recipe(tmp_path, few), out=tmp_path / "out")


def test_a_batch_holds_different_scenes_in_blocks_that_share_a_kind() -> None:
    rng = stream("train", 31)
    scenes = [sample_scene(rng, "train") for _ in range(900)]
    blocks = blocks_of(scenes)
    assert {int(i) for block in blocks for i in block} == set(range(len(scenes)))
    chosen = choose(rng, blocks, 96)
    assert len(set(chosen.tolist())) == 96
    first = [{t.kind for t in scenes[i].things} for i in chosen[:BLOCK]]
    assert set.intersection(*first)
    assert len(choose(rng, blocks, 900)) == 900  # the whole pool, if that is asked for


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_truth_of_a_batch_is_that_of_every_pair(seed: int) -> None:
    rng = stream("train", seed)
    scenes = [sample_scene(rng, "train") for _ in range(12)]
    facts = [caption(rng, scene, "train").facts for scene in scenes]
    expected = [[grade(row, scene) == 3 for scene in scenes] for row in facts]
    found = truth_of(facts, scenes)
    assert np.array_equal(found, expected)
    assert found.diagonal().all()


def test_with_one_right_answer_each_the_loss_is_that_of_clip() -> None:
    torch.manual_seed(3)
    logits = torch.randn(6, 6)
    number = torch.arange(6)
    clip = functional.cross_entropy(logits, number) + functional.cross_entropy(logits.T, number)
    assert torch.allclose(contrastive_loss(logits, torch.eye(6).bool()), clip / 2)


def test_two_right_answers_are_both_drawn_near() -> None:
    truth = torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 1]]).bool()
    logits = torch.zeros(3, 3, requires_grad=True)
    contrastive_loss(logits, truth).backward()
    assert logits.grad is not None
    assert (logits.grad[truth] < 0).all()
    assert (logits.grad[~truth] > 0).all()
