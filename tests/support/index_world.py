"""An embedder that needs no model, and folders of small pictures: what the index tests stand on.

Run as a program, it builds an index and dies on the way.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from mmrerank.corpus import folder as folder_corpus
from mmrerank.index.build import Progress
from mmrerank.index.index import ImageIndex
from mmrerank.index.vectors import VectorFiles
from mmrerank.ports import Embedder, Vectors
from mmrerank.types import Query


class ColourEmbedder(Embedder):
    """Unit vectors of a picture's corner pixels: alike pictures are near, and nothing is random."""

    dim = 12
    domain = ""

    def __init__(self, fingerprint: str = "colour-1") -> None:
        self.spec = "test:colour"
        self.fingerprint = fingerprint
        self.embedded = 0

    def embed_images(self, images: Sequence[Any]) -> Vectors:
        self.embedded += len(images)
        small = [np.asarray(i.resize((2, 2)), dtype=np.float32).ravel() + 1 for i in images]
        vectors = np.stack(small)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)  # type: ignore[no-any-return]

    def embed_queries(self, queries: Sequence[Query]) -> Vectors:
        raise NotImplementedError


def paint(folder: Path, names: Sequence[str], start: int = 0) -> None:
    """Writes a PNG for each name, each of other pixels."""
    for number, name in enumerate(names, start):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        PIL.Image.fromarray(noise).save(path, "png")


def build(index: Path, source: Path, embedder: Any = None, **options: Any) -> Any:
    embedder = embedder or ColourEmbedder()
    return ImageIndex.build(index, folder_corpus.open(str(source)), embedder, **options)


def tally(report: Any) -> tuple[int, int, int, int, int]:
    return (report.added, report.changed, report.removed, report.unchanged, len(report.failed))


def nearest(index: ImageIndex, picture: Path, k: int = 3) -> list[str]:
    with PIL.Image.open(picture) as image:
        query = ColourEmbedder().embed_images([image.convert("RGB")])
    return [s.id for s in index.search(query, k)[0]]


def contents(path: Path) -> dict[str, tuple[Any, ...]]:
    """Everything that a finished index says about each id, whatever the order it was made in."""
    with ImageIndex.open(path) as index:
        assert index.verify(deep=True) == []
        rows = index._records.rows()
        files = np.asarray(VectorFiles(path / "vectors", index.dim).load(index._records.vectors))
        assert not len(rows) or rows[-1] < len(files)
        return {
            r.id: (r.path, r.sha256, r.width, r.height, r.error, r.row is not None and files[r.row].tolist())
            for r in index._records.everything()
        }


def digest(path: Path) -> str:
    """SHA-256 over the id, the hash and the vector's bytes of every image, by id."""
    found = hashlib.sha256()
    with ImageIndex.open(path) as index:
        assert index.verify(deep=True) == []
        for id_ in sorted(index.ids):
            record = index._records.get(id_)
            assert record is not None
            found.update(f"{id_}\0{record.sha256}\0".encode("utf-8", "surrogatepass"))
            found.update(index.vectors([id_]).tobytes())
    return found.hexdigest()


# Building


def save_flat(store: Any, folder: Path) -> None:
    """What a store does that leaves a view on the disk; of ours none does."""
    folder.mkdir(exist_ok=True)
    np.save(folder / "flat.npy", np.asarray(store._blocks.vectors))


def load_flat(store: Any, folder: Path, vectors: Any) -> bool:
    """Takes over what `save_flat` left."""
    try:
        saved = np.load(folder / "flat.npy")
    except (OSError, ValueError):
        return False
    if saved.shape != vectors.shape:
        return False
    store.build(saved)
    return True


def main(index: str, source: str, where: str, after: str) -> None:
    """Builds an index and dies at ``where`` after so many samples, calls or seconds, as by ``kill -9``."""
    left = float(after)

    def die(function: Any) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            result = function(*args, **kwargs)
            left -= 1
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapped

    embedder = ColourEmbedder()
    progress: Progress | None = None
    if where == "sample":
        progress = die(lambda done, total: None)
    elif where == "embed":
        embedder.embed_images = die(embedder.embed_images)  # type: ignore[method-assign]
    elif where == "append":  # vectors written, records not
        VectorFiles.append = die(VectorFiles.append)  # type: ignore[method-assign]
    elif where == "shards":  # everything written but the manifest
        VectorFiles.shards = die(VectorFiles.shards)  # type: ignore[method-assign]
    elif where == "wait":

        def progress(done: int, total: int | None) -> None:
            sys.stdout.write("writing\n")
            sys.stdout.flush()
            time.sleep(left)

    ImageIndex.build(Path(index), folder_corpus.open(source), embedder, batch=4, progress=progress)


if __name__ == "__main__":
    main(*sys.argv[1:])
