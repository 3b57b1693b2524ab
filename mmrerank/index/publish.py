"""The end of a run: everything is hashed, and the manifest is written, last and atomically."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from mmrerank.index.choice import Choice
from mmrerank.index.hashing import sha256
from mmrerank.index.kept import FILE as KEPT_FILE
from mmrerank.index.manifest import Block, Manifest
from mmrerank.index.records import Records
from mmrerank.index.vectors import VectorFiles
from mmrerank.index.view import save_view

BLOCK = 1 << 28  # bytes of `KEPT_FILE` below one hash, so that an update hashes little again


def publish(folder: Path, facts: Manifest, records: Records, files: VectorFiles) -> Choice:
    """Declares the index in ``folder`` ready. Call it when everything is on the disk.

    Gives back the store that searches it here, and why.
    Raises `ImageIndexError` where what was hashed before is not as it was then.
    """
    rows = records.vectors
    shards = files.shards(rows, known=facts.shards)
    used = records.rows()
    size = files.dtype.itemsize
    store = save_view(folder, facts.store, files.load(rows), used, shards, facts.shards, size)
    good, bad = records.counts()
    dataclasses.replace(
        facts,
        state="ready",
        records=good,
        vectors=rows,
        used=len(used),
        failed=bad,
        shards=shards,
        kept=_blocks(folder / KEPT_FILE, kept_end(facts, records), facts.kept),
        database=records.seal(facts.database),
    ).write(folder)
    return store


def kept_end(facts: Manifest, records: Records) -> int:
    """Where the next copy of an image goes: behind every one that is named, or was when it was hashed."""
    return max(records.end_of_kept(), sum(b.bytes for b in facts.kept))


def _blocks(path: Path, size: int, known: tuple[Block, ...]) -> tuple[Block, ...]:
    found = []
    for number, start in enumerate(range(0, size, BLOCK)):
        length = min(BLOCK, size - start)
        old = known[number] if number < len(known) else None
        if old is None or old.bytes != length:
            shorter = (old.bytes, old.sha256) if old else None
            old = Block(bytes=length, sha256=sha256(path, start, length, shorter))
        found.append(old)
    return tuple(found)
