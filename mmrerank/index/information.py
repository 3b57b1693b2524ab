"""The facts about an index, ready for JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmrerank.index import texts
from mmrerank.index.manifest import Manifest
from mmrerank.index.records import Records


def information(path: Path, facts: Manifest, records: Records) -> dict[str, Any]:
    """What `mmrerank.index.index.ImageIndex.info` tells of the index in ``path``."""
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
        "store": facts.store,
        "text_tower": texts.size(facts),
        "created": facts.created,
        "updated": facts.updated,
        "format": facts.format,
        "bytes": sum(f.stat().st_size for f in path.rglob("*") if f.is_file()),
    }
