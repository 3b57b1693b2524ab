"""Where the indexes of ``search --in`` are: one for each set of sources and embedder, found from any folder.

Names and finds them, and reads what they say of themselves. Makes none.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmrerank import catalog
from mmrerank.errors import ImageIndexError
from mmrerank.home import indexes_folder
from mmrerank.index import manifest
from mmrerank.index.folders import count_of, is_index
from mmrerank.index.manifest import Manifest
from mmrerank.index.places import INDEXES
from mmrerank.paths import absolute_spec, expanded

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_LONGEST = 40


@dataclass(frozen=True, kw_only=True)
class Known:
    """An index of this person: its folder, and what it says of itself."""

    path: Path
    manifest: Manifest

    @property
    def images(self) -> int:
        """How many images can be found in it."""
        return count_of(self.path)

    @property
    def bytes(self) -> int:
        """Its size on disk."""
        return sum(f.stat().st_size for f in self.path.rglob("*") if f.is_file())


def absolute(source: str) -> str:
    """``source`` so that it means the same in every folder: a path is absolute, an address stays.

    >>> absolute("pipe:zstd -dc x.tar.zst")
    'pipe:zstd -dc x.tar.zst'
    """
    if _SCHEME.match(source) and not os.path.lexists(source):
        return source
    return os.path.abspath(expanded(source))  # noqa: PTH100 - a linked folder keeps its name


def place_of(sources: Sequence[str], embedder: str) -> Path:
    """The folder of the index of ``sources``, as `absolute` gives them, made with the spec ``embedder``.

    Their order does not matter, and a short name is the same as what it stands for.
    """
    model = catalog.resolve("embedder", absolute_spec(embedder.strip())).spec
    body = json.dumps([sorted(set(sources)), model]).encode("utf-8", "surrogatepass")
    return indexes_folder() / f"{_word(sources[0])}-{hashlib.sha256(body).hexdigest()[:10]}"


def _word(source: str) -> str:
    name = re.sub(r"[^\w.-]+", "-", source.rstrip("/\\").replace("\\", "/").rpartition("/")[2]).strip("-.")
    return name[:_LONGEST] or "images"


def made_of(sources: Sequence[str]) -> list[Known]:
    """The indexes of `indexes_folder` that are of exactly these ``sources``, whatever embedder made them."""
    words = {_word(source) for source in sources}
    names = [p for p in _inside(indexes_folder()) if p.name.rpartition("-")[0] in words]
    return [k for k in map(_known, names) if k and _is_of(k, sources)]


def _is_of(known: Known, sources: Sequence[str]) -> bool:
    # the word in its name is that of the source that was named first
    return any(place_of([first, *sources], known.manifest.embedder) == known.path for first in sources)


def every() -> list[Known]:
    """The indexes below ``./indexes`` and those of `indexes_folder`, by their paths."""
    places = [*_inside(INDEXES), *_inside(indexes_folder())]
    return [k for k in map(_known, places) if k]


def _inside(folder: Path) -> Iterator[Path]:
    try:
        yield from sorted(p for p in folder.iterdir() if is_index(p))
    except OSError:  # not there, or nobody may look
        return


def _known(path: Path) -> Known | None:
    try:
        return Known(path=path, manifest=manifest.read(path))
    except ImageIndexError:  # `mmrerank verify` says what is wrong with one
        return None
