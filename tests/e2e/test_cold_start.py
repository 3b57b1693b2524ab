"""What a search for words costs on a machine with nothing in memory, on the real program and photographs."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
SPEC = "open_clip:ViT-B-32:random"


def cpu_seconds(*arguments: str, times: int = 5) -> float:
    """The median of user and system time of a Python process."""
    taken = []
    for _ in range(times):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True, timeout=300)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(taken)


def test_a_search_for_words_takes_less_than_importing_torch(tmp_path: Path) -> None:
    given = os.environ.get("MMRERANK_PHOTOS")
    photos = Path(given, "images") if given else Path(__file__).parents[2] / "../shared/photos/images"
    if not photos.is_dir():
        pytest.skip(f"no photographs at {photos}; set MMRERANK_PHOTOS")
    few = tmp_path / "photos"
    few.mkdir()
    for photo in sorted(photos.iterdir())[:20]:  # what a search costs does not depend on the others
        (few / photo.name).symlink_to(photo.resolve())
    here = ("--index", str(tmp_path / "index"), "--embedder", SPEC)
    made = [sys.executable, "-m", "mmrerank", "index", str(few), "--store", "exact", *here]
    subprocess.run(made, check=True, capture_output=True, timeout=900)
    search = cpu_seconds("-m", "mmrerank", "search", "a dog on a beach", *here)
    torch = cpu_seconds("-c", "import torch")
    assert search < torch, f"{search:.2f} s of CPU, and importing torch {torch:.2f} s"
