"""`ImageIndex`: images that can be found by vector. Made by an embedder or from vectors, opened to search.

Embeds no query itself: it takes vectors, and checks that they come from the embedder it was made with.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mmrerank import catalog
from mmrerank.benchmark import Scored
from mmrerank.errors import ImageIndexError, InputError, MismatchError, UsageError
from mmrerank.filters.columns import Fields
from mmrerank.filters.filter import Filter, Where
from mmrerank.images import allowed_pixels
from mmrerank.index import build as building
from mmrerank.index import importing, manifest, presence, verify
from mmrerank.index.build import BuildReport, Progress
from mmrerank.index.database import identity
from mmrerank.index.filtering import Filtering
from mmrerank.index.folders import VECTORS, standing, writable
from mmrerank.index.guard import take
from mmrerank.index.importing import VectorCorpus
from mmrerank.index.info import describe
from mmrerank.index.kept import FILE as KEPT_FILE
from mmrerank.index.kept import is_kept
from mmrerank.index.manifest import IMPORTED
from mmrerank.index.opened import view_of
from mmrerank.index.places import index_path as index_path
from mmrerank.index.places import missing
from mmrerank.index.queries import scaled
from mmrerank.index.records import Record, Records
from mmrerank.index.vectors import VectorFiles
from mmrerank.index.view import View
from mmrerank.paths import looked_at
from mmrerank.ports import Corpus, Embedder, Vectors
from mmrerank.types import Candidate, Image


class ImageIndex:
    """A finished index, open for reading. Many readers may have it open while one writer updates it;
    a reader sees the vectors as they were when it first searched. Of an index that was replaced (rebuilt,
    imported again) vectors are read no more: `ImageIndexError` then asks to open it again.

    >>> index = ImageIndex.open("photos")  # doctest: +SKIP
    >>> index.info()["records"], index.image("beach/2024.jpg").path  # doctest: +SKIP
    """

    def __init__(self, path: Path, facts: manifest.Manifest, *, store: str | None = None) -> None:
        self.path = path
        self.manifest = facts
        self._store = store
        self._opened = identity(path)
        self._records = Records(path)
        self._filtering = Filtering(self._records)

    # Making

    @classmethod
    def build(
        cls,
        path: str | Path,
        corpus: Corpus | Sequence[Corpus],
        embedder: Embedder,
        *,
        progress: Progress | None = None,
        max_pixels: int | None = None,
        allow_truncated: bool = False,
        rebuild: bool = False,
        batch: int | None = None,
        store: str | None = None,
        domain: str = "",
        allow_removal: bool = False,
        half: bool = False,
        text_tower: bool = True,
    ) -> BuildReport:
        """Indexes ``corpus`` into ``path`` (a bare name is ``./indexes/NAME``), or brings it up to date.

        Unchanged images (same size and time, or same bytes) are not embedded again, nor are those whose
        bytes are in the index under another id. What the source no longer has is removed: more than ten
        images at once that are more than a tenth of the source's only with ``allow_removal``. What cannot be
        looked at now stays as it was. Images that cannot be used are in the report. At most ``batch`` new
        images (default: two portions of the embedder, 64 as a rule) are lost when the run is killed.
        ``rebuild`` starts afresh and replaces the index at the end; ``domain`` says what the images are of;
        ``half`` keeps the vectors of a new index in float16.
        With ``text_tower`` an open_clip embedder leaves its text tower in the index, so that a search for
        words loads no torch; one that does not agree with it is left out, and the report says so.

        Several corpora are several sources of the index, and so is one that it does not know yet. The ids of
        every source but the first begin with its name and ``//``. What is there of sources that are not named
        stays. Raises `InputError` when a source has no usable image (the index is then as it was),
        `MismatchError` for an index of another embedder, `ImageIndexError` where a source has images in
        common with another, for a damaged index, or one that is being written.
        """
        place = index_path(path)
        with writable(place):
            return building.build(
                place,
                corpus if isinstance(corpus, Sequence) else [corpus],
                embedder,
                progress=progress,
                max_pixels=allowed_pixels(max_pixels),
                allow_truncated=allow_truncated,
                rebuild=rebuild,
                batch=batch,
                store=store,
                domain=domain,
                allow_removal=allow_removal,
                half=half,
                text_tower=text_tower,
            )

    @classmethod
    def import_vectors(
        cls,
        path: str | Path,
        corpus: VectorCorpus,
        *,
        embedder_spec: str,
        rebuild: bool = False,
        store: str | None = None,
        progress: Progress | None = None,
        strict: bool = False,
        allow_removal: bool = False,
        half: bool = False,
    ) -> BuildReport:
        """Makes an index of the vectors that ``corpus`` brings, scaled to length 1. Loads no model.

        Each row stays a row of its own, so that equal scores are in row order. ``embedder_spec`` names
        what made the vectors and is taken at its word. An index that was imported for the same embedder is
        replaced; any other only with ``rebuild``, else `MismatchError`. Images that are not there are in the
        report; with ``strict`` they are an `InputError`, as is a mass removal without ``allow_removal``.
        """
        place = index_path(path)
        with writable(place):
            return importing.import_vectors(
                place,
                corpus,
                embedder_spec=embedder_spec,
                rebuild=rebuild,
                store=store,
                progress=progress,
                strict=strict,
                allow_removal=allow_removal,
                half=half,
            )

    @classmethod
    def open(cls, path: str | Path, *, store: str | None = None) -> ImageIndex:
        """Opens the index at ``path`` (a bare name is ``./indexes/NAME``).

        ``store`` overrides what it was built for. Raises `ImageIndexError` when there is none, or it is
        unfinished, damaged or of another version; damaged vectors are noticed by the first search.
        """
        place = index_path(path)
        for _ in range(_OPENINGS):
            with looked_at(place, "the index", ImageIndexError):
                there = standing(place)
                if not there.is_dir():
                    raise ImageIndexError(missing(place))
            at = identity(there)
            facts = manifest.read(there)
            if facts.state != "ready":
                raise ImageIndexError(f"{place} is unfinished; {presence.finish(facts, path)}")
            index = cls(there, facts, store=store)
            if at == index._opened == identity(there):
                return index
            index.close()
        raise ImageIndexError(f"{place} is being replaced by another process; try again")

    def close(self) -> None:
        """Closes the database; the object cannot be used any more."""
        self._records.close()

    def __enter__(self) -> ImageIndex:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # What it is

    @property
    def embedder_spec(self) -> str:
        """What the user typed to get the embedder it was made with."""
        return self.manifest.embedder

    @property
    def domain(self) -> str:
        """What the images are of, where that is known."""
        return self.manifest.domain

    @property
    def dim(self) -> int:
        """The vectors' width."""
        return self.manifest.dim

    def __len__(self) -> int:
        return self._records.counts()[0]

    @property
    def ids(self) -> list[str]:
        """The ids of every image that can be found, in the order they were indexed."""
        return self._records.ids()

    def info(self) -> dict[str, Any]:
        """The facts, ready for JSON. ``bytes`` is the size on disk, ``kept`` how many images the
        last run could not see, ``columns`` what a `mmrerank.Filter` can ask about, ``text_tower`` the bytes
        of a tower for words (0: none).
        """
        return describe(self.path, self.manifest, self._records, self._filtering.fields())

    def warnings(self) -> list[str]:
        """What about the index's surroundings its user should know: a source or an embedder that is away."""
        return [
            *presence.source_warnings(self.manifest, self.path),
            *presence.embedder_warnings(self.manifest, self.path),
            *presence.kept_warnings(self._records.away(), self.manifest, self.path),
        ]

    def update_command(self) -> str:
        """What brings it up to date with its source, as a command."""
        return presence.go_on(self.manifest, self.path)

    def embedder_warnings(self, embedder: Embedder) -> list[str]:
        """That the index remembers a place from which its model is gone, where ``embedder`` has another."""
        if embedder.spec == self.manifest.embedder:
            return []
        return presence.embedder_warnings(self.manifest, self.path, now=embedder.spec)

    def verify(self, *, deep: bool = False) -> list[str]:
        """Everything that is wrong with it, in words; empty when all is well.

        Reads every byte of its own files and compares it with what was written, and looks whether the image
        files are there with the size they had; ``deep`` hashes the images as well.
        """
        return list(verify.problems(self.path, self._records, self.locate, deep=deep))

    def unfinished(self) -> str:
        """That an update was stopped or is running, so that `verify` sees less; empty as a rule."""
        sealed = self._records.is_sealed(self.manifest.database)
        return "" if sealed else presence.unfinished(self.manifest, self.path)

    def check_embedder(self, embedder: Embedder) -> None:
        """Raises `MismatchError` unless ``embedder`` makes vectors of the index's kind."""
        facts = self.manifest
        if facts.imported:
            made_by = catalog.resolve("embedder", embedder.spec).spec
            good = facts.fingerprint == IMPORTED + made_by
        else:
            good = facts.fingerprint == embedder.fingerprint
        if facts.imported and not good and facts.dim == embedder.dim:
            raise MismatchError(
                f"{self.path} holds vectors that were imported for {facts.embedder}, not for "
                f"{embedder.spec}. Where both are the same model, import them again under its new name: "
                f"{presence.go_on(replace(facts, embedder=embedder.spec), self.path)} --rebuild"
            )
        if not good or facts.dim != embedder.dim:
            raise MismatchError(
                building.mismatch(self.path, facts, embedder.spec, embedder.fingerprint, embedder.dim)
            )

    # Finding

    @cached_property
    def _view(self) -> View:
        with self._in_place() as files:
            return view_of(self.path, self.manifest, self._records, files, self._store)

    @contextmanager
    def _in_place(self) -> Iterator[VectorFiles]:
        """The vector files, to be read within it. Raises `ImageIndexError` when they are another index's.

        They are opened by name, and the database stays open: after a rebuild its rows name other images.
        """
        try:
            yield VectorFiles(self.path / VECTORS, self.dim, dtype=self.manifest.dtype)
        finally:
            self._check_in_place()

    def _check_in_place(self) -> None:
        if identity(self.path) != self._opened:
            raise ImageIndexError(f"{self.path} was replaced by another index; open it again")

    @property
    def fields(self) -> Fields:
        """The columns that a filter can ask about, with their types."""
        return self._filtering.fields()

    def filter(self, where: Where) -> Filter:
        """The filter ``where``. Raises `UsageError`, with the place of the fault, for one that cannot be
        read, names a column that is not there, or compares one with a value of another type.
        """
        return self._filtering.checked(where)

    def search(
        self, vectors: Vectors, k: int, *, embedder: Embedder | None = None, where: Where | None = None
    ) -> list[list[Scored]]:
        """The ``k`` nearest images of each query vector ``(q, dim)``, best first.

        Queries are scaled to length 1. Images with the same bytes score alike and are all listed. Equal
        scores are in the order the vectors were made, and within one vector in the order of indexing.
        With ``embedder``, it is checked first. With ``where``, only images that satisfy it are searched, so
        that these are the nearest of them. Raises `MismatchError` for another width, `InputError` for a
        zero or non-finite vector, and what `filter` raises.
        """
        if embedder is not None:
            self.check_embedder(embedder)
        return [
            [Scored(id=record.id, score=score) for record, score in found]
            for found in self._nearest(vectors, k, where)
        ]

    def vectors(self, ids: Sequence[str]) -> Vectors:
        """The vectors ``(n, dim)`` of these images, of length 1. Raises `InputError` for an unknown id,
        `ImageIndexError` for a vector that is not as it was written.
        """
        rows = self._records.rows_of(ids)
        with self._in_place() as files:
            return take(files, self._records, rows)

    def candidates(self, vector: Vectors, k: int, where: Where | None = None) -> tuple[Candidate, ...]:
        """The ``k`` nearest images of one query vector ``(dim,)``, with all that is known about them."""
        return tuple(
            Candidate(id=record.id, image=self.locate(record), score=score, metadata=record.metadata)
            for record, score in self._nearest(np.asarray(vector)[None], k, where)[0]
        )

    def _nearest(self, vectors: Vectors, k: int, where: Where | None) -> list[list[tuple[Record, float]]]:
        if k < 1:
            raise UsageError(f"k must be at least 1, not {k}")
        chosen = None if where is None else self.filter(where)
        queries = scaled(vectors, self.path, self.manifest)
        among = None if chosen is None else self._filtering.rows(chosen)
        if among is not None and not len(among):
            return [[] for _ in queries]
        scores, rows = self._view.search(queries, k, among)
        records = self._records.by_row(int(r) for r in rows.ravel())
        return [
            [
                (record, float(score))
                for score, row in zip(scores[i], rows[i], strict=True)
                for record in records.get(int(row), ())
                if chosen is None or self._filtering.keeps(chosen, record)
            ][:k]
            for i in range(len(scores))
        ]

    def image(self, id_: str) -> Image:
        """The image with this id. Raises `InputError` when the index has none."""
        record = self._records.get(id_)
        if record is None or record.path is None:
            raise InputError(f"{self.path} has no image {id_!r}")
        return self.locate(record)

    def images(self, ids: Sequence[str]) -> list[Image]:
        """`image` for several ids."""
        return [self.image(i) for i in ids]

    def problems_of(self, ids: Sequence[str]) -> dict[str, str]:
        """What is wrong with the files of these images, by id: gone, changed since, not readable.

        Those that are as they were are left out, and so are unknown ids.
        """
        records = [r for i in ids if (r := self._records.get(i)) is not None and r.path is not None]
        found = {r.id: presence.problem(self.locate(r), r) for r in records}
        return {id_: why for id_, why in found.items() if why}

    def explain(self, problems: Mapping[str, str], of: int) -> list[str]:
        """`problems_of` among ``of`` images, as sentences that name the command which helps."""
        return presence.warnings(problems, of, self.manifest, self.path)

    def locate(self, record: Record) -> Image:
        """Where the image of a record is now, as seen from the source's location.

        Without its hash and size where the file has changed since: they are the old picture's.
        """
        kept = is_kept(record.path)
        if kept:
            self._check_in_place()
        place = Path(self.manifest.source) / os.fsdecode(record.path or b"")
        image = Image(
            path=self.path / KEPT_FILE if kept else place, offset=record.offset, length=record.length
        )
        if record.sha256 and not kept and presence.changed(image, record):
            return image
        return replace(image, sha256=record.sha256, width=record.width, height=record.height)


_OPENINGS = 5
"""An index is replaced once in hours; one that is always replaced between two looks is no index."""
