"""Writes an index: looks at every sample, embeds what is new, drops what is gone.

Works in place and portion by portion: while the model computes one, the one before is written. A killed run
loses at most these two, which are one batch, and the next run goes on from there. Searches nothing.
"""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mmrerank.errors import InputError, MismatchError, ModelError, UsageError
from mmrerank.images import IMAGE_SUFFIXES
from mmrerank.index import choice, lock, manifest, sources, texts
from mmrerank.index.folders import VECTORS, check_free, clear, is_index, left_over, replacing
from mmrerank.index.intake import Intake, Looked
from mmrerank.index.kept import Kept
from mmrerank.index.known import Known
from mmrerank.index.manifest import Manifest
from mmrerank.index.publish import kept_end, publish
from mmrerank.index.records import Records
from mmrerank.index.removal import Seen, check_loss, finish, remarks
from mmrerank.index.report import FIRST, merged
from mmrerank.index.report import BuildReport as BuildReport
from mmrerank.index.report import Failure as Failure
from mmrerank.index.vectors import VectorFiles
from mmrerank.index.writing import Writer
from mmrerank.ports import Corpus, Embedder, Sample, Vectors
from mmrerank.types import LeftOut
from mmrerank.version import __version__

Progress = Callable[[int, int | None], None]
"""Called with (samples done, samples there are or None where the source does not say)."""

_COMMIT_PIXELS = 100_000_000  # decoded images that wait for the model, at three bytes a pixel
_COMMIT_RECORDS = 1024  # samples that need no model are committed in portions of this size
_AHEAD_PREPARED = 128  # a prepared image takes well under a megabyte; a decoded one may take 600
_AHEAD_DECODED = 8


def build(
    folder: Path,
    corpora: Sequence[Corpus],
    embedder: Embedder,
    *,
    progress: Progress | None,
    max_pixels: int,
    allow_truncated: bool,
    rebuild: bool,
    batch: int | None,
    store: str | None,
    domain: str,
    allow_removal: bool = False,
    text_tower: bool = True,
    half: bool = False,
    intake: type[Intake] = Intake,
) -> BuildReport:
    """Makes the index in ``folder``, or brings it up to date. `ImageIndex.build` documents it."""
    folder = Path(os.path.realpath(folder))
    if not corpora:
        raise UsageError("no source was given; an index is made of one or more")
    if store:
        choice.check(store)  # a store that is not there is reported before any work
    begun = [_begun(corpus) for corpus in corpora]
    domains = {domain or corpus.domain for corpus in corpora}
    fresh = Manifest(
        embedder=embedder.spec,
        fingerprint=embedder.fingerprint,
        dim=embedder.dim,
        source=corpora[0].location,
        domain=domains.pop() if len(domains) == 1 else "",
        store=store or choice.AUTO,
        dtype="float16" if half else "float32",
        created=now(),
        updated=now(),
    )
    options = {"max_pixels": max_pixels, "allow_truncated": allow_truncated}
    told: list[str] = []
    plan = _plan(fresh, corpora, options)
    with replacing(folder, rebuild=rebuild, plan=plan, told=told) as target:
        aside = target != folder
        with _claimed(target, fresh, corpora) as (found, parts):
            if not aside:
                told.extend(left_over(folder))
            # the same model may be at another place: what is remembered opens
            kept = dataclasses.replace(found, embedder=fresh.embedder, store=store or found.store)
            counts = [corpus.count() for corpus in corpora]
            total = None if None in counts else sum(c or 0 for c in counts)
            options["allow_removal"] = allow_removal or aside
            options["text_tower"] = text_tower
            with _Run(target, kept, embedder, batch, intake) as run:
                report = run.go(list(zip(parts, begun, strict=True)), progress, total, options)
        if aside and not allow_removal:
            check_loss(folder, target)
    report = dataclasses.replace(report, remarks=(*told, *report.remarks))
    return dataclasses.replace(report, index=folder)


def _plan(fresh: Manifest, corpora: Sequence[Corpus], options: dict[str, int]) -> str:
    """What a build is of, and how: two with the same plan embed the same things alike."""
    sources = [{"location": c.location, "listed": c.listed, "partial": c.partial} for c in corpora]
    facts = {"fingerprint": fresh.fingerprint, "dim": fresh.dim, "store": fresh.store, "sources": sources}
    facts["dtype"] = fresh.dtype
    return json.dumps({"mmrerank": __version__, "format": fresh.format, **facts, **options}) + "\n"


def _begun(corpus: Corpus) -> Iterator[Sample]:
    """The samples of ``corpus``. Raises `InputError` when there is none."""
    samples = iter(corpus.samples())
    first = next(samples, None)
    if first is None:
        raise InputError(no_images(corpus.location, corpus.left_out()))
    return itertools.chain([first], samples)


class _Run:
    """One run over a source, holding the lock."""

    def __init__(
        self, folder: Path, found: Manifest, embedder: Embedder, batch: int | None, intake: type[Intake]
    ) -> None:
        self.folder, self.manifest, self.embedder, self.intake = folder, found, embedder, intake
        # one is computed while another is written
        self.portion = embedder.portion if batch is None else max(1, batch // 2)
        with ExitStack() as opened:
            self.records = opened.enter_context(closing(Records(folder, write=True)))
            self.files = VectorFiles(folder / VECTORS, found.dim, dtype=found.dtype)
            self.kept = opened.enter_context(closing(Kept(folder, kept_end(found, self.records))))
            # of its own, so that nobody who looks something up waits for the disk
            self.seen = opened.enter_context(closing(Records(folder)))
            self.writer = opened.enter_context(Writer(self.records, self.seen, self.files, self.kept))
            self._opened = opened.pop_all()
        self.pending: list[Looked] = []
        self.new: dict[str, Looked] = {}  # by hash, in order: what the next batch embeds
        self.held = 0  # pixels that `new` holds decoded

    def __enter__(self) -> _Run:
        return self

    def __exit__(self, *error: Any) -> None:
        self._opened.__exit__(*error)

    def go(
        self,
        work: Sequence[tuple[sources.Part, Iterable[Sample]]],
        progress: Progress | None,
        total: int | None,
        options: dict[str, int],
    ) -> BuildReport:
        self.files.truncate(self.writer.rows)
        prepare = self.embedder.prepare if self.embedder.prepares else None
        intake = self.intake(
            records=self.seen,
            known=Known(self.seen, Path(self.manifest.source)),
            kept=self.kept,
            root=Path(self.manifest.source),
            max_pixels=options["max_pixels"],
            allow_truncated=bool(options["allow_truncated"]),
            prepare=prepare,
        )
        depth = max(_AHEAD_PREPARED, 4 * self.portion) if prepare else _AHEAD_DECODED
        seen = [Seen(part=part) for part, _ in work]
        tally = Counter(added=0, changed=0, unchanged=0)
        done = 0
        for one, (part, samples) in zip(seen, work, strict=True):
            named = _unique(part.samples(samples), one.ids)
            with closing(intake.looked(named, depth=depth)) as looked:  # type: ignore[type-var]
                for look in looked:
                    self._count(look, one, tally)
                    done += 1
                    if progress:
                        progress(done, total)
        self._commit()
        self.writer.wait()
        failures = tuple(
            Failure(source=f.record.id, error=f.record.error or "") for s in seen for f in s.failed
        )
        if not any(s.usable or s.kept.count for s in seen):
            raise InputError(_all_failed(seen, failures))
        for one in seen:
            finish(one, self.records, Path(self.manifest.source), allow=bool(options["allow_removal"]))
        searched_by, told = self._publish(text_tower=bool(options["text_tower"]))
        return dataclasses.replace(
            self._report(seen, tally, told),
            failed=failures,
            store=searched_by.name,
            store_reason=searched_by.why,
        )

    def _report(self, seen: Sequence[Seen], tally: Mapping[str, int], told: Sequence[str]) -> BuildReport:
        corpora = [s.part.corpus for s in seen]
        return BuildReport(
            index=self.folder,
            added=tally["added"],
            changed=tally["changed"],
            unchanged=tally["unchanged"],
            removed=sum(s.removed for s in seen),
            kept=sum(s.kept.count for s in seen),
            kept_first=tuple(f for s in seen for f in s.kept.first)[:FIRST],
            withheld=sum(s.withheld.count for s in seen),
            withheld_first=tuple(f for s in seen for f in s.withheld.first)[:FIRST],
            left_out=merged(c.left_out() for c in corpora),
            remarks=(*(r for c in corpora for r in c.remarks()), *self._remarks(seen), *told),
            sources=(self.manifest.source, *(s.location for s in self.manifest.sources)),
        )

    def _count(self, look: Looked | None, one: Seen, tally: Counter[str]) -> None:
        """Notes what became of an image of ``one``, and takes what is to be written."""
        if look is not None and look.record.error is not None:
            one.failed.append(look)
            return
        if look is not None and look.record.away:
            one.kept.add(look.record.id, look.record.away)
        else:
            was_in = look is not None and look.old is not None and look.old.row is not None
            tally["unchanged" if look is None or look.same else "changed" if was_in else "added"] += 1
            one.usable += 1
        if look is not None:
            self._take(look)

    def _remarks(self, seen: Sequence[Seen]) -> tuple[str, ...]:
        told = []
        if self.kept.images:
            told.append(
                f"{self.kept.images} images ({-(-self.kept.bytes // 1000):,} kB) were copied into the index, "
                "because their source cannot be read at random; of plain tar files nothing is copied"
            )
        for one in seen:
            if not one.usable:
                told.append(f"nothing in {one.location} can be used now; what the index holds of it stays")
            told.extend(remarks(one))
        return tuple(told)

    def _take(self, look: Looked) -> None:
        content = look.record.sha256
        if look.pixels is not None and content and content not in self.new:
            self.new[content] = look
            if not self.embedder.prepares:
                self.held += (look.record.width or 0) * (look.record.height or 0)
        if look.record != look.old:
            # without its pixels: a thousand copies of one file would be held decoded a thousand times
            self.pending.append(dataclasses.replace(look, pixels=None))
        full = len(self.new) >= self.portion or self.held >= _COMMIT_PIXELS
        if full or len(self.pending) >= _COMMIT_RECORDS:
            self._commit()

    def _commit(self) -> None:
        """Embeds what is pending, while the portion before is written, and hands it on to be written."""
        # An earlier portion may have embedded the same bytes after the look at these.
        hashes = [h for h in self.new if self.writer.row_of(h) is None]
        vectors = embedded(self.embedder, [self.new[h].pixels for h in hashes]) if hashes else None
        self.writer.write(hashes, vectors, [look.record for look in self.pending])
        self.pending.clear()
        self.new.clear()
        self.held = 0

    def _publish(self, *, text_tower: bool) -> tuple[choice.Choice, tuple[str, ...]]:
        """Hashes the shards, makes the view and writes the manifest, in this order."""
        self.seen.close()
        files, told = texts.brought_up(self.folder, self.manifest, self.embedder, wanted=text_tower)
        facts = dataclasses.replace(self.manifest, updated=now(), files=files)
        return publish(self.folder, facts, self.records, self.files), told


def embedded(embedder: Embedder, images: list[object]) -> Vectors:
    """The vectors ``(n, dim)`` of images, checked. Raises `ModelError` for what can be none."""
    vectors = np.asarray(embedder.embed_images(images), dtype=np.float32)
    # a row of zeros is no more a place than one that is not finite
    lengths = np.linalg.norm(vectors, axis=-1)
    sound = bool((np.isfinite(lengths) & (lengths > 0)).all())
    if vectors.shape != (len(images), embedder.dim) or not sound:
        raise ModelError(
            f"the embedder {embedder.spec} gave vectors of shape {vectors.shape} "
            f"(finite: {bool(np.isfinite(vectors).all())}) for {len(images)} images of width "
            f"{embedder.dim}; its weights are probably damaged"
        )
    return vectors


def _unique(samples: Iterable[Sample], seen: set[str]) -> Iterator[Sample]:
    for sample in samples:
        if sample.id in seen:
            raise InputError(f"the source has the id {sample.id!r} twice")
        seen.add(sample.id)
        yield sample


@contextmanager
def _claimed(
    folder: Path, fresh: Manifest, corpora: Sequence[Corpus]
) -> Iterator[tuple[Manifest, list[sources.Part]]]:
    """Locks ``folder`` and yields the manifest to go on from, and each corpus's part of the index.

    A new index that comes to nothing is removed. Raises `MismatchError` when an index of another embedder
    is there, `ImageIndexError` when the folder is busy, or is something else than an index.
    """
    made = not folder.exists()
    check_free(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with lock.writing(folder):
        new = not is_index(folder)
        try:
            before = fresh if new else manifest.read(folder)
            if not new:
                _check_same(folder, before, fresh)
            found, parts = sources.plan(folder, before, corpora, new=new)
            if not new and fresh.domain != found.domain and len(found.sources) > len(before.sources):
                found = dataclasses.replace(found, domain="")
            if new:
                found.write(folder)
            elif len(found.sources) > len(before.sources):
                # their ids are theirs from the first batch on, even if this run is killed
                dataclasses.replace(before, sources=found.sources).write(folder)
            yield found, parts
        except (InputError, UsageError):
            # "building" with nothing in it is worth nothing; anything else is left as it was
            if new:
                clear(folder)
                if made:
                    folder.rmdir()
            elif is_index(folder):
                before.write(folder)
            raise


def _check_same(folder: Path, found: Manifest, fresh: Manifest) -> None:
    if found.imported:
        raise MismatchError(
            f"{folder} holds vectors imported for {found.embedder}; import again, or index with --rebuild"
        )
    if found.dtype != fresh.dtype == "float16":
        raise MismatchError(
            f"{folder} holds its vectors in {found.dtype}, and keeps them so; index with --half --rebuild"
        )
    if found.fingerprint != fresh.fingerprint:
        raise MismatchError(mismatch(folder, found, fresh.embedder, fresh.fingerprint, fresh.dim))


def mismatch(folder: Path, found: Manifest, spec: str, fingerprint: str, dim: int) -> str:
    """Why vectors of this embedder cannot go with those of the index."""
    theirs = f"{found.embedder} ({found.fingerprint[:19]}, {found.dim}-d)"
    if spec == found.embedder and found.dim == dim:
        return (
            f"{folder} was made with {theirs}, whose weights, prompt or preprocessing are now others "
            f"({fingerprint[:19]}); bring those back, or index again with --rebuild"
        )
    return (
        f"{folder} was made with {theirs}, not with {spec} ({fingerprint[:19]}, {dim}-d); use "
        f"--embedder {found.embedder}, or index again with --rebuild"
    )


def no_images(location: str, left_out: Iterable[LeftOut] = ()) -> str:
    """The message for a source without any image."""
    looked = f"no images found in {location} (looked for {' '.join(sorted(IMAGE_SUFFIXES))})"
    return "; ".join([looked, *(item.line for item in left_out)])


def _all_failed(seen: Sequence[Seen], failures: tuple[Failure, ...]) -> str:
    where = " and ".join(s.part.corpus.location for s in seen)
    shown = "; ".join(f"{f.source}: {f.error}" for f in failures[:3])
    more = f"; and {len(failures) - 3} more" if len(failures) > 3 else ""
    if all(f.record.path is None for s in seen for f in s.failed):
        return f"nothing in {where} can be read: {shown}{more}"
    return f"none of the {len(failures)} images in {where} can be used: {shown}{more}"


def now() -> str:
    """The time in UTC, ISO 8601, in seconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
