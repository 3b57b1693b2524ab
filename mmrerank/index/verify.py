"""Looks for what is wrong with an index. Repairs nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from mmrerank.errors import ImageIndexError
from mmrerank.index import presence, view
from mmrerank.index.folders import VECTORS
from mmrerank.index.intake import sha256
from mmrerank.index.manifest import Manifest
from mmrerank.index.records import Record, Records
from mmrerank.index.vectors import VectorFiles
from mmrerank.paths import reason
from mmrerank.types import Image


def problems(
    folder: Path, facts: Manifest, records: Records, locate: Callable[[Record], Image], *, deep: bool
) -> Iterator[str]:
    """Every problem, in words. ``deep`` hashes the image files."""
    yield from records.integrity()
    yield from dict.fromkeys(_vectors(folder, facts, records))  # a file that is away is met twice
    yield from view.problems(folder, facts.store)
    told = presence.source_warnings(facts, folder)
    yield from told
    away = [Path(p) for p in presence.missing_sources(facts)] if told else []
    for record in records.everything():
        if record.row is None or record.path is None:
            continue
        image = locate(record)
        # one sentence for a folder that is away, not one for each image in it
        if image.path is None or not any(image.path.is_relative_to(p) for p in away):
            yield from _image(record, image, deep)


def _vectors(folder: Path, facts: Manifest, records: Records) -> Iterator[str]:
    files = VectorFiles(folder / VECTORS, facts.dim)
    count = records.vectors
    if count < facts.vectors:
        yield f"the records know {count} vectors of the manifest's {facts.vectors}"
    if (rows := records.rows()) and rows[-1] >= count:
        yield f"records name the vector {rows[-1]}, and there are {count}"
    try:
        files.load(count)
    except ImageIndexError as error:
        yield str(error)
    for number, shard in enumerate(facts.shards):
        path = files.path(number)
        if shard.file != path.name:
            yield f"the manifest lists {shard.file} where {path.name} belongs"
            continue
        try:
            if not path.is_file():
                yield f"{path} is missing"
            elif files.sha256(number, shard.rows) != shard.sha256:
                yield f"{path} does not have the hash in the manifest; index the source again with --rebuild"
        except OSError as error:
            yield f"{path} cannot be read: {reason(error)}"


def _image(record: Record, image: Image, deep: bool) -> Iterator[str]:
    assert image.path is not None
    try:
        with image.path.open("rb"):
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
