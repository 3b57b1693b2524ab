"""How indexing grows: memory an image, a run over a collection that has not changed, and twelve more.

    python bench/index_scale.py [--images 100000] [--add-to 60000]

PNG files of 32 x 32 pixels, made here, a thousand in a folder; an embedder of 32 dimensions that counts what
it embeds and computes next to nothing. Each line is a process of its own, which indexes a few images first,
so that libraries are loaded.

- Memory: resident pages (``VmRSS``) when the index is made, less those when 2% of the images are done, over
  the images between. At most 300 bytes.
- Unchanged: the same command again. At least 10,000 files for a second of the processor.
- Twelve more: after twelve files were added, exactly twelve are embedded. The time on the clock is reported.

Takes some four minutes. Ends with 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from mmrerank.ports import Embedder, Vectors

BYTES_BAR, FILES_BAR, ADDED = 300, 10_000, 12
_SIDE, _FEW = 32, 40


class Counting(Embedder):
    """The first pixels of a picture as its vector; counts the pictures."""

    spec, fingerprint, dim, domain = "bench:counting", "bench-counting-1", 32, ""

    def __init__(self) -> None:
        self.embedded = 0

    def embed_images(self, images: Any) -> Vectors:
        """Unit vectors ``(n, 32)``."""
        self.embedded += len(images)
        rows = [np.asarray(i, dtype=np.float32).ravel()[: self.dim] + 1 for i in images]
        vectors = np.stack(rows)
        found: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return found

    def embed_queries(self, queries: Any) -> Vectors:
        """Never asked."""
        raise NotImplementedError


def draw(folder: Path, start: int, stop: int) -> None:
    """PNG files of noise, grey, a thousand in a folder; each number has its own pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    noise = np.random.default_rng(start)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 0, 0, 0, 0))
    for number in range(start, stop):
        if number == start or number % 1000 == 0:
            (folder / f"{number // 1000:05d}").mkdir(parents=True, exist_ok=True)
        rows = noise.integers(0, 256, (_SIDE, _SIDE + 1), dtype=np.uint8)
        rows[:, 0] = 0
        pixels = chunk(b"IDAT", zlib.compress(rows.tobytes(), 1))
        file = folder / f"{number // 1000:05d}" / f"{number:08d}.png"
        file.write_bytes(b"\x89PNG\r\n\x1a\n" + head + pixels + chunk(b"IEND", b""))


def resident() -> int:
    """Bytes of this process in memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


def run(source: str, index: str, images: int) -> dict[str, float]:
    """Indexes ``source`` in this process, and says what it took."""
    from mmrerank.corpus import folder as folder_corpus
    from mmrerank.index.index import ImageIndex

    def build(source: str, index: str, progress: Any = None) -> tuple[int, int]:
        embedder = Counting()
        report = ImageIndex.build(index, folder_corpus.open(source), embedder, progress=progress)
        return embedder.embedded, report.unchanged

    # what a run holds whatever its size, such as pages of the database, is there at 2% of many images only
    with tempfile.TemporaryDirectory() as few:
        draw(Path(few, "p"), 10**7, 10**7 + _FEW)
        for _ in range(2):
            build(f"{few}/p", f"{few}/x")
    early = images // 50
    marks: list[int] = []

    def watch(done: int, total: int | None) -> None:
        if done == early:
            marks.append(resident())

    clock, cpu = time.perf_counter(), time.process_time()
    embedded, unchanged = build(source, index, watch)
    cpu, clock = time.process_time() - cpu, time.perf_counter() - clock
    grown = (resident() - marks[0]) / (images - early)
    return {"embedded": embedded, "unchanged": unchanged, "cpu": cpu, "wall": clock, "bytes": grown}


def apart(source: Path, index: Path, images: int) -> dict[str, float]:
    """`run` in a process of its own."""
    command = [sys.executable, __file__, "--run", str(source), str(index), str(images)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measured(images: int, add_to: int, bytes_bar: int = BYTES_BAR) -> list[str]:
    """Prints the lines, and gives those whose bar is missed."""
    missed = []
    with tempfile.TemporaryDirectory() as temporary:
        source, index = Path(temporary, "p"), Path(temporary, "x")
        draw(source, 0, images)
        new = apart(source, index, images)
        print(
            f"{images:,} images made: {new['bytes']:.0f} bytes an image (bar {bytes_bar}), "
            f"{new['wall']:.0f} s, {new['cpu'] / images * 1e6:.0f} us of the processor an image"
        )
        if new["bytes"] >= bytes_bar or new["embedded"] != images:
            missed.append("memory")
        same = apart(source, index, images)
        speed = images / same["cpu"]
        print(
            f"{images:,} images unchanged: {speed:,.0f} files for a second of the processor "
            f"(bar {FILES_BAR:,}), {same['wall']:.1f} s"
        )
        if speed < FILES_BAR or same["embedded"] or same["unchanged"] != images:
            missed.append("unchanged")
    with tempfile.TemporaryDirectory() as temporary:
        source, index = Path(temporary, "p"), Path(temporary, "x")
        draw(source, 0, add_to)
        apart(source, index, add_to)
        draw(source, add_to, add_to + ADDED)
        more = apart(source, index, add_to + ADDED)
        print(
            f"{ADDED} added to {add_to:,}: {more['embedded']:.0f} embedded (bar {ADDED}), "
            f"{more['wall']:.1f} s, {more['cpu']:.1f} s of the processor"
        )
        if more["embedded"] != ADDED or more["unchanged"] != add_to:
            missed.append("twelve more")
    return missed


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--add-to", type=int, default=60_000)
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        print(json.dumps(run(args.run[0], args.run[1], int(args.run[2]))))
    elif missed := measured(args.images, args.add_to):
        raise SystemExit(f"missed: {', '.join(missed)}")


if __name__ == "__main__":
    main()
