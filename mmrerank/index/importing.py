"""Makes an index of vectors that exist already. Loads no model and decodes no pixel."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mmrerank import catalog
from mmrerank.errors import ImageError, ImageIndexError, InputError, MismatchError, UsageError
from mmrerank.images import probe
from mmrerank.index import choice, lock, manifest
from mmrerank.index.build import BuildReport, Progress, no_images, now
from mmrerank.index.folders import VECTORS, check_free, clear, is_index, replacing
from mmrerank.index.intake import place, sha256, status
from mmrerank.index.intake import reason as why_not
from mmrerank.index.manifest import IMPORTED, Manifest
from mmrerank.index.presence import listed
from mmrerank.index.publish import publish
from mmrerank.index.records import Record, Records
from mmrerank.index.removal import ALLOW, FREELY, SHARE, needs_leave
from mmrerank.index.report import Failures
from mmrerank.index.vectors import VectorFiles
from mmrerank.paths import absolute_spec
from mmrerank.ports import Corpus, Sample, Vectors

_BATCH_ROWS = 2048
"""Rows that are written at a time: their records are held, about a kilobyte each."""
_BATCH_BYTES = 1 << 22
"""Of float64 vectors that are scaled at a time."""


class VectorCorpus(Protocol):
    """A corpus that brings a vector for each of its samples: ``vectors`` is ``(n, d)``, any float type."""

    @property
    def location(self) -> str:
        """The folder that ids are relative to."""

    @property
    def vectors(self) -> NDArray[Any]:
        """One row a sample, ``(n, d)``."""

    def samples(self) -> Iterable[Sample]:
        """One sample a row, in row order."""


def import_vectors(
    folder: Path,
    corpus: VectorCorpus,
    *,
    embedder_spec: str,
    rebuild: bool,
    store: str | None,
    progress: Progress | None,
    strict: bool = False,
    allow_removal: bool = False,
    half: bool = False,
) -> BuildReport:
    """Makes the index in ``folder``. `ImageIndex.import_vectors` documents it."""
    if not embedder_spec.strip():
        raise UsageError("imported vectors need the name of the embedder that made them")
    embedder_spec = absolute_spec(embedder_spec.strip())
    folder = Path(os.path.realpath(folder))
    if store:
        choice.check(store)  # what is not there is reported before any work
    if not len(corpus.vectors):
        raise InputError(no_images(corpus.location))
    old = _old(folder, embedder_spec, rebuild)
    fresh = Manifest(
        embedder=embedder_spec,
        fingerprint=IMPORTED + catalog.resolve("embedder", embedder_spec).spec,
        dim=int(corpus.vectors.shape[1]),
        source=corpus.location,
        store=store or (old.store if old else choice.AUTO),
        dtype="float16" if half else old.dtype if old else "float32",
        created=old.created if old else now(),
        updated=now(),
    )
    unseen = Failures()
    # Always made anew, beside an index that is there: importing is cheap, and half an import is nothing.
    with _Before(folder, old, allow=allow_removal) as before, replacing(folder, rebuild=True) as target:
        made = not target.exists()
        target.mkdir(parents=True, exist_ok=True)
        try:
            with lock.writing(target):
                if is_index(target):
                    raise ImageIndexError(f"{target} was made by another process just now; try again")
                searched_by = _write(target, corpus, fresh, progress, unseen, before, strict=strict)
        except InputError:
            if made:
                target.rmdir()
            raise
    total = len(corpus.vectors)
    return BuildReport(
        index=folder,
        added=total - before.unchanged - before.changed,
        changed=before.changed,
        removed=before.images - before.unchanged - before.changed,
        unchanged=before.unchanged,
        unseen=unseen or (),
        remarks=(*_summary(unseen, total), *_remarks(corpus)),
        store=searched_by.name,
        store_reason=searched_by.why,
    )


def _remarks(corpus: VectorCorpus) -> tuple[str, ...]:
    return tuple(corpus.remarks()) if isinstance(corpus, Corpus) else ()


def _summary(unseen: Failures, of: int) -> list[str]:
    """A sentence for each reason, with the count and the first names."""
    sentences = []
    for why in unseen.counts():
        names, count = listed(f.source for f in unseen if f.error == why)
        sentences.append(
            f"{count} of {of} images can be found, but neither shown nor judged: {why}: {names}. "
            "--strict refuses such vectors"
        )
    return sentences


def _old(folder: Path, spec: str, rebuild: bool) -> Manifest | None:
    """The manifest of an index that may be replaced."""
    check_free(folder)
    if rebuild or not is_index(folder):
        return None
    old = manifest.read(folder)
    if not old.imported or old.fingerprint != IMPORTED + catalog.resolve("embedder", spec).spec:
        raise MismatchError(
            f"{folder} was made with {old.embedder}; replace it with --rebuild, or name another --index"
        )
    return old if old.state == "ready" else None


class _Before:
    """The index that is replaced, and how many of its images come again with the same vector.

    It is asked batch by batch: a copy of its ids and vectors may not fit into memory.
    """

    def __init__(self, folder: Path, old: Manifest | None, *, allow: bool) -> None:
        self._allow = allow
        self.images = self.unchanged = self.changed = 0
        self._records: Records | None = None
        if old is not None:
            self._records, self._dim = Records(folder), old.dim
            files = VectorFiles(folder / VECTORS, old.dim, dtype=old.dtype)
            self._files = files.load(self._records.vectors)
            self.images = self._records.counts()[0]

    def __enter__(self) -> _Before:
        return self

    def __exit__(self, *error: object) -> None:
        if self._records is not None:
            self._records.close()

    def check_loss(self) -> None:
        """Raises `InputError` when more of its images do not come again than go without leave."""
        lost = self.images - self.unchanged - self.changed
        if needs_leave(lost, self.images) and not self._allow:
            raise InputError(
                f"nothing was imported: {lost} of the {self.images} images of the index are not among the "
                f"new ones. More than {FREELY} that are more than one in {SHARE} go only with {ALLOW}"
            )

    def compare(self, ids: Sequence[str], vectors: NDArray[Any]) -> None:
        """Counts new ``vectors`` ``(n, d)`` of images of these ids. An id comes once."""
        if self._records is None:
            return
        rows = self._records.rows_among(ids)
        same = 0
        if vectors.shape[1] == self._dim:
            here = [n for n, id_ in enumerate(ids) if id_ in rows]
            old = self._files[np.array([rows[ids[n]] for n in here], dtype=np.int64)]
            same = int((old == vectors[here]).all(axis=1).sum())
        self.unchanged += same
        self.changed += len(rows) - same


def _write(
    folder: Path,
    corpus: VectorCorpus,
    fresh: Manifest,
    progress: Progress | None,
    unseen: Failures,
    before: _Before,
    *,
    strict: bool,
) -> choice.Choice:
    fresh.write(folder)
    records = Records(folder, write=True)
    try:
        files = VectorFiles(folder / VECTORS, fresh.dim, dtype=fresh.dtype)
        _fill(files, records, corpus, progress, unseen, before)
        if strict and unseen:
            said = ". ".join([*_summary(unseen, len(corpus.vectors)), *_remarks(corpus)])
            raise InputError(f"nothing was imported: {said}")
        before.check_loss()
        return publish(folder, fresh, records, files)
    except BaseException:
        records.close()
        clear(folder)
        raise
    finally:
        records.close()


def _fill(
    files: VectorFiles,
    records: Records,
    corpus: VectorCorpus,
    progress: Progress | None,
    unseen: Failures,
    before: _Before,
) -> None:
    total = len(corpus.vectors)
    files.truncate(0)
    samples = iter(corpus.samples())
    root = Path(corpus.location)
    for start in range(0, total, _BATCH_ROWS):
        vectors = files.stored(_unit(corpus.vectors, start, min(total, start + _BATCH_ROWS)))
        files.append(vectors, start)
        rows = []
        for row in range(start, start + len(vectors)):
            sample = next(samples, None)
            if sample is None:
                raise InputError(f"there are {total} vectors and only {row} images")
            rows.append(_record(sample, root, row, unseen))
        with records.transaction():
            records.add_vectors(start, [r.sha256 for r in rows], vectors)
            for record in rows:
                records.put(record)
        before.compare([r.id for r in rows], vectors)
        if progress:
            progress(start + len(vectors), total)
    if next(samples, None) is not None:
        raise InputError(f"there are more images than the {total} vectors")
    if records.counts()[0] != total:
        raise InputError("the source has an id twice")


def _unit(vectors: NDArray[Any], start: int, stop: int) -> Vectors:
    """Rows ``start`` to ``stop``, scaled to length 1. Raises `InputError` for one that cannot be."""
    found = np.empty((stop - start, vectors.shape[1]), dtype=np.float32)
    step = max(1, _BATCH_BYTES // (8 * vectors.shape[1]))
    for at in range(start, stop, step):
        wide = np.array(vectors[at : min(stop, at + step)], dtype=np.float64)
        length = np.linalg.norm(wide, axis=1, keepdims=True)
        bad = ~(np.isfinite(length) & (length > 0))[:, 0]
        if bad.any():
            raise InputError(f"vector {at + int(bad.argmax())} (rows from 0) is zero or not finite")
        wide /= length
        found[at - start : at - start + len(wide)] = wide
    return found


def _record(sample: Sample, root: Path, row: int, unseen: Failures) -> Record:
    """The record of a row; what the image itself says is left out where the image is not there.

    Images that are not there, or are none, are added to ``unseen``.
    """
    record = Record(id=sample.id, metadata=sample.metadata, row=row)
    if sample.image is None:
        return record
    record = replace(record, **place(sample.image, root))
    try:
        record = replace(record, **status(sample.image), sha256=sha256(sample.image))
        info = probe(sample.image)
    except (FileNotFoundError, NotADirectoryError):
        unseen.add(sample.id, "its file is not there")
        return record
    except (OSError, ImageError) as error:
        unseen.add(sample.id, why_not(error))
        return record
    return replace(record, width=info.width, height=info.height, taken=info.taken, camera=info.camera)
