"""The first stage of a benchmark: queries embedded, the images of an index ranked for each, as a run.

An index may hold more images than a benchmark, under other paths: images are matched by how their path ends.
Reranks nothing and computes no figure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from mmrerank.benchmark import BenchmarkQuery, Ranked, Run, Task
from mmrerank.embed.overlong import overlong
from mmrerank.errors import InputError
from mmrerank.evaluation.measure.scoring import quoted
from mmrerank.evaluation.tasks import benchmark_of, named_documents
from mmrerank.index.index import ImageIndex
from mmrerank.ports import Embedder, Vectors
from mmrerank.types import Image, Query

Progress = Callable[[int, int], None]
"""Called with (how many queries are done, how many there are)."""
_BATCH = 256  # queries embedded and searched together


@dataclass(frozen=True, kw_only=True)
class FirstStage:
    """The lists, the index's id of each document in them, and what a reader must know."""

    run: Run
    names: Mapping[str, str]
    warnings: Sequence[str] = ()


def query_of(task: Task, id_: str, images: Path | None) -> Query:
    """The query as models get it; its picture is looked for in the folder ``images``.

    Raises `InputError` when there is nothing to ask with, or the picture is not there.
    """
    asked: BenchmarkQuery = task.queries[id_]
    pictures: tuple[Image, ...] = ()
    if asked.image:
        pictures = (Image(path=image_file(task, asked.image, images)),)
    try:
        return Query(
            id=id_, text=asked.text, turns=asked.turns, exclude=asked.exclude, images=pictures,
            instruction=asked.instruction,
        )  # fmt: skip
    except ValueError as error:
        raise InputError(f"query {id_!r} of {task.benchmark} cannot be asked: {error}") from error


def image_file(task: Task, document: str, images: Path | None) -> Path:
    """The file of a document below ``images``: its path there, or its bare name.

    Raises `InputError` naming the places looked at.
    """
    if images is None:
        raise InputError(f"{task.benchmark} needs its pictures for this; give their folder as --images DIR")
    file = task.files.get(document, document)
    names = [file, PurePosixPath(file).name]
    # some benchmarks name pictures without an ending
    names += [f"{n}{e}" for n in names for e in (".jpg", ".png", ".jpeg", ".webp")]
    for name in names:
        # names come from files: they must not lead out of the folder
        if ".." not in PurePosixPath(name).parts and (path := images / name).is_file():
            return path
    raise InputError(f"there is no picture of {document!r}; looked for {images / file}")


def matched(task: Task, documents: Sequence[str], ids: Sequence[str]) -> dict[str, str]:
    """The index's id for each document that it holds: the same path, one that ends in the other, or the
    same name where only one image has it.
    """
    exact = set(ids)
    by_stem: dict[str, list[str]] = {}
    for id_ in ids:
        by_stem.setdefault(_stem(id_), []).append(id_)
    found: dict[str, str] = {}
    for document in documents:
        if document in task.texts and document not in task.files:
            continue  # words, which may be like a picture's name
        file = task.files.get(document, document)
        if file in exact:
            found[document] = file
            continue
        alike = by_stem.get(_stem(file), [])
        whole = [i for i in alike if _ends(i, file) or _ends(file, i)]
        if len(whole) == 1 or len(alike) == 1:
            found[document] = whole[0] if len(whole) == 1 else alike[0]
    return found


def _stem(path: str) -> str:
    name = PurePosixPath(path).name
    stem, dot, ending = name.rpartition(".")
    return stem if dot and len(ending) <= 4 else name


def _ends(path: str, end: str) -> bool:
    return path == end or path.endswith(f"/{end}")


def first_stage(
    task: Task,
    index: ImageIndex,
    embedder: Embedder,
    *,
    images: Path | None = None,
    depth: int | None = None,
    progress: Progress | None = None,
) -> FirstStage:
    """The ``depth`` nearest images of each query (default: as deep as the benchmark looks).

    A query with candidates of its own ranks those alone, one without any and without a gallery the whole
    index; documents that its protocol leaves out are not listed. Equal scores are in the gallery's order.
    Raises `InputError` when the index holds none of the benchmark's images.
    """
    index.check_embedder(embedder)
    k = task.depth if depth is None else depth
    warnings: list[str] = []
    gallery = named_documents(task)
    names: dict[str, str] = {}
    if gallery is not None:
        names = matched(task, gallery, index.ids)
        if not names:
            raise InputError(
                f"the index {index.path} has no image of {task.benchmark} {task.split}: its ids are like "
                f"{quoted(index.ids)}, the benchmark's like {quoted(gallery)}"
            )
        if lacking := [d for d in gallery if d not in names]:
            warnings.append(
                f"{len(lacking)} of {len(gallery)} images are not in {index.path} ({quoted(lacking)}); "
                "they cannot be found"
            )
    rows: dict[str, Ranked] = {}
    searcher = Searcher(task, index, names)
    cut: list[str] = []
    for queries, vectors in _embedded(task, embedder, images):
        ids = list(queries)
        cut += [i for i, query in queries.items() if overlong(embedder, query)]
        for id_, ranked in zip(ids, searcher.search(ids, vectors, k), strict=True):
            rows[id_] = ranked
        if progress:
            progress(len(rows), len(task.queries))
    if cut:
        warnings.append(
            f"{len(cut)} of {len(rows)} queries have more tokens than {embedder.spec} reads ({quoted(cut)}); "
            "their ends were cut off"
        )
    return FirstStage(run=Run(rows=rows, tag="first-stage"), names=names, warnings=warnings)


def _embedded(
    task: Task, embedder: Embedder, images: Path | None
) -> Iterator[tuple[dict[str, Query], Vectors]]:
    every = list(task.queries)
    for start in range(0, len(every), _BATCH):
        ids = every[start : start + _BATCH]
        queries = {i: query_of(task, i, images) for i in ids}
        yield queries, embedder.embed_queries(list(queries.values()))


class Searcher:
    """Ranks galleries; one that many queries share is looked up once.

    ``names`` is the index's id of each document; those that a search of the whole index finds are added.
    """

    def __init__(self, task: Task, index: ImageIndex, names: dict[str, str]) -> None:
        self._task, self._index, self._names = task, index, names
        self._documents = {own: document for document, own in names.items()}
        # with the documents themselves: another list must not get the id of one that is gone
        self._galleries: dict[int, tuple[Sequence[str], list[str], Vectors]] = {}

    def search(self, ids: Sequence[str], vectors: Vectors, k: int) -> list[Ranked]:
        """The ``k`` nearest documents of each query, and those that its list must hold."""
        task = self._task
        free = [n for n, i in enumerate(ids) if task.gallery is None and i not in task.lists]
        whole = self._everything([ids[n] for n in free], vectors[free], k) if free else []
        found = dict(zip(free, whole, strict=True))
        return [found[n] if n in found else self._listed(i, vectors[n], k) for n, i in enumerate(ids)]

    def _everything(self, ids: Sequence[str], vectors: Vectors, k: int) -> list[Ranked]:
        most = max((len(self._task.removed.get(i, ())) for i in ids), default=0)
        canonical = benchmark_of(self._task.benchmark).canonical
        found = []
        for id_, hits in zip(ids, self._index.search(vectors, k + most), strict=True):
            own = [h.id for h in hits]
            ranked = Ranked([self._documents.get(i, i) for i in own], [h.score for h in hits])
            ranked = canonical(self._task, {id_: ranked})[id_]
            self._names.update(zip(ranked.ids, own, strict=True))
            found.append(_but(ranked, self._task.removed.get(id_, frozenset()), k))
        return found

    def _listed(self, id_: str, vector: Vectors, k: int) -> Ranked:
        documents = self._task.lists.get(id_) or self._task.gallery or ()
        known, vectors = self._gallery(documents)
        scores = vectors @ np.asarray(vector, np.float32)
        order = np.argsort(-scores, kind="stable")
        out = self._task.removed.get(id_, frozenset())
        kept = self._task.kept.get(id_, frozenset())
        chosen: list[int] = []
        for place in order:
            if known[place] not in out and (len(chosen) < k or known[place] in kept):
                chosen.append(int(place))
            elif len(chosen) >= k and not kept:
                break
        return Ranked([known[n] for n in chosen], [float(scores[n]) for n in chosen])

    def _gallery(self, documents: Sequence[str]) -> tuple[list[str], Vectors]:
        if id(documents) not in self._galleries:
            if len(self._galleries) > 16:  # lists of each query's own are not worth keeping
                self._galleries.clear()
            known = [d for d in documents if d in self._names]
            vectors = self._index.vectors([self._names[d] for d in known])
            self._galleries[id(documents)] = documents, known, vectors
        return self._galleries[id(documents)][1:]


def _but(ranked: Ranked, out: frozenset[str], k: int) -> Ranked:
    places = [n for n, i in enumerate(ranked.ids) if i not in out][:k]
    return Ranked([ranked.ids[n] for n in places], [ranked.scores[n] for n in places])


def own_candidates(
    task: Task, embedder: Embedder, *, images: Path | None = None, progress: Progress | None = None
) -> Run:
    """A first stage without an index, for queries whose candidates are texts or pictures of their own.

    Each candidate is embedded once, as what is found: texts, pictures, or both together.
    Candidates stand in the task's own order, which does not have the right one first.
    """
    keys: dict[str, None] = {}
    for listed in task.lists.values():
        keys |= dict.fromkeys(listed)
    every = list(keys)
    width = {key: n for n, key in enumerate(every)}
    parts = [
        embedder.embed_documents([_candidate_query(task, k, images) for k in every[start : start + _BATCH]])
        for start in range(0, len(every), _BATCH)
    ]
    table = np.concatenate(parts) if parts else np.zeros((0, embedder.dim), np.float32)
    if not np.isfinite(table).all():
        raise InputError(
            f"{embedder.spec} gives vectors that are not finite for {task.benchmark}'s candidates"
        )
    rows: dict[str, Ranked] = {}
    cut: list[str] = []
    for queries, vectors in _embedded(task, embedder, images):
        ids = list(queries)
        cut += [i for i, query in queries.items() if overlong(embedder, query)]
        for id_, vector in zip(ids, vectors, strict=True):
            listed = task.lists[id_]
            scores = table[[width[key] for key in listed]] @ vector
            if not np.isfinite(scores).all():
                raise InputError(f"{embedder.spec} gives scores that are not finite for {id_!r}")
            order = np.argsort(-scores, kind="stable")
            rows[id_] = Ranked([listed[n] for n in order], [float(scores[n]) for n in order])
        if progress:
            progress(len(rows), len(task.queries))
    return Run(rows=rows, tag="first-stage")


def _candidate_query(task: Task, key: str, images: Path | None) -> Query:
    text = task.texts.get(key)
    if text is not None and key not in task.files:
        return Query(text=text)
    image = Image(path=image_file(task, key, images))
    return Query(text=text or "", images=(image,), instruction=task.told.get(key, ""))
