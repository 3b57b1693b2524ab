"""Scenes drawn once and used many times: the pictures both bundled models are trained on.

Drawn large, as users see them, and shrunk the way the models' own preprocessing shrinks pictures, so that
training and use see the same pixels. Kept on disk beside a run so that resuming draws nothing again.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmrerank.picturebook.draw import render
from mmrerank.picturebook.world import KINDS, Scene, Split, sample_scene, stream

DRAWN = 384  # pixels, the side of a picture as users see it
_WORTH_PROCESSES = 1000  # scenes; a script that draws more than these needs its `__main__` guard


@dataclass(frozen=True, kw_only=True)
class Pool:
    """``scenes`` and their ``pixels``, uint8 ``(n, side, side, 3)``."""

    scenes: tuple[Scene, ...]
    pixels: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.scenes)


def by_kind(scenes: Sequence[Scene]) -> dict[str, list[int]]:
    """The numbers of the scenes that show each kind of thing, in order; none for a kind nowhere shown."""
    shown: dict[str, list[int]] = {kind: [] for kind in KINDS}
    for number, scene in enumerate(scenes):
        for kind in {thing.kind for thing in scene.things}:
            shown[kind].append(number)
    return shown


def small(scene: Scene, side: int) -> NDArray[np.uint8]:
    """One scene as the models see it: ``(side, side, 3)`` uint8, shrunk by PIL's bicubic filter."""
    picture = render(scene, DRAWN).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(picture, np.uint8)


def make_pool(
    folder: Path,
    split: Split,
    *,
    seed: int,
    count: int,
    side: int,
    progress: Callable[[int, int], None] | None = None,
) -> Pool:
    """The first ``count`` scenes of a stream, read from ``folder`` or drawn and written there."""
    stem = folder / f"pool-{split}-{seed}-{count}-{side}"
    pixels_file, scenes_file = stem.with_suffix(".npy"), stem.with_suffix(".jsonl")
    if scenes_file.exists():
        lines = scenes_file.read_text("utf-8").splitlines()
        scenes = tuple(Scene.from_json(json.loads(line)) for line in lines)
        return Pool(scenes=scenes, pixels=np.load(pixels_file))
    rng = stream(split, seed)
    scenes = tuple(sample_scene(rng, split) for _ in range(count))
    pixels = np.empty((count, side, side, 3), np.uint8)
    draw = partial(small, side=side)
    with ExitStack() as stack:
        pictures: Iterator[NDArray[np.uint8]] = map(draw, scenes)
        if count >= _WORTH_PROCESSES:
            painters = multiprocessing.get_context("spawn").Pool(os.cpu_count())
            pictures = stack.enter_context(painters).imap(draw, scenes, chunksize=50)
        for n, picture in enumerate(pictures):
            pixels[n] = picture
            if progress and n % 100 == 0:
                progress(n, count)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(pixels_file, pixels)
    scenes_file.write_text("".join(json.dumps(s.to_json()) + "\n" for s in scenes), "utf-8")
    return Pool(scenes=scenes, pixels=pixels)
