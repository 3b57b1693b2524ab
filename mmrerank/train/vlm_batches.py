"""Exercises to batches of tensors: the chat template written out, rows of like length together.

Batches can be made in several processes; what they hold is small (pixels as bytes), and patches are cut
where the model runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mmrerank.demo.world import Scene
from mmrerank.train.pool import Pool, small
from mmrerank.train.vlm_data import Example, Exercises
from mmrerank.train.vlm_model import VlmShape


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Right-padded rows: ``ids``, ``labels`` (B, L; -100 where no loss), ``positions`` (3, B, L).

    ``verdicts`` (B, L) is true where a label is a verdict: few tokens, which all the others are there for.

    ``pixels``: uint8 ``(n, side, side, 3)`` of all images in order; ``grids``: ``(n, 3)``; ``known``:
    ``(n,)``, an image's number in the pool, or -1 for one drawn for an exercise.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor
    verdicts: torch.Tensor
    positions: torch.Tensor
    pixels: torch.Tensor | None
    grids: torch.Tensor | None
    known: torch.Tensor | None
    tasks: tuple[str, ...]

    def to(self, device: torch.device) -> Batch:
        """The same batch on ``device``."""
        moved: dict[str, Any] = {
            k: v.to(device, non_blocking=True)
            for k, v in vars(self).items()
            if isinstance(v, torch.Tensor)
        }
        return replace(self, **moved)


class Encoder:
    """Examples to token ids: the chat template written out, each image as its visual tokens."""

    def __init__(
        self, tokenizer: Any, processor: Any, shape: VlmShape, pool: Pool, model: Any
    ) -> None:
        self.rope_index = model.model.get_rope_index
        self.image_id = model.config.image_token_id
        self.tokenizer = tokenizer
        self.shape = shape
        self.pool = pool
        self.visual = (shape.side // (2 * shape.patch)) ** 2
        images = processor.image_processor
        self.mean = torch.tensor(images.image_mean)
        self.std = torch.tensor(images.image_std)
        self.grid = shape.side // shape.patch

    def text(self, example: Example) -> str:
        """The prompt as the chat template renders it, visual tokens spelt out."""
        image = "<|vision_start|>" + "<|image_pad|>" * self.visual + "<|vision_end|>"
        turns = (
            f"<|im_start|>{m.role}\n"
            + "".join(image if p.text is None else p.text for p in m.parts)
            + "<|im_end|>\n"
            for m in example.messages
        )
        return "".join(turns) + "<|im_start|>assistant\n"

    def encode(self, example: Example) -> tuple[list[int], list[int]]:
        """Token ids of prompt and reply, and their labels: -100 where nothing is to be learnt."""
        ids = self._tokens(self.text(example))
        labels = [-100] * len(ids)
        rest = example.reply + "<|im_end|>"
        for given in example.given:
            told, _, rest = rest.partition(given)
            for text, learnt in ((told, True), (given, False)):
                tokens = self._tokens(text)
                ids += tokens
                labels += tokens if learnt else [-100] * len(tokens)
        tokens = self._tokens(rest)
        return ids + tokens, labels + tokens

    def _tokens(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def picture(self, scene: int | Scene) -> NDArray[np.uint8]:
        """The pixels of a pool scene, or of a scene drawn for one example."""
        return self.pool.pixels[scene] if isinstance(scene, int) else small(scene, self.shape.side)

    def patches(self, pictures: torch.Tensor) -> torch.Tensor:
        """What the image processor makes of ``pictures`` ``(n, side, side, 3)``: ``(n * grid^2, D)``."""
        mean, std = self.mean.to(pictures.device), self.std.to(pictures.device)
        scaled = (pictures.float() / 255.0 - mean) / std
        n, g, p = len(pictures), self.grid, self.shape.patch
        # blocks of 2 x 2 patches stand together, since the merger joins neighbours
        split = scaled.reshape(n, g // 2, 2, p, g // 2, 2, p, 3)
        rows = split.permute(0, 1, 4, 2, 5, 7, 3, 6)  # n, gh, gw, mh, mw, c, ph, pw
        frames = rows[..., None, :, :].expand(
            *rows.shape[:-2], 2, p, p
        )  # a still is two equal frames
        return frames.reshape(n * g * g, -1)

    def collate(self, rows: list[tuple[list[int], list[int], Example]]) -> Batch:
        """Right-padded tensors of some encoded examples."""
        length = max(len(ids) for ids, _, _ in rows)
        pad = self.tokenizer.pad_token_id
        key, quote = self.tokenizer.convert_tokens_to_ids(["verdict", '":"'])
        ids = torch.full((len(rows), length), pad)
        labels = torch.full((len(rows), length), -100)
        mask = torch.zeros(len(rows), length, dtype=torch.long)
        for n, (tokens, learnt, _) in enumerate(rows):
            ids[n, : len(tokens)] = torch.tensor(tokens)
            labels[n, : len(tokens)] = torch.tensor(learnt)
            mask[n, : len(tokens)] = 1
        verdicts = torch.zeros_like(labels, dtype=torch.bool)
        verdicts[:, 2:] = (labels[:, :-2] == key) & (labels[:, 1:-1] == quote)
        scenes = [s for _, _, e in rows for s in e.scenes]
        shown = [self.picture(s) for s in scenes]
        grids = torch.tensor([[1, self.grid, self.grid]]).repeat(len(shown), 1) if shown else None
        positions, _ = self.rope_index(
            ids,
            mm_token_type_ids=(ids == self.image_id).int(),
            image_grid_thw=grids,
            attention_mask=mask,
        )
        return Batch(
            ids=ids,
            mask=mask,
            labels=labels,
            verdicts=verdicts,
            positions=positions,
            pixels=torch.from_numpy(np.stack(shown)) if shown else None,
            grids=grids,
            known=torch.tensor([s if isinstance(s, int) else -1 for s in scenes])
            if scenes
            else None,
            tasks=tuple(e.task for _, _, e in rows),
        )


def batches(exercises: Exercises, encoder: Encoder, tokens: int) -> Iterator[Batch]:
    """Endless batches of at most ``tokens`` padded tokens, rows of like length together."""
    rng = exercises.rng
    while True:
        rows = []
        for example in (exercises.draw() for _ in range(512)):
            rows.append((*encoder.encode(example), example))
        # rows of one task share their instructions, which are then computed once
        rows.sort(key=lambda r: (r[2].task, len(r[0])))
        groups: list[list[Any]] = [[]]
        for row in rows:
            last = groups[-1]
            full = last and len(row[0]) * (len(last) + 1) > tokens
            if full or (last and last[-1][2].task != row[2].task):
                groups.append([])
            groups[-1].append(row)
        for index in rng.permutation(len(groups)):
            yield encoder.collate(groups[int(index)])


class _Stream(torch.utils.data.IterableDataset[Batch]):
    """`batches` for a loader's processes, each with a random stream of its own."""

    def __init__(self, exercises: Exercises, encoder: Encoder, tokens: int) -> None:
        self.parts = (exercises, encoder, tokens)
        self.seed = int(exercises.rng.integers(1 << 30))

    def __iter__(self) -> Iterator[Batch]:
        info = torch.utils.data.get_worker_info()
        exercises, encoder, tokens = self.parts
        exercises.rng = np.random.default_rng([self.seed, info.id if info else 0])
        return batches(exercises, encoder, tokens)


def supply(exercises: Exercises, encoder: Encoder, *, tokens: int, workers: int) -> Iterator[Batch]:
    """Endless `batches`, made in ``workers`` processes (at most one per core) when there are any."""
    if not workers:
        return batches(exercises, encoder, tokens)
    source = _Stream(exercises, encoder, tokens)
    return iter(
        torch.utils.data.DataLoader(
            source,
            batch_size=None,
            num_workers=min(workers, os.cpu_count() or 1),
            prefetch_factor=4,
        )
    )
