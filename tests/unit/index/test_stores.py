"""Stores that propose rows: what they find, what they keep, what they follow, and what they refuse to read."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mmrerank import registry
from mmrerank.errors import MissingExtraError
from mmrerank.index.stores import _approximate, faiss_gpu
from mmrerank.index.stores.exact import ExactStore

APPROXIMATE = ("faiss_hnsw", "faiss_ivfpq", "faiss_rabitq")
COUNT, DIM = 1500, 24


@pytest.fixture(scope="module")
def rows() -> NDArray[np.float32]:
    return clustered(COUNT + 100)


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Structures are built of few rows, too."""
    pytest.importorskip("faiss")
    monkeypatch.setattr(_approximate, "LEAST", 500)
    monkeypatch.setattr(_approximate, "COMPARED", 100)


def clustered(count: int, dim: int = DIM, seed: int = 0) -> NDArray[np.float32]:
    """Unit vectors in overlapping clusters."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(40, dim))
    found = centres[rng.integers(0, 40, count)] + 0.6 * rng.normal(size=(count, dim))
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found.astype(np.float32)


def opened(name: str) -> Any:
    return registry.load("store", name).open()


def recall(store: Any, rows: Any, queries: Any, k: int, among: Any = None) -> float:
    exact = ExactStore()
    exact.build(rows)
    true, found = exact.search(queries, k, among), store.search(queries, k, among)
    for i in range(len(queries)):  # scores are the true ones, in the right order
        assert list(found[1][i]) == sorted(found[1][i], key=lambda r, i=i: (-score(rows, queries[i], r), r))
        assert found[0][i] == pytest.approx([score(rows, queries[i], r) for r in found[1][i]], abs=1e-6)
    assert among is None or np.isin(found[1], among).all()
    return float(np.mean([np.isin(t, f).mean() for t, f in zip(true[1], found[1], strict=True)]))


def score(rows: Any, query: Any, row: int) -> float:
    return float(np.float32((rows[row].astype(np.float64) * query.astype(np.float64)).sum()))


@pytest.mark.parametrize("name", APPROXIMATE)
def test_it_finds_nearly_all_with_true_scores_keeps_them_and_follows_changes(
    name: str, rows: Any, tmp_path: Path
) -> None:
    queries = clustered(20, seed=5)
    store = opened(name)
    assert not store.exact
    store.build(rows[:COUNT])
    assert store.facts()["recall@10"] >= 0.9
    assert recall(store, rows[:COUNT], queries, 10) >= 0.9
    third = np.arange(0, COUNT, 3)
    assert recall(store, rows[:COUNT], queries, 10, third) >= 0.9
    assert recall(store, rows[:COUNT], queries, 5, third[:50]) == 1.0  # few rows are all compared
    assert store.search(queries, COUNT, third)[1].shape == (20, len(third))

    store.save(tmp_path / name)
    again = opened(name)
    assert again.load(tmp_path / name, rows[:COUNT])
    assert again.search(queries, 10)[1].tolist() == store.search(queries, 10)[1].tolist()
    assert again.facts() == store.facts()

    # rows 10 to 19 go, and a hundred come: nothing is built
    kept = np.delete(np.arange(COUNT + 100), np.s_[10:20])
    now = rows[kept]
    moved = np.where(np.isin(np.arange(COUNT), kept), np.searchsorted(kept, np.arange(COUNT)), -1)
    again._make = None  # it would fail
    assert again.update(now, moved)
    assert recall(again, now, queries, 10) >= 0.9
    assert again.search(now[-1:], 1)[1].tolist() == [[len(now) - 1]]
    assert recall(again, now, rows[10:20], 10) >= 0.9  # what went is found no more
    again.save(tmp_path / "after")
    third_one = opened(name)
    assert third_one.load(tmp_path / "after", now)
    assert third_one.search(queries, 10)[1].tolist() == again.search(queries, 10)[1].tolist()
    assert not again.update(rows[:600], np.full(len(now), -1))  # hardly anything stays


@pytest.mark.parametrize("name", APPROXIMATE)
def test_forged_arrays_are_refused_or_harmless(name: str, rows: Any, tmp_path: Path) -> None:
    """An index from elsewhere has right hashes. What is in its arrays may spoil answers, and nothing else."""
    store = opened(name)
    store.build(rows[:700])
    store.save(tmp_path / "good")
    rng = np.random.default_rng(0)
    for path in sorted((tmp_path / "good").iterdir()):
        forged = tmp_path / "forged"
        for number in range(4):
            shutil.rmtree(forged, ignore_errors=True)
            shutil.copytree(tmp_path / "good", forged)
            if path.suffix == ".json":
                bad = (
                    b"{}",
                    b"[" * 70_000,
                    b'{"made_of": 1e99, "settings": []}',
                    b'{"made_of": 5, "settings": 7}',
                )
                (forged / path.name).write_bytes(bad[number])
                assert not opened(name).load(forged, rows[:700])
                continue
            array = np.load(path)
            if number == 0:
                np.save(forged / path.name, array[:-1])
            elif number == 1:
                np.save(forged / path.name, array.astype(np.float64 if array.dtype != np.float64 else "f4"))
            elif number == 2 and array.dtype.kind == "i":
                np.save(forged / path.name, np.full_like(array, np.iinfo(array.dtype).max))
            elif number == 2 and array.dtype.kind == "f":
                np.save(forged / path.name, np.full_like(array, np.nan))
            else:
                shuffled = array.ravel().copy()
                rng.shuffle(shuffled)
                np.save(forged / path.name, shuffled.reshape(array.shape))
            other = opened(name)
            taken = other.load(forged, rows[:700])
            assert not (taken and number < 3 and array.dtype.kind != "u")
            if taken:  # numbers that are possible: wrong rows perhaps, with their own scores
                found = other.search(rows[:5], 7)
                assert found[0][0] == pytest.approx([score(rows, rows[0], r) for r in found[1][0]], abs=1e-6)


def test_a_link_of_the_graph_never_leads_to_a_place_without_that_level(rows: Any, tmp_path: Path) -> None:
    store = opened("faiss_hnsw")
    store.build(rows)
    store.save(tmp_path)
    levels, links = np.load(tmp_path / "levels.npy"), np.load(tmp_path / "neighbours.npy")
    high, low = int(np.flatnonzero(levels > 1)[0]), int(np.flatnonzero(levels == 1)[0])
    room = np.array([0, *(store._index.hnsw.cum_nb_neighbors(i + 1) for i in range(int(levels.max())))])
    links[int(room[levels[:high]].sum()) + room[1]] = low
    np.save(tmp_path / "neighbours.npy", links)
    assert not opened("faiss_hnsw").load(tmp_path, rows)


class Cpu:
    """FAISS's flat index for the CPU in the place of a GPU's, with little room."""

    def __init__(self, room: int) -> None:
        self.bytes, self.made = room, 0

    def room(self) -> int:
        return self.bytes

    def index(self, width: int) -> Any:
        import faiss

        self.made += 1
        return faiss.IndexFlatIP(width)


@pytest.mark.parametrize("room", [0, 80_000, 1 << 40])
def test_the_gpu_store_gives_the_answers_of_exact_whatever_fits(room: int, rows: Any) -> None:
    devices = [Cpu(room), Cpu(room // 2)]
    store = faiss_gpu.FaissGpuStore(devices, piece_bytes=200 * DIM * 4)
    equal = np.concatenate([rows, np.repeat(rows[7:8], 300, axis=0)])  # more ties than are asked for
    exact = ExactStore()
    for store_ in (store, exact):
        store_.build(equal)
    queries = np.concatenate([rows[7:8], clustered(9, seed=3)])
    for k in (1, 10, 400, 1900):
        for among in (None, np.arange(0, len(equal), 2)):
            found, true = store.search(queries, k, among), exact.search(queries, k, among)
            assert found[1].tolist() == true[1].tolist()
            assert found[0].tolist() == true[0].tolist()
    assert devices[0].made >= (10 if room != 80_000 else 4)


def test_the_gpu_store_says_what_it_needs() -> None:
    import faiss

    if "StandardGpuResources" in vars(faiss):
        pytest.skip("this is faiss-gpu")
    with pytest.raises(MissingExtraError, match=r'"faiss_gpu" needs FAISS for GPUs.*mmrerank\[gpu\]'):
        faiss_gpu.open()


@pytest.mark.gpu
def test_a_gpu_gives_the_answers_of_exact() -> None:
    rows, queries = clustered(50_000, 512), clustered(40, 512, seed=4)
    store, exact = faiss_gpu.open(), ExactStore()
    for each in (store, exact):
        each.build(rows)
    for k in (1, 100, 2000):
        found, true = store.search(queries, k), exact.search(queries, k)
        assert found[1].tolist() == true[1].tolist()
        assert found[0].tolist() == true[0].tolist()


@pytest.mark.slow
def test_exact_stores_agree_on_many_vectors() -> None:
    rows, queries = clustered(20_000, 64), clustered(300, 64, seed=4)
    exact, faiss = ExactStore(), opened("faiss")
    for each in (exact, faiss):
        each.build(rows)
    rng = np.random.default_rng(0)
    for share in (None, 0.01, 0.1, 0.5):
        among = None if share is None else np.flatnonzero(rng.random(len(rows)) < share)
        one, other = exact.search(queries, 10, among), faiss.search(queries, 10, among)
        assert one[1].tolist() == other[1].tolist()
        assert one[0].tolist() == other[0].tolist()
