"""Images in a folder and everything below it, or in a list of paths on stdin.

Goes by suffix in folders (a list is taken at its word) and opens no image. Hidden files and folders, and
those of `_kinds`, are left out and counted. What cannot be read becomes a sample with an error, so that
one bad folder does not end an indexing run.
"""

from __future__ import annotations

import errno
import fnmatch
import itertools
import os
import stat
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

from mmrerank.corpus._kinds import THUMBNAILS, UNREAD, is_image, is_shard, left_out, named, suffix_of
from mmrerank.corpus._names import id_of
from mmrerank.errors import InputError, UsageError
from mmrerank.paths import reason
from mmrerank.ports import Corpus, Sample
from mmrerank.types import Image, LeftOut

FORM = "DIR, an image file, or - for a list of files on stdin"
EXCLUDED = "folders that --exclude-dir names"

_INDEX = {"manifest.json", "records.sqlite"}  # an index that lies among the pictures is none of them


@dataclass
class _Tally:
    """What a walk passed over."""

    folders: Counter[str] = field(default_factory=Counter)
    excluded: Counter[str] = field(default_factory=Counter)
    unread: Counter[str] = field(default_factory=Counter)
    hidden: Counter[str] = field(default_factory=Counter)
    away: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)
    shards: Counter[str] = field(default_factory=Counter)
    shards_in: Counter[str] = field(default_factory=Counter)

    def file(self, name: str, folder: str) -> None:
        """Counts a file that is no image to go by its name."""
        suffix = suffix_of(name)
        if suffix == ".icloud":
            self.away[suffix] += 1
        elif name[0] == ".":
            if is_image(name) or suffix in UNREAD:
                self.hidden["._*" if name.startswith("._") else f".*{suffix}"] += 1
        elif is_shard(name):
            self.shards[suffix] += 1
            self.shards_in[f"{folder}*{name[name.lower().rfind('.t') :]}"] += 1
        elif suffix in UNREAD:
            self.unread[suffix] += 1
        else:
            self.others[named(suffix)] += 1


@dataclass(frozen=True, kw_only=True)
class FolderCorpus(Corpus):
    """Images below ``root``; with ``listed``, exactly those paths (relative to ``root``, or absolute).

    Ids are POSIX paths relative to ``root``, in ascending order; listed ones as given, in their order.
    ``exclude`` holds patterns of folders that are not entered: of a name, or, with a slash, of the path
    below ``root``.
    """

    root: Path
    listed: tuple[str, ...] | None = None
    partial: bool = False
    exclude: tuple[str, ...] = ()
    _tally: _Tally = field(default_factory=_Tally, compare=False, repr=False)

    @cached_property
    def _base(self) -> str:
        return str(self.root)

    @property
    def location(self) -> str:  # type: ignore[override] # follows from ``root``
        """The folder, absolute."""
        return str(self.root)

    def count(self) -> int | None:
        """The length of a list."""
        return None if self.listed is None else len(self.listed)

    def left_out(self) -> Sequence[LeftOut]:
        """Folders and files that the last walk passed over."""
        tally = self._tally
        place = min(tally.shards_in, key=lambda p: -tally.shards_in[p]) if tally.shards_in else ""
        found = (
            LeftOut(reason="files of kinds that are not read", counts=tally.unread),
            LeftOut(
                reason=THUMBNAILS,
                counts=tally.folders,
                advice="to have one of them, index it with an --index of its own",
            ),
            LeftOut(reason=EXCLUDED, counts={p: tally.excluded[p] for p in self.exclude}),
            LeftOut(reason="hidden files", counts=tally.hidden),
            LeftOut(
                reason="placeholders of files that are in iCloud only",
                counts=tally.away,
                advice="download them, and index again",
            ),
            LeftOut(
                reason="tar shards",
                counts=tally.shards,
                advice=f"index them by their names: mmrerank index '{self.root / place}'",
            ),
            LeftOut(reason="other files", counts=tally.others),
        )
        return [f for f in found if f.counts]

    def samples(self) -> Iterator[Sample]:
        """Every image file once, or its error."""
        vars(self._tally).update(vars(_Tally()))
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
                why = f"the folder cannot be listed: {error.strerror or error}"
                yield Sample(id=id_of(self.root, path) or ".", error=why)

    def _list(self, folder: str, entered: set[tuple[int, int] | None]) -> list[tuple[str, bool]]:
        """Images and folders to enter in ``folder``, each with whether it is a folder.

        Folders are ``""`` or end in a slash, which makes their order the order of the whole ids.
        """
        kept: list[tuple[str, bool]] = []
        with os.scandir(self.root / folder) as entries:
            found = [(e.name + "/" * _is_dir(e), e.is_symlink()) for e in entries]
        if folder and {name for name, _ in found} >= _INDEX:
            return []
        for name, is_link in sorted(found, key=lambda entry: os.fsencode(entry[0])):
            path = folder + name
            if not name.endswith("/"):
                if is_image(name) and name[0] != ".":
                    kept.append((path, False))
                else:
                    self._tally.file(name, folder)
                continue
            if self._passes_over(path):
                continue
            identity = _identity(self.root / path)
            if identity in entered or (is_link and self._seen_anyway(path)):
                continue
            if identity is not None:  # None: gone since; entering it will say so
                entered.add(identity)
            kept.append((path, True))
        return kept

    def _passes_over(self, folder: str) -> bool:
        path = folder.rstrip("/")
        above, _, name = path.rpartition("/")
        for pattern in self.exclude:
            if fnmatch.fnmatchcase(path if "/" in pattern else name, pattern):
                self._tally.excluded[pattern] += 1
                return True
        if left_out(name, above.rpartition("/")[2] if above else self.root.name):
            self._tally.folders[name] += 1
            return True
        return False

    def _seen_anyway(self, link: str) -> bool:
        """True when the folder behind ``link`` is inside the root and reached by its own name."""
        target, root = (self.root / link).resolve(), self.root.resolve()
        if not target.is_relative_to(root):
            return False
        below = target.relative_to(root)
        parts = (self.root.name, *below.parts)
        return not any(left_out(name, inside) for inside, name in itertools.pairwise(parts)) and not any(
            fnmatch.fnmatchcase(str(part) if "/" in pattern else part.name, pattern)
            for part in (below, *below.parents)
            for pattern in self.exclude
        )

    def _sample(self, name: str) -> Sample:
        id_ = id_of(self.root, name)
        path = os.path.join(self._base, name)  # noqa: PTH118 - a Path takes longer than all the rest
        suffix = suffix_of(name)
        if suffix in UNREAD:
            # many raw files begin like a TIFF, which is their thumbnail
            error = f"files of its kind ({suffix}) are not read; convert it to JPEG, PNG or TIFF"
            return Sample(id=id_, error=error, final=True)
        try:
            mode = os.stat(path).st_mode  # noqa: PTH116
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            return Sample(id=id_, error=f"the file cannot be read: {why}")
        if not stat.S_ISREG(mode):
            return Sample(id=id_, error="it is not a regular file", final=True)
        if not os.access(path, os.R_OK):
            return Sample(id=id_, error="the file cannot be read: Permission denied")
        return Sample(id=id_, image=Image(path=Path(path)))


def accepts(location: str) -> bool:
    """True for a folder, and for ``-``."""
    return location == "-" or os.path.isdir(location)  # noqa: PTH112 - `Path.is_dir` raises where nobody may look


def open(location: str, *, listing: bytes | None = None, exclude: Sequence[str] = ()) -> FolderCorpus:
    """The folder at ``location``, or for ``-`` the files that stdin (or ``listing``) names.

    A list has one path a line, or separated by NUL where there is one; empty lines and repetitions are left
    out. ``exclude`` holds patterns of folders that are left out (`FolderCorpus`). Raises `InputError`
    when there is no such folder, it cannot be listed, or the list names nothing.
    """
    if location == "-":
        names = _split(sys.stdin.buffer.read() if listing is None else listing)
        if not names:
            raise InputError("the list on stdin names no file")
        return FolderCorpus(root=Path.cwd(), listed=names)
    root = Path(os.path.abspath(location))  # noqa: PTH100 - `resolve` would rename a linked folder
    try:
        with os.scandir(root):
            pass
    except FileNotFoundError as error:
        raise InputError(f"there is no folder {location!r}") from error
    except NotADirectoryError as error:
        raise InputError(f"{location!r} is a file, not a folder") from error
    except (OSError, ValueError) as error:
        raise InputError(f"the folder {location!r} cannot be listed: {reason(error)}") from error
    return FolderCorpus(root=root, exclude=tuple(dict.fromkeys(_pattern(p, root) for p in exclude)))


def of_files(names: Sequence[str]) -> FolderCorpus:
    """The image files ``names``, as a part of the folder that all of them are in.

    Raises `InputError` for one that is not there or is no file.
    """
    paths = [Path(os.path.abspath(n)) for n in dict.fromkeys(names)]  # noqa: PTH100
    for name, path in zip(dict.fromkeys(names), paths, strict=True):
        try:
            good = stat.S_ISREG(path.stat().st_mode)
        except (OSError, ValueError) as error:
            raise InputError(f"the file {name!r} cannot be read: {reason(error)}") from error
        if not good:
            raise InputError(f"{name!r} is not a regular file")
    root = Path(os.path.commonpath([p.parent for p in paths]))
    return FolderCorpus(
        root=root, listed=tuple(dict.fromkeys(str(p.relative_to(root)) for p in paths)), partial=True
    )


def _pattern(given: str, root: Path) -> str:
    """An --exclude-dir as it is matched: below ``root``, without slashes around it."""
    text = os.path.expanduser(given).strip()  # noqa: PTH111 - a pattern, no path
    if os.path.isabs(text):  # noqa: PTH117
        text = os.path.relpath(text, root)
        if text.startswith(".."):
            raise UsageError(f"--exclude-dir {given!r} is not inside {root}")
    text = str(PurePosixPath(text.removeprefix("**/"))) if text else ""
    if text in ("", "."):
        raise UsageError(f"--exclude-dir {given!r} is no name of a folder, such as '@eaDir' or 'raw/*'")
    return text


def _split(listing: bytes) -> tuple[str, ...]:
    if listing.startswith((b"\xff\xfe", b"\xfe\xff")):  # as some shells of Windows write
        listing = listing.decode("utf-16", "replace").encode("utf-8", "surrogatepass")
    listing = listing.removeprefix(b"\xef\xbb\xbf")
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
        return error.errno != errno.ELOOP and not is_image(entry.name)
    return False


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
