"""Which sources an index has, and where in it the ids of each begin.

The first source's ids are as the source gives them. Those of a further one begin with its name and two
slashes, which no path below the first has, so that no two images can have one id. Reads no image, but to
see that a source has moved.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmrerank.errors import ImageIndexError, UsageError
from mmrerank.index.intake import sha256
from mmrerank.index.kept import KEPT, is_kept
from mmrerank.index.manifest import Manifest, Source
from mmrerank.index.records import Record, Records
from mmrerank.ports import Corpus, Sample
from mmrerank.types import Image

_MOVED_LOOKS = 100  # records whose files are looked for below a new source


@dataclass(frozen=True, kw_only=True)
class Part:
    """A corpus as part of an index: its ids begin with ``prefix``; those that begin as ``not_ours`` are
    of others.

    With ``partial`` nothing is removed, and a file that a list names is called as the walk of its folder
    would: ``homes`` are the folders that are known, and how the ids in each begin.
    """

    corpus: Corpus
    prefix: str = ""
    not_ours: tuple[str, ...] = ()
    partial: bool = False
    homes: tuple[tuple[Path, str], ...] = ()

    def samples(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """The samples with the ids they have in the index."""
        if not (self.prefix or self.partial):
            yield from samples
            return
        for sample in samples:
            yield dataclasses.replace(sample, id=self._id(sample.id))

    def _id(self, id_: str) -> str:
        if not self.partial:
            return self.prefix + id_
        file = Path(os.path.abspath(Path(self.corpus.location) / id_))  # noqa: PTH100
        for folder, prefix in self.homes:
            if file.is_relative_to(folder):
                return prefix + file.relative_to(folder).as_posix()
        return self.prefix + posixpath.normpath(id_)

    def holds(self, id_: str) -> bool:
        """Whether ``id_`` is of this part."""
        return id_.startswith(self.prefix) and not id_.startswith(self.not_ours or ("\0",))


def plan(
    folder: Path, found: Manifest, corpora: Sequence[Corpus], *, new: bool
) -> tuple[Manifest, list[Part]]:
    """The manifest with the sources that ``corpora`` are or become, and the part that each is.

    Raises `ImageIndexError` where a corpus and a source that is known have images in common, `UsageError`
    where two corpora have.
    """
    known = [] if new else [Source(location=found.source, listed=found.listed), *found.sources]
    taken: set[int] = set()
    placed: list[tuple[Corpus, int, str, bool]] = []
    records = None if new else Records(folder, write=True)
    try:
        before = [] if records is None else [_Known(records, known, n) for n in range(len(known))]
        for corpus in corpora:
            if corpus.partial and _at_home(corpus, _homes(known[: len(before)])):
                placed.append((corpus, 0, "", True))
                continue
            number, below = _match(folder, known, before, taken, corpus)
            if number == len(known):
                known.append(Source(location="", name=_name(corpus.location, known)))
            listed = corpus.listed is not None and not corpus.partial
            old = number < len(before) or number in taken
            # a list of some of a folder's files is no reason to forget the others
            partial = old and (corpus.partial or (listed and not known[number].listed))
            if not below and not partial:
                known[number] = dataclasses.replace(known[number], location=corpus.location, listed=listed)
            taken.add(number)
            placed.append((corpus, number, below, partial))
    finally:
        if records is not None:
            records.close()
    names = tuple(f"{s.name}//" for s in known[1:])
    homes = _homes(known)
    parts = [
        Part(
            corpus=corpus,
            prefix=(f"{known[n].name}//" if n else "") + below,
            not_ours=() if n else names,
            partial=partial,
            homes=homes if partial else (),
        )
        for corpus, n, below, partial in placed
    ]
    first = known[0]
    return (
        dataclasses.replace(found, source=first.location, listed=first.listed, sources=tuple(known[1:])),
        parts,
    )


@dataclass(frozen=True)
class _Known:
    """A source that the index had before: what its records say."""

    records: Records
    known: Sequence[Source]
    number: int

    def everything(self) -> Iterator[Record]:
        """Its records, in order."""
        names = tuple(f"{s.name}//" for s in self.known[1:]) or ("\0",)
        own = f"{self.known[self.number].name}//"
        for record in self.records.everything():
            if record.id.startswith(own) if self.number else not record.id.startswith(names):
                yield record

    def files(self, shards: Sequence[Path]) -> set[Path]:
        """The files that its images are in, if one of ``shards`` is among them."""
        if not shards:
            return set()
        root = Path(self.known[0].location)
        paths = {(r.path or b"").removeprefix(KEPT) for r in self.everything()} - {b""}
        found = {root / os.fsdecode(path) for path in paths}
        return found if found & set(shards) else set()


def _match(
    folder: Path, known: list[Source], before: list[_Known], taken: set[int], corpus: Corpus
) -> tuple[int, str]:
    """The number of the source that ``corpus`` is, or is in, and how its ids begin there; for a new one,
    the next.
    """
    place = Path(corpus.location)
    same = next((n for n, s in enumerate(known) if _same(s.location, corpus.location)), None)
    if same is not None:
        return _once(same, taken, corpus), ""
    # a list says nothing about the folder that it was made in
    whole = corpus.listed is None or corpus.partial
    folders = (
        [n for n, s in enumerate(known) if not s.listed and _is_dir(s.location)]
        if whole and _is_dir(place)
        else []
    )
    around = [n for n in folders if place.is_relative_to(known[n].location)]
    if around:
        number = max(around, key=lambda n: len(known[n].location))
        return _once(number, taken, corpus), f"{place.relative_to(known[number].location).as_posix()}/"
    for number in folders:
        source = known[number]
        if Path(source.location).is_relative_to(place):
            if number in taken:
                raise UsageError(f"{source.location} lies inside {place}; name {place} alone")
            raise ImageIndexError(
                f"{folder} is the index of {source.location}, which lies inside {place}: its images would "
                "be there twice; name another --index, or replace it with --rebuild"
            )
    shared = [(n, files) for n, old in enumerate(before) if (files := old.files(corpus.shards))]
    if shared:
        number, files = shared[0]
        if len(shared) == 1 and number not in taken and files <= set(corpus.shards):
            return number, ""  # its pattern names more by now
        raise ImageIndexError(
            f"{folder} is the index of {' and '.join(known[n].location for n, _ in shared)}, which has "
            "some of these shards; index that again, name another --index, or replace it with --rebuild"
        )
    for number, old in enumerate(before):
        if number not in taken and _moved(old, corpus.location):
            return number, ""
    return len(known), ""


def _homes(known: Sequence[Source]) -> tuple[tuple[Path, str], ...]:
    """The folders among the sources and how the ids of their images begin, the innermost first."""
    folders = [
        (Path(s.location), f"{s.name}//" if s.name else "")
        for s in known
        if not s.listed and _is_dir(s.location)
    ]
    return tuple(sorted(folders, key=lambda home: -len(str(home[0]))))


def _at_home(corpus: Corpus, homes: tuple[tuple[Path, str], ...]) -> bool:
    """Whether every file that ``corpus`` lists is in one of the folders."""
    files = [Path(os.path.abspath(Path(corpus.location) / name)) for name in corpus.listed or ()]  # noqa: PTH100
    return all(any(file.is_relative_to(folder) for folder, _ in homes) for file in files)


def _once(number: int, taken: set[int], corpus: Corpus) -> int:
    if number in taken:
        raise UsageError(f"{corpus.location} is named twice, or lies inside another SOURCE; name it once")
    return number


def _is_dir(place: str | Path) -> bool:
    return os.path.isdir(place)  # noqa: PTH112 - `Path.is_dir` raises where nobody may look


def _same(old: str, new: str) -> bool:
    if old == new:
        return True
    try:
        return Path(old).samefile(new)
    except (OSError, ValueError):
        return False


def _name(location: str, known: Sequence[Source]) -> str:
    """A name for a new source, after its folder or file; no two sources have one. The first needs none."""
    if not known:
        return ""
    word = Path(location).name.encode("utf-8", "backslashreplace").decode() or "source"
    names = {s.name for s in known}
    return next(
        n for n in itertools.chain([word], (f"{word}-{i}" for i in itertools.count(2))) if n not in names
    )


def _moved(old: _Known, new: str) -> bool:
    """True when the source is gone and an image of it is at its place below ``new``.

    Gone alone says little: a pattern of shards is no path, and a disk may just not be mounted.
    """
    gone = Path(old.known[old.number].location)
    if os.path.lexists(gone):
        return False
    root = Path(old.known[0].location)
    for record in itertools.islice(old.everything(), _MOVED_LOOKS):
        if not record.sha256 or record.path is None or is_kept(record.path):
            continue
        path = root / os.fsdecode(record.path)
        if not path.is_relative_to(gone):
            continue
        image = Image(path=new / path.relative_to(gone), offset=record.offset, length=record.length)
        try:
            if sha256(image) == record.sha256:
                return True
        except (OSError, ValueError):
            continue
    return False
