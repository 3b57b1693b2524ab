"""Catalogue: the images that a text file names, one path a line, as ``catalogue:FILE``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mmrerank.errors import InputError
from mmrerank.ports import Corpus, Sample
from mmrerank.types import Image

FORM = "catalogue:FILE.txt"
_PREFIX = "catalogue:"


class Catalogue(Corpus):
    """The lines of a file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.location = str(file.parent.resolve())

    def count(self) -> int:
        """As many as there are lines."""
        return len(self._names())

    def samples(self) -> Iterator[Sample]:
        """One sample a line."""
        for name in self._names():
            path = self.file.parent / name
            if path.is_file():
                yield Sample(id=name, image=Image(path=path), metadata={"listed_in": self.file.name})
            else:
                yield Sample(id=name, error="the file that is listed is not there")

    def _names(self) -> list[str]:
        return [n for n in self.file.read_text("utf-8").splitlines() if n.strip()]


def accepts(location: str) -> bool:
    """Whatever begins with ``catalogue:``."""
    return location.startswith(_PREFIX)


def open(location: str) -> Catalogue:
    """``catalogue:FILE``."""
    file = Path(location.removeprefix(_PREFIX))
    if not file.is_file():
        raise InputError(f"there is no catalogue {str(file)!r}")
    return Catalogue(file)
