"""Search in Milvus: a server or cluster, or Milvus Lite in a folder below the index.

Milvus only proposes rows; each is scored here as in every store, so that scores and order are those of
``exact``. With an index of kind FLAT the answer is exact. HNSW, IVF_FLAT and IVF_RABITQ may miss some of the
nearest, as everywhere.

The environment names the server (the arguments of `open` come first):

- ``MMRERANK_MILVUS``: the URI of a server, such as ``http://milvus:19530``. Without it, Milvus Lite is used.
- ``MMRERANK_MILVUS_TOKEN``: ``user:password`` or an API key, where the server asks for one.
- ``MMRERANK_MILVUS_INDEX``: the kind of index, FLAT by default.
"""

from __future__ import annotations

import importlib.util
import json
import math
import tempfile
import uuid
import warnings
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mmrerank.errors import ImageIndexError, MissingExtraError
from mmrerank.index.manifest import replace
from mmrerank.index.stores._milvus_connection import InUse, Lite, Server
from mmrerank.index.stores._milvus_server import (
    EXACT,
    MOST,
    Collection,
    Progress,
    checked_kind,
    content_name,
    expressions,
    from_environment,
)
from mmrerank.index.stores._order import QUERIES, Proposals, best
from mmrerank.index.stores.exact import ExactStore
from mmrerank.ports import Rows, Vectors, VectorStore

FILE = "collection.json"
_SPARE = 32  # rows asked for beyond k, so that ties at the edge rarely take a second look
_PIECE = 4096
"""Row numbers in one filter."""
_PIECES = 8
"""Filters that are asked one after another. Of larger subsets too many rows are asked for, and sorted out."""


@dataclass(frozen=True, kw_only=True)
class _Saved:
    """What `FILE` says: which collection is of the index, and the length of the longest vector in it.

    ``file`` is the name of a Milvus Lite file beside it, empty where a server has the collection.
    """

    collection: str
    file: str
    kind: str
    rows: int
    dim: int
    longest: float


class MilvusStore(VectorStore):
    """Vectors in a collection of Milvus, numbered by their rows. Sent at the first search, or when saved."""

    name: ClassVar[str] = "milvus"
    maps = True

    def __init__(self, server: Server | None, kind: str, progress: Progress | None = None) -> None:
        self._server, self._kind, self._progress = server, kind, progress
        self._vectors: Vectors | Rows = np.zeros((0, 0), dtype=np.float32)
        self._local = ExactStore()
        self._collection: Collection | None = None
        self._longest = 0.0
        self._alone = False  # Milvus cannot be asked

    def build(self, vectors: Vectors | Rows) -> None:
        """Replaces the contents by ``vectors`` ``(n, dim)``; they are sent when they are needed."""
        self._let_go()
        self._alone = False
        self._vectors = vectors
        self._local.build(vectors)

    # Searching

    def search(
        self, queries: Vectors, k: int, among: NDArray[np.int64] | None = None
    ) -> tuple[Vectors, NDArray[np.int64]]:
        """Scores and row numbers ``(q, min(k, n))``, best first; equal scores by row number.

        ``among`` is asked for as filters ``row in [...]`` of 4,096 rows, up to eight of them. For larger
        subsets more rows than ``k`` are asked for, and those outside are dropped. Where Milvus cannot give
        as many rows as it takes (16,384), the vectors in the index are compared here, one by one.
        """
        if self._alone:
            return self._local.search(queries, k, among)
        k = min(k, len(self._vectors) if among is None else len(among))
        scores = np.zeros((len(queries), k), dtype=np.float32)
        rows = np.zeros((len(queries), k), dtype=np.int64)
        if not k or not len(queries):
            return scores, rows
        collection = self._ready()
        for start in range(0, len(queries), QUERIES):
            part = np.asarray(queries[start : start + QUERIES], dtype=np.float32)
            for i, (s, r) in enumerate(self._part(collection, part, k, among), start):
                scores[i], rows[i] = s, r
        return scores, rows

    def _part(
        self, collection: Collection, queries: Vectors, k: int, among: NDArray[np.int64] | None
    ) -> list[tuple[Vectors, NDArray[np.int64]]]:
        """Scores and rows of each query. The limit grows until nothing outside can be among the nearest."""
        done: dict[int, tuple[Vectors, NDArray[np.int64]]] = {}
        left = list(range(len(queries)))
        filters: list[str] = [""]
        keep = among
        if among is not None and len(among) <= _PIECE * _PIECES:
            filters, keep = list(expressions(among, _PIECE)), None
        share = len(self._vectors) / len(among) if among is not None and keep is not None else 1.0
        limit = math.ceil(share * (k if self._kind in EXACT else 4 * k)) + _SPARE
        while left and limit <= MOST:
            found = [collection.search(queries[left], limit, self._kind, f) for f in filters]
            for at, number in enumerate(list(left)):
                pieces = [f[at] for f in found]
                answer = self._answer(queries[number], k, limit, pieces, keep)
                if answer is not None:
                    done[number] = answer
                    left.remove(number)
            limit *= 4
        for number in left:
            scores, rows = self._local.search(queries[number : number + 1], k, among)
            done[number] = scores[0], rows[0]
        return [done[number] for number in range(len(queries))]

    def _answer(
        self,
        query: Vectors,
        k: int,
        limit: int,
        pieces: list[tuple[NDArray[np.int64], Vectors]],
        keep: NDArray[np.int64] | None,
    ) -> tuple[Vectors, NDArray[np.int64]] | None:
        """The nearest, or None where more must be asked for."""
        rows = np.concatenate([r for r, _ in pieces])
        rough = np.concatenate([s for _, s in pieces])
        if len(rows) and not (rows.min() >= 0 and rows.max() < len(self._vectors)):
            raise ImageIndexError("the collection in Milvus has rows that the index does not; index again")
        # below the last of a piece that is full there are others, which Milvus did not give
        edge = max((float(s[-1]) for r, s in pieces if len(r) >= limit), default=-math.inf)
        if keep is not None:
            inside = np.isin(rows, keep, assume_unique=True)
            rows, rough = rows[inside], rough[inside]
        if len(rows) < k:
            return None
        if self._kind in EXACT and edge > -math.inf:
            margin = 2 * Proposals(query, self._vectors, k).margin(self._longest)
            if edge >= float(np.partition(rough, len(rough) - k)[len(rough) - k]) - margin:
                return None
        return best(query, self._vectors, np.unique(rows), k)

    # Being there

    def _ready(self) -> Collection:
        """The collection, filled. Without a place for it, Milvus Lite has a temporary one."""
        if self._collection is None:
            if self._server is None:
                temporary = tempfile.mkdtemp(prefix="mmrerank-milvus-")
                self._collection = self._filled(
                    Lite(path=Path(temporary) / "vectors.db", temporary=temporary)
                )
            else:
                self._collection = self._filled(self._server)
        return self._collection

    def _filled(self, place: Server | Lite) -> Collection:
        squares = 0.0
        for start in range(0, len(self._vectors), 8192):
            block = self._vectors[start : start + 8192]
            squares = max(squares, float(np.einsum("ij,ij->i", block, block).max(initial=0.0)))
            if not np.isfinite(block).all():
                raise ImageIndexError(
                    "a vector is not finite: the index is damaged; index the source again with --rebuild"
                )
        self._longest = math.sqrt(squares)
        collection = Collection(place, content_name(self._vectors, self._kind))
        # an upload that was killed has left too few, or no index; what is whole needs no second one
        if collection.rows() != len(self._vectors):
            collection.fill(self._vectors, self._kind, self._progress)
        return collection

    def save(self, folder: Path) -> None:
        """Sends the vectors, into Milvus Lite below ``folder`` or to the server, and notes the collection."""
        if not len(self._vectors):
            return
        folder.mkdir(parents=True, exist_ok=True)
        file = "" if self._server else f"{uuid.uuid4().hex[:12]}.db"
        self._let_go()
        self._collection = self._filled(self._server or Lite(path=folder.resolve() / file))
        count, dim = self._vectors.shape
        saved = _Saved(
            collection=self._collection.name, file=file, kind=self._kind, rows=count, dim=dim,
            longest=self._longest,
        )  # fmt: skip
        replace(folder / FILE, json.dumps(asdict(saved), indent=2).encode())

    def load(self, folder: Path, vectors: Vectors | Rows) -> bool:
        """Takes the collection that ``folder`` names, if it is of so many ``vectors`` and whole.

        Where another process has Milvus Lite open, the vectors are compared here, with a warning. Raises
        `ImageIndexError` when the server does not answer.
        """
        saved = _read(folder)
        if saved is None or (saved.rows, saved.dim) != tuple(vectors.shape) or saved.kind != self._kind:
            return False
        if bool(saved.file) != (self._server is None):
            return False
        place: Server | Lite = self._server or Lite(path=folder.resolve() / saved.file)
        if isinstance(place, Lite) and not place.path.is_dir():
            return False
        try:
            collection = Collection(place, saved.collection)
        except InUse as error:
            warnings.warn(f"{error}. Every vector is compared here instead", stacklevel=2)
            self.build(vectors)
            self._alone = True
            return True
        if collection.rows() != saved.rows:
            collection.close()
            return False
        self.build(vectors)
        self._collection, self._longest = collection, saved.longest
        return True

    def discard(self, folder: Path) -> None:
        """Removes the collection that ``folder`` names, if the server can be reached."""
        saved = _read(folder)
        if saved is not None and not saved.file and self._server is not None:
            with suppress(ImageIndexError):
                collection = Collection(self._server, saved.collection)
                collection.drop()
                collection.close()

    def _let_go(self) -> None:
        if self._collection is not None:
            self._collection.close()
        self._collection = None


class ApproximateMilvusStore(MilvusStore):
    """The same with an index that may miss some of the nearest."""

    exact = False


def _read(folder: Path) -> _Saved | None:
    """What `save` has left in ``folder``; None where it is not there, damaged or foreign."""
    try:
        body = json.loads((folder / FILE).read_text(encoding="utf-8"))
        saved = _Saved(**body)
    except (OSError, ValueError, TypeError):
        return None
    kinds = {"collection": str, "file": str, "kind": str, "rows": int, "dim": int, "longest": float}
    if any(type(vars(saved)[name]) is not kind for name, kind in kinds.items()):
        return None
    # a name from elsewhere leads nowhere else
    plain = saved.collection.removeprefix("mmrerank_").isalnum() and saved.file.removesuffix(".db").isalnum()
    return saved if (plain or not saved.file) and saved.collection.startswith("mmrerank_") else None


def open(uri: str = "", token: str = "", kind: str = "", progress: Progress | None = None) -> MilvusStore:
    """An empty store. Arguments that are empty are taken from the environment (see the module).

    >>> open(uri="http://milvus:19530", token="user:password", kind="HNSW")  # doctest: +SKIP

    ``progress`` is called with (vectors sent, vectors there are). Connects to nothing yet. Raises
    `MissingExtraError` without pymilvus, `UsageError` for another kind of index.
    """
    if importlib.util.find_spec("pymilvus") is None:
        raise MissingExtraError('the store milvus needs pymilvus; pip install "mmrerank[milvus]"')
    named = from_environment()
    uri, token, kind = uri or named[0], token or named[1], checked_kind(kind or named[2] or "FLAT")
    if not uri and importlib.util.find_spec("milvus_lite") is None:
        raise MissingExtraError(
            "without a server in MMRERANK_MILVUS the store milvus needs Milvus Lite; "
            'pip install "mmrerank[milvus]"'
        )
    server = Server(uri=uri, token=token) if uri else None
    return (MilvusStore if kind in EXACT else ApproximateMilvusStore)(server, kind, progress)
