"""What stands where in a tar file: names, and the span of bytes of each. Unpacks nothing.

Hard and symbolic links lead to the span of the file they mean. Several archives in one file, as ``cat`` joins
them, are read on. A damaged archive gives what stands before the damage.
"""

from __future__ import annotations

import itertools
import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

from mmrerank.corpus._tar_headers import MOST_NAME, Header, next_of

_BLOCK = 512
_ZEROS = 1 << 16  # bytes looked through at once between two archives
_HOPS = 40  # a chain of links that is longer is a loop
_STEPS = 1_000_000
"""Steps along links in one shard; each costs a look at every folder of a path."""
_DEEPEST = 100
"""Folders on the way to a member; each is looked at, and no file system goes deeper by far."""
_MEMBER_BYTES = 500
"""What a member takes in memory beside its names."""
MOST_LISTED = 512_000_000
"""Bytes that the list of one shard may take: about a million files. It is made before anything is read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A file of the archive, at ``offset`` (bytes) of the tar file; ``error`` says why it cannot be read."""

    name: str
    offset: int = 0
    size: int = 0
    error: str = ""


@dataclass(kw_only=True)
class Listing:
    """The files of an archive in order; ``error`` says why the list ends early, if it does."""

    members: list[Member] = field(default_factory=list)
    error: str = ""


def listing(file: IO[bytes], size: int) -> Listing:
    """Lists the tar ``file`` of ``size`` bytes. Hidden members, and those that begin with ``__``, are
    left out.
    """
    found = Listing()
    entries: list[tuple[Member, str]] = []
    try:
        for info in _headers(file, size):
            entry = _entry(info)
            if entry is not None:
                entries.append(entry)
    except Exception as error:  # a hostile archive makes the reader raise almost anything
        detail = error.strerror if isinstance(error, OSError) and error.strerror else error
        found.error = f"the shard cannot be read{' on' if entries else ''}: {detail}"
    found.members = list(_resolved(entries))
    return found


def _headers(file: IO[bytes], size: int) -> Iterator[tarfile.TarInfo]:
    at: int | None = 0
    taken = 0
    while at is not None:
        file.seek(at)
        last = -1
        with tarfile.open(fileobj=file, mode="r:", tarinfo=Header) as tar:
            while (member := next_of(tar)) is not None:
                tar.members = []  # type: ignore[attr-defined]  # it would keep every header
                if member.size < 0 or tar.offset <= last:
                    raise tarfile.ReadError(f"the size of {_short(member.name)!r} is no size")
                last = tar.offset
                if member.isreg() and member.offset_data + member.size > size:
                    raise tarfile.ReadError(f"it is cut off within {_short(member.name)!r}")
                taken += _MEMBER_BYTES + len(member.name) + len(member.linkname)
                if taken > MOST_LISTED:
                    raise tarfile.ReadError(
                        f"the names of its files take more than {MOST_LISTED // 10**6} MB; split it"
                    )
                yield member
            at = _next_archive(file, tar.offset)


def _short(name: str) -> str:
    return name if len(name) <= 200 else f"{name[:100]}[...]{name[-100:]}"


def _next_archive(file: IO[bytes], end: int) -> int | None:
    """Where the next archive of the file begins; None where nothing but zeros follows.

    tarfile takes a damaged header for the end; a true end is a block of zeros, or nothing.
    """
    at = end
    file.seek(at)
    while block := file.read(_ZEROS):
        rest = block.lstrip(b"\0")
        if rest:
            at += (len(block) - len(rest)) // _BLOCK * _BLOCK
            break
        at += len(block)
    else:
        return None
    file.seek(at)
    header = file.read(_BLOCK)
    try:
        tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        if at == end:
            raise tarfile.ReadError(f"the header at byte {at} is damaged") from error
        raise tarfile.ReadError(f"behind its end, at byte {at}, stand data that are no archive") from error
    return at


def _entry(info: tarfile.TarInfo) -> tuple[Member, str] | None:
    """The member, and the name that it links to, if it does; None for what is no file."""
    name = _clean(info.name)
    if name.count("/") > _DEEPEST or _clean(info.linkname).count("/") > _DEEPEST:
        return Member(name=_short(name), error=f"it lies more than {_DEEPEST} folders deep"), ""
    if "\0" in name or "\0" in info.linkname:
        return None
    if name.rpartition("/")[2].startswith((".", "__")):
        return None
    if info.issparse():
        why = "it is stored with holes; pack the shard again without --sparse"
        return Member(name=name, error=why), ""
    if info.isreg():
        return Member(name=name, offset=info.offset_data, size=info.size), ""
    if info.islnk():
        return Member(name=name), _clean(info.linkname)
    if info.issym():
        return Member(name=name), _clean(
            posixpath.normpath(posixpath.join(posixpath.dirname(name), info.linkname))
        )
    return None


def _clean(name: str) -> str:
    """``name`` without ``./``, a slash in front or two of them in a row: as tar itself unpacks it."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _resolved(entries: list[tuple[Member, str]]) -> Iterator[Member]:
    """Every member in order; a link with the span of its target, or why it has none."""
    files = {member.name: member for member, target in entries if not target}
    links = {member.name: target for member, target in entries if target}
    steps = itertools.count()
    for member, target in entries:
        if not target:
            yield member
            continue
        span = files.get(_followed(target, files, links, steps))
        if span is not None:
            yield Member(name=member.name, offset=span.offset, size=span.size, error=span.error)
        elif "." in member.name.rpartition("/")[2]:  # else a link to a folder
            why = f"it is a link to {target!r}, and no file of the shard is there"
            yield Member(name=member.name, error=why)


def _followed(path: str, files: dict[str, Member], links: dict[str, str], steps: Iterator[int]) -> str:
    """Where ``path`` leads: it, or a folder on the way to it, may be a link."""
    for _ in range(_HOPS):
        if path in files or next(steps) > _STEPS or len(path) > MOST_NAME:
            break
        parts = path.split("/")
        above = ("/".join(parts[:n]) for n in range(len(parts), 0, -1))
        link = next((folder for folder in above if folder in links), None)
        if link is None:
            break
        path = links[link] + path[len(link) :]
    return path
