"""Jobs of shards, and an embedder whose process is killed. Run as a program, it does a job on Ray."""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmrerank.corpus import folder as folder_corpus
from mmrerank.index.jobs import build_in_shards
from mmrerank.ports import Vectors
from tests.support.index_world import ColourEmbedder


def in_shards(index: Path, place: Path, embedder: Any = None, **options: Any) -> Any:
    options = {"shard_images": 4, **options}
    return build_in_shards(index, [folder_corpus.open(str(place))], embedder or ColourEmbedder(), **options)


def dying(flag: str, every: bool = False) -> Any:
    """An embedder whose process is killed at its third image, once or always."""
    return _Dying(flag, every)


class _Dying(ColourEmbedder):
    def __init__(self, flag: str, every: bool) -> None:
        super().__init__()
        self._flag, self._every = Path(flag), every

    def embed_images(self, images: Sequence[Any]) -> Vectors:
        if self._every or not self._flag.exists():
            self._flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().embed_images(images)


def main(index: str, source: str, flag: str) -> None:
    """Indexes ``source`` with two workers of Ray, one of which is killed."""
    from tests.support import job_world  # for workers find the embedder by that name

    opener = functools.partial(job_world.dying, flag)
    in_shards(Path(index), Path(source), engine="ray", workers=2, opener=opener)


if __name__ == "__main__":
    main(*sys.argv[1:])
