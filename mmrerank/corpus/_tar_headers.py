"""Headers of tar that say more than a member: long names, pax records, maps of holes; each within bounds.

Python's reader follows nested ones by recursion, reads as many bytes as they name, and searches their text in
quadratic time. Only names and sizes are taken from them here.
"""

from __future__ import annotations

import tarfile
from typing import Any

MOST_NAME = 65_536
"""Bytes of a long name: no file system has longer ones."""
MOST_RECORDS = 1 << 20
"""Bytes of the pax records of a member."""
MOST_NESTED = 8
"""Headers in a row that belong to one member; writers make up to three (a global one, a name, a link)."""
MOST_MAPS = 1_000
"""Blocks of 512 bytes that say where a member has holes; such members are not read."""
_BLOCK = 512
_NAMES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_PAX = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
_SPARSE = "GNU.sparse."


class Header(tarfile.TarInfo):
    """A header as Python's reader makes it, within the bounds above. Raises `tarfile.ReadError` beyond."""

    __slots__ = ()

    def _proc_member(self, archive: Any) -> tarfile.TarInfo:
        if self.type in _NAMES or self.type in _PAX:
            most = MOST_NAME if self.type in _NAMES else MOST_RECORDS
            if not 0 <= self.size <= most:
                raise tarfile.ReadError(f"a header of {self.size} bytes; at most {most} are read")
            archive.nested = vars(archive).get("nested", 0) + 1
            if archive.nested > MOST_NESTED:
                raise tarfile.ReadError(f"more than {MOST_NESTED} headers in a row for one member")
            if self.type in _PAX:
                return self._of_records(archive)
        elif self.type == tarfile.GNUTYPE_SPARSE:
            self._check_maps(archive)
        found: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]  # tarfile means it to be extended
        return found

    def _of_records(self, archive: Any) -> tarfile.TarInfo:
        """The member that pax records stand before."""
        length = -(-self.size // _BLOCK) * _BLOCK
        said = _records(archive.fileobj.read(length)[: self.size])
        if self.type == tarfile.XGLTYPE:
            archive.pax_headers.update(said)
        try:
            member: Any = self.fromtarfile(archive)
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error
        member.offset = self.offset
        if self.type == tarfile.XGLTYPE:
            return member  # type: ignore[no-any-return]
        member.name = said.get("path", member.name).rstrip("/")
        member.linkname = said.get("linkpath", member.linkname)
        if any(key.startswith(_SPARSE) for key in said):
            member.name = said.get(f"{_SPARSE}name", member.name)
            member.sparse = []
        if "size" in said:
            member.size = int(said["size"])
            if member.isreg():
                archive.offset = member.offset_data + -(-member.size // _BLOCK) * _BLOCK
        return member  # type: ignore[no-any-return]

    def _check_maps(self, archive: Any) -> None:
        here = archive.fileobj.tell()
        more = bool(self._sparse_structs[1])  # type: ignore[attr-defined]
        for _ in range(MOST_MAPS):
            if not more:
                break
            block = archive.fileobj.read(_BLOCK)
            more = len(block) == _BLOCK and bool(block[504])
        if more:
            raise tarfile.ReadError("a member with more holes than are read")
        archive.fileobj.seek(here)


def next_of(archive: Any) -> tarfile.TarInfo | None:
    """The next member of the archive, or None at its end."""
    archive.nested = 0
    found: tarfile.TarInfo | None = archive.next()
    return found


def _records(body: bytes) -> dict[str, str]:
    """The pax records that count, from ``LENGTH KEY=VALUE`` lines. Raises `tarfile.ReadError`."""
    found: dict[str, str] = {}
    at = 0
    while at < len(body) and body[at]:
        space = body.find(b" ", at, at + 20)
        digits = body[at:space] if space > 0 else b""
        length = int(digits) if digits.isdigit() else 0
        record = body[at : at + length]
        key, equals, value = record[len(digits) + 1 :].partition(b"=")
        if not equals or not record.endswith(b"\n") or len(record) < length:
            raise tarfile.ReadError("a damaged pax header")
        name = key.decode("utf-8", "replace")
        if name in ("path", "linkpath", "size") or name.startswith(_SPARSE):
            if len(value) > MOST_NAME + 1:
                raise tarfile.ReadError(f"a name of {len(value)} bytes; at most {MOST_NAME} are read")
            if name == "size" and not (value[:-1].isdigit() and len(value) < 20):
                raise tarfile.ReadError("a size that is none")
            found[name if len(name) < 100 else name[:100]] = value[:-1].decode("utf-8", "surrogateescape")
        at += length
    return found
