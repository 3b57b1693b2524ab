"""Tar shards in WebDataset's layout. Members that share a name up to its first dot make one sample.

Of a plain shard nothing is unpacked: an image is a span of it. A compressed shard, one at an address (where
addresses are allowed), or one that a command prints (``pipe:``) can only be read from its beginning: its
images come as bytes. Its ids are those of the same shard as a plain file. A damaged shard yields what stands
before the damage and then a sample with an error; the other shards follow.
"""

from __future__ import annotations

import glob
import itertools
import os
import posixpath
import re
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from mmrerank.corpus import _unpack
from mmrerank.corpus._group import grouped, samples_of
from mmrerank.corpus._kinds import SHARD, THUMBNAILS, is_shard, left_out
from mmrerank.corpus._names import id_of, numbered
from mmrerank.corpus._tar import Listing, Member, listing
from mmrerank.errors import InputError
from mmrerank.images.urls import Urls
from mmrerank.paths import reason
from mmrerank.ports import Corpus, Sample
from mmrerank.types import Image, LeftOut

FORM = "SHARDS.tar, such as shards/{000..012}.tar, compressed ones, addresses, or pipe:COMMAND"
_MOST = 1_000_000
MOST_MEMBER = 256 * 1024 * 1024
"""Bytes of an image in a packed shard: it is held in memory. Of a plain tar it is read in place."""


@dataclass(frozen=True, kw_only=True)
class WebDatasetCorpus(Corpus):
    """Images in ``places``: paths, addresses or commands. Ids are ``SHARD/KEY``.

    ``SHARD`` is the path below the shards' common folder. The shard's suffix is left out. A
    sample's further images are ``SHARD/KEY.EXTENSION``; a key that occurs again gets ``#2``
    and so on. ``.txt`` becomes the metadata key ``caption``, ``.cls`` the key ``class``;
    the keys of a ``.json`` object are taken as they are.
    """

    location: str
    places: tuple[str, ...]
    _empty: Counter[str] = field(default_factory=Counter, compare=False, repr=False)
    _folders: Counter[str] = field(default_factory=Counter, compare=False, repr=False)

    @property
    def shards(self) -> tuple[Path, ...]:  # type: ignore[override] # follows from ``places``
        """The shards that are files."""
        return tuple(Path(p) for p in self.places if _unpack.is_file(p))

    def left_out(self) -> Sequence[LeftOut]:
        """Shards in which nothing was, and folders in them that the last reading passed over."""
        found = (
            LeftOut(reason=THUMBNAILS, counts=self._folders),
            LeftOut(reason="shards that hold nothing", counts=self._empty),
        )
        return [f for f in found if f.counts]

    def samples(self) -> Iterator[Sample]:
        """Every image of every shard, in the shards' order and the members' order."""
        self._empty.clear()
        self._folders.clear()
        for place, name in zip(self.places, self._names(), strict=True):
            count = 0
            for count, sample in enumerate(numbered(_shard(place, name, self._folders)), start=1):  # noqa: B007 - counted
                yield sample
            if not count:
                self._empty[name] += 1

    def _names(self) -> Iterator[str]:
        """A name for each place; no two are alike."""
        files = self.shards
        common = Path(os.path.commonpath({str(f.parent) for f in files})) if files else Path()
        taken: set[str] = set()
        for place in self.places:
            if place.startswith(_unpack.PIPE):
                words = [w.strip("'\"") for w in place.split()]
                whole = next((Path(w).name for w in reversed(words) if is_shard(w)), "pipe")
            elif _unpack.is_address(place):
                whole = posixpath.basename(urlsplit(place).path) or "shard"
            else:
                whole = Path(place).relative_to(common).as_posix()
            short = id_of(common, SHARD.sub("", whole) or whole)
            choices = itertools.chain(
                [short, id_of(common, whole)], (f"{short}~{n}" for n in itertools.count(2))
            )
            name = next(n for n in choices if n not in taken)
            taken.add(name)
            yield name


def accepts(location: str) -> bool:
    """True for what is called like a tar file (also compressed), here or at an address, or begins with
    ``pipe:``, and is no folder.
    """
    if location.startswith(_unpack.PIPE):
        return True
    if os.path.isdir(location):  # noqa: PTH112 - `Path.is_dir` raises where nobody may look
        return False
    end = location.rpartition("::")[2]
    if _unpack.is_address(end):
        end = urlsplit(end).path
    return is_shard(end) or (end.endswith("}") and is_shard(next(_expand(end), "")))


def open(location: str, *, allow_urls: bool | Urls = False) -> WebDatasetCorpus:
    """The shards that ``location`` names: one file, ``{000..012}`` and ``{a,b}``, or ``*``; several
    behind ``::``.

    With ``allow_urls`` they may be at addresses (http, https, s3, gs and what else the library webdataset
    opens), which you name yourself: no host is out of bounds. Raises `InputError` when none of them exists,
    or for an address that is not allowed. Of several, a missing one yields a sample with an error.
    """
    return open_all([location], allow_urls=allow_urls)


def open_all(locations: Sequence[str], *, allow_urls: bool | Urls = False) -> WebDatasetCorpus:
    """The shards that all of ``locations`` name, as one source. Raises as `open` does."""
    places: dict[str, None] = {}
    for location in locations:
        for part in _parts(location, remote=bool(allow_urls)):
            for name in [part] if os.path.lexists(part) else _expand(part):
                if not _unpack.is_file(name):
                    places[name] = None
                else:
                    places |= dict.fromkeys(os.path.abspath(n) for n in _matches(name))  # noqa: PTH100
    one = locations[0] if len(locations) == 1 else ""
    if not any(not _unpack.is_file(p) or os.path.lexists(p) for p in places):
        raise InputError(_none(one or locations[0], next(iter(places), "")))
    return WebDatasetCorpus(location=_located(one, list(places)), places=tuple(places))


def _none(location: str, place: str) -> str:
    """Why there is no shard at ``location``, whose first name is ``place``."""
    try:
        os.stat(place or location)  # noqa: PTH116 - `location` may be anything
    except PermissionError as error:
        return f"{location!r} cannot be looked at: {reason(error)}"
    except OSError:
        pass
    folder = os.path.dirname(place or location) or "."  # noqa: PTH120
    try:
        there = sorted(name for name in os.listdir(folder) if is_shard(name))  # noqa: PTH208
    except OSError:
        there = []
    known = f"; in {folder!r} there are {', '.join(there[:3])}{' ...' * (len(there) > 3)}" if there else ""
    return f"there is no shard {location!r}{known}"


def _parts(location: str, *, remote: bool) -> list[str]:
    if location.startswith(_unpack.PIPE):
        return [location]
    parts = [location] if os.path.lexists(location) else location.split("::")
    for number, part in enumerate(parts):
        if part.startswith("file:"):
            parts[number] = urllib.request.url2pathname(urlsplit(part).path)
        elif _unpack.is_address(part) and not remote:
            raise InputError(
                f"{part!r} is not on this machine; --allow-urls (allow_urls=True) downloads shards, each as "
                "it is read"
            )
    return parts


def _located(one: str, places: list[str]) -> str:
    """The location to be written into the index: what the person typed, absolute, and for several a
    pattern.
    """
    if one and (not _unpack.is_file(one) or ("::" not in one and not one.startswith("file:"))):
        return os.path.abspath(one) if _unpack.is_file(one) else one  # noqa: PTH100
    if len(places) == 1:
        return places[0]
    files = [p for p in places if _unpack.is_file(p)]
    if len(files) < len(places):
        return "::".join(places)
    common = os.path.commonpath([str(Path(f).parent) for f in files])
    return os.path.join(common, "{" + ",".join(os.path.relpath(f, common) for f in files) + "}")  # noqa: PTH118


def _matches(name: str) -> list[str]:
    if os.path.lexists(name) or not glob.has_magic(name):
        return [name]
    return sorted(glob.glob(name, recursive=True))  # noqa: PTH207 - the pattern may be absolute


def _expand(pattern: str) -> Iterator[str]:
    """The names that a pattern with braces stands for, in order; numbers keep their leading zeros."""
    match = re.search(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}", pattern)
    if match is None:
        yield pattern
        return
    first, last, words = match.groups()
    if words is None and int(last) - int(first) > _MOST:
        raise InputError(f"{match[0]} stands for more than a million shards")
    for choice in (
        words.split(",")
        if words is not None
        else (f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1))
    ):
        yield from _expand(pattern[: match.start()] + choice + pattern[match.end() :])


def _shard(place: str, name: str, passed: Counter[str]) -> Iterator[Sample]:
    error = ""
    try:
        if not _unpack.is_file(place) or _unpack.is_packed(_unpack.head_of(Path(place))):
            with _unpack.unpacked(place) as (file, size, error):
                found = _without(listing(file, size), passed)
                read = _reader(file)
                origin = Path(place) if _unpack.is_file(place) else None
                found.members = [_of_memory(m) for m in found.members]
                for sample in _samples(name, found, read, lambda member: Image(data=read(member))):
                    yield replace(sample, origin=origin)
        else:
            path = Path(place)
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                found = _without(listing(file, status.st_size), passed)
                version = status.st_mtime_ns, status.st_size
                for sample in _samples(
                    name,
                    found,
                    _reader(file),
                    lambda member: Image(path=path, offset=member.offset, length=member.size),
                ):
                    yield replace(sample, version=version)
        error = error or found.error
    except InputError as refused:
        error = str(refused)
    except OSError as refused:
        error = f"the shard cannot be read: {refused.strerror or refused}"
    except Exception as refused:  # a hostile shard makes readers raise almost anything, and others follow it
        error = f"the shard cannot be read: {' '.join(f'{type(refused).__name__}: {refused}'.split())[:200]}"
    if error:
        yield Sample(id=f"{name}.tar", error=error)


def _without(found: Listing, passed: Counter[str]) -> Listing:
    """``found`` without what is in folders that are left out, which are counted in ``passed``."""
    known: dict[str, bool] = {"": False}

    def inside(folder: str) -> bool:
        if folder not in known:
            path = above = ""
            for name in folder.split("/"):  # no recursion: a name may be deeper than Python's frames
                above, path = path, f"{path}/{name}" if path else name
                if path not in known:
                    here = left_out(name, above.rpartition("/")[2])
                    passed[name] += here and not known[above]
                    known[path] = here or known[above]
        return known[folder]

    found.members = [m for m in found.members if not inside(m.name.rpartition("/")[0])]
    for name in [n for n, count in passed.items() if not count]:
        del passed[name]
    return found


def _of_memory(member: Member) -> Member:
    """``member``, with an error where it is too large to be read as a whole."""
    if member.size <= MOST_MEMBER:
        return member
    why = f"it has {member.size:,} bytes; of a packed shard at most {MOST_MEMBER:,} are read at once"
    return replace(member, error=f"{why}; unpack the shard, and index the plain tar")


def _reader(file: IO[bytes]) -> Callable[[Member], bytes]:
    def read(member: Member) -> bytes:
        file.seek(member.offset)
        return file.read(member.size)

    return read


def _samples(
    name: str, found: Listing, read: Callable[[Member], bytes], picture: Callable[[Member], Image]
) -> Iterator[Sample]:
    for key, parts in grouped(found.members).items():
        for part in parts:
            yield from samples_of(f"{name}/{id_of(Path(), key)}", part, read, picture)
