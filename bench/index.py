"""What indexing costs beside the model alone, and beside other tools: JPEG files, ViT-B/32, random weights.

    python bench/index.py [--images 96] [--pairs 5] [--photos DIR] [--precision float32]
                          [--sentence-transformers PYTHON]

Five pairs each, in turn (ours, theirs, ours, ...); the medians count. One thread for torch.

- On one processor core: `ImageIndex.build` against the plain loop of open_clip's own documentation (open with
  Pillow, its transform, a batch, encode_image). Processor time an image, at most 1.05 times theirs.
- On two cores: the same against the forward pass alone, with the pixels ready in memory. Time on the clock,
  at most 1.15 times the pass.
- With ``--sentence-transformers``: against its image encode in that interpreter, which needs the packages
  that bench/peers/encode_st.py names. Time on the clock on all cores, at most theirs at equal precision and
  batch.

The text tower, which a new index exports once however many images it has, is left out.

Without ``--photos`` the files are made: 640 x 480, noise over gradients, about 70 kB. Run it on a machine
that does nothing else; it takes some five minutes. Ends with 1 where a bar is missed. clip-retrieval needs
other versions of numpy and transformers than we do, and is not measured here.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import PIL.Image

SPEC = "open_clip:ViT-B-32:random"
BATCH = 32
CPU_BAR, WALL_BAR, PEER_BAR = 1.05, 1.15, 1.0
PEER = Path(__file__).parent / "peers/encode_st.py"
SUFFIXES = (".jpg", ".jpeg")


def draw(folder: Path, count: int) -> list[Path]:
    """JPEG files of noise over gradients, in all 640 x 480."""
    x, y = np.linspace(0, 1, 640)[None, :, None], np.linspace(0, 1, 480)[:, None, None]
    files = []
    for number in range(count):
        rng = np.random.default_rng(number)
        a, b, c, d = rng.uniform(0, 255, (4, 3))
        smooth = (a * (1 - x) + b * x) * (1 - y) + (c * (1 - x) + d * x) * y
        noisy = smooth + rng.normal(0, 7, (480, 640, 1)) + rng.normal(0, 2, (480, 640, 3))
        files.append(folder / f"{number:05d}.jpg")
        PIL.Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(files[-1], quality=85)
    return files


def taken(source: Path, folder: Path, count: int) -> list[Path]:
    """Links to the first ``count`` JPEG files below ``source``, all in one folder."""
    found = sorted(p for p in source.rglob("*") if p.suffix.lower() in SUFFIXES)[:count]
    if len(found) < count:
        raise SystemExit(f"{source} holds {len(found)} JPEG files; --images {len(found)} takes them all")
    files = [folder / f"{number:05d}.jpg" for number in range(count)]
    for file, original in zip(files, found, strict=True):
        file.symlink_to(original.resolve())
    return files


@dataclass(frozen=True, kw_only=True)
class Spent:
    """Seconds of the clock and of the processor."""

    wall: float
    cpu: float


def spent(work: Callable[[], object]) -> Spent:
    """What ``work`` takes, in all of this process's threads."""
    clock, cpu = time.perf_counter(), time.process_time()
    work()
    return Spent(wall=time.perf_counter() - clock, cpu=time.process_time() - cpu)


@contextmanager
def on(cores: int) -> Iterator[None]:
    """Within it this thread, and those that it starts, run on so many of the processor cores there are."""
    every = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(sorted(every)[:cores]))
    try:
        yield
    finally:
        os.sched_setaffinity(0, every)


class Work:
    """The passes over the same files with the same weights."""

    def __init__(self, files: Sequence[Path], precision: str | None) -> None:
        import open_clip
        import torch

        from mmrerank.embed.open import open_embedder

        torch.set_num_threads(1)
        self.files = files
        self.embedder: Any = open_embedder(SPEC, device="cpu", precision=precision, batch_size=BATCH)
        self.precision = self.embedder.dtype
        self.model, _, self.transform = open_clip.create_model_and_transforms("ViT-B-32", pretrained=None)
        self.model.load_state_dict(self.embedder._model.state_dict())
        self.model = self.model.to(vars(torch)[self.precision]).eval()
        self.theirs: Any = None
        self.ready = [self._batch(files[n : n + BATCH]) for n in range(0, len(files), BATCH)]

    def _batch(self, files: Sequence[Path]) -> Any:
        import torch

        pixels = [self.transform(PIL.Image.open(file)) for file in files]
        return torch.stack(pixels).to(vars(torch)[self.precision])

    def build(self) -> None:
        """Ours: a whole index, made and left on the disk; its vectors are compared with theirs."""
        from mmrerank.corpus import folder as folder_corpus
        from mmrerank.index.index import ImageIndex

        with tempfile.TemporaryDirectory() as place:
            index = Path(place, "x")
            corpus = folder_corpus.open(str(self.files[0].parent))
            ImageIndex.build(index, corpus, self.embedder, text_tower=False)
            if self.theirs is not None:
                with ImageIndex.open(index) as opened:
                    ours = opened.vectors([f.name for f in self.files])
                close = 1e-4 if self.precision == "float32" else 2e-2
                if (worst := float(np.abs(ours - self.theirs).max())) > close:
                    raise SystemExit(f"the vectors differ by up to {worst:.2g}: this compares nothing")

    def loop(self) -> None:
        """Theirs: the loop that open_clip's documentation shows, in batches."""
        import torch

        parts = []
        for start in range(0, len(self.files), BATCH):
            with torch.inference_mode():
                found = self.model.encode_image(self._batch(self.files[start : start + BATCH])).float()
                parts.append((found / found.norm(dim=-1, keepdim=True)).numpy())
        self.theirs = np.concatenate(parts)

    def forward(self) -> None:
        """The model alone."""
        import torch

        with torch.inference_mode():
            for pixels in self.ready:
                self.model.encode_image(pixels)


class Peer:
    """Another tool in another interpreter, which does a pass for each line that it is sent."""

    def __init__(self, python: str, folder: Path, precision: str) -> None:
        self._child = subprocess.Popen(
            [python, str(PEER), str(folder), str(BATCH), precision],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""},
        )  # fmt: skip
        self._told("ready")

    def encode(self) -> Spent:
        """One pass."""
        assert self._child.stdin
        self._child.stdin.write("\n")
        self._child.stdin.flush()
        told = json.loads(self._told("{"))
        return Spent(wall=told["wall"], cpu=told["cpu"])

    def close(self) -> None:
        """Ends it."""
        self._child.communicate()

    def _told(self, begin: str) -> str:
        assert self._child.stdout
        for line in self._child.stdout:
            if line.startswith(begin):
                return line
        raise SystemExit(f"{PEER.name} came to no end")


def compared(what: str, ours: Sequence[float], theirs: Sequence[float], bar: float, images: int) -> bool:
    """Prints pairs, medians and their ratio; whether the ratio is within ``bar``."""
    for number, (a, b) in enumerate(zip(ours, theirs, strict=True), 1):
        print(f"  pair {number}: {a / images * 1e3:8.2f} {b / images * 1e3:8.2f} ms an image  {a / b:.3f}")
    a, b = statistics.median(ours), statistics.median(theirs)
    held = a / b <= bar
    print(
        f"{what}: medians {a / images * 1e3:.2f} and {b / images * 1e3:.2f} ms an image, ratio {a / b:.3f}, "
        f"bar {bar:.2f}: {'held' if held else 'MISSED'}"
    )
    return held


def measured(work: Work, pairs: int, peer: Peer | None) -> bool:
    """Runs all pairs; whether every bar is held."""
    images = len(work.files)
    work.loop()
    work.build()
    held = []
    with on(1):
        found = [(spent(work.build), spent(work.loop)) for _ in range(pairs)]
    cpu = [a.cpu for a, _ in found], [b.cpu for _, b in found]
    held.append(compared("processor time, one core: ours, open_clip loop", *cpu, CPU_BAR, images))
    if len(os.sched_getaffinity(0)) < 2:
        print("wall time on two cores: not measured, there is one core")
    else:
        with on(2):
            found = [(spent(work.build), spent(work.forward)) for _ in range(pairs)]
        wall = [a.wall for a, _ in found], [b.wall for _, b in found]
        held.append(compared("wall time, two cores: ours, forward alone", *wall, WALL_BAR, images))
    if peer is None:
        print("sentence-transformers: not measured; name its interpreter with --sentence-transformers")
    else:
        found = [(spent(work.build), peer.encode()) for _ in range(pairs)]
        wall = [a.wall for a, _ in found], [b.wall for _, b in found]
        held.append(compared("wall time: ours, sentence-transformers", *wall, PEER_BAR, images))
        ratio = statistics.median(a.cpu for a, _ in found) / statistics.median(b.cpu for _, b in found)
        print(f"  its processor time, no bar: ratio {ratio:.3f}")
    return all(held)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--precision", help="default: the fastest that this processor has")
    parser.add_argument("--sentence-transformers", metavar="PYTHON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "jpeg")
        folder.mkdir()
        files = taken(args.photos, folder, args.images) if args.photos else draw(folder, args.images)
        size = sum(f.stat().st_size for f in files) / len(files)
        work = Work(files, args.precision)
        print(
            f"{len(files)} JPEG files of {size / 1e3:.0f} kB, {SPEC}, {work.precision}, batches of {BATCH}, "
            f"one torch thread"
        )
        peer = None
        if args.sentence_transformers:
            peer = Peer(args.sentence_transformers, folder, work.precision)
        try:
            held = measured(work, args.pairs, peer)
        finally:
            if peer:
                peer.close()
    if not held:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
