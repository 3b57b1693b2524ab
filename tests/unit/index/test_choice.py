"""Which store is taken where none is named, and that it is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from index_world import build, nearest, paint

from mmrerank.errors import ImageIndexError, UsageError
from mmrerank.index import choice
from mmrerank.index.choice import Machine, choose
from mmrerank.index.index import ImageIndex

GB = 1 << 30
PLAIN = Machine(memory=16 * GB, faiss=True)
GPU = Machine(memory=16 * GB, faiss=True, gpu_memory=24 * GB)


@pytest.mark.parametrize(
    ("rows", "dim", "machine", "name"),
    [
        (290, 512, PLAIN, "exact"),
        (290, 512, GPU, "exact"),  # a GPU takes longer to wake up
        (1_000_000, 512, PLAIN, "faiss"),
        (1_000_000, 512, GPU, "faiss_gpu"),
        (1_000_000, 512, Machine(memory=16 * GB, faiss=False), "exact"),
        (1_000_000, 512, Machine(memory=3 * GB, faiss=True), "faiss_ivfpq"),
        (5_000_000, 512, PLAIN, "faiss_ivfpq"),
        (5_000_000, 512, GPU, "faiss_gpu"),
        (50_000_000, 512, GPU, "faiss_ivfpq"),
        (0, 512, PLAIN, "exact"),
    ],
)
def test_the_rule(rows: int, dim: int, machine: Machine, name: str) -> None:
    chosen = choose(rows, dim, machine=machine)
    assert chosen.name == name
    assert f"{rows:,} vectors of {dim} numbers" in chosen.why


def test_half_precision_takes_half_the_memory() -> None:
    small = Machine(memory=3 * GB, faiss=True)
    assert choose(1_000_000, 512, itemsize=2, machine=small).name == "faiss"


def test_a_small_index_asks_neither_faiss_nor_the_machine(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "this_machine", None)
    report = build(tmp_path / "x", source)
    assert (report.store, "faster than FAISS" in report.store_reason) == ("exact", True)
    info = ImageIndex.open(tmp_path / "x").info()
    assert (info["store"], info["store_reason"]) == ("exact", report.store_reason)


def test_what_an_index_searches_with_follows_its_growth(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("faiss")
    assert build(tmp_path / "x", source).store == "exact"
    monkeypatch.setattr(choice, "SMALL", 10 * 12)
    paint(source, ["late.png"], start=70)
    report = build(tmp_path / "x", source)
    assert report.store == "faiss"
    monkeypatch.setattr(choice, "LARGE", 10 * 12)
    report = build(tmp_path / "x", source)
    assert report.store == "faiss_ivfpq"
    assert "approximate" in report.store_reason
    info = ImageIndex.open(tmp_path / "x").info()
    assert "fewer than 10,000" in info["store_facts"]["compares"]
    assert nearest(ImageIndex.open(tmp_path / "x"), source / "late.png")[0] == "late.png"
    assert build(tmp_path / "x", source, store="exact").store == "exact"
    assert build(tmp_path / "x", source).store == "exact"  # a name stays


def test_the_name_of_none_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="faiss_ivfpq"):
        build(tmp_path / "x", source, store="fast")
    assert not (tmp_path / "x").exists()
    build(tmp_path / "x", source)
    with pytest.raises(ImageIndexError, match="another store"):
        nearest(ImageIndex.open(tmp_path / "x", store="fast"), source / "00.png")
