"""Images, an index of imported vectors and one built by a tiny model, for the command line tests."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command import NAMES, SPEC, data, tiny_clip, write_lines
from PIL import Image as Pillow


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five small images, their vectors and ids."""
    folder = tmp_path_factory.mktemp("source")
    (folder / "images/sub").mkdir(parents=True)
    for number, name in enumerate(NAMES):
        Pillow.new("RGB", (32, 32), (40 * number, 99, 10)).save(folder / "images" / name)
    vectors = np.eye(5, 8, dtype=np.float32) + 0.05
    np.save(folder / "v.npy", vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    write_lines(folder / "ids.jsonl", [{"image": n} for n in NAMES])
    return folder


@pytest.fixture(scope="module")
def imported(source: Path) -> Path:
    """An index of imported vectors."""
    target = source / "index"
    told = data(
        "index", source / "images", "--vectors", source / "v.npy", "--ids", source / "ids.jsonl",
        "--embedder", SPEC, "--index", target,
    )  # fmt: skip
    counts = {"index": str(target), "added": 5, "changed": 0, "removed": 0, "unchanged": 0}
    assert told == {**told, **counts, "failed": [], "unseen": [], "warnings": []}
    return target


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of the images by a tiny open_clip folder; one file is broken."""
    folder = tiny_clip(tmp_path_factory.mktemp("clip"))
    images = source / "images"
    (images / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    told = data("index", images, "--embedder", f"open_clip:local-dir:{folder}", "--index", source / "built")
    assert told["added"] == 5
    assert [f["source"] for f in told["failed"]] == ["broken.jpg"]
    return source / "built"


@pytest.fixture
def named(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's word that the model folder of the index is theirs."""
    monkeypatch.setenv("MMRERANK_EMBEDDER", json.loads((built / "manifest.json").read_text())["embedder"])
