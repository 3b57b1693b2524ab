"""Ids for file names of any kind, and the way back.

An id is the POSIX path as it stands, which any JSON, database or TREC file can hold, except where a name has
bytes that are no UTF-8. Reads no file.

Law: different paths below one root get different ids, and `path_of` undoes `id_of`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

from mmrerank.source import Sample


def decodable(name: str) -> bool:
    """True when ``name`` has no bytes that Python could only smuggle in as surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def id_of(root: Path, name: str) -> str:
    """The id of the file ``name`` (POSIX path, relative to ``root``); always valid Unicode.

    In a name with undecodable bytes these, and ``%``, are written as ``%XX``. If another file is really
    called like the result, ``%`` is escaped once more.
    """
    if decodable(name):
        return name
    id_ = "".join(_escape(c) for c in name)
    while os.path.lexists(root / id_):
        id_ = id_.replace("%", "%25")
    return id_


def path_of(root: Path, id_: str) -> Path:
    """The file that `id_of` gave ``id_`` to; ``root / id_`` when there is none any more."""
    if os.path.lexists(root / id_):
        return root / id_
    name, last = id_, ""
    # A name without undecodable bytes is its own id, so the search ends at the first that has some.
    while decodable(name) and name != last:
        name, last = os.fsdecode(unquote_to_bytes(name.encode())), name
    return root / (id_ if decodable(name) else name)


@dataclass(kw_only=True)
class Again:
    """How many samples had an id of one before, and the first such id."""

    count: int = 0
    first: str = ""


def numbered(samples: Iterator[Sample], again: Again | None = None) -> Iterator[Sample]:
    """Gives ids that occur again ``#2`` and so on, so that no image is lost to a careless source.

    ``again`` counts them.
    """
    seen: set[str] = set()
    counts: Counter[str] = Counter()
    for sample in samples:
        id_ = sample.id
        while id_ in seen:
            counts[sample.id] += 1
            id_ = f"{sample.id}#{counts[sample.id] + 1}"
        seen.add(id_)
        if id_ == sample.id:
            yield sample
        else:
            if again is not None:
                again.first = again.first or sample.id
                again.count += 1
            yield replace(sample, id=id_)


def _escape(character: str) -> str:
    if character == "%" or not decodable(character):
        return quote_from_bytes(os.fsencode(character), safe="")
    return character
