"""A saved view follows its index, and is made anew only by a run that writes. Half precision on the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from index_world import build, nearest, paint, tally

from mmrerank.errors import ImageIndexError, MismatchError
from mmrerank.index.index import ImageIndex
from mmrerank.index.stores import _approximate
from mmrerank.index.stores.faiss_hnsw import FaissHnswStore
from mmrerank.ports import Corpus, Sample


@pytest.fixture
def graph(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index of ten images with a graph, which cannot be made a second time."""
    pytest.importorskip("faiss")
    monkeypatch.setattr(_approximate, "LEAST", 5)
    monkeypatch.setattr(_approximate, "COMPARED", 0)
    report = build(tmp_path / "x", source, store="faiss_hnsw")
    assert report.store == "faiss_hnsw"
    assert "recall@10" in report.store_reason
    monkeypatch.setattr(FaissHnswStore, "_make", None)
    return tmp_path / "x"


def test_a_graph_takes_what_is_new_and_lets_go_what_is_gone(graph: Path, source: Path) -> None:
    paint(source, ["late.png"], start=70)
    assert tally(build(graph, source)) == (1, 0, 0, 10, 0)
    with ImageIndex.open(graph) as index:
        assert index.verify() == []
        assert nearest(index, source / "late.png", 1) == ["late.png"]
        assert index.info()["store_facts"]["rows_when_made"] == 10
    query = source / "03.png"
    assert nearest(ImageIndex.open(graph), query, 1) == ["03.png"]
    query.rename(source.parent / "03.png")
    assert tally(build(graph, source)) == (0, 0, 1, 10, 0)
    with ImageIndex.open(graph) as index:
        assert index.verify() == []
        assert nearest(index, source.parent / "03.png", 1) != ["03.png"]
        assert nearest(index, source / "late.png", 1) == ["late.png"]


def test_while_an_update_is_unfinished_a_reader_follows_it_in_memory(
    graph: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint(source, ["late.png"], start=70)

    def killed(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mmrerank.index.build.publish", killed)
        with pytest.raises(KeyboardInterrupt):
            build(graph, source)
    assert nearest(ImageIndex.open(graph), source / "late.png", 1) == ["late.png"]
    assert tally(build(graph, source)) == (0, 0, 0, 11, 0)
    assert ImageIndex.open(graph).verify() == []


@pytest.mark.parametrize("file", ["stamp", "rows.npy", "levels.npy", "settings.json"])
def test_a_reader_without_a_sound_view_compares_every_vector_and_says_so(
    graph: Path, source: Path, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (graph / "faiss_hnsw" / file).write_bytes(b"something else")
    with pytest.warns(UserWarning, match="faiss_hnsw holds no view of these vectors, so that exact compares"):
        assert nearest(ImageIndex.open(graph), source / "03.png", 1) == ["03.png"]
    monkeypatch.undo()
    monkeypatch.setattr(_approximate, "LEAST", 5)
    if file != "stamp":
        assert any("faiss_hnsw is not as it was saved" in p for p in ImageIndex.open(graph).verify())
    build(graph, source)
    assert ImageIndex.open(graph).verify() == []
    assert nearest(ImageIndex.open(graph), source / "03.png", 1) == ["03.png"]


def test_half_precision_keeps_half_the_bytes_and_the_order(source: Path, tmp_path: Path) -> None:
    build(tmp_path / "x", source)
    build(tmp_path / "half", source, half=True)
    sizes = [(tmp_path / n / "vectors/00000.npy").stat().st_size - 128 for n in ("x", "half")]
    assert sizes == [10 * 12 * 4, 10 * 12 * 2]
    whole, half = ImageIndex.open(tmp_path / "x"), ImageIndex.open(tmp_path / "half")
    assert half.info()["dtype"] == "float16"
    assert half.verify() == []
    for name in ("00.png", "03.png"):
        assert nearest(half, source / name, 3) == nearest(whole, source / name, 3)
    both = [index.vectors(["02.png"]) for index in (whole, half)]
    assert both[1].dtype == np.float32
    assert both[0] == pytest.approx(both[1], abs=1e-3)

    paint(source, ["late.png"], start=70)
    assert tally(build(tmp_path / "half", source)) == (1, 0, 0, 10, 0)  # it stays as it is
    assert ImageIndex.open(tmp_path / "half").info()["dtype"] == "float16"
    with pytest.raises(MismatchError, match="in float32, and keeps them so; index with --half --rebuild"):
        build(tmp_path / "x", source, half=True)
    build(tmp_path / "x", source, half=True, rebuild=True)
    assert ImageIndex.open(tmp_path / "x").info()["dtype"] == "float16"

    rows = np.lib.format.open_memmap(tmp_path / "half/vectors/00000.npy", mode="r+")
    rows[3, 1] += 1
    rows.flush()
    with pytest.raises(ImageIndexError, match=r"vector 3 .*--rebuild"):
        nearest(ImageIndex.open(tmp_path / "half"), source / "03.png", 11)


@pytest.mark.parametrize("store", ["exact", "faiss"])
def test_half_precision_is_imported_and_searched_by_every_exact_store(store: str, tmp_path: Path) -> None:
    pytest.importorskip("faiss")

    class Given(Corpus):
        location = str(tmp_path)
        vectors = np.random.default_rng(0).normal(size=(300, 8))

        def samples(self) -> list[Sample]:
            return [Sample(id=f"{n:03d}") for n in range(300)]

    ImageIndex.import_vectors(tmp_path / "x", Given(), embedder_spec="any", store=store, half=True)
    with ImageIndex.open(tmp_path / "x") as index:
        unit = (Given.vectors / np.linalg.norm(Given.vectors, axis=1, keepdims=True)).astype(np.float16)
        found = index.search(Given.vectors[:3], 5)
        scores = unit.astype(np.float64) @ Given.vectors[:3].T
        for i in range(3):
            assert [s.id for s in found[i]] == [f"{n:03d}" for n in np.argsort(-scores[:, i])[:5]]
        assert index.verify() == []
    report = ImageIndex.import_vectors(tmp_path / "x", Given(), embedder_spec="any")
    assert (report.unchanged, report.changed) == (300, 0)
    assert ImageIndex.open(tmp_path / "x").info()["dtype"] == "float16"
