"""Sources of images: what a corpus plug-in offers. `mmrerank.ports` has these names too, for who writes
one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from mmrerank.types import Image, LeftOut


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One thing a corpus yields: an id, where its image is, and what is known about it.

    ``error`` is set, and ``image`` is not, when the source itself is unreadable there. An image that the
    index had then stays; with ``final`` it does not, for the source was read, and the image cannot be used.
    ``origin`` is the file that an image in memory came from, if any. ``version`` is the time (ns) and size
    (bytes) of the file that holds it when the source looked into it; by another one nothing is read.
    """

    id: str
    image: Image | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    final: bool = False
    origin: Path | None = None
    version: tuple[int, int] | None = None


@runtime_checkable
class Corpus(Protocol):
    """A source of images. ``location`` is written into the index so that images are found again."""

    location: str
    """The source as the user named it, paths absolute."""
    domain: str = ""
    """What the images are of, where the source knows; the index remembers it (`mmrerank.catalog.Card`)."""
    listed: tuple[str, ...] | None = None
    """The names of a list that chose the images; None where the source itself does."""
    shards: tuple[Path, ...] = ()
    """The files of a sharded source, in order; () for others."""
    partial: bool = False
    """True when only some images of ``location`` were named: what an index knows of the others stays."""

    def count(self) -> int | None:
        """How many samples there are, where that is known before they are read."""
        return None

    def left_out(self) -> Sequence[LeftOut]:
        """What `samples` passed over; known once it has come to its end."""
        return ()

    def remarks(self) -> Sequence[str]:
        """Sentences about what was assumed of the samples, for the person; known once they were read."""
        return ()

    def samples(self) -> Iterable[Sample]:
        """Every sample once, in a stable order, with unique ids."""
        ...


class CorpusPlugin(Protocol):
    """The file of a source of images. ``FORM`` shows people what a location of this kind looks like."""

    FORM: str

    def accepts(self, location: str, /) -> bool:
        """Whether ``location`` is of this kind. Looks, and opens no image."""
        ...

    def open(self, location: str, /) -> Corpus:
        """The source at ``location``. Raises `InputError` when it cannot be used."""
        ...
