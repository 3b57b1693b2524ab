"""``manifest.json``: what an index is, made by which embedder, from where. Written last and atomically.

Holds nothing that a search needs row by row; that is in the records and the vectors.
"""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mmrerank.errors import ImageIndexError
from mmrerank.paths import reason, refused

FILE = "manifest.json"
TEMPORARY = f".{FILE}.tmp"
FORMAT = 1
IMPORTED = "imported:"
"""Start of the fingerprint of vectors that were made elsewhere; the embedder's spec follows."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A file of vectors. ``sha256`` is over the bytes of its first ``rows`` rows, without the header."""

    file: str
    rows: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Source:
    """A source: its corpus's location, and ``name``, with which its ids begin (the first source's is
    empty).
    """

    location: str
    name: str = ""
    listed: bool = False


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The facts about one index. ``state`` is ``building`` until the first run has reached its end.

    ``source`` is the corpus's location; with ``listed`` a list named its images, not the folder.
    ``sources`` are further ones. ``domain``
    says what they are of, where that is known (a model with the same domain is at home here). Times are ISO
    8601 in UTC.
    """

    embedder: str
    fingerprint: str
    dim: int
    source: str
    store: str
    created: str
    updated: str
    state: Literal["building", "ready"] = "building"
    domain: str = ""
    records: int = 0
    vectors: int = 0
    failed: int = 0
    shards: tuple[Shard, ...] = ()
    listed: bool = False
    sources: tuple[Source, ...] = ()
    format: int = FORMAT

    @property
    def imported(self) -> bool:
        """True when the vectors were made elsewhere."""
        return self.fingerprint.startswith(IMPORTED)

    def write(self, folder: Path) -> None:
        """Replaces the manifest in ``folder``; a reader sees the old one or the new one."""
        body = json.dumps(dataclasses.asdict(self), indent=2) + "\n"
        replace(folder / FILE, body.encode())


def replace(path: Path, data: bytes) -> None:
    """Writes ``path`` atomically and durably."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes new and renamed entries of ``folder`` survive a power cut, where a folder can be synced."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read(folder: Path) -> Manifest:
    """The manifest in ``folder``. Raises `ImageIndexError` when it is missing, damaged or foreign."""
    path = folder / FILE
    repair = "index the source again with --rebuild"
    try:
        body: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ImageIndexError(f"{folder} is not an index: it has no {FILE}") from error
    except (OSError, ValueError, RecursionError) as error:
        if refused(error):
            raise ImageIndexError(f"{path} cannot be read: {reason(error)}") from error
        raise ImageIndexError(f"{path} cannot be read ({error}); {repair}") from error
    if not isinstance(body, dict) or "format" not in body or "fingerprint" not in body:
        raise ImageIndexError(f"{path} is not the manifest of an mmrerank index; {repair}")
    if body["format"] != FORMAT:
        raise ImageIndexError(
            f"{folder} has index format {body['format']!r}, and this mmrerank reads format {FORMAT}; "
            f"use the version that wrote it, or {repair}"
        )
    try:
        manifest = Manifest(
            **{
                **body,
                "shards": tuple(Shard(**s) for s in body["shards"]),
                "sources": tuple(Source(**s) for s in body.get("sources", ())),
            }
        )
        _check(manifest)
    except (TypeError, KeyError, ValueError) as error:
        raise ImageIndexError(f"{path} is damaged ({error}); {repair}") from error
    return manifest


def _check(manifest: Manifest) -> None:
    for field in dataclasses.fields(Manifest):
        value = vars(manifest)[field.name]
        kind = {"int": int, "str": str}.get(str(field.type))
        if kind and (not isinstance(value, kind) or isinstance(value, bool)):
            raise ValueError(f"{field.name} is {value!r}")
    if manifest.dim < 1 or manifest.state not in ("building", "ready"):
        raise ValueError(f"dim is {manifest.dim}, state is {manifest.state!r}")
    for shard in manifest.shards:
        if not isinstance(shard.file, str) or not isinstance(shard.rows, int):
            raise ValueError(f"a shard is {shard!r}")
    for source in manifest.sources:
        if not isinstance(source.location, str) or not isinstance(source.name, str) or not source.name:
            raise ValueError(f"a source is {source!r}")
