"""An index may be larger than memory: nothing holds a second copy of its vectors, or all of its names."""

from __future__ import annotations

import functools
import gc
import json
import os
import runpy
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmrerank import registry
from mmrerank.corpus import embeddings
from mmrerank.errors import InputError, MissingExtraError
from mmrerank.index.index import ImageIndex
from mmrerank.index.report import Failures
from mmrerank.index.stores import _order
from mmrerank.index.vectors import VectorFiles

ROWS, DIM, FILE_ROWS = 6000, 64, 1024


def unit(rows: int, dim: int = DIM, seed: int = 0) -> Any:
    """Random vectors of length 1, some of which are equal."""
    vectors = np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)
    vectors[5::7] = vectors[5 % rows]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def allocated(work: Callable[[], object]) -> int:
    """The most bytes that ``work`` had at once: the least of three, for other threads are counted in."""
    peaks = []
    for _ in range(3):
        gc.collect()
        tracemalloc.start()
        try:
            work()
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    return min(peaks)


def opened(name: str) -> Any:
    try:
        return registry.load("store", name).open()
    except MissingExtraError as error:
        pytest.skip(str(error))


# a client of Milvus holds more than these few vectors; what searches by default is asked by the default suite
@pytest.mark.parametrize(
    "name",
    [
        n if n in ("exact", "faiss") else pytest.param(n, marks=pytest.mark.slow)
        for n in registry.names("store")
        if n != "milvus"
    ],
)
@pytest.mark.parametrize("taken_out", [False, True])
def test_a_search_reads_block_by_block_in_every_file(
    name: str, taken_out: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_order, "_BLOCK_BYTES", 500 * DIM * 4)  # blocks end before, at and behind a file
    monkeypatch.setattr(_order, "_TIES", 50)
    files = VectorFiles(tmp_path / "vectors", DIM, FILE_ROWS)
    files.truncate(0)
    vectors = unit(ROWS)
    files.append(vectors, 0)
    used = np.arange(ROWS)
    if taken_out:
        used = np.delete(used, [0, 1023, 1024, 3000, *range(4000, 4300)])
    store = opened(name)
    queries = np.concatenate([vectors[[5, 77]], unit(3, seed=1)])
    found: list[Any] = []

    def search() -> None:
        rows = files.load(ROWS).only(used)
        store.build(rows)
        found.append(store.search(queries, 30))

    search()  # whatever is loaded once
    assert allocated(search) < vectors.nbytes / 3
    exact = (vectors[used].astype(np.float64)[None] * queries.astype(np.float64)[:, None]).sum(axis=2)
    expected = [np.argsort(-line, kind="stable")[:30].tolist() for line in exact.astype(np.float32)]
    assert found[0][1].tolist() == expected


def test_rows_of_several_files_are_taken_like_an_array(tmp_path: Path) -> None:
    files = VectorFiles(tmp_path / "vectors", 3, 4)
    files.truncate(0)
    vectors = unit(11, 3)
    files.append(vectors, 0)
    whole = files.load(11)
    some = whole.only(np.array([1, 2, 3, 4, 7, 10]))
    for rows, expected in ((whole, vectors), (some, vectors[[1, 2, 3, 4, 7, 10]])):
        assert (len(rows), rows.shape) == (len(expected), expected.shape)
        assert np.array_equal(np.asarray(rows), expected)
        for start in range(len(expected)):
            for stop in range(start, len(expected) + 2):
                assert np.array_equal(rows[start:stop], expected[start:stop])
        assert np.array_equal(rows[np.array([5, 0, 5])], expected[[5, 0, 5]])
    assert whole.only(np.arange(11)) is whole
    assert whole[4:8].base is not None  # the file's own memory
    assert files.load(0)[:5].shape == (0, 3)


def given(folder: Path, vectors: Any, names: list[str]) -> Callable[[], embeddings.EmbeddingsCorpus]:
    """Opens the corpus of files that are there now."""
    (folder / "pictures").mkdir(exist_ok=True, parents=True)
    np.save(folder / "v.npy", vectors)
    (folder / "ids.jsonl").write_text("".join(json.dumps({"image": n}) + "\n" for n in names))
    return lambda: embeddings.open(
        str(folder / "pictures"), vectors=folder / "v.npy", ids=folder / "ids.jsonl"
    )


def test_an_import_of_several_files_counts_what_came_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = functools.partial(VectorFiles, shard_rows=100)
    for module in ("importing", "index", "verify"):
        monkeypatch.setattr(f"mmrerank.index.{module}.VectorFiles", small)
    monkeypatch.setattr("mmrerank.index.importing._BATCH_ROWS", 64)
    vectors, names = unit(350), [f"{n}.jpg" for n in range(350)]

    def run(rows: Any, ids: list[str]) -> Any:
        return ImageIndex.import_vectors(
            tmp_path / "x", given(tmp_path / "in", rows, ids)(), embedder_spec="clip-b32"
        )

    first = run(vectors, names)
    assert (first.added, len(first.unseen), first.unseen[349].source) == (350, 350, "349.jpg")
    turned = vectors.copy()
    turned[[3, 300]] *= -1
    again = run(turned[20:][::-1], names[20:][::-1])
    assert (again.added, again.changed, again.removed, again.unchanged) == (0, 1, 20, 329)
    with ImageIndex.open(tmp_path / "x") as index:
        assert index.search(turned[[300]], 1)[0][0].id == "300.jpg"
        assert len(index.manifest.shards) == 4
    narrow = run(unit(330, 8), names[20:])
    assert (narrow.added, narrow.changed, narrow.removed, narrow.unchanged) == (0, 330, 0, 0)


@pytest.mark.slow
def test_names_are_read_line_by_line(tmp_path: Path) -> None:
    names = [f"{'long-folder-name/' * 20}{n}.jpg" for n in range(1000)]
    again = given(tmp_path, np.ones((1000, 2), np.float32), names)
    corpus = again()
    assert allocated(again) < (tmp_path / "ids.jsonl").stat().st_size / 3
    assert allocated(lambda: [None for _ in corpus.samples()]) < 60_000
    (tmp_path / "ids.jsonl").write_text('{"image": "other.jpg"}\n' * 1000)
    with pytest.raises(InputError, match=r"ids\.jsonl has changed while it was read"):
        list(corpus.samples())


@pytest.mark.skipif(os.name == "nt", reason="pipes have no names here")
def test_names_may_come_out_of_a_pipe(tmp_path: Path) -> None:
    given(tmp_path, np.eye(2, dtype=np.float32), ["a.jpg", "b.jpg"])
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    text = (tmp_path / "ids.jsonl").read_text()
    writer = threading.Thread(target=lambda: pipe.write_text(text))
    writer.start()
    corpus = embeddings.open(str(tmp_path / "pictures"), vectors=tmp_path / "v.npy", ids=pipe)
    writer.join()
    assert [s.id for s in corpus.samples()] == ["a.jpg", "b.jpg"]


def test_many_failures_are_a_sequence_of_few_bytes() -> None:
    failures = Failures()
    for n in range(1000):
        failures.add(f"{n}é\udce9.jpg", "gone" if n % 2 else "no picture")
    assert (len(failures), failures.counts()) == (1000, {"no picture": 500, "gone": 500})
    assert (failures[0].source, failures[-1].source, failures[-1].error) == (
        "0é\udce9.jpg",
        "999é\udce9.jpg",
        "gone",
    )
    assert [f.source[0] for f in failures[7:9]] == ["7", "8"]
    assert [f.error for f in failures][:2] == ["no picture", "gone"]
    with pytest.raises(IndexError):
        failures[1000]


@pytest.mark.slow
def test_an_image_costs_an_import_and_a_search_few_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    bench = runpy.run_path(str(Path(__file__).parents[3] / "bench/memory.py"))
    assert bench["measured"](80_000, 128) == []
    assert "import again, unchanged" in capsys.readouterr().out
