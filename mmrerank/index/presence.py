"""What became of the images' files since they were indexed, in words, and which command follows them.

Looks at files and changes nothing: a search works without any of them, and its reader wants to know.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from mmrerank import catalog
from mmrerank.errors import ImageError
from mmrerank.index.intake import sha256, status
from mmrerank.index.kept import FILE as KEPT_FILE
from mmrerank.index.manifest import Manifest
from mmrerank.index.records import Record
from mmrerank.paths import model_path
from mmrerank.plain_files import open_plain
from mmrerank.types import Image

GONE = "its file is not there any more"
CHANGED = "its file has changed since it was indexed"
_NAMES = 3
"""Names in a sentence; the others are counted."""
_NO_PATH = re.compile(r"[a-z][a-z0-9+.-]+:", re.IGNORECASE)
"""How a source begins that is no path: ``pipe:``, ``hf:``, ``https:``; one letter is a drive of Windows."""


def changed(image: Image, record: Record) -> bool:
    """Whether the file is there, with another size or time than the record has."""
    try:
        now = status(image)
    except (OSError, ImageError):
        return False
    return now != {"size": record.size, "mtime_ns": record.mtime_ns}


def problem(image: Image, record: Record) -> str:
    """What is wrong with an image's file; empty when all is well, or nothing is known of it."""
    assert image.path is not None
    try:
        with open_plain(image.path):
            pass
        other = bool(record.sha256) and changed(image, record)
        # a file that was only touched, or copied back, is the old picture still
        if not other or sha256(image) == record.sha256:
            return ""
        return f"its file cannot be used now: {record.away}" if record.away else CHANGED
    except (FileNotFoundError, NotADirectoryError):
        return GONE
    except OSError as error:
        return f"its file cannot be read: {error.strerror or error}"


def warnings(problems: Mapping[str, str], of: int, facts: Manifest, index: str | Path) -> list[str]:
    """A sentence for each kind of problem of ``of`` images, with the way on. ``problems``: by id."""
    found = []
    if gone := [i for i, why in problems.items() if why == GONE]:
        found.append(_gone(gone, of, facts, index))
    for why in dict.fromkeys(w for w in problems.values() if w not in (GONE, CHANGED)):
        names = listed(i for i, w in problems.items() if w == why)
        way = ". Let this user read them" if why.endswith(os.strerror(errno.EACCES)) else ""
        found.append(f"{_count(names[1], of)} cannot be shown: {names[0]}: {why}{way}")
    if other := [i for i, why in problems.items() if why == CHANGED]:
        names = listed(other)
        found.append(
            f"{_count(names[1], of)} changed since the images were indexed: {names[0]}. They stand "
            f"where their old pictures belong. Bring the index up to date: {go_on(facts, index)}"
        )
    return found


def _gone(gone: list[str], of: int, facts: Manifest, index: str | Path) -> str:
    source = Path(facts.source)
    away = missing_sources(facts)
    names, count = listed(gone)
    if away and not facts.listed:
        # of several folders, one that is away need not be all of these images'
        which = f": {names}" if facts.sources else ""
        return f"{_count(count, of)} cannot be shown{which}: {_away(away[0])}. {follow(facts, index)}"
    empty = source.is_dir() and not any(source.iterdir())
    drive = f". {source} is empty: is a drive not mounted? " if empty else ". "
    return (
        f"{_count(count, of)} cannot be shown, because the files are not there any more: {names}{drive}"
        f"Bring the index up to date: {go_on(facts, index)}"
    )


def _away(place: str) -> str:
    return f"their folder {place} is not there any more"


def missing_sources(facts: Manifest) -> list[str]:
    """The folders of images that are away."""
    found = []
    for place in (facts.source, *(s.location for s in facts.sources)):
        try:
            there = Path(place).exists()
        except OSError:
            there = True  # nobody knows
        # a command, an address or a data set is no folder
        pattern = any(c in place for c in "*?{[") or _NO_PATH.match(place) or "::" in place
        if not (there or pattern):
            found.append(place)
    return found


def source_warnings(facts: Manifest, index: str | Path) -> list[str]:
    """That folders of images are away, with the way on."""
    # of a source that was copied into the index nothing is missing
    away = [] if (Path(index) / KEPT_FILE).exists() else missing_sources(facts)
    which = "images" if facts.sources else "the images"
    return [f"{which} cannot be shown: {_away(place)}. {follow(facts, index)}" for place in away]


def kept_warnings(count: int, facts: Manifest, index: str | Path) -> list[str]:
    """That the last run could not see all the images, with the way on."""
    if not count:
        return []
    return [
        f"{count} of the images could not be seen when the index was last brought up to date; it has them as "
        f"they were. Look again: {go_on(facts, index)}"
    ]


def embedder_warnings(facts: Manifest, index: str | Path, *, now: str = "") -> list[str]:
    """That the model which made the index is away, with the way on. ``now`` is the spec used instead."""
    away = missing_model(facts.embedder)
    if not away:
        return []
    shown = go_on(replace(facts, embedder=now or "SPEC"), index)
    if "--embedder" not in shown:
        shown += f" --embedder {shlex.quote(now or 'SPEC')}"
    if now:
        return [f"{away}; {now} makes the same vectors. Let the index remember that: {shown}"]
    return [
        f"{away}. If it was moved, name its new place with --embedder, and let the index remember it: {shown}"
    ]


def missing_model(spec: str) -> str:
    """That the folder or file which ``spec`` names by its whole path is away; empty when it is there."""
    place = model_path(spec)
    try:
        there = place is None or not place.is_absolute() or place.exists()
    except OSError:
        there = True  # nobody knows
    return "" if there else f"the model {place} that made the index is not there any more"


def follow(facts: Manifest, index: str | Path) -> str:
    """How an index learns where its images are now."""
    new = "NEW_FOLDER"
    moved = go_on(facts, index, source=new)
    return f"If it was moved, name its new place: {moved}. If it is on a drive, mount the drive"


def unfinished(facts: Manifest, index: str | Path) -> str:
    """What `mmrerank.index.verify` cannot see while an update is not finished, and what ends it."""
    return (
        "an update was stopped or is still running. Each record and each vector was compared with its "
        f"checksum; bytes of the database that hold none were not. To finish it, {finish(facts, index)}"
    )


def go_on(facts: Manifest, index: str | Path, *, source: str = "") -> str:
    """The command that brings an index up to date; what a list or an import was of, only the user knows."""
    # of further sources a list is left out: only the user knows it
    others = [s.location for s in facts.sources if not s.listed]
    where = source or " ".join(map(shlex.quote, (facts.source, *others)))
    name = shlex.quote(str(index))
    if facts.imported:
        spec = shlex.quote(facts.embedder)
        return f"mmrerank index {where} --index {name} --vectors V.npy --ids IDS.jsonl --embedder {spec}"
    # an index's own word is not enough for a model of this machine
    local = catalog.is_local("embedder", facts.embedder)
    model = f" --embedder {shlex.quote(facts.embedder)}" if local else ""
    if facts.listed:
        folder = source or facts.source
        return f"pipe the same list again, in the folder {folder}: mmrerank index - --index {name}{model}"
    return f"mmrerank index {where} --index {name}{model}"


def finish(facts: Manifest, path: str | Path) -> str:
    """What finishes an index that was begun."""
    if facts.imported:
        return f"import again with: {go_on(facts, path)}"
    return go_on(facts, path) if facts.listed else f"go on with: {go_on(facts, path)}"


def listed(names: Iterable[str]) -> tuple[str, int]:
    """The first names as one text, with how many there are besides, and the number of all.

    >>> listed("abcde")
    ("'a', 'b', 'c' and 2 more", 5)
    """
    every = iter(names)
    known = list(itertools.islice(every, _NAMES))
    more = sum(1 for _ in every)
    first = ", ".join(map(repr, known))
    return (f"{first} and {more} more" if more else first), len(known) + more


def _count(count: int, of: int) -> str:
    return f"{count} of these {of} images"
