"""What stands where in a tar file: names, and the span of bytes of each. Unpacks nothing.

Hard and symbolic links lead to the span of the file they mean. Several archives in one file, as ``cat`` joins
them, are read on. A damaged archive gives what stands before the damage.
"""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

_BLOCK = 512
_ZEROS = 1 << 16  # bytes looked through at once between two archives
_HOPS = 40  # a chain of links that is longer is a loop


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
    except (tarfile.TarError, OSError, ValueError, ArithmeticError, LookupError) as error:
        detail = error.strerror if isinstance(error, OSError) and error.strerror else error
        found.error = f"the shard cannot be read{' on' if entries else ''}: {detail}"
    found.members = list(_resolved(entries))
    return found


def _headers(file: IO[bytes], size: int) -> Iterator[tarfile.TarInfo]:
    at: int | None = 0
    while at is not None:
        file.seek(at)
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # it would keep every header
                if member.isreg() and member.offset_data + member.size > size:
                    raise tarfile.ReadError(f"it is cut off within {member.name!r}")
                yield member
            at = _next_archive(file, tar.offset)


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
    for member, target in entries:
        if not target:
            yield member
            continue
        # a link to a folder has no suffix, and nobody looks for a picture under its name
        at, hops = target, 0
        while at not in files and at in links and hops < _HOPS:
            at, hops = links[at], hops + 1
        if at in files:
            span = files[at]
            yield Member(name=member.name, offset=span.offset, size=span.size, error=span.error)
        else:
            yield Member(
                name=member.name, error=f"it is a link to {target!r}, and no file of the shard is there"
            )
