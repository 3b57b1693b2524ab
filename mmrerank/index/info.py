"""What an index says about itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmrerank.filters.columns import Fields
from mmrerank.index import texts
from mmrerank.index.filtering import COLUMNS
from mmrerank.index.manifest import Manifest
from mmrerank.index.opened import store_facts
from mmrerank.index.records import Records


def describe(path: Path, facts: Manifest, records: Records, fields: Fields) -> dict[str, Any]:
    """The facts about the index at ``path``, ready for JSON."""
    images, failed = records.counts()
    return {
        "index": str(path),
        "images": images,
        "vectors": records.vectors,
        "failed": failed,
        "kept": records.away(),
        "embedder": facts.embedder,
        "fingerprint": facts.fingerprint,
        "dim": facts.dim,
        "source": facts.source,
        **({"sources": [facts.source, *(s.location for s in facts.sources)]} if facts.sources else {}),
        "domain": facts.domain,
        "dtype": facts.dtype,
        **store_facts(path, facts),
        "text_tower": texts.size(facts),
        "created": facts.created,
        "updated": facts.updated,
        "format": facts.format,
        "bytes": sum(f.stat().st_size for f in path.rglob("*") if f.is_file()),
        "columns": columns(records, fields),
    }


def columns(records: Records, fields: Fields) -> list[dict[str, Any]]:
    """Name and type of each column, and how many images have a value in it."""
    found = []
    for field in fields:
        images = field.images
        if images is None:
            there = f"row IS NOT NULL AND {COLUMNS[field.keys[0]]} IS NOT NULL"
            images = int(records.ask_one(f"SELECT count(*) FROM records WHERE {there}"))
        found.append({"name": field.name, "type": field.type, "images": images})
    return found
