"""The bundled multimodal model's vision tower, on its own: first what is where, then in which words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mmrerank.picturebook.training.eyes import train_eyes
from mmrerank.picturebook.training.eyes_words import WordSums, fit_last_layer, train_words
from mmrerank.picturebook.training.log import Log, Progress
from mmrerank.picturebook.training.vlm_batches import Encoder
from mmrerank.picturebook.training.vlm_model import embeddings_of
from mmrerank.picturebook.training.vlm_step import look
from mmrerank.picturebook.world import COLOURS, COLUMNS, KINDS, PLACES, ROWS, SIZES, WEATHERS


def anchors(model: Any, tokenizer: Any) -> dict[str, torch.Tensor]:
    """The model's embeddings of the world's words (of their first token, as they stand in a sentence)."""
    words = (*KINDS, *COLOURS, *SIZES, *ROWS, *COLUMNS, *PLACES, *WEATHERS)
    known = embeddings_of(model, tokenizer, [f" {w}" for w in words])
    return dict(zip(words, known, strict=True))


def open_eyes(
    model: Any,
    encoder: Encoder,
    out: Path,
    *,
    steps: int,
    words_steps: int,
    batch: int,
    learning_rate: float,
    words_learning_rate: float,
    seed: int,
    progress: Progress | None = None,
) -> None:
    """Trains ``model``'s tower in place on the encoder's pool; logs go to ``out`` and ``out/words``."""
    pool, cells = encoder.pool, encoder.grid // 2
    device = next(model.parameters()).device
    tower = model.model.visual
    words = anchors(model, encoder.tokenizer)

    def tokens(chosen: NDArray[np.int64]) -> torch.Tensor:
        return look(model, encoder, torch.from_numpy(pool.pixels[chosen]).to(device))

    def glance(chosen: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        found = tokens(chosen)
        return found, found.mean(1)

    train_eyes(
        glance,
        tower.parameters(),
        pool,
        width=encoder.shape.hidden,
        cells=cells,
        steps=steps,
        batch=batch,
        learning_rate=learning_rate,
        seed=seed,
        report=_reporter(out, progress, 0, steps + words_steps),
        positions=True,
        anchors=words,
    )
    sums = WordSums(words)
    fit_last_layer(tokens, tower.merger.mlp[-1], pool, sums, cells=cells)
    train_words(
        tokens,
        tower.parameters(),
        pool,
        sums,
        cells=cells,
        steps=words_steps,
        batch=batch,
        learning_rate=words_learning_rate,
        seed=seed + 1,
        report=_reporter(out / "words", progress, steps, steps + words_steps),
    )


def _reporter(
    out: Path, progress: Progress | None, before: int, of: int
) -> Callable[[int, float, float], None]:
    """Logs (step, loss, share of kinds right) into ``out``; ``before`` steps of ``of`` are already done."""
    log = Log(out, columns=("step", "loss", "kinds_right"))

    def report(step: int, loss: float, right: float) -> None:
        log.add(step, round(loss, 4), round(right, 4))
        if progress:
            progress(before + step, of)

    return report
