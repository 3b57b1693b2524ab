"""Stores side by side on vectors in overlapping clusters: what they find, how fast, how large, one thread.

    python bench/stores.py [--rows 1000000] [--stores exact,faiss,faiss_ivfpq,faiss_rabitq,faiss_hnsw]

Rows are drawn around 4,096 Gaussian centres in 32 dimensions, which are bent into 512. The noise is such that
the ten nearest of a query lie around three centres or more; that is measured and printed. Queries are drawn
alike, and are no rows. Times are CPU seconds of one thread, medians where two things are compared in turns.
Every store is a process of its own. Memory is what it holds beside the pages of the vectors' files
(``RssAnon``). Ends with 1 where a bar is missed: they are printed last, and hold for a million rows.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
CENTRES, INNER, NOISE = 4096, 32, 0.9
DEPTHS = (10, 100)
SHARES = (0.01, 0.1, 0.5)
SINGLE = 20
"""Queries that are asked one by one."""
FILTERED = 50
HNSW_ROWS = 200_000
"""The most rows of the graph: it takes one thread some minutes to make it of a million."""


def draw(rows: int, dim: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Unit vectors ``(n, dim)`` in portions, with their centres."""
    fixed = np.random.default_rng(0)
    centres = fixed.standard_normal((CENTRES, INNER), dtype=np.float32)
    straight, bent = fixed.standard_normal((2, INNER, dim), dtype=np.float32) / np.sqrt(np.float32(INNER))
    rng = np.random.default_rng(seed)
    for start in range(0, rows, 16_384):
        count = min(16_384, rows - start)
        of = rng.integers(0, CENTRES, count)
        inner = centres[of] + NOISE * rng.standard_normal((count, INNER), dtype=np.float32)
        outer = inner @ straight + 0.7 * np.tanh(inner @ bent)
        yield outer / np.linalg.norm(outer, axis=1, keepdims=True), of


def cpu(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of ``work``, and what it gave."""
    start = time.process_time()
    found = work()
    return time.process_time() - start, found


def anonymous() -> int:
    """Bytes of this process's memory that no file backs; 0 where the system does not say."""
    try:
        with Path("/proc/self/status").open() as status:
            return next((int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon")), 0)
    except OSError:
        return 0


class _Given:
    """A corpus of the vectors in a file, whose images are nowhere."""

    def __init__(self, folder: Path) -> None:
        self.location = str(folder)
        self.vectors = np.load(folder / "rows.npy", mmap_mode="r")

    def samples(self) -> Iterator[Any]:
        from mmrerank.ports import Sample

        for number in range(len(self.vectors)):
            yield Sample(id=f"{number:08d}.jpg")


def prepare(folder: Path, rows: int, dim: int, queries: int, *, index: bool) -> dict[str, Any]:
    """Writes rows, queries and the true answers; makes an index of the rows. What that took."""
    import faiss

    from mmrerank.index.index import ImageIndex

    written = np.lib.format.open_memmap(folder / "rows.npy", "w+", np.float32, (rows, dim))
    of, at = np.empty(rows, dtype=np.int32), 0
    for part, centres in draw(rows, dim, seed=1):
        written[at : at + len(part)], of[at : at + len(part)] = part, centres
        at += len(part)
    written.flush()
    asked = np.concatenate([part for part, _ in draw(queries, dim, seed=2)])
    np.save(folder / "queries.npy", asked)
    true = faiss.knn(asked, written, min(rows, max(DEPTHS)), metric=faiss.METRIC_INNER_PRODUCT)[1]
    np.save(folder / "true.npy", true)
    facts: dict[str, Any] = {"centres_in_top10": float(np.mean([len(set(of[t[:10]])) for t in true]))}
    if index:
        given: Any = _Given(folder)
        place = folder / "index"
        took, _ = cpu(lambda: ImageIndex.import_vectors(place, given, embedder_spec="bench"))
        facts["import_s"] = took
    return facts


def opening(folder: Path) -> dict[str, float]:
    """CPU seconds from the folder to a view that can be searched, of the first search, and of the next."""
    from mmrerank.index.index import ImageIndex

    query = np.load(folder / "queries.npy")[:1]
    took, index = cpu(lambda: ImageIndex.open(folder / "index"))
    viewing, _ = cpu(lambda: index._view)
    first, _ = cpu(lambda: index.search(query, 10))
    second, _ = cpu(lambda: index.search(query, 10))
    return {"open_s": took + viewing, "first_s": first, "second_s": second}


def recall(true: np.ndarray, found: np.ndarray) -> float:
    """The mean share of the true rows that were found."""
    return float(np.mean([np.isin(t, f).mean() for t, f in zip(true, found, strict=True)]))


def measured(folder: Path, name: str, most: int) -> dict[str, Any]:
    """Everything about one store over the first ``most`` rows."""
    import faiss

    from mmrerank import registry

    faiss.omp_set_num_threads(1)
    rows = np.load(folder / "rows.npy", mmap_mode="r")[:most]
    queries = np.load(folder / "queries.npy")
    true = np.load(folder / "true.npy")
    whole = most >= len(np.load(folder / "rows.npy", mmap_mode="r"))
    if not whole:
        true = faiss.knn(queries, rows, max(DEPTHS), metric=faiss.METRIC_INNER_PRODUCT)[1]
    before = anonymous()
    store = registry.load("store", name).open()
    facts: dict[str, Any] = {"store": name, "rows": len(rows)}
    facts["build_s"], _ = cpu(lambda: store.build(rows))
    store.save(folder / name)
    facts["disk"] = sum(f.stat().st_size for f in (folder / name).glob("*"))
    facts["load_s"] = 0.0
    if facts["disk"]:
        del store
        before = anonymous()
        store = registry.load("store", name).open()
        facts["load_s"], loaded = cpu(lambda: store.load(folder / name, rows))
        assert loaded, "what was saved was not taken again"
    store.search(queries[:1], 10)  # what is found out once
    facts["memory"] = anonymous() - before
    facts["settings"] = store.facts()
    raw = faiss.IndexFlatIP(rows.shape[1])
    for start in range(0, len(rows), 100_000):
        raw.add(np.ascontiguousarray(rows[start : start + 100_000]))
    for k in DEPTHS:
        found = store.search(queries, k)[1]
        facts[f"recall@{k}"] = recall(true[:, :k], found)
        facts |= _speeds(store, raw, queries, k)
    facts["filters"] = [_filtered(store, rows, queries[:FILTERED], share) for share in SHARES]
    return facts


def _speeds(store: Any, raw: Any, queries: np.ndarray, k: int) -> dict[str, float]:
    """Milliseconds a query, of the store and of raw FAISS in turns: all at once, and one by one."""
    batched: tuple[list[float], list[float]] = ([], [])
    single: tuple[list[float], list[float]] = ([], [])
    for _ in range(3):
        for into, search in ((0, store.search), (1, raw.search)):
            took, _ = cpu(lambda search=search: search(queries, k))
            batched[into].append(1000 * took / len(queries))
            ones = [queries[i : i + 1] for i in range(SINGLE)]
            took, _ = cpu(lambda search=search, ones=ones: [search(one, k) for one in ones])
            single[into].append(1000 * took / SINGLE)
    ours, theirs = zip(
        *(tuple(statistics.median(each) for each in pair) for pair in (batched, single)), strict=True
    )
    names = ("batched", "single")
    return {
        f"{name}_{of}@{k}": value
        for of, values in (("ms", ours), ("raw_ms", theirs))
        for name, value in zip(names, values, strict=True)
    }


def _filtered(store: Any, rows: np.ndarray, queries: np.ndarray, share: float) -> dict[str, Any]:
    """Against a brute force over what a filter keeps, which is as good as exact: scores in float64."""
    among = np.flatnonzero(np.random.default_rng(3).random(len(rows)) < share).astype(np.int64)
    best: list[np.ndarray] = []
    for query in queries:
        rough = np.concatenate(
            [rows[among[s : s + 50_000]] @ query for s in range(0, len(among), 50_000)]
        )  # float32, which is refined below
        near = among[np.argsort(-rough, kind="stable")[:50]]
        exact = (rows[np.sort(near)].astype(np.float64) * query.astype(np.float64)).sum(axis=1)
        best.append(np.sort(near)[np.argsort(-exact.astype(np.float32), kind="stable")[:10]])
    took, (_, found) = cpu(lambda: store.search(queries, 10, among))
    one, _ = cpu(lambda: [store.search(queries[i : i + 1], 10, among) for i in range(5)])
    return {
        "share": share,
        "equal": bool(np.array_equal(found, np.array(best))),
        "recall@10": recall(np.array(best), found),
        "batched_ms": 1000 * took / len(queries),
        "single_ms": 1000 * one / 5,
    }


def child(folder: Path, *what: str) -> dict[str, Any]:
    """One measurement in a process of its own."""
    command = [sys.executable, __file__, "--folder", str(folder), "--child", *what]
    environment = {**os.environ, **ONE_THREAD}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def table(found: list[dict[str, Any]]) -> Iterator[str]:
    """The figures as Markdown."""
    yield (
        "| store | rows | made, s | opened, s | recall@10 | recall@100 | batched, queries/s | x raw "
        "| single, queries/s | x raw | on disk | memory |"
    )
    yield "| --- " * 12 + "|"
    for one in found:
        batched, single = one["batched_ms@10"], one["single_ms@10"]
        yield (
            f"| {one['store']} | {one['rows']:,} | {one['build_s']:.1f} | {one['load_s']:.2f} "
            f"| {one['recall@10']:.3f} | {one['recall@100']:.3f} "
            f"| {1000 / batched:,.0f} | {one['batched_raw_ms@10'] / batched:.2f} "
            f"| {1000 / single:,.0f} | {one['single_raw_ms@10'] / single:.2f} "
            f"| {one['disk'] / 1e6:,.0f} MB | {one['memory'] / 1e6:,.0f} MB |"
        )
    yield ""
    yield "| store | kept | equal to brute force | recall@10 | batched, ms a query | single, ms |"
    yield "| --- " * 6 + "|"
    for one in found:
        for each in one["filters"]:
            yield (
                f"| {one['store']} | {each['share']:.0%} | {'yes' if each['equal'] else 'no'} "
                f"| {each['recall@10']:.3f} | {each['batched_ms']:.2f} | {each['single_ms']:.1f} |"
            )


def bars(facts: dict[str, Any], found: list[dict[str, Any]]) -> Iterator[tuple[bool, str]]:
    """What has to hold, and whether it does."""
    centres = facts["centres_in_top10"]
    yield centres >= 3, f"the ten nearest lie around {centres:.2f} centres; at least 3"
    if "open_s" in facts:
        yield (
            facts["open_s"] < 1,
            f"the index opens in {facts['open_s']:.3f} s of CPU; below 1. First search "
            f"{facts['first_s']:.2f}, next {facts['second_s']:.3f}",
        )
    for one in found:
        if one["store"] == "faiss":
            for how in ("batched", "single"):
                ratio = one[f"{how}_ms@100"] / one[f"{how}_raw_ms@100"]
                yield (
                    ratio <= 1.1,
                    f"faiss, top 100, {how}: {ratio:.3f} of the time of raw FAISS flat; at most 1.1",
                )
        if one["store"] in ("exact", "faiss"):
            yield all(e["equal"] for e in one["filters"]), f"{one['store']} is exact within filters"
    near = [one for one in found if one["store"] not in ("exact", "faiss")]
    if near:
        fast = [
            (one["batched_raw_ms@10"] / one["batched_ms@10"], one["store"])
            for one in near
            if one["recall@10"] >= 0.95
        ]
        times, name = max(fast, default=(0.0, "none"))
        yield times >= 20, f"{name}: recall@10 at least 0.95 at {times:.1f} times the throughput of exact; 20"


def main() -> int:
    """Everything, store by store."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--stores", default="exact,faiss,faiss_ivfpq,faiss_rabitq,faiss_hnsw")
    parser.add_argument("--hnsw-rows", type=int, default=HNSW_ROWS)
    parser.add_argument("--no-index", action="store_true", help="leave out the import and the opening")
    parser.add_argument("--folder", type=Path, help="where to write; 5 GB for a million rows")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        what, *rest = asked.child
        print(
            json.dumps(
                opening(asked.folder) if what == "open" else measured(asked.folder, what, int(rest[0]))
            )
        )
        return 0
    with tempfile.TemporaryDirectory(dir=asked.folder) as made:
        folder = Path(made)
        start = time.monotonic()
        facts = prepare(folder, asked.rows, asked.dim, asked.queries, index=not asked.no_index)
        if not asked.no_index:
            facts |= child(folder, "open")
        print(json.dumps(facts), flush=True)
        found = []
        for name in asked.stores.split(","):
            most = min(asked.rows, asked.hnsw_rows) if name == "faiss_hnsw" else asked.rows
            found.append(child(folder, name, str(most)))
            print(json.dumps(found[-1]), flush=True)
        print(f"\n{asked.rows:,} rows, {time.monotonic() - start:.0f} s in all\n")
        print("\n".join(table(found)))
        print()
        held = list(bars(facts, found))
        for good, text in held:
            print(f"{'ok    ' if good else 'MISSED'} {text}")
    return 0 if all(good for good, _ in held) else 1


if __name__ == "__main__":
    sys.exit(main())
