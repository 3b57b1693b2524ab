"""Looks for what is wrong with an index. Repairs nothing.

Every byte of a finished index is below a hash, so that one flipped bit is found wherever it is. Behind the
end of what is hashed lies at most what a killed run had begun; nothing reads it, and the next run cuts it
off. Where a run has written and not finished, the database's bytes are others than when it was hashed: then
each record and each new vector is compared with its own checksum, and SQLite looks at the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from mmrerank.errors import ImageIndexError
from mmrerank.index import guard, hashing, manifest, presence, texts, view
from mmrerank.index.folders import VECTORS
from mmrerank.index.intake import sha256
from mmrerank.index.integrity import integrity
from mmrerank.index.kept import FILE as KEPT_FILE
from mmrerank.index.manifest import Manifest, Shard
from mmrerank.index.records import Record, Records
from mmrerank.index.vectors import VectorFiles
from mmrerank.paths import reason
from mmrerank.plain_files import open_plain
from mmrerank.types import Image

_REBUILD = "index the source again with --rebuild"
_NAMED = 3  # damaged vectors that are named


def problems(
    folder: Path, records: Records, locate: Callable[[Record], Image], *, deep: bool, images: bool = True
) -> Iterator[str]:
    """Every problem, in words. ``deep`` hashes the image files; without ``images`` nothing looks at them."""
    try:
        facts = manifest.read(folder)
    except ImageIndexError as error:
        yield str(error)
        return
    # a file that is away is met twice
    yield from dict.fromkeys([*_database(facts, records), *_own_files(folder, facts, records)])
    told = presence.source_warnings(facts, folder) if images else []
    yield from told
    away = [Path(p) for p in presence.missing_sources(facts)] if told else []
    for record in integrity(records):
        if isinstance(record, str):
            yield record
            continue
        if record.row is None or record.path is None or not images:
            continue
        image = locate(record)
        # one sentence for a folder that is away, not one for each image in it
        if image.path is None or not any(image.path.is_relative_to(p) for p in away):
            yield from _image(record, image, deep)


def _database(facts: Manifest, records: Records) -> Iterator[str]:
    try:
        generation = records.state.generation
        if generation < facts.database.generation:
            yield (
                f"{records.path} is older than the manifest: {generation} runs have written to it, not "
                f"{facts.database.generation}; {_REBUILD}"
            )
        # asked again: somebody may have begun to write
        sealed = records.is_sealed(facts.database)
        if sealed and not records.is_whole(facts.database) and records.is_sealed(facts.database):
            yield f"{records.path} does not have the hash in the manifest; {_REBUILD}"
    except ImageIndexError as error:
        yield str(error)


def _own_files(folder: Path, facts: Manifest, records: Records) -> Iterator[str]:
    """Vectors, copies of images, and the saved view."""
    files = VectorFiles(folder / VECTORS, facts.dim, dtype=facts.dtype)
    try:
        count = records.vectors
        if count < facts.vectors:
            yield f"the records know {count} vectors of the manifest's {facts.vectors}; {_REBUILD}"
        rows = records.rows()
    except ImageIndexError as error:
        yield str(error)
        return
    for number, shard in enumerate(facts.shards):
        yield from _shard(files, number, shard)
    bad = []
    try:
        bad = list(guard.damaged(files, records, range(count)))
    except ImageIndexError as error:
        yield str(error)
    yield from bad[:_NAMED]
    if len(bad) > _NAMED:
        yield f"{files.folder}: {len(bad) - _NAMED} more vectors are not as they were written"
    yield from texts.problems(folder, facts)
    at = 0
    for block in facts.kept:
        path = folder / KEPT_FILE
        try:
            if hashing.sha256(path, at, block.bytes) != block.sha256:
                yield f"{path} does not have the hash in the manifest, from byte {at} on; {_REBUILD}"
        except OSError as error:
            yield f"{path} cannot be read: {reason(error)}"
        at += block.bytes
    try:
        store = view.usable(facts.store, len(rows), facts.dim, files.dtype.itemsize).name
    except ImageIndexError as error:
        yield str(error)
        store = facts.store
    if records.is_sealed(facts.database):
        yield from view.problems(folder, store, rows, facts.shards)


def _shard(files: VectorFiles, number: int, shard: Shard) -> Iterator[str]:
    path = files.path(number)
    try:
        files.measure(number, shard.rows)
        if files.sha256(number, shard.rows) != shard.sha256:
            yield f"{path} does not have the hash in the manifest; {_REBUILD}"
    except OSError as error:
        yield f"{path} cannot be read: {reason(error)}"
    except ImageIndexError as error:
        yield str(error)


def _image(record: Record, image: Image, deep: bool) -> Iterator[str]:
    assert image.path is not None
    try:
        with open_plain(image.path):
            yield from _contents(record, image, image.path.stat().st_size, deep)
    except OSError as error:
        yield f"{record.id}: {image.path} cannot be read: {reason(error)}"


def _contents(record: Record, image: Image, size: int, deep: bool) -> Iterator[str]:
    if record.size is not None and (size if image.length is None else record.size) != record.size:
        yield f"{record.id}: {image.path} has {size} bytes, and had {record.size} when it was indexed"
    elif (image.offset or 0) + (image.length or 0) > size:
        yield f"{record.id}: {image.path} ends before the image does"
    elif deep and record.sha256 and sha256(image) != record.sha256:
        yield f"{record.id}: {image.path} has changed since it was indexed"
