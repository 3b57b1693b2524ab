"""Milvus as a store: the same answers as the others, and nothing of the server in the index."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmrerank import registry
from mmrerank.errors import ImageIndexError, MissingExtraError, UsageError
from mmrerank.index.index import ImageIndex
from mmrerank.index.stores import _milvus_connection, _milvus_server, milvus
from mmrerank.index.stores._milvus_connection import Lite, Server
from mmrerank.index.stores._milvus_server import Collection
from tests.support.index_world import build, nearest, paint


def unit_vectors(count: int, dim: int, seed: int = 0) -> Any:
    found = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


class OfflineClient:
    """Answers as a server does that makes another index than it was asked for."""

    def __init__(self, described: dict[str, str]) -> None:
        self.described = described
        self.dropped: list[str] = []

    def describe_index(self, name: str, field: str) -> dict[str, str]:
        return self.described

    def drop_collection(self, name: str) -> None:
        self.dropped.append(name)


def test_another_kind_of_index_than_asked_for_is_an_error() -> None:
    collection = Collection.__new__(Collection)
    collection.name = "mmrerank_1"
    collection.client = OfflineClient({"index_type": "AUTOINDEX", "metric_type": "IP"})
    with pytest.raises(ImageIndexError, match="kind HNSW .IP., and made AUTOINDEX"):
        collection._assert_kind("HNSW")
    assert collection.client.dropped == ["mmrerank_1"]
    collection.client = OfflineClient({"index_type": "HNSW", "metric_type": "IP"})
    collection._assert_kind("HNSW")


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="DISKANN.*FLAT, HNSW"):
        milvus.open(kind="DISKANN")


def test_without_pymilvus_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"mmrerank\[milvus\]"):
        milvus.open()


def test_the_arguments_come_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMRERANK_MILVUS", "http://there:19530")
    monkeypatch.setenv("MMRERANK_MILVUS_TOKEN", "root:secret")
    monkeypatch.setenv("MMRERANK_MILVUS_INDEX", "hnsw")
    store = milvus.open()
    assert (store._server, store._kind) == (Server(uri="http://there:19530", token="root:secret"), "HNSW")
    assert milvus.open(uri="http://here:1", kind="FLAT")._server == Server(
        uri="http://here:1", token="root:secret"
    )


def test_names_of_collections_tell_vectors_and_kinds_apart() -> None:
    vectors = unit_vectors(20, 4)
    other = vectors.copy()
    other[19, 3] += 1e-3
    names = {_milvus_server.content_name(v, k) for v in (vectors, other) for k in ("FLAT", "HNSW")}
    assert len(names) == 4
    assert _milvus_server.content_name(vectors.copy(), "FLAT") in names


@pytest.mark.parametrize(
    "change",
    [{"rows": "3"}, {"file": "../x.db"}, {"collection": "other"}, {"more": 1}, {"longest": None}],
    ids=lambda change: next(iter(change)),
)
def test_a_note_from_elsewhere_is_not_followed(tmp_path: Path, change: dict[str, Any]) -> None:
    sound = {"collection": "mmrerank_1", "file": "a.db", "kind": "FLAT", "rows": 3, "dim": 2, "longest": 1.0}
    (tmp_path / milvus.FILE).write_text(json.dumps(sound))
    assert milvus._read(tmp_path) is not None
    (tmp_path / milvus.FILE).write_text(json.dumps({**sound, **change}))
    assert milvus._read(tmp_path) is None


@pytest.mark.slow
def test_milvus_faiss_and_exact_agree_with_and_without_filters() -> None:
    count, dim = 20_000, 64
    rng = np.random.default_rng(5)
    centres = unit_vectors(200, dim, seed=1)
    vectors = centres[rng.integers(0, 200, count)] + rng.normal(scale=0.05, size=(count, dim))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    vectors[5000:5040] = vectors[17]  # ties
    queries = np.concatenate([unit_vectors(6, dim, seed=2), vectors[17:18], vectors[100:103]])
    subsets = [
        None,
        *(np.sort(rng.choice(count, n, replace=False)) for n in (1, 7, 200, 2_000, 10_000)),
        np.arange(4990, 5050),
        np.zeros(0, dtype=np.int64),
    ]
    stores = {name: registry.load("store", name).open() for name in ("exact", "faiss", "milvus")}
    for store in stores.values():
        store.build(vectors)
    for among in subsets:
        scores, rows = stores["exact"].search(queries, 10, among)
        for name in ("faiss", "milvus"):
            its_scores, its_rows = stores[name].search(queries, 10, among)
            assert its_rows.tolist() == rows.tolist(), (name, None if among is None else len(among))
            assert its_scores.tolist() == scores.tolist()


@pytest.mark.slow
def test_of_a_large_subset_too_many_are_asked_for_and_sorted_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(milvus, "_PIECE", 16)
    vectors = unit_vectors(600, 8)
    queries = unit_vectors(3, 8, seed=9)
    exact, store = registry.load("store", "exact").open(), milvus.open()
    exact.build(vectors)
    store.build(vectors)
    among = np.arange(0, 600, 2)
    assert store.search(queries, 5, among)[1].tolist() == exact.search(queries, 5, among)[1].tolist()
    monkeypatch.setattr(milvus, "MOST", 40)  # less than what a subset of a half needs
    assert store.search(queries, 5, among)[1].tolist() == exact.search(queries, 5, among)[1].tolist()


@pytest.mark.slow
def test_what_milvus_lite_cannot_make_is_an_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    store = milvus.open(kind="IVF_RABITQ")
    store.build(unit_vectors(50, 8))
    with pytest.raises(ImageIndexError, match=r"Milvus Lite cannot be filled: .*IVF_RABITQ"):
        store.save(tmp_path / "milvus")
    assert "Traceback" not in capfd.readouterr().err
    assert not (tmp_path / "milvus" / milvus.FILE).exists()


@pytest.mark.slow
def test_an_upload_that_was_cut_off_is_done_again(tmp_path: Path) -> None:
    vectors = unit_vectors(300, 8)
    place = Lite(path=tmp_path / "a.db")
    name = _milvus_server.content_name(vectors, "FLAT")

    def stop(done: int, there: int) -> None:
        raise KeyboardInterrupt

    with closing(Collection(place, name)) as collection:
        with pytest.raises(KeyboardInterrupt):
            collection.fill(vectors, "FLAT", stop)
        assert collection.rows() == 0  # without its index it counts for nothing
        told: list[tuple[int, int]] = []
        collection.fill(vectors, "FLAT", lambda done, there: told.append((done, there)))
        assert (collection.rows(), told) == (300, [(300, 300)])


@pytest.mark.slow
def test_one_process_at_a_time_reads_milvus_lite_and_the_next_compares_itself(tmp_path: Path) -> None:
    vectors = unit_vectors(40, 8)
    store = milvus.open()
    store.build(vectors)
    store.save(tmp_path / "milvus")
    script = (
        "import sys, numpy as np; from pathlib import Path; from mmrerank.index.stores import milvus\n"
        "v = np.load(sys.argv[2]); s = milvus.open(); print(s.load(Path(sys.argv[1]), v))\n"
        "print(s.search(v[:2], 3)[1].tolist())"
    )
    np.save(tmp_path / "v.npy", vectors)
    command = [sys.executable, "-c", script, str(tmp_path / "milvus"), str(tmp_path / "v.npy")]
    expected = f"True\n{store.search(vectors[:2], 3)[1].tolist()}\n"
    second = subprocess.run(command, capture_output=True, text=True)
    assert second.stdout == expected, second.stderr
    assert "is open in another process, and Milvus Lite lets in one at a time" in second.stderr
    assert "DataDirLockedError" not in second.stderr
    store.build(vectors)  # lets go
    alone = subprocess.run(command, capture_output=True, text=True)
    assert (alone.stdout, alone.stderr) == (expected, "")


@pytest.mark.slow
def test_threads_and_files_end_with_the_store() -> None:
    store = milvus.open()
    store.build(unit_vectors(40, 8))
    store.search(unit_vectors(1, 8), 3)
    assert store._collection is not None
    _, place = _milvus_connection._alive[id(store._collection.client)]
    assert isinstance(place, Lite)
    assert place.path.exists()
    mine = {t for t in threading.enumerate() if t.name.startswith("milvus_lite-mmrerank")}
    del store
    gc.collect()  # a cycle of pymilvus may hold it
    assert _soon(lambda: not place.path.parent.exists())
    assert _soon(lambda: not mine & set(threading.enumerate()) or not any(t.is_alive() for t in mine))


def _soon(check: Callable[[], bool]) -> bool:
    for _ in range(300):
        if check():
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
def test_a_server_that_is_not_there_is_not_named_with_its_token() -> None:
    store = milvus.open(uri="http://127.0.0.1:9", token="root:secret")
    store.build(unit_vectors(3, 2))
    with pytest.raises(ImageIndexError) as caught:
        store.search(unit_vectors(1, 2), 1)
    said = str(caught.value)
    assert "secret" not in said
    assert "127.0.0.1:9" not in said
    assert caught.value.__cause__ is None


@pytest.mark.slow
def test_an_index_searches_its_collection_and_an_update_makes_another(tmp_path: Path) -> None:
    paint(tmp_path / "in", [f"{n}.png" for n in range(9)])
    build(tmp_path / "a", tmp_path / "in", store="milvus")
    first = {p.name for p in (tmp_path / "a" / "milvus").iterdir()}
    with ImageIndex.open(tmp_path / "a") as index, ImageIndex.open(tmp_path / "a", store="exact") as exact:
        picture = tmp_path / "in" / "3.png"
        assert nearest(index, picture) == nearest(exact, picture)
        assert index._view.store._collection is not None  # as it was saved, and not made anew
        assert index.verify(deep=True) == []
    paint(tmp_path / "in", ["new.png"], start=99)
    build(tmp_path / "a", tmp_path / "in", store="milvus")
    with ImageIndex.open(tmp_path / "a") as index:
        assert nearest(index, tmp_path / "in" / "new.png")[0] == "new.png"
    assert len({p.name for p in (tmp_path / "a" / "milvus").iterdir()} - first) == 1
