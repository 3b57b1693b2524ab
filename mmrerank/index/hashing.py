"""SHA-256 over a stretch of a file that only ever grows."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mmrerank.errors import ImageIndexError

_PORTION = 1 << 22  # bytes


def sha256(path: Path, start: int, length: int, known: tuple[int, str] | None = None) -> str:
    """The hash of ``length`` bytes from ``start`` on, or of as many as there are.

    ``known`` is the hash of a shorter length. Raises `ImageIndexError` where that does not hold any more: a
    new hash would hide the damage. Raises `OSError`.
    """
    digest, done = hashlib.sha256(), 0
    with path.open("rb") as file:
        file.seek(start)
        for end in (known[0], length) if known else (length,):
            while done < end and (portion := file.read(min(end - done, _PORTION))):
                digest.update(portion)
                done += len(portion)
            if known and end == known[0] and digest.hexdigest() != known[1]:
                raise ImageIndexError(
                    f"{path} is damaged: its first {end} bytes from {start} on are not as they were written; "
                    "index the source again with --rebuild"
                )
    return digest.hexdigest()
