"""A collection of vectors in Milvus: made, filled, checked, searched. Scores nothing itself.

Which kind of index the server has made is asked, not believed. No message names the server or its token.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmrerank.errors import ImageIndexError, UsageError, one_line
from mmrerank.index.stores._milvus_connection import Connection, Lite, Server, quiet
from mmrerank.ports import Rows, Vectors

KEY, FIELD, METRIC = "row", "vector", "IP"
EXACT = ("FLAT",)
"""Kinds of index that compare a query with every vector."""
KINDS: Mapping[str, Mapping[str, Any]] = {
    "FLAT": {},
    "HNSW": {"M": 32, "efConstruction": 200},
    "IVF_FLAT": {},
    "IVF_RABITQ": {"refine": True, "refine_type": "SQ8"},
}
"""Kinds of index that can be asked for, and what they are made with."""
MOST = 16_384
"""The most results that Milvus gives a query."""
_UPLOAD_BYTES = 8 << 20  # of vectors in one request; a server takes 64 MB by default
Progress = Callable[[int, int], None]
"""Called with (vectors sent, vectors there are)."""


class Collection:
    """An open collection. `close` ends what runs in this process for it; so does its last reference."""

    def __init__(self, place: Server | Lite, name: str) -> None:
        self.name = name
        self.lite = isinstance(place, Lite)
        self._secrets = () if isinstance(place, Lite) else place.secrets
        with self._guard("be opened"):
            self._connection = Connection(place)
        self.client = self._connection.client

    def close(self) -> None:
        """Closes the connection; the last one of a Milvus Lite file ends its threads."""
        self._connection.close()

    @contextmanager
    def _guard(self, what: str) -> Iterator[None]:
        from pymilvus.exceptions import MilvusException

        try:
            with quiet():
                yield
        except MilvusException as error:
            words = error.message or type(error).__name__
            for secret in self._secrets:
                words = words.replace(secret, "(the server)")
            whose = "Milvus Lite" if self.lite else "the Milvus server of MMRERANK_MILVUS"
            # without the cause: its words hold the address
            raise ImageIndexError(
                f"the collection {self.name} of {whose} cannot {what}: {one_line(words, 300)}. The vectors "
                "in the index are not touched; --store exact searches without Milvus"
            ) from None

    def rows(self) -> int | None:
        """How many vectors it holds; None where there is no such collection."""
        with self._guard("be counted"):
            if not self.client.has_collection(self.name):
                return None
            if not self.client.list_indexes(self.name):
                return 0  # the index is made last: whatever is in it was not finished
            self.client.load_collection(self.name)
            found = self.client.query(
                self.name, filter="", output_fields=["count(*)"], consistency_level="Strong"
            )
            return int(found[0]["count(*)"])

    def fill(self, vectors: Vectors | Rows, kind: str, progress: Progress | None) -> None:
        """Makes it anew with ``vectors`` ``(n, dim)`` and an index of this ``kind``.

        Raises `ImageIndexError` when the server refuses, or has made another kind than was asked for.
        """
        from pymilvus import DataType

        count, dim = len(vectors), vectors.shape[1]
        with self._guard("be filled"):
            self.client.drop_collection(self.name)
            schema = self.client.create_schema(auto_id=False, enable_dynamic_field=False)
            schema.add_field(KEY, DataType.INT64, is_primary=True)
            schema.add_field(FIELD, DataType.FLOAT_VECTOR, dim=width(dim))
            self.client.create_collection(self.name, schema=schema, consistency_level="Strong")
            step = max(1, _UPLOAD_BYTES // (4 * width(dim)))
            for start in range(0, count, step):
                part = widened(vectors[start : start + step])
                self.client.insert(
                    self.name, [{KEY: start + i, FIELD: vector} for i, vector in enumerate(part)]
                )
                if progress:
                    progress(min(start + step, count), count)
            self.client.flush(self.name)
            made = self.client.prepare_index_params()
            made.add_index(FIELD, index_type=kind, metric_type=METRIC, params=_made_with(kind, count))
            self.client.create_index(self.name, made)
            self._assert_kind(kind)
        if (there := self.rows()) != count:
            raise ImageIndexError(
                f"the collection {self.name} in Milvus has {there} vectors after {count} were sent; index "
                "again, or use --store exact"
            )

    def _assert_kind(self, kind: str) -> None:
        """Raises `ImageIndexError` unless the server describes the index that was asked for.

        A call that makes an index can succeed though the server has refused it.
        """
        found = self.client.describe_index(self.name, FIELD) or {}
        there = (found.get("index_type"), found.get("metric_type"))
        if there != (kind, METRIC):
            self.client.drop_collection(self.name)
            raise ImageIndexError(
                f"Milvus was asked for an index of kind {kind} ({METRIC}), and made {there[0]} ({there[1]}); "
                f"name another kind in MMRERANK_MILVUS_INDEX ({', '.join(KINDS)})"
            )

    def search(
        self, queries: Vectors, limit: int, kind: str, expression: str = ""
    ) -> list[tuple[NDArray[np.int64], Vectors]]:
        """For each query the rows of up to ``limit`` vectors and their scores, best first."""
        with self._guard("be searched"):
            found = self.client.search(
                self.name,
                data=list(widened(queries)),
                limit=limit,
                filter=expression,
                output_fields=[KEY],
                search_params={"metric_type": METRIC, "params": _searched_with(kind, limit)},
                consistency_level="Strong",
            )
        return [
            (
                np.array([hit[KEY] for hit in hits], dtype=np.int64),
                np.array([hit["distance"] for hit in hits], dtype=np.float32),
            )
            for hits in found
        ]

    def drop(self) -> None:
        """Removes the collection from the server."""
        with self._guard("be removed"):
            self.client.drop_collection(self.name)


def width(dim: int) -> int:
    """The width of the vectors in the collection: Milvus takes none of width 1."""
    return max(2, dim)


def widened(vectors: Vectors) -> Vectors:
    """``vectors`` ``(n, dim)`` with a column of zeros, where they have one only."""
    if vectors.shape[1] > 1:
        return np.ascontiguousarray(vectors, dtype=np.float32)
    return np.hstack([vectors, np.zeros((len(vectors), 1), dtype=np.float32)])


def content_name(vectors: Vectors | Rows, kind: str) -> str:
    """A name that only these vectors with this kind of index have. Reads every vector."""
    total = hashlib.sha256(f"{kind} {vectors.shape}".encode())
    for start in range(0, len(vectors), 8192):
        total.update(np.ascontiguousarray(vectors[start : start + 8192], dtype="<f4").data)
    return f"mmrerank_{total.hexdigest()[:32]}"


def checked_kind(kind: str) -> str:
    """``kind`` as Milvus writes it. Raises `UsageError` for one that is not known."""
    if kind.upper() not in KINDS:
        raise UsageError(f"Milvus has no index of kind {kind!r} here; kinds are {', '.join(KINDS)}")
    return kind.upper()


def _made_with(kind: str, count: int) -> dict[str, Any]:
    lists = {"nlist": max(1, min(65_536, int(4 * count**0.5)))} if kind.startswith("IVF") else {}
    return {**KINDS[kind], **lists}


def _searched_with(kind: str, limit: int) -> dict[str, Any]:
    if kind == "HNSW":
        return {"ef": max(128, limit)}
    if kind == "IVF_RABITQ":
        return {"nprobe": 64, "rbq_query_bits": 6, "refine_k": 2.0}
    return {"nprobe": 64} if kind.startswith("IVF") else {}


def expressions(rows: NDArray[np.int64], piece: int) -> Sequence[str]:
    """Filters that let ``rows`` through, ``piece`` of them each."""
    return [f"{KEY} in {rows[start : start + piece].tolist()}" for start in range(0, len(rows), piece)]


def from_environment() -> tuple[str, str, str]:
    """URI, token and kind of index, as the environment names them; empty where it does not."""
    names = ("MMRERANK_MILVUS", "MMRERANK_MILVUS_TOKEN", "MMRERANK_MILVUS_INDEX")
    uri, token, kind = (os.environ.get(name, "").strip() for name in names)
    return uri, token, kind
