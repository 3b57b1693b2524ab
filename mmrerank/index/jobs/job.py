"""A whole job: plan, shards, one index. Run again after it was stopped, it goes on where it was.

The folder of the job, WORK, lies beside the index by default, and is removed when the index is there.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

from mmrerank.errors import ImageIndexError, UsageError
from mmrerank.images import allowed_pixels
from mmrerank.index import build as building
from mmrerank.index import lock, manifest, sources
from mmrerank.index.build import BuildReport, Progress
from mmrerank.index.folders import is_index, writable
from mmrerank.index.jobs import cluster, local, shards
from mmrerank.index.jobs import plan as planning
from mmrerank.index.jobs.local import Opener
from mmrerank.index.jobs.merge import Given, MergeIntake, PlannedCorpus
from mmrerank.index.jobs.plan import Plan
from mmrerank.index.known import PORTION, Known
from mmrerank.index.places import index_path
from mmrerank.index.records import Records
from mmrerank.ports import Corpus, Embedder, Sample
from mmrerank.version import __version__

Engine = Literal["local", "ray"]
ENGINES: tuple[Engine, ...] = ("local", "ray")
SHARD_IMAGES = 2000
"""Images of a shard, by default: what a killed worker loses, some minutes of work of a CPU."""
_OURS = ("plan", "attempts", planning.FILE, f".{planning.FILE}.tmp", lock.FILE)


def build_in_shards(
    path: str | Path,
    corpora: Sequence[Corpus],
    embedder: Embedder,
    *,
    opener: Opener | None = None,
    engine: Engine = "local",
    workers: int | None = None,
    shard_images: int = SHARD_IMAGES,
    work: str | Path | None = None,
    progress: Progress | None = None,
    max_pixels: int | None = None,
    allow_truncated: bool = False,
    rebuild: bool = False,
    store: str | None = None,
    domain: str = "",
    allow_removal: bool = False,
    text_tower: bool = True,
    half: bool = False,
) -> BuildReport:
    """Indexes ``corpora`` into ``path`` as `ImageIndex.build` does, as a job of independent shards.

    ``engine`` is ``local`` (``workers`` processes; with one, this one) or ``ray``. ``opener`` opens the
    embedder in another process; without it, the engine is ``local`` with one worker. The folders of the
    sources, of ``work`` and of the model must be there under the same paths on every machine. Raises what
    `ImageIndex.build` raises, `UsageError` for a setting out of place, `ModelError` where a shard fails.

    >>> opener = functools.partial(open_embedder, "clip-b32")  # doctest: +SKIP
    >>> build_in_shards("photos", corpora, opener(), opener=opener, workers=4)  # doctest: +SKIP
    """
    _check(engine, workers, shard_images, opener)
    folder = Path(os.path.realpath(index_path(path)))
    place = Path(os.path.realpath(work)) if work else folder.with_name(f".{folder.name}.job")
    pixels = allowed_pixels(max_pixels)
    with writable(folder):
        _ready(place)
        with lock.writing(place):
            facts = {
                "mmrerank": __version__, "fingerprint": embedder.fingerprint, "dim": embedder.dim,
                "max_pixels": pixels, "allow_truncated": allow_truncated, "shard_images": shard_images,
                "rebuild": rebuild, "index": _version(folder, rebuild=rebuild),
                "sources": [[c.location, list(c.listed or ()), c.partial] for c in corpora],
            }  # fmt: skip
            plan, told = _planned(place, folder, corpora, facts, progress)
            _embed(place, plan, embedder, opener, engine, workers, progress)
            how: dict[str, Any] = {
                "store": store,
                "domain": domain,
                "allow_removal": allow_removal,
                "text_tower": text_tower,
            }
            how |= {"half": half, "rebuild": rebuild, "allow_truncated": allow_truncated}
            planned = [PlannedCorpus(place, plan, number, c) for number, c in enumerate(corpora)]
            report = building.build(
                folder, planned, Given(embedder), max_pixels=pixels, progress=None, batch=None,
                intake=MergeIntake, **how,
            )  # fmt: skip
        _remove(place)
    return dataclasses.replace(report, remarks=(*told, *report.remarks))


def _check(engine: str, workers: int | None, shard_images: int, opener: Opener | None) -> None:
    if engine not in ENGINES:
        raise UsageError(f"there is no engine {engine!r}; engines are {', '.join(ENGINES)}")
    if workers is not None and workers < 1:
        raise UsageError(f"--workers must be at least 1, not {workers}")
    if shard_images < 1:
        raise UsageError(f"--shard-images must be at least 1, not {shard_images}")
    if engine == "ray":
        cluster.check()
    if opener is None and (engine == "ray" or (workers or 1) > 1):
        raise UsageError("other processes cannot open this embedder: opener=... is missing")


def _ready(place: Path) -> None:
    """Makes the folder of the job. Raises `ImageIndexError` when it holds something else."""
    place.mkdir(parents=True, exist_ok=True)
    for entry in place.iterdir():
        if entry.name not in _OURS and not entry.name.startswith(("shard-", ".shard-")):
            raise ImageIndexError(
                f"{place} holds something else than a job ({entry.name}); name another folder"
            )


def _remove(place: Path) -> None:
    for entry in list(place.iterdir()):
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
    place.rmdir()


def _version(folder: Path, *, rebuild: bool) -> str:
    """What tells the index as it is from what it becomes: a plan says what is new in it."""
    if rebuild or not is_index(folder):
        return ""
    found = manifest.read(folder)
    return found.updated if found.state == "ready" else ""


def _planned(
    place: Path, folder: Path, corpora: Sequence[Corpus], facts: Mapping[str, Any], progress: Progress | None
) -> tuple[Plan, list[str]]:
    """The plan of the job, an old one where it is of the same, and sentences about that."""
    found = planning.read(place)
    told = []
    if found is not None and dict(found.facts) == dict(facts):
        left = len(shards.unfinished(place, found))
        told.append(
            f"went on with a job that was stopped: {len(found.parts) - left} of its {len(found.parts)} "
            "shards were there. Images that came since are found by the next run"
        )
        return found, told
    if found is not None:
        told.append(
            "a job that was stopped was of other sources, options or another model, and was discarded"
        )
    for old in place.glob("shard-*"):
        shutil.rmtree(old)
    shard_images = int(facts["shard_images"])
    counting = None if progress is None else (lambda n: progress(0, None) if n % 1000 == 0 else None)
    if facts["rebuild"] or not is_index(folder):
        samples = _all(corpora)
        return planning.make(
            place, facts, corpora[0].location, samples, corpora, shard_images, counting
        ), told
    there = manifest.read(folder)
    building._check_same(folder, there, dataclasses.replace(there, fingerprint=facts["fingerprint"]))
    after, parts = sources.plan(folder, there, corpora, new=False)
    with closing(Records(folder)) as records:
        known = Known(records, Path(after.source))
        changed = _changed(parts, known)
        return planning.make(place, facts, after.source, changed, corpora, shard_images, counting), told


def _all(corpora: Sequence[Corpus]) -> Iterator[tuple[int, Sample, bool]]:
    for number, corpus in enumerate(corpora):
        for sample in corpus.samples():
            yield number, sample, sample.image is not None


def _changed(parts: Sequence[sources.Part], known: Known) -> Iterator[tuple[int, Sample, bool]]:
    """Every sample, and whether the index has its image just as it is."""
    for number, part in enumerate(parts):
        for portion in _portions(part.corpus.samples()):
            ids = [s.id for s in part.samples(portion)]
            rows = known.fetch(ids)
            for id_, sample in zip(ids, portion, strict=True):
                same = known.is_same(sample, rows.get(id_))
                yield number, sample, sample.image is not None and not same


def _portions(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    left = iter(samples)
    while portion := list(itertools.islice(left, PORTION)):
        yield portion


def _embed(
    place: Path,
    plan: Plan,
    embedder: Embedder,
    opener: Opener | None,
    engine: Engine,
    workers: int | None,
    progress: Progress | None,
) -> None:
    """Has every shard made that is not there yet."""
    left = shards.unfinished(place, plan)
    shards.forget_attempts(place)
    count = plan.images - sum(p.images for p in left)

    def done(more: int) -> None:
        nonlocal count
        count += more
        if progress:
            progress(count, plan.images)

    if not left:
        return
    if engine == "ray" and opener is not None:
        cluster.on_ray(place, plan, left, opener, workers, done)
    elif opener is not None and (workers or 1) > 1:
        local.processes(place, plan, left, opener, workers or 1, done)
    else:
        local.here(place, plan, left, embedder, done)
    if missing := shards.unfinished(place, plan):
        raise ImageIndexError(
            f"{len(missing)} shards are not in {place} ({shards.place(place, missing[0]).name}, ...) though "
            "their workers have ended; does every machine see this folder?"
        )
