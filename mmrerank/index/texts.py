"""The text tower beside an index: files with which words are embedded without the model that made the index.

They are named in the manifest with their hashes, and read only where these are right. An index is whole
without them. What is in the files is the embedder's affair.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from mmrerank.errors import ImageIndexError, ModelError
from mmrerank.index import plain
from mmrerank.index.hashing import sha256
from mmrerank.index.manifest import File, Manifest, replace
from mmrerank.paths import reason
from mmrerank.plain_files import open_plain
from mmrerank.ports import Embedder

FOLDER = "text"
LEFT_OUT = "left-out.txt"
"""Stands in the place of a tower that could not be made, and says why."""
_NONE = "no text tower is kept beside the index, so that each search loads the model"
_MOST = 1 << 31  # bytes of a file: no tower has more


def brought_up(
    folder: Path, facts: Manifest, embedder: Embedder, *, wanted: bool
) -> tuple[tuple[File, ...], tuple[str, ...]]:
    """The files of ``facts`` with those of a text tower, which is made where there is none yet, or without.

    The second part are sentences about that, such as why there is none.
    """
    others = tuple(f for f in facts.files if not _ours(f))
    mine = tuple(f for f in facts.files if _ours(f))
    if wanted and mine and all(_there(folder, f) for f in mine):
        return facts.files, ()
    shutil.rmtree(folder / FOLDER, ignore_errors=True)
    if not wanted:
        return others, ()
    try:
        try:
            made = embedder.text_tower()
            told: tuple[str, ...] = ()
        except ModelError as error:
            # kept, so that no update tries it again
            made = {LEFT_OUT: f"{error}\n".encode()}
            told = (f"{_NONE}: {error}",)
        return (*others, *_written(folder, made)), told
    except OSError as error:
        shutil.rmtree(folder / FOLDER, ignore_errors=True)
        return others, (f"{_NONE}: {folder / FOLDER} cannot be written ({reason(error)})",)


def _written(folder: Path, made: Mapping[str, bytes]) -> list[File]:
    """Writes the files of a tower durably. Raises `OSError`."""
    found = []
    for name, data in made.items():
        (folder / FOLDER).mkdir(exist_ok=True)
        replace(folder / FOLDER / name, data)
        digest = hashlib.sha256(data).hexdigest()
        found.append(File(name=f"{FOLDER}/{name}", bytes=len(data), sha256=digest))
    return found


def read(folder: Path, facts: Manifest) -> dict[str, bytes]:
    """The files of the text tower by name. Raises `ImageIndexError` for one that is not as it was written."""
    found = {}
    for file in (f for f in facts.files if _ours(f)):
        path = folder / file.name
        plain.check_file(path.parent)
        plain.check_file(path)
        if file.bytes > _MOST:
            raise ImageIndexError(f"{path} has {file.bytes:,} bytes, and at most {_MOST:,} are read")
        try:
            with open_plain(path) as opened:
                data = opened.read(file.bytes + 1)
        except OSError as error:
            raise ImageIndexError(f"{path} cannot be read: {reason(error)}") from error
        if len(data) != file.bytes or hashlib.sha256(data).hexdigest() != file.sha256:
            raise ImageIndexError(f"{path} does not have the hash in the manifest")
        found[path.name] = data
    return found


def size(facts: Manifest) -> int:
    """Bytes of the text tower; 0 where there is none."""
    return sum(f.bytes for f in facts.files if _ours(f) and f.name != f"{FOLDER}/{LEFT_OUT}")


def problems(folder: Path, facts: Manifest) -> Iterator[str]:
    """What is wrong with the files beside the vectors, in words."""
    for file in facts.files:
        path = folder / file.name
        try:
            plain.check_file(path.parent)
            plain.check_file(path)
            if path.stat().st_size != file.bytes or sha256(path, 0, file.bytes) != file.sha256:
                yield (
                    f"{path} does not have the hash in the manifest, and is not used; delete "
                    f"{path.parent} and index the source again: it is made anew"
                )
        except OSError as error:
            yield f"{path} cannot be read: {reason(error)}"
        except ImageIndexError as error:
            yield str(error)


def _ours(file: File) -> bool:
    return file.name.startswith(f"{FOLDER}/")


def _there(folder: Path, file: File) -> bool:
    try:
        return (folder / file.name).stat().st_size == file.bytes
    except OSError:
        return False
