"""Writes an index: looks at every sample, embeds what is new, drops what is gone.

Works in place and batch by batch: vectors reach the disk first, then the records that name them, so a killed
run loses at most its last batch and the next one goes on from there. Searches nothing.
"""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmrerank import registry
from mmrerank.errors import ImageIndexError, InputError, MismatchError, ModelError
from mmrerank.images import IMAGE_SUFFIXES
from mmrerank.index import lock, manifest
from mmrerank.index.folders import VECTORS, check_free, clear, is_index, replacing
from mmrerank.index.intake import Intake, Looked, ahead, sha256
from mmrerank.index.manifest import Manifest
from mmrerank.index.records import Records
from mmrerank.index.vectors import VectorFiles
from mmrerank.index.view import default_store, save_view
from mmrerank.ports import Corpus, Embedder, Sample, Vectors
from mmrerank.types import Image

Progress = Callable[[int, int | None], None]
"""Called with (samples done, samples there are or None where the source does not say)."""

_COMMIT_PIXELS = 100_000_000  # decoded images that wait for the model, at three bytes a pixel
_COMMIT_RECORDS = 1024  # samples that need no model are committed in portions of this size
_AHEAD_PREPARED = 128  # a prepared image takes well under a megabyte; a decoded one may take 600
_AHEAD_DECODED = 8
_MOVED_LOOKS = 100  # records whose files are looked for below a new source


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A source (its id) that is not in the index, and why."""

    source: str
    error: str


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """What a run did to the index in folder ``index``, in numbers of images.

    ``unseen`` are images in the index whose files cannot be shown, with the reason: imported vectors need no
    files. ``remarks`` are sentences about what was assumed.
    """

    index: Path
    added: int = 0
    changed: int = 0
    removed: int = 0
    unchanged: int = 0
    failed: tuple[Failure, ...] = ()
    unseen: tuple[Failure, ...] = ()
    remarks: tuple[str, ...] = ()


def build(
    folder: Path,
    corpus: Corpus,
    embedder: Embedder,
    *,
    progress: Progress | None,
    max_pixels: int,
    allow_truncated: bool,
    rebuild: bool,
    batch: int,
    store: str | None,
    domain: str,
) -> BuildReport:
    """Makes the index in ``folder``, or brings it up to date. `ImageIndex.build` documents it."""
    folder = Path(os.path.realpath(folder))
    if store:
        registry.load("store", store).open()  # a store that is not there is reported before any work
    samples = iter(corpus.samples())
    first = next(samples, None)
    if first is None:
        raise InputError(no_images(corpus.location))
    samples = itertools.chain([first], samples)
    fresh = Manifest(
        embedder=embedder.spec,
        fingerprint=embedder.fingerprint,
        dim=embedder.dim,
        source=corpus.location,
        domain=domain or corpus.domain,
        store=store or default_store(),
        created=now(),
        updated=now(),
        listed=corpus.listed is not None,
    )
    shards = corpus.shards
    with replacing(folder, rebuild=rebuild) as target, _claimed(target, fresh, shards) as found:
        kept = dataclasses.replace(
            found,
            # the same model at another place, or another folder: what is remembered opens and is found
            embedder=fresh.embedder,
            store=store or found.store,
            source=fresh.source,
            listed=fresh.listed,
        )
        intake_options = {"max_pixels": max_pixels, "allow_truncated": allow_truncated}
        with _Run(target, kept, embedder, batch) as run:
            report = run.go(samples, progress, corpus.count(), intake_options)
    return dataclasses.replace(report, index=folder)


class _Run:
    """One run over a source, holding the lock."""

    def __init__(self, folder: Path, found: Manifest, embedder: Embedder, batch: int) -> None:
        self.folder, self.manifest, self.embedder, self.batch = (folder, found, embedder, max(1, batch))
        self.records = Records(folder, write=True)
        self.files = VectorFiles(folder / VECTORS, found.dim)
        self.rows = self.records.vectors
        self.pending: list[Looked] = []
        self.new: dict[str, Looked] = {}  # by hash, in order: what the next batch embeds
        self.held = 0  # pixels that `new` holds decoded

    def __enter__(self) -> _Run:
        return self

    def __exit__(self, *error: object) -> None:
        self.records.close()

    def go(
        self, samples: Iterable[Sample], progress: Progress | None, total: int | None, options: dict[str, int]
    ) -> BuildReport:
        self.files.truncate(self.rows)
        prepare = self.embedder.prepare if self.embedder.prepares else None
        intake = Intake(
            records=self.records,
            root=Path(self.manifest.source),
            max_pixels=options["max_pixels"],
            allow_truncated=bool(options["allow_truncated"]),
            prepare=prepare,
        )
        depth = _AHEAD_PREPARED if prepare else _AHEAD_DECODED
        seen: set[str] = set()
        failed: list[Looked] = []
        tally = {"added": 0, "changed": 0, "unchanged": 0}
        with closing(ahead(_unique(samples, seen), intake.look, depth=depth)) as looked:  # type: ignore[type-var]
            for done, look in enumerate(looked, start=1):
                if look.record.error is not None:
                    failed.append(look)
                else:
                    was_in = look.old is not None and look.old.row is not None
                    tally["unchanged" if look.same else "changed" if was_in else "added"] += 1
                    self._take(look)
                if progress:
                    progress(done, total)
        self._commit()
        failures = tuple(Failure(source=f.record.id, error=f.record.error or "") for f in failed)
        if not sum(tally.values()):
            raise InputError(_all_failed(self.manifest.source, failures))
        removed = self._finish(seen, failed)
        self._publish()
        return BuildReport(
            index=self.folder,
            added=tally["added"],
            changed=tally["changed"],
            removed=removed,
            unchanged=tally["unchanged"],
            failed=failures,
        )

    def _take(self, look: Looked) -> None:
        content = look.record.sha256
        if look.pixels is not None and content and content not in self.new:
            self.new[content] = look
            if not self.embedder.prepares:
                self.held += (look.record.width or 0) * (look.record.height or 0)
        if look.record != look.old:
            # without its pixels: a thousand copies of one file would be held decoded a thousand times
            self.pending.append(dataclasses.replace(look, pixels=None))
        full = len(self.new) >= self.batch or self.held >= _COMMIT_PIXELS
        if full or len(self.pending) >= _COMMIT_RECORDS:
            self._commit()

    def _commit(self) -> None:
        """Embeds and writes what is pending: vectors to the disk first, then one transaction."""
        # An earlier batch may have embedded the same bytes after the look at these.
        rows = {h: r for h in self.new if (r := self.records.row_of(h)) is not None}
        hashes = [h for h in self.new if h not in rows]
        if hashes:
            vectors = self._embed([self.new[h].pixels for h in hashes])
            self.files.append(vectors, self.rows)
            rows |= {h: self.rows + i for i, h in enumerate(hashes)}
        with self.records.transaction():
            self.records.add_vectors(self.rows, hashes)
            for look in self.pending:
                record = look.record
                if record.row is None:
                    record = dataclasses.replace(record, row=rows[record.sha256 or ""])
                self.records.put(record)
        self.rows += len(hashes)
        self.pending.clear()
        self.new.clear()
        self.held = 0

    def _embed(self, images: list[object]) -> Vectors:
        vectors = np.asarray(self.embedder.embed_images(images), dtype=np.float32)
        if vectors.shape != (len(images), self.manifest.dim) or not np.isfinite(vectors).all():
            raise ModelError(
                f"the embedder {self.embedder.spec} gave vectors of shape {vectors.shape} "
                f"(finite: {bool(np.isfinite(vectors).all())}) for {len(images)} images of width "
                f"{self.manifest.dim}; its weights are probably damaged"
            )
        return vectors

    def _finish(self, seen: set[str], failed: list[Looked]) -> int:
        """Records failures and removes what the source no longer has; the number removed."""
        # What is in a folder or shard that could not be read is not gone, only out of sight.
        hidden = tuple(_below(f.record.id) for f in failed if f.record.path is None)
        gone = [
            i
            for i in self.records.all_ids()
            if i not in seen and not (hidden and ("./" in hidden or i.startswith(hidden)))
        ]
        counted = 0
        with self.records.transaction():
            for id_ in gone:
                record = self.records.get(id_)
                counted += record is not None and record.row is not None
            self.records.delete(gone)
            for look in failed:
                self.records.put(look.record)
        return counted

    def _publish(self) -> None:
        """Hashes the shards, makes the view and writes the manifest, in this order."""
        shards = self.files.shards(self.rows, known=self.manifest.shards)
        vectors = self.files.load(self.rows)
        save_view(self.folder, self.manifest.store, vectors, self.records.rows(), shards)
        good, bad = self.records.counts()
        ready = dataclasses.replace(
            self.manifest,
            state="ready",
            updated=now(),
            records=good,
            vectors=self.rows,
            failed=bad,
            shards=shards,
        )
        ready.write(self.folder)


def _below(id_: str) -> str:
    """How the ids begin of what is in the folder (``sub/``) or the shard (``1.tar``) of this id."""
    return id_ if id_.endswith("/") else id_.removesuffix(".tar") + "/"


def _unique(samples: Iterable[Sample], seen: set[str]) -> Iterator[Sample]:
    for sample in samples:
        if sample.id in seen:
            raise InputError(f"the source has the id {sample.id!r} twice")
        seen.add(sample.id)
        yield sample


@contextmanager
def _claimed(folder: Path, fresh: Manifest, shards: Iterable[Path]) -> Iterator[Manifest]:
    """Locks ``folder`` and yields the manifest to go on from; a new index that comes to nothing is removed.

    Raises `MismatchError` when an index of another embedder is there, `ImageIndexError` when the folder is
    busy, or is something else than an index.
    """
    made = not folder.exists()
    check_free(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with lock.writing(folder):
        new = not is_index(folder)
        if new:
            fresh.write(folder)
        found = manifest.read(folder)
        if not new:
            _check_same(folder, found, fresh, shards)
        try:
            yield found
        except InputError:
            # "building" with nothing in it is worth nothing; anything else is left as it was
            if new:
                clear(folder)
                if made:
                    folder.rmdir()
            raise


def _check_same(folder: Path, found: Manifest, fresh: Manifest, shards: Iterable[Path]) -> None:
    if found.imported:
        raise MismatchError(
            f"{folder} holds vectors imported for {found.embedder}; import again, or index with --rebuild"
        )
    if found.fingerprint != fresh.fingerprint:
        raise MismatchError(mismatch(folder, found, fresh.embedder, fresh.fingerprint, fresh.dim))
    if found.source != fresh.source and not (
        _grown(folder, found.source, shards) or _moved(folder, found.source, fresh.source)
    ):
        raise ImageIndexError(
            f"{folder} is the index of {found.source}, not of {fresh.source}; name another --index, "
            "or replace it with --rebuild"
        )


def _grown(folder: Path, old: str, shards: Iterable[Path]) -> bool:
    """True when every file that the index knows is one of ``shards``: their pattern names more by now."""
    with closing(Records(folder, write=True)) as known:
        files = {Path(old) / os.fsdecode(path) for path in known.paths()}
    return bool(files) and files <= set(shards)


def _moved(folder: Path, old: str, new: str) -> bool:
    """True when ``old`` is gone and an image of it is at its place below ``new``.

    Gone alone says little: a pattern of shards is no path, and a disk may just not be mounted.
    """
    if Path(old).exists():
        return False
    with closing(Records(folder, write=True)) as known:
        for record in itertools.islice(known.everything(), _MOVED_LOOKS):
            path = Path(os.fsdecode(record.path or b""))
            image = Image(path=new / path, offset=record.offset, length=record.length)
            try:
                if record.sha256 and not path.is_absolute() and sha256(image) == record.sha256:
                    return True
            except (OSError, ValueError):
                continue
    return False


def mismatch(folder: Path, found: Manifest, spec: str, fingerprint: str, dim: int) -> str:
    """Why vectors of this embedder cannot go with those of the index."""
    theirs = f"{found.embedder} ({found.fingerprint[:19]}, {found.dim}-d)"
    if spec == found.embedder and found.dim == dim:
        return (
            f"{folder} was made with {theirs}, whose weights or preprocessing are now others "
            f"({fingerprint[:19]}); bring those back, or index again with --rebuild"
        )
    return (
        f"{folder} was made with {theirs}, not with {spec} ({fingerprint[:19]}, {dim}-d); use "
        f"--embedder {found.embedder}, or index again with --rebuild"
    )


def no_images(location: str) -> str:
    """The message for a source without any image."""
    return f"no images found in {location} (looked for {' '.join(sorted(IMAGE_SUFFIXES))})"


def _all_failed(location: str, failures: tuple[Failure, ...]) -> str:
    shown = "; ".join(f"{f.source}: {f.error}" for f in failures[:3])
    more = f"; and {len(failures) - 3} more" if len(failures) > 3 else ""
    return f"none of the {len(failures)} images in {location} can be used: {shown}{more}"


def now() -> str:
    """The time in UTC, ISO 8601, in seconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
