"""What an import and a search hold in memory beside the vectors' own mapped pages, an image.

    python bench/memory.py [--images 100000] [--dim 512]

Each line is a process of its own. It does its work on twenty images first, so that libraries are loaded, and
then on all. The peak is of its anonymous memory (``RssAnon``) above what it had in between: pages of mapped
files are not in it, copies of vectors are. Ends with 1 where a limit is broken. At five million images the
peak would be that many times the bytes an image; what does not grow is counted in, so that it is less.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

LIMITS = {"import": 300, "import again": 300, "search": 200}
"""Bytes an image, by the first words of a line."""
MANY = 5_000_000

PROBE = """
import sys
import numpy as np
from mmrerank.index.index import ImageIndex
from mmrerank.cli.main import cli
what, *folders = sys.argv[1:]

def work(folder):
    index = folder + "/index"
    if what == "import":
        command = ["index", folder + "/pictures", "--index", index, "--vectors", folder + "/v.npy",
                   "--ids", folder + "/ids.jsonl", "--embedder", "clip-b32"]
        cli(command, standalone_mode=False)
        return
    store, queries = what.split()
    dim = np.load(folder + "/v.npy", mmap_mode="r").shape[1]
    with ImageIndex.open(index, store=store) as opened:
        vectors = np.random.default_rng(1).normal(size=(int(queries), dim))
        opened.candidates(vectors[0], 50)
        if len(vectors) > 1:
            opened.search(vectors, 10)

for folder in folders:
    print("ready", flush=True)
    sys.stdin.readline()
    work(folder)
print("done", flush=True)
sys.stdin.readline()
"""


def write(folder: Path, images: int, dim: int) -> Path:
    """Vectors and names of images that are not there."""
    (folder / "pictures").mkdir(parents=True)
    draw = np.random.default_rng(0)
    vectors = np.lib.format.open_memmap(folder / "v.npy", "w+", np.float32, (images, dim))
    for start in range(0, images, 4096):
        vectors[start : start + 4096] = draw.standard_normal(vectors[start : start + 4096].shape)
    with (folder / "ids.jsonl").open("w") as file:
        file.writelines(
            json.dumps({"image": f"train/{n // 1000:05d}/{n:09d}.jpg"}) + "\n" for n in range(images)
        )
    return folder


def anonymous(process: int) -> int:
    """Bytes of its memory that no file backs."""
    with Path(f"/proc/{process}/status").open() as status:
        return next((int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon")), 0)


def peak(what: str, small: Path, large: Path) -> int:
    """The most bytes that ``what`` takes with ``large`` above what it took with ``small`` in the end."""
    child = subprocess.Popen(
        [sys.executable, "-c", PROBE, what, str(small), str(large)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert child.stdin
    assert child.stdout
    most, over = [0], threading.Event()

    def watch() -> None:
        while not over.is_set():
            most[0] = max(most[0], anonymous(child.pid))
            time.sleep(0.001)

    def told(word: str) -> None:
        assert child.stdout
        for line in child.stdout:
            if line.strip() == word:
                return
        raise SystemExit(f"{what} came to no end")

    def go_on() -> None:
        assert child.stdin
        child.stdin.write("\n")
        child.stdin.flush()

    told("ready")
    go_on()
    told("ready")
    before = anonymous(child.pid)
    most[0] = before
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        go_on()
        told("done")
    finally:
        over.set()
        watcher.join()
    child.communicate("\n")
    return most[0] - before


def measured(images: int, dim: int, report: Callable[[str], object] = print) -> list[str]:
    """Prints a table and gives the lines whose limit is broken."""
    broken = []
    report(
        f"{'what':28} {'images':>9} {'peak MB':>8} {'bytes an image':>14} {'limit':>6} {'5 million: MB':>14}"
    )
    with tempfile.TemporaryDirectory() as temporary:
        small, large = write(Path(temporary, "small"), 20, dim), write(Path(temporary, "large"), images, dim)
        for name, what in (
            ("import", "import"),
            ("import again, unchanged", "import"),
            ("search, exact", "exact 1"),
            ("search, exact, 300 queries", "exact 300"),
            ("search, faiss", "faiss 1"),
            ("search, faiss, 50 queries", "faiss 50"),
        ):
            most = peak(what, small, large)
            limit = LIMITS[name.split(",")[0]]
            each = most / images
            report(
                f"{name:28} {images:9,} {most / 1e6:8.1f} {each:14.0f} {limit:6} {each * MANY / 1e6:14,.0f}"
            )
            if each > limit:
                broken.append(name)
    return broken


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=512)
    args = parser.parse_args()
    if broken := measured(args.images, args.dim):
        raise SystemExit(f"above the limit: {', '.join(broken)}")


if __name__ == "__main__":
    main()
