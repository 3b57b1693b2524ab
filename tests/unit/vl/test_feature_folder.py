"""Features on disk: bounded, shared, and never in the way of a ranking."""

from __future__ import annotations

import os
import resource
import warnings
from pathlib import Path

import pytest
import torch

from mmrerank.vl.feature_folder import FeatureFolder


def tensors(n: int) -> dict[str, torch.Tensor]:
    return {"grid": torch.tensor([1, 2, n]), "pooled": torch.full((100, 10), float(n))}


def size(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.iterdir())


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    FeatureFolder(tmp_path / "one").put("k", tensors(0))
    one = size(tmp_path / "one")
    folder = FeatureFolder(tmp_path / "f", limit=6 * one)
    for n in range(6):
        folder.put(f"k{n}", tensors(n))
    assert folder.get("k0") is not None  # used again, so it stays
    folder.put("k6", tensors(6))
    assert size(tmp_path / "f") <= 6 * one
    left = [n for n in range(7) if folder.get(f"k{n}") is not None]
    assert 0 in left
    assert 6 in left
    assert 1 not in left
    # another process counts what is there already
    other = FeatureFolder(tmp_path / "f", limit=2 * one)
    other.put("k7", tensors(7))
    assert size(tmp_path / "f") <= 2 * one
    assert other.get("k7") is not None


def test_files_of_other_people_are_left_alone(tmp_path: Path) -> None:
    FeatureFolder(tmp_path / "one").put("k", tensors(0))
    one = size(tmp_path / "one")
    home = tmp_path / "photos"
    (home / "summer").mkdir(parents=True)
    theirs = [home / name for name in ("a.jpg", "notes.safetensors", "summer/b.jpg")]
    for file in theirs:
        file.write_bytes(b"x" * 10 * one)
        os.utime(file, (1, 1))  # older than anything
    folder = FeatureFolder(home, limit=2 * one)
    for n in range(4):
        folder.put(f"k{n}", tensors(n))
    assert all(file.stat().st_size == 10 * one for file in theirs)
    assert folder.get("k3") is not None  # and theirs do not count
    ours = [f for f in home.iterdir() if f.is_file() and f not in theirs]
    assert 1 <= len(ours) <= 2


def test_what_is_larger_than_the_folder_is_not_kept(tmp_path: Path) -> None:
    folder = FeatureFolder(tmp_path, limit=100)
    folder.put("k", tensors(1))
    assert folder.get("k") is None
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_ends_the_writing_with_one_warning(tmp_path: Path) -> None:
    folder = FeatureFolder(tmp_path)
    folder.put("before", tensors(1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.warns(UserWarning, match="no more features are kept"):
            folder.put("k", tensors(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        folder.put("later", tensors(3))
    assert folder.get("later") is None
    assert folder.get("before") is not None
    assert len(list(tmp_path.iterdir())) == 1  # no half of a file is left


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    folder = FeatureFolder(tmp_path / "file")
    with pytest.warns(UserWarning, match="no more features are kept"):
        folder.put("k", tensors(1))
    assert folder.get("k") is None
