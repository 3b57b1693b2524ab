"""Images in a folder and everything below it, or in a list of paths on stdin.

Goes by suffix in folders (a list is taken at its word) and opens no image. Hidden files and folders are left
out. What cannot be read becomes a sample with an error, so that one bad folder does not end an indexing run.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmrerank.corpus._names import id_of
from mmrerank.errors import InputError
from mmrerank.images import IMAGE_SUFFIXES
from mmrerank.ports import Corpus, Sample
from mmrerank.types import Image

FORM = "DIR, or - for a list of files on stdin"


@dataclass(frozen=True, kw_only=True)
class FolderCorpus(Corpus):
    """Images below ``root``; with ``listed``, exactly those paths (relative to ``root``, or absolute).

    Ids are POSIX paths relative to ``root``, in ascending order; listed ones as given, in their order.
    """

    root: Path
    listed: tuple[str, ...] | None = None

    @property
    def location(self) -> str:  # type: ignore[override] # follows from ``root``
        """The folder, absolute."""
        return str(self.root)

    def samples(self) -> Iterator[Sample]:
        """Every image file once, or its error."""
        if self.listed is not None:
            for name in self.listed:
                yield self._sample(name)
            return
        # Links up to the folder or above it are loops, and would drag in its surroundings.
        root = self.root.resolve()
        entered = {_identity(folder) for folder in (root, *root.parents)} - {None}
        # A stack, not recursion: folders can be nested deeper than Python's frames.
        stack = [("", True)]
        while stack:
            path, is_dir = stack.pop()
            if not is_dir:
                yield self._sample(path)
                continue
            try:
                stack.extend(reversed(self._list(path, entered)))
            except OSError as error:
                reason = f"the folder cannot be listed: {error.strerror or error}"
                yield Sample(id=id_of(self.root, path) or ".", error=reason)

    def _list(self, folder: str, entered: set[tuple[int, int] | None]) -> list[tuple[str, bool]]:
        """Images and folders to enter in ``folder``, each with whether it is a folder.

        Folders are ``""`` or end in a slash, which makes their order the order of the whole ids.
        """
        kept: list[tuple[str, bool]] = []
        with os.scandir(self.root / folder) as entries:
            found = [(e.name + "/" * _is_dir(e), e.is_symlink()) for e in entries if e.name[0] != "."]
        for name, is_link in sorted(found, key=lambda entry: os.fsencode(entry[0])):
            path = folder + name
            if not name.endswith("/"):
                if _is_image(name):
                    kept.append((path, False))
                continue
            identity = _identity(self.root / path)
            if identity in entered or (is_link and self._seen_anyway(path)):
                continue
            if identity is not None:  # None: gone since; entering it will say so
                entered.add(identity)
            kept.append((path, True))
        return kept

    def _seen_anyway(self, link: str) -> bool:
        """True when the folder behind ``link`` is inside the root and reached by its own name."""
        target, root = (self.root / link).resolve(), self.root.resolve()
        return target.is_relative_to(root) and not any(
            part.startswith(".") for part in target.relative_to(root).parts
        )

    def _sample(self, name: str) -> Sample:
        id_ = id_of(self.root, name)
        path = self.root / name
        try:
            mode = path.stat().st_mode
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            return Sample(id=id_, error=f"the file cannot be read: {reason}")
        if not stat.S_ISREG(mode):
            return Sample(id=id_, error="it is not a regular file")
        if not os.access(path, os.R_OK):
            return Sample(id=id_, error="the file cannot be read: Permission denied")
        return Sample(id=id_, image=Image(path=path))


def accepts(location: str) -> bool:
    """True for a folder, and for ``-``."""
    return location == "-" or Path(location).is_dir()


def open(location: str, *, listing: bytes | None = None) -> FolderCorpus:
    """The folder at ``location``, or for ``-`` the files that stdin (or ``listing``) names.

    A list has one path a line, or separated by NUL where there is one; empty lines and repetitions are left
    out. Raises `InputError` when there is no such folder or it cannot be listed.
    """
    if location == "-":
        return FolderCorpus(
            root=Path.cwd(), listed=_split(sys.stdin.buffer.read() if listing is None else listing)
        )
    root = Path(os.path.abspath(location))  # noqa: PTH100 - `resolve` would rename a linked folder
    try:
        with os.scandir(root):
            pass
    except FileNotFoundError as error:
        raise InputError(f"there is no folder {location!r}") from error
    except NotADirectoryError as error:
        raise InputError(f"{location!r} is a file, not a folder") from error
    except (OSError, ValueError) as error:
        raise InputError(f"the folder {location!r} cannot be listed: {error}") from error
    return FolderCorpus(root=root)


def _split(listing: bytes) -> tuple[str, ...]:
    if b"\0" in listing:
        lines = listing.split(b"\0")
    else:
        lines = [line.removesuffix(b"\r") for line in listing.split(b"\n")]
    return tuple(dict.fromkeys(os.fsdecode(line) for line in lines if line.strip()))


def _is_dir(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder, or a link to what may be one on a disk that is away: entering it tells."""
    try:
        if entry.is_dir():
            return True
        if entry.is_symlink():
            entry.stat()
    except OSError as error:  # a link in a loop leads nowhere
        return error.errno != errno.ELOOP and not _is_image(entry.name)
    return False


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 - no Path a file


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
