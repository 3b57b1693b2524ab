"""Ids for file names of any kind, and the way back.

An id is the POSIX path as it stands, which any JSON, database or TREC file can hold, except where a name has
bytes that are no UTF-8. Reads no file.

Law: different paths below one root get different ids, and `path_of` undoes `id_of`.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes


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


def _escape(character: str) -> str:
    if character == "%" or not decodable(character):
        return quote_from_bytes(os.fsencode(character), safe="")
    return character
