"""``manifest.json``: what an index is, made by which embedder, from where. Written last and atomically.

Holds nothing that a search needs row by row; that is in the records and the vectors.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mmrerank.errors import ImageIndexError
from mmrerank.index import plain
from mmrerank.paths import reason, refused, shown

FILE = "manifest.json"
TEMPORARY = f".{FILE}.tmp"
FORMAT = 3
MAX_BYTES = 1 << 22
"""Of the file. A shard takes 150 bytes and a source some hundred more, so that this is room for ten thousand;
a file from elsewhere may have any size. Raise it here where yours is longer."""
MAX_DIM = 1 << 16
"""The widest vectors: eight times the widest of known embedders."""
IMPORTED = "imported:"
"""Start of the fingerprint of vectors that were made elsewhere; the embedder's spec follows."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A file of vectors. ``sha256`` is over the bytes of its first ``rows`` rows, without the header."""

    file: str
    rows: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Seal:
    """The hash over the database's bytes as generation ``generation`` of its writers left them; empty where
    it was not taken.
    """

    generation: int = 0
    bytes: int = 0
    sha256: str = ""


@dataclass(frozen=True, kw_only=True)
class Block:
    """A stretch of `mmrerank.index.kept.FILE`, the next behind the one before."""

    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class File:
    """A file beside the vectors that belongs to the index, by its name below the index's folder."""

    name: str
    bytes: int
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
    ``sources`` are further ones. ``domain`` says what they are of, where that is known (a model with the same
    domain is at home here). Of its ``vectors``, ``used`` are named by a record. ``dtype`` is that of the
    vectors on the disk, ``files`` are others beside them.
    Times are ISO 8601 in UTC. The file ends with a checksum over everything before it.
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
    used: int = 0
    shards: tuple[Shard, ...] = ()
    listed: bool = False
    sources: tuple[Source, ...] = ()
    database: Seal = Seal()
    kept: tuple[Block, ...] = ()
    dtype: Literal["float32", "float16"] = "float32"
    files: tuple[File, ...] = ()
    format: int = FORMAT

    @property
    def imported(self) -> bool:
        """True when the vectors were made elsewhere."""
        return self.fingerprint.startswith(IMPORTED)

    def write(self, folder: Path) -> None:
        """Replaces the manifest in ``folder``; a reader sees the old one or the new one."""
        try:
            _check(self)
        except ValueError as error:
            raise ImageIndexError(f"{folder} cannot be an index: {error}") from error
        data = self.render()
        if len(data) > MAX_BYTES:
            raise ImageIndexError(f"{folder / FILE} would have {len(data):,} bytes; {_too_long()}")
        replace(folder / FILE, data)

    def render(self) -> bytes:
        """The file's bytes: there is one way only to write the same facts."""
        body = dataclasses.asdict(self)
        digest = hashlib.sha256(json.dumps(body).encode()).hexdigest()
        return f"{json.dumps({**body, 'checksum': digest}, indent=2)}\n".encode()


def replace(path: Path, data: bytes) -> None:
    """Writes ``path`` atomically and durably."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    with temporary.open("xb") as file:  # never through a link that lies there
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
        data = _bytes(path)
        body: Any = json.loads(data.decode())
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
            f"{folder} has index format {shown(repr(body['format']))}, and this mmrerank reads format "
            f"{FORMAT}; use the version that wrote it, or {repair}"
        )
    try:
        manifest = _parse(body)
        _check(manifest)
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise ImageIndexError(f"{path} is damaged ({shown(str(error))}); {repair}") from error
    if manifest.render() != data:
        raise ImageIndexError(f"{path} is damaged (it is not as it was written); {repair}")
    return manifest


def _bytes(path: Path) -> bytes:
    plain.check_file(path)
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ImageIndexError(f"{path} has {os.path.getsize(path):,} bytes; {_too_long()}")  # noqa: PTH202
    return data


def _too_long() -> str:
    return f"at most {MAX_BYTES:,} are read (MAX_BYTES in mmrerank/index/manifest.py)"


def _parse(body: dict[str, Any]) -> Manifest:
    """Raises `TypeError` or `KeyError` for other fields than a manifest's."""
    fields = {k: v for k, v in body.items() if k != "checksum"}
    fields |= {
        "shards": tuple(Shard(**s) for s in body["shards"]),
        "sources": tuple(Source(**s) for s in body["sources"]),
        "kept": tuple(Block(**b) for b in body["kept"]),
        "files": tuple(File(**f) for f in body["files"]),
        "database": Seal(**body["database"]),
    }
    return Manifest(**fields)


def _check(manifest: Manifest) -> None:
    """Raises `ValueError` for what no index of ours says, whatever its checksum."""
    parts: tuple[Manifest | Seal | Shard | Source | Block | File, ...] = (
        manifest, manifest.database, *manifest.shards, *manifest.sources, *manifest.kept, *manifest.files
    )  # fmt: skip
    for part in parts:
        for field in dataclasses.fields(part):
            value = vars(part)[field.name]
            kind = {"int": int, "str": str, "bool": bool}.get(str(field.type))
            if kind and type(value) is not kind:
                raise ValueError(f"{field.name} is {value!r}")
            if kind is int and not 0 <= value < 2**63:
                raise ValueError(f"{field.name} is {shown(repr(value))}")
            if kind is str and "\0" in value:
                raise ValueError(f"{field.name} holds a NUL: {value!r}")
    if not 1 <= manifest.dim <= MAX_DIM or manifest.state not in ("building", "ready"):
        raise ValueError(f"dim is {manifest.dim} of at most {MAX_DIM}, state is {manifest.state!r}")
    if manifest.dtype not in ("float32", "float16"):
        raise ValueError(f"dtype is {manifest.dtype!r}")
    for file in manifest.files:
        if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", file.name):
            raise ValueError(f"a file is called {shown(repr(file.name))}")
    if not re.fullmatch(r"\w[\w-]*", manifest.store):
        raise ValueError(f"store is {manifest.store!r}")
    for number, shard in enumerate(manifest.shards):
        if shard.file != f"{number:05d}.npy":
            raise ValueError(f"it lists {shard.file!r} where {number:05d}.npy belongs")
    if (rows := sum(s.rows for s in manifest.shards)) != manifest.vectors:
        raise ValueError(f"its shards have {rows} rows, and it counts {manifest.vectors} vectors")
    if manifest.used > manifest.vectors:
        raise ValueError(f"it counts {manifest.used} vectors in use, of {manifest.vectors}")
    for source in manifest.sources:
        if not source.name:
            raise ValueError(f"a source has no name: {source.location!r}")
    for place in (manifest.source, *(s.location for s in manifest.sources)):
        os.fsencode(place)  # a place that no file can have
