"""Finds the file that somebody else's id means, where it is written in another way than the file's name.

Other systems write names in other ways: macOS stores ``é`` as two characters, Windows knows no case and
writes backslashes, a web page writes ``%20``, and many a data set leaves the suffix out. Nothing is guessed:
only the one file of a folder that a name can mean is taken, and which difference was passed over is said.
"""

from __future__ import annotations

import os
import posixpath
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import unquote

from mmrerank.images import IMAGE_SUFFIXES
from mmrerank.paths import is_windows_path

UNICODE = "another Unicode form"
_CASE, _SUFFIX = "upper and lower case", "a suffix left out"


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _stem(name: str) -> str:
    stem, _, suffix = name.rpartition(".")
    return _composed(stem) if f".{suffix.lower()}" in IMAGE_SUFFIXES else ""


_READINGS: tuple[tuple[str, Callable[[str], str]], ...] = (
    (UNICODE, str),
    ("percent-encoding", unquote),
    ("spaces at an end", str.strip),
)
"""How an id is read, one after the other."""
_KEYS: dict[str, Callable[[str], str]] = {
    "": _composed,
    _CASE: lambda name: _composed(name).casefold(),
    _SUFFIX: _stem,
}
"""What the names of files are looked up by; the name says which difference that passes over."""


class Finder:
    """Looks below ``root``. A folder is listed once, and only when a name in it was not found as it is."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folders: dict[tuple[Path, str], dict[str, str | None]] = {}
        self._names: dict[Path, list[str]] = {}
        self._lost: set[str] = set()  # folders of names that were not found

    def find(self, name: str) -> tuple[str, str] | None:
        """The file that ``name`` (POSIX, relative) means, relative too, and what differs (nothing: empty).

        None where there is none, or more than one.
        """
        if os.path.lexists(f"{self.root}/{name}"):
            return name, ""
        folder = name.rpartition("/")[0]
        if folder in self._lost:
            return None
        place = self.root
        found: list[str] = []
        passed: dict[str, None] = {}
        parts = PurePosixPath(name).parts
        for number, part in enumerate(parts, start=1):
            step = self._step(place, part, last=number == len(parts))
            if step is None:
                if number < len(parts):
                    self._lost.add(folder)
                return None
            found.append(step[0])
            passed |= dict.fromkeys(step[1])
            place /= step[0]
        return "/".join(found), " and ".join(passed)

    def _step(self, folder: Path, part: str, *, last: bool) -> tuple[str, list[str]] | None:
        """The entry of ``folder`` that ``part`` means, and the differences that were passed over."""
        if os.path.lexists(f"{folder}/{part}"):
            return part, []
        for kind in _KEYS if last else ("", _CASE):
            for reading, read in _READINGS:
                key = _composed(read(part))
                name = self._listed(folder, kind).get(key.casefold() if kind == _CASE else key)
                if name is not None:
                    # the Unicode form goes without saying where more than that differs
                    ways = [w for w in (reading, kind) if w and (w != UNICODE or not kind)]
                    return name, ways
        return None

    def _listed(self, folder: Path, kind: str) -> dict[str, str | None]:
        """The names in ``folder`` by their key of a kind; None where several have the same."""
        if (folder, kind) not in self._folders:
            names: dict[str, str | None] = {}
            if folder not in self._names:
                self._names[folder] = _entries(folder)
            for name in self._names[folder]:
                if key := _KEYS[kind](name):
                    key = name if key == name else key  # one text is held, not two that are equal
                    names[key] = None if key in names else name
            self._folders[folder, kind] = names
        return self._folders[folder, kind]


def _entries(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [e.name for e in entries]
    except OSError:
        return []


def relative(name: str, root: Path) -> str:
    """``name`` as a POSIX path below ``root``: backslashes, ``./`` and ``..`` resolved, ``root`` taken off.

    Links are followed where the path as it stands does not lie there. Empty when it lies elsewhere.
    """
    scheme, address, rest = name.partition("://")
    if address and scheme.lower() == "file":
        name = unquote(rest[rest.find("/") :]) if "/" in rest else rest
    elif address and scheme.isalnum() and ".." not in rest.split("/"):
        return name  # the image of an address is nowhere here, and its name stays whole
    if "\\" in name and not os.path.lexists(root / name):  # a file may have backslashes in its name here
        name = PureWindowsPath(name).as_posix()
    if is_windows_path(name) or name.startswith("//"):
        return ""
    path = posixpath.normpath(name)
    if not path.startswith("/"):
        return "" if path in (".", "..") or path.startswith("../") else path
    for base, full in _views(root, path):
        if base in full.parents:
            return full.relative_to(base).as_posix()
    return ""


def _views(root: Path, path: str) -> Iterable[tuple[Path, Path]]:
    yield root, Path(path)
    real = Path(os.path.realpath(root))
    yield real, Path(path)
    # a link may stand anywhere above the file, and the file itself may be one
    yield real, Path(os.path.realpath(os.path.dirname(path)), os.path.basename(path))  # noqa: PTH119, PTH120


def explained(missing: Iterable[str], finder: Finder) -> str:
    """Why files of these ids are not found below the root, and the remedy; empty when nothing tells.

    Looks whether they are there without a folder in front that they have in common, or in a folder of it.
    """
    names = list(missing)
    root = finder.root
    common = _common([PurePosixPath(n).parts[:-1] for n in names])
    for count in range(1, len(common) + 1):
        rest = "/".join(PurePosixPath(names[0]).parts[count:])
        if finder.find(rest) is None:
            continue
        # what is in front is shown as it is written: an address has two slashes
        prefix = names[0].removesuffix(rest)
        if root.parts[-count:] == tuple(common[:count]):
            above = root.parents[count - 1]
            return (
                f"The ids begin with {prefix!r}, which is the end of SOURCE itself: give {str(above)!r} as "
                f"SOURCE, or write the ids without {prefix!r}"
            )
        return f"The files are there without {prefix!r} in front: write the ids without it"
    for entry in sorted(_entries(root)):
        if os.path.lexists(root / entry / names[0]):
            return f"The files are in {str(root / entry)!r}: give that as SOURCE"
    return ""


def _common(rows: list[tuple[str, ...]]) -> tuple[str, ...]:
    """What all rows begin with: the first and the last in order tell."""
    low, high = min(rows), max(rows)
    same = [a == b for a, b in zip(low, high, strict=False)]
    return low[: same.index(False) if False in same else len(same)]


def outside(name: str, root: Path, finder: Finder) -> str:
    """Why an id that lies elsewhere cannot be taken, and what would do."""
    parts = PureWindowsPath(name).parts if is_windows_path(name) else PurePosixPath(name).parts
    kind = f"an absolute path of Windows, and SOURCE is {str(root)!r}"
    if not is_windows_path(name):
        kind = f"not below SOURCE, which is {str(root)!r}"
    for count in range(1, len(parts)):
        rest = "/".join(parts[count:])
        if (found := finder.find(rest)) is not None:
            return f"is {kind}. There the file is {found[0]!r}: write the ids like that"
    if not is_windows_path(name) and name.startswith("/") and os.path.lexists(name):
        above = os.path.commonpath([os.path.dirname(name), root])  # noqa: PTH120
        return f"is {kind}. Give a folder above all of the images as SOURCE, such as {above!r}"
    return f"is {kind}: it must be a path inside SOURCE"
