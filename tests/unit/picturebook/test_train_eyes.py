"""The tower's tokens as sums of words, what is kept of them, and words from outside the world."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from mmrerank.picturebook import words
from mmrerank.picturebook.training.eyes import labels, positions_of, shown
from mmrerank.picturebook.training.eyes_words import WordSums, fit_last_layer, train_words
from mmrerank.picturebook.training.pool import Pool, make_pool
from mmrerank.picturebook.world import (
    COLOURS,
    COLUMNS,
    KINDS,
    PLACES,
    ROWS,
    SIZES,
    WEATHERS,
    cell,
    sample_scene,
    stream,
)

WIDTH = 64


@pytest.fixture(scope="module")
def sums() -> WordSums:
    names = (*KINDS, *COLOURS, *SIZES, *ROWS, *COLUMNS, *PLACES, *WEATHERS)
    drawn = torch.randn(len(names), WIDTH, generator=torch.Generator().manual_seed(1))
    # words have much in common, which must not matter
    return WordSums(dict(zip(names, drawn + 3.0, strict=True)))


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return make_pool(tmp_path_factory.mktemp("pool"), "train", seed=3, count=40, side=48)


def test_a_token_is_the_sum_of_the_words_for_what_it_shows(sums: WordSums) -> None:
    rng = stream("train", 4)
    scenes = [sample_scene(rng, "train") for _ in range(30)]
    target, weights, named = sums.of(scenes, 6)
    assert (sums.kind_logits(target)[named > 0].argmax(-1) == named[named > 0] - 1).float().mean() > 0.9
    kinds, colours, _, rows, columns, *_ = sums.tables
    right = []
    for scene, tokens, counts, kind in zip(scenes, target, weights, named, strict=True):
        covering = shown(scene, 6)
        assert [0, *(1 + KINDS.index(t.kind) for t in scene.things)] == [
            int(kind[covering == n][0]) if (covering == n).any() else 0 for n in range(1 + len(scene.things))
        ]
        for n, thing in enumerate(scene.things, start=1):
            # what is seldom, small and half covered counts more than what is large, and that than nothing
            weight = 6.0 if thing.inside is not None else 2.0 if thing.size == "small" else 1.0
            assert (counts[covering == n] == weight).all()
        assert (counts[covering == 0] == 0.25).all()
        for token, number in enumerate(covering):
            if number:
                thing = scene.things[number - 1]
                row, column = cell(thing.x, thing.y)
                truth = ((kinds, KINDS.index(thing.kind)), (colours, COLOURS.index(thing.colour)),
                         (rows, row), (columns, column), (sums.cells, 3 * row + column))  # fmt: skip
                right += [int((table @ tokens[token]).argmax()) == n for table, n in truth]
    assert np.mean(right) > 0.9  # seven words in 64 numbers are a little in each other's way
    for table in (*sums.tables, sums.cells):
        assert torch.allclose(table.norm(dim=1), torch.ones(len(table)), atol=1e-5)
    for table in sums.tables:
        assert (table @ sums.cells.T).abs().max() < 1e-4


@pytest.mark.slow
def test_least_squares_and_then_training_bring_the_tokens_to_their_words(sums: WordSums, pool: Pool) -> None:
    torch.manual_seed(0)
    first, last = nn.Linear(8 * 8 * 3, 48), nn.Linear(48, WIDTH)
    tower = nn.Sequential(first, nn.GELU(), last)

    def look(chosen: NDArray[np.int64]) -> torch.Tensor:
        pixels = torch.from_numpy(pool.pixels[chosen]).float() / 255
        cut = pixels.reshape(-1, 6, 8, 6, 8, 3).permute(0, 1, 3, 2, 4, 5).reshape(-1, 36, 192)
        return tower(cut)

    def distance() -> float:
        target, weights, _ = sums.of(pool.scenes, 6)
        with torch.no_grad():
            far = (look(np.arange(len(pool))) - target).square().sum(-1)
        return float((far * weights).sum())

    before, kept = distance(), first.weight.clone()
    fit_last_layer(look, last, pool, sums, cells=6)
    fitted = distance()
    assert fitted < 0.8 * before
    assert torch.equal(first.weight, kept)
    with torch.no_grad():  # nothing near does better in the last layer
        for step in (1e-2, -1e-2):
            last.weight.add_(step * torch.randn_like(last.weight))
            assert distance() > fitted
            fit_last_layer(look, last, pool, sums, cells=6)
    steps: list[int] = []
    train_words(look, tower.parameters(), pool, sums, cells=6, steps=200, batch=20,
                learning_rate=2e-3, seed=1, report=lambda step, *_: steps.append(step))  # fmt: skip
    assert distance() < 0.98 * fitted
    assert steps == list(range(10, 201, 10))


def test_invented_words_are_neither_in_the_world_nor_asked_about() -> None:
    rng = stream("train", 5)
    drawn = {words.invented(rng) for _ in range(3000)}
    assert len(drawn) > 2000
    assert not drawn & {*KINDS, *COLOURS, *PLACES, *words.EVALUATION}
    assert all(w.isascii() and w.isalpha() and w.islower() for w in drawn)
    evaluated = {words.outside(stream("evaluation", n), "evaluation") for n in range(300)}
    assert evaluated <= set(words.EVALUATION)
    trained = {words.outside(stream("train", n), "train") for n in range(300)}
    assert not trained & set(words.EVALUATION)
    assert trained & set(words.TRAINING)
    assert trained - set(words.TRAINING)


def test_every_thing_is_named_by_some_token() -> None:
    rng = stream("train", 8)
    for _ in range(50):
        scene = sample_scene(rng, "train")
        assert (labels(scene, 6)[:, 0] > 0).sum() >= len(scene.things) - 1


def test_every_token_that_shows_a_thing_says_where_the_thing_is() -> None:
    rng = stream("train", 8)
    for _ in range(50):
        scene = sample_scene(rng, "train")
        where, covering = positions_of(scene, 6), shown(scene, 6)
        for number, thing in enumerate(scene.things, start=1):
            for token in np.flatnonzero(covering == number):
                row, column = cell(thing.x, thing.y)
                assert tuple(where[token]) == (row, column, 3 * row + column)
