"""Every store gives the exact answer, in the one order that is right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrerank import registry
from mmrerank.errors import MissingExtraError
from mmrerank.ports import VectorStore

NAMES = [
    # Milvus Lite takes seconds to start
    pytest.param(name, marks=pytest.mark.slow) if name == "milvus" else name
    for name in registry.names("store")
]


def opened(name: str) -> Any:
    try:
        return registry.load("store", name).open()
    except MissingExtraError as error:
        pytest.skip(str(error))


def truth(vectors: Any, queries: Any, k: int) -> tuple[Any, Any]:
    """The same, in the simplest way: a double loop and a sort."""
    scores, rows = [], []
    for query in queries.astype(np.float64):
        exact = [np.float32((v * query).sum()) for v in vectors.astype(np.float64)]
        order = sorted(range(len(vectors)), key=lambda r: (-exact[r], r))[:k]
        rows.append(order)
        scores.append([exact[r] for r in order])
    return np.array(scores, dtype=np.float32), np.array(rows)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Any, Any, int]:
    """Vectors with many equal rows and equal scores, queries, and k."""
    dim = draw(st.sampled_from([1, 2, 3, 8, 17]))
    n = draw(st.integers(1, 120))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    if draw(st.booleans()):
        pool = rng.integers(-2, 3, (draw(st.integers(1, 6)), dim))  # few values: scores coincide
    else:
        pool = rng.normal(size=(draw(st.integers(1, n)), dim))
    vectors = pool[rng.integers(0, len(pool), n)].astype(np.float32)
    queries = rng.normal(size=(draw(st.integers(1, 4)), dim)).astype(np.float32)
    return vectors, queries, draw(st.integers(1, n + 5))


@pytest.mark.parametrize("name", [n for n in registry.names("store") if n != "milvus"])
@settings(max_examples=150, deadline=None, derandomize=True)
@given(world=worlds())
def test_scores_and_order_are_exact(name: str, world: tuple[Any, Any, int]) -> None:
    _check_exact(name, world)


@pytest.mark.slow
@settings(max_examples=15, deadline=None, derandomize=True)
@given(world=worlds())
def test_scores_and_order_are_exact_in_milvus(world: tuple[Any, Any, int]) -> None:
    _check_exact("milvus", world)  # half a second to make each collection


def _check_exact(name: str, world: tuple[Any, Any, int]) -> None:
    vectors, queries, k = world
    store = opened(name)
    store.build(vectors)
    scores, rows = store.search(queries, k)
    expected_scores, expected_rows = truth(vectors, queries, k)
    assert rows.tolist() == expected_rows.tolist()
    assert scores == pytest.approx(expected_scores, rel=1e-6, abs=1e-6)
    assert (scores.dtype, rows.dtype) == (np.float32, np.int64)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(world=worlds(), share=st.sampled_from([0.05, 0.3, 0.6, 1.0]), seed=st.integers(0, 99))
def test_a_filter_comes_first(name: str, world: tuple[Any, Any, int], share: float, seed: int) -> None:
    vectors, queries, k = world
    among = np.flatnonzero(np.random.default_rng(seed).random(len(vectors)) < share).astype(np.int64)
    store = opened(name)
    store.build(vectors)
    scores, rows = store.search(queries, k, among)
    expected_scores, expected_rows = truth(vectors[among], queries, k) if len(among) else (scores[:, :0], [])
    assert rows.shape == (len(queries), min(k, len(among)))
    assert rows.tolist() == (among[np.array(expected_rows)].tolist() if len(among) else [[]] * len(queries))
    assert scores == pytest.approx(expected_scores, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_equal_rows_keep_their_order_among_many_vectors(name: str) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(5000, 96)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    same = np.sort(rng.choice(5000, 300, replace=False))
    vectors[same] = vectors[same[0]]
    store = opened(name)
    store.build(vectors)
    scores, rows = store.search(vectors[same[0]][None], 100)
    assert rows[0].tolist() == same[:100].tolist()
    assert len(set(scores[0].tolist())) == 1


@pytest.mark.parametrize("name", NAMES)
def test_small_cases(name: str) -> None:
    store = opened(name)
    assert isinstance(store, VectorStore)
    assert store.name == name
    store.build(np.zeros((0, 4), dtype=np.float32))
    scores, rows = store.search(np.ones((2, 4), dtype=np.float32), 3)
    assert scores.shape == rows.shape == (2, 0)
    store.build(np.eye(4, dtype=np.float32))
    assert store.search(np.zeros((0, 4), dtype=np.float32), 3)[1].shape == (0, 3)
    store.build(np.eye(2, dtype=np.float32))  # replaces
    assert store.search(np.eye(2, dtype=np.float32), 9)[1].tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize("name", NAMES)
def test_what_was_saved_is_found_again_or_refused(name: str, tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    store = opened(name)
    store.build(vectors)
    store.save(tmp_path / name)
    again = opened(name)
    if again.load(tmp_path / name, vectors):
        expected, got = store.search(vectors, 4), again.search(vectors, 4)
        assert got[1].tolist() == expected[1].tolist()
        assert not opened(name).load(tmp_path / name, vectors[:9])
        for file in (p for p in (tmp_path / name).rglob("*") if p.is_file()):
            data = file.read_bytes()
            file.write_bytes(data[: min(50, len(data) // 2)])
    assert not opened(name).load(tmp_path / name, vectors)
    assert not opened(name).load(tmp_path / "nothing", vectors)
