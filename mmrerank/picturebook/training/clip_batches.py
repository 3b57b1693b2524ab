"""Batches for the dual encoder: scenes that are hard to tell apart, and which caption is true of which.

In a batch drawn at random hardly two scenes have a boat and a beach, so nothing in a caption but its rarest
word is ever needed. Here scenes come in blocks that share a kind of thing. A short caption is then true of
several scenes, and each of them is a right answer: the targets of unified contrastive learning (Yang et al.,
"Unified Contrastive Learning in Image-Text-Label Space", CVPR 2022), with the truth of the scenes in place of
class labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from mmrerank.picturebook.facts import Fact, PlaceFact, WeatherFact
from mmrerank.picturebook.training.pool import by_kind
from mmrerank.picturebook.world import Scene

BLOCK = 32  # scenes that share a kind of thing


def blocks_of(scenes: Sequence[Scene]) -> list[NDArray[np.int64]]:
    """For every kind of thing the indices of the scenes that show it; kinds that none shows are left out."""
    return [np.array(found) for found in by_kind(scenes).values() if found]


def choose(rng: np.random.Generator, blocks: Sequence[NDArray[np.int64]], batch: int) -> NDArray[np.int64]:
    """``(batch,)`` different indices, `BLOCK` at a time from one of ``blocks``.

    ``batch`` may not exceed the number of different indices in ``blocks``.
    """
    chosen: dict[int, None] = {}
    while len(chosen) < batch:
        block = blocks[int(rng.integers(len(blocks)))]
        taken = rng.choice(block, min(BLOCK, len(block)), replace=False)
        chosen.update(dict.fromkeys(taken.tolist()))
    return np.array(list(chosen)[:batch])


def truth_of(facts: Sequence[Sequence[Fact]], scenes: Sequence[Scene]) -> NDArray[np.bool_]:
    """Whether all facts of row i are met by scene j: ``(len(facts), len(scenes))``."""
    found = np.ones((len(facts), len(scenes)), np.bool_)
    for row, wanted in zip(found, facts, strict=True):
        # place and weather first: where they are wrong nothing else need be looked at
        for fact in sorted(wanted, key=lambda f: not isinstance(f, PlaceFact | WeatherFact)):
            for index in np.flatnonzero(row).tolist():
                row[index] = fact.judge(scenes[index]).verdict == "met"
    return found


def contrastive_loss(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of ``logits`` ``(texts, images)`` and of their transpose.

    The target of a row is spread evenly over the right answers in it. With a diagonal ``truth`` this is
    CLIP's loss (Radford et al., 2021, figure 3). Every row and column needs a right answer.
    """
    right = truth.to(logits.dtype)
    texts = functional.cross_entropy(logits, right / right.sum(1, keepdim=True))
    images = functional.cross_entropy(logits.T, right.T / right.T.sum(1, keepdim=True))
    return (texts + images) / 2
