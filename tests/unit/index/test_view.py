"""Trouble with a saved view costs time at the next search, and never the index."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from index_world import build, nearest, paint, tally

from mmrerank.errors import MissingExtraError
from mmrerank.index.index import ImageIndex
from mmrerank.index.stores import faiss as faiss_store
from mmrerank.ports import Corpus, Sample
from mmrerank.types import Image


def test_what_an_older_version_left_is_removed(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    build(tmp_path / "x", source, store="faiss")
    assert not (tmp_path / "x/faiss").exists()  # the vectors have no second copy
    (tmp_path / "x/faiss").mkdir()
    (tmp_path / "x/faiss/flat.index").write_bytes(b"a copy of every vector")
    assert nearest(ImageIndex.open(tmp_path / "x"), source / "03.png")[0] == "03.png"
    paint(source, ["late.png"], start=70)
    build(tmp_path / "x", source)
    assert not (tmp_path / "x/faiss").exists()


def test_no_file_of_faiss_is_read(tmp_path: Path) -> None:
    """FAISS opens any of its kinds; some of them name further files to map, and others order otherwise."""
    faiss = pytest.importorskip("faiss")
    store = faiss_store.open()
    vectors = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32)
    store.build(vectors)
    store.save(tmp_path / "faiss")
    assert not (tmp_path / "faiss").exists()
    (tmp_path / "faiss").mkdir()
    other = faiss.IndexFlatIP(8)
    other.add(vectors)
    faiss.write_index(other, str(tmp_path / "faiss/flat.index"))
    assert not store.load(tmp_path / "faiss", vectors)
    assert not store.load(tmp_path / "none", vectors)


def test_an_index_is_finished_without_its_view(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("faiss")

    def full(self: object, folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(faiss_store.FaissStore, "save", full)
        with pytest.warns(UserWarning, match="faiss cannot be written .*No space left"):
            assert tally(build(tmp_path / "x", source, store="faiss")) == (10, 0, 0, 0, 0)
    index = ImageIndex.open(tmp_path / "x")
    assert nearest(index, source / "03.png")[0] == "03.png"
    assert index.verify() == []


def test_an_update_and_an_import_need_no_faiss(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("faiss")

    class Given(Corpus):
        location = str(source)
        vectors = np.eye(2, dtype=np.float32)

        def samples(self) -> list[Sample]:
            return [Sample(id=n, image=Image(path=source / n)) for n in ("00.png", "01.png")]

    build(tmp_path / "x", source, store="faiss")
    ImageIndex.import_vectors(tmp_path / "y", Given(), embedder_spec="clip-b32", store="faiss")
    monkeypatch.setitem(sys.modules, "faiss", None)
    paint(source, ["late.png"], start=70)
    assert tally(build(tmp_path / "x", source)) == (1, 0, 0, 10, 0)
    assert nearest(ImageIndex.open(tmp_path / "x"), source / "late.png")[0] == "late.png"
    report = ImageIndex.import_vectors(tmp_path / "y", Given(), embedder_spec="clip-b32")
    assert tally(report) == (0, 0, 0, 2, 0)
    with pytest.raises(MissingExtraError, match="needs FAISS"):
        ImageIndex.import_vectors(tmp_path / "z", Given(), embedder_spec="clip-b32", store="faiss")
    assert not (tmp_path / "z").exists()
