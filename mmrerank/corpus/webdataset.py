"""Tar shards in WebDataset's layout, read in sequence; their images can be read at random afterwards.

Members that share a name up to its first dot make one sample. Nothing is unpacked: an image is a span of its
shard. Compressed and remote shards are not read. A damaged shard yields what stands before the damage and
then a sample with an error; the other shards follow.
"""

from __future__ import annotations

import glob
import itertools
import json
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmrerank.corpus._names import id_of
from mmrerank.errors import InputError
from mmrerank.images import IMAGE_SUFFIXES
from mmrerank.ports import Corpus, Sample
from mmrerank.types import Image

_MAX_TEXT_BYTES = 1 << 20
_BLOCK_BYTES = 512

FORM = "SHARDS.tar, such as shards/{000..012}.tar"


@dataclass(frozen=True, kw_only=True)
class WebDatasetCorpus(Corpus):
    """Images in ``shards``. Ids are ``SHARD/KEY``: the shard's path below their common folder, no ``.tar``.

    A sample's further images are ``SHARD/KEY.EXTENSION``; a key that occurs again gets ``#2`` and so on.
    ``.txt`` becomes the metadata key ``caption``; the keys of a ``.json`` object are taken as they are.
    """

    location: str
    shards: tuple[Path, ...]

    def samples(self) -> Iterator[Sample]:
        """Every image of every shard, in the shards' order and the members' order."""
        parents = {str(shard.parent) for shard in self.shards}
        common = Path(os.path.commonpath(parents))
        for shard in self.shards:
            name = shard.relative_to(common).as_posix().removesuffix(".tar")
            yield from _unique(_shard(shard, id_of(common, name)))


def accepts(location: str) -> bool:
    """True for what ends in ``.tar`` (also compressed, to explain the refusal) and is no folder."""
    return bool(re.search(r"\.(tar(\.\w+)?|tgz)$", location)) and not Path(location).is_dir()


def open(location: str) -> WebDatasetCorpus:
    """The shards that ``location`` names: one file, ``{000..012}`` and ``{a,b}``, or ``*``.

    Raises `InputError` when none of them exists or they are compressed or remote. Of several, a missing one
    yields a sample with an error.
    """
    if "://" in location or location.startswith("pipe:"):
        raise InputError(f"{location!r} is not on this machine; download the shards first")
    if not location.endswith(".tar"):
        raise InputError(f"{location!r} is compressed; unpack it to plain .tar shards first")
    names = [location] if Path(location).exists() else list(_expand(location))
    names = [n for name in names for n in _matches(name)]
    shards = tuple(Path(os.path.abspath(n)) for n in dict.fromkeys(names))  # noqa: PTH100
    if not any(shard.is_file() for shard in shards):
        raise InputError(f"there is no shard {location!r}")
    return WebDatasetCorpus(location=os.path.abspath(location), shards=shards)  # noqa: PTH100


def _matches(name: str) -> list[str]:
    if Path(name).exists() or not glob.has_magic(name):
        return [name]
    return sorted(glob.glob(name))  # noqa: PTH207 - the pattern may be absolute


def _expand(pattern: str) -> Iterator[str]:
    """The names that a pattern with braces stands for, in order; numbers keep their leading zeros."""
    match = re.search(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}", pattern)
    if match is None:
        yield pattern
        return
    first, last, words = match.groups()
    if words is not None:
        choices = words.split(",")
    else:
        if int(last) - int(first) > 1_000_000:
            raise InputError(f"{match[0]} stands for more than a million shards")
        choices = [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
    for choice in choices:
        yield from _expand(pattern[: match.start()] + choice + pattern[match.end() :])


def _unique(samples: Iterator[Sample]) -> Iterator[Sample]:
    """Numbers the ids that occur again, so that no image is lost to a careless shard."""
    seen: Counter[str] = Counter()
    for sample in samples:
        id_ = sample.id
        while seen[id_]:
            seen[sample.id] += 1
            id_ = f"{sample.id}#{seen[sample.id]}"
        seen[id_] += 1
        if id_ == sample.id:
            yield sample
        else:
            yield Sample(id=id_, image=sample.image, metadata=sample.metadata, error=sample.error)


def _shard(path: Path, name: str) -> Iterator[Sample]:
    members = _Members(path)
    for key, group in itertools.groupby(members, key=lambda member: _split(member.name)[0]):
        yield from _group(path, f"{name}/{id_of(Path(), key)}", list(group))
    if members.error:
        yield Sample(id=f"{name}.tar", error=members.error)


class _Members:
    """Iterates over the files of a shard; ``error`` says afterwards why it ended early, if it did."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.error = ""

    def __iter__(self) -> Iterator[tarfile.TarInfo]:
        try:
            yield from self._members()
        except (tarfile.TarError, OSError, ValueError, ArithmeticError, LookupError) as error:
            detail = error.strerror if isinstance(error, OSError) and error.strerror else error
            self.error = f"the shard cannot be read on: {detail}"

    def _members(self) -> Iterator[tarfile.TarInfo]:
        size = self._path.stat().st_size
        with self._path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # it would keep every header
                base = member.name.rsplit("/", 1)[-1]
                if not member.isreg() or member.issparse() or base.startswith((".", "__")):
                    continue
                if member.offset_data + member.size > size:
                    raise tarfile.ReadError(f"it is cut off within {member.name!r}")
                yield member
            # tarfile takes a damaged header for the end; a true end is a block of zeros, or nothing.
            file.seek(tar.offset)
            if file.read(_BLOCK_BYTES).strip(b"\0"):
                raise tarfile.ReadError(f"the header at byte {tar.offset} is damaged")


def _split(name: str) -> tuple[str, str]:
    """``a/b.seg.PNG`` -> ``("a/b", "seg.png")``, as WebDataset has it."""
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return folder + slash + stem, extension.lower()


def _group(path: Path, id_: str, members: list[tarfile.TarInfo]) -> Iterator[Sample]:
    metadata: dict[str, Any] = {}
    images: list[tuple[str, tarfile.TarInfo]] = []
    for member in members:
        extension = _split(member.name)[1]
        last = extension.rpartition(".")[2]
        if f".{last}" in IMAGE_SUFFIXES:
            images.append((extension, member))
        elif last in ("txt", "json"):
            metadata.update(_text(path, member, last))
    if not images:
        kinds = ", ".join(_split(member.name)[1] for member in members)
        yield Sample(id=id_, error=f"the sample holds no image, only: {kinds}", metadata=metadata)
    for number, (extension, member) in enumerate(images):
        yield Sample(
            id=f"{id_}.{extension}" if number else id_,
            image=Image(path=path, offset=member.offset_data, length=member.size),
            metadata=metadata,
        )


def _text(path: Path, member: tarfile.TarInfo, kind: str) -> dict[str, Any]:
    """What a ``.txt`` or ``.json`` member says; if unusable, why, under the key ``note``."""
    if member.size > _MAX_TEXT_BYTES:
        return {"note": f"{member.name} is too large to be metadata ({member.size} bytes)"}
    text = Image(path=path, offset=member.offset_data, length=member.size).read()
    if kind == "txt":
        return {"caption": text.decode("utf-8", "replace").strip()}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return {"note": f"{member.name} is not JSON: {error}"}
    return value if isinstance(value, dict) else {"json": value}
