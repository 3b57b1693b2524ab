"""Picks the corpus plug-in for a location by asking each whether it accepts it. Decodes no image."""

from __future__ import annotations

import glob
import inspect
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmrerank import registry
from mmrerank.corpus import folder, table, webdataset
from mmrerank.corpus._kinds import UNREAD, is_image, suffix_of
from mmrerank.corpus.folder import FolderCorpus
from mmrerank.errors import ImageError, InputError, UsageError
from mmrerank.images import IMAGE_SUFFIXES, probe
from mmrerank.paths import expanded, reason, shown
from mmrerank.ports import Corpus
from mmrerank.types import Image

_LISTS = frozenset({".txt", ".lst", ".list", ".m3u", ".m3u8"})
_PACKED = frozenset({".zip", ".7z", ".rar", ".gz", ".bz2", ".xz", ".zst", ".cbz", ".iso"})


def open_corpus(location: str | Path, *, kind: str = "", **options: Any) -> Corpus:
    """The corpus at ``location``: a folder, an image file, ``-`` for a list on stdin, tar shards, a table, or
    a data set of Hugging Face.

    ``kind`` names a plug-in instead of letting the location decide; ``options`` go to its ``open``. Raises
    `InputError` when nothing fits or the source cannot be used, `UsageError` for an unknown ``kind``.
    """
    place = str(location)
    if kind:
        corpus: Corpus = registry.load("corpus", kind).open(place, **options)
        return corpus
    place = _typed(place)
    name = _accepting(place)
    if name:
        return _opened(name, place, options)
    if _is_picture(place):
        return folder.of_files([place])
    raise _unfit(place)


def open_corpora(locations: Sequence[str], *, exclude: Sequence[str] = (), **options: Any) -> list[Corpus]:
    """The corpora at ``locations``, in their order: one a folder or table, one of all the image files, one of
    all the shards.

    ``exclude``: patterns of folders that are left out (`mmrerank.corpus.folder`). ``options`` go to the
    sources that take them: ``allow_urls`` to tables, shards and data sets, ``image_column``, ``id_column``
    and ``image_root`` to tables. Raises as `open_corpus` does, and `UsageError` for a location twice, or for
    an option that no source here takes.
    """
    places: list[tuple[str, str]] = []
    matches = [p for given in locations for p in _matches(_typed(given))]
    # A and A/ are one
    for place in {os.path.abspath(p) if os.path.lexists(p) else p: p for p in matches}.values():  # noqa: PTH100
        name = _accepting(place)
        if not name and not _is_picture(place):
            raise _unfit(place)
        places.append((name, place))
    pictures = [place for name, place in places if not name]
    shards = [place for name, place in places if name == "webdataset"]
    given = {key: value for key, value in options.items() if value}
    used: set[str] = set()
    corpora: list[Corpus] = []
    for name, place in places:
        if not name:
            if place == pictures[0]:
                corpora.append(folder.of_files(pictures))
            continue
        own = {k: v for k, v in given.items() if k in _options(name)}
        used |= own.keys()
        if name == "webdataset":
            if place == shards[0]:
                corpora.append(webdataset.open_all(shards, **own))
        else:
            own |= {"exclude": exclude} if name == "folder" and place != "-" else {}
            corpora.append(_opened(name, place, own))
    if exclude and not any(isinstance(c, FolderCorpus) and c.exclude for c in corpora):
        raise UsageError("--exclude-dir works in folders, and no SOURCE is one")
    if unused := sorted(given.keys() - used):
        flag = unused[0].replace("_", "-")
        takers = [n for n in registry.names("corpus") if unused[0] in _options(n)]
        raise UsageError(f"--{flag} is for sources of the kind {' or '.join(takers)}, and no SOURCE is one")
    return corpora


def _options(name: str) -> set[str]:
    """What the plug-in's ``open`` takes beside the location."""
    return set(list(inspect.signature(registry.load("corpus", name).open).parameters)[1:])


def _typed(location: str) -> str:
    """The location as it is meant: what a person quoted may begin with ``~``."""
    if not location.strip() and not os.path.lexists(location):
        raise UsageError(
            "SOURCE is empty; name a folder ('.' is this one), an image, tar shards, a table, or -"
        )
    if "\0" in location:
        raise UsageError("SOURCE has a zero byte, which no path can have")
    if location.startswith("~") and not os.path.lexists(location):
        return str(expanded(location))
    return location


def _matches(place: str) -> list[str]:
    """What a pattern that the shell did not replace stands for; of shards only the plug-in knows that."""
    if not glob.has_magic(place) or os.path.lexists(place) or _accepting(place):
        return [place]
    return sorted(glob.glob(place, recursive=True)) or [place]  # noqa: PTH207 - the pattern may be absolute


def _accepting(place: str) -> str:
    """The name of the plug-in that accepts ``place``; empty where none does."""
    for name, plugin in registry.every("corpus"):
        try:
            if plugin.accepts(place):
                return name
        except Exception as error:  # one plug-in's fault must not hide the others
            registry.warn("corpus", name, error)
    return ""


def _opened(name: str, place: str, options: dict[str, Any]) -> Corpus:
    corpus: Corpus = registry.load("corpus", name).open(place, **options)
    registry.check(corpus, Corpus, f"corpus {name!r}")
    return corpus


def _is_picture(place: str) -> bool:
    """Whether ``place`` is an image file, by its name or, where that says nothing, by its beginning."""
    if not os.path.isfile(place):  # noqa: PTH113 - `Path.is_file` raises where nobody may look
        return False
    if is_image(place):
        return True
    try:
        probe(Image(path=Path(place)))
    except ImageError:
        return False
    return suffix_of(place) not in UNREAD  # a raw file holds a TIFF, which is not the picture


def _unfit(place: str) -> InputError:
    """Why ``place`` cannot be indexed, and what to do."""
    try:
        os.stat(place)  # noqa: PTH116 - `place` may be anything
    except FileNotFoundError:
        what = "file" if suffix_of(place) in IMAGE_SUFFIXES | UNREAD | _LISTS | set(table.KINDS) else "folder"
        pattern = "; nothing fits this pattern" if glob.has_magic(place) else ""
        return InputError(f"there is no {what} {shown(place)!r}{pattern}")
    except OSError as error:
        return InputError(f"{shown(place)!r} cannot be looked at: {reason(error)}")
    suffix = suffix_of(place)
    if suffix in UNREAD:
        return InputError(
            f"{place!r} is of a kind that is not read ({suffix}); convert it to JPEG, PNG or TIFF"
        )
    if suffix in _LISTS:
        return InputError(
            f"{place!r} is a file; to index the files that it lists: mmrerank index - --index X < {place}"
        )
    if suffix in _PACKED:
        return InputError(f"{place!r} is packed ({suffix}); unpack it, and index the folder")
    if suffix == ".json":
        return InputError(
            f"{place!r} is one JSON value; a table has an object a line (.jsonl): "
            f"jq -c '.[]' {place} > table.jsonl"
        )
    return InputError(
        f"{place!r} is a file; give a folder, tar shards (such as 'shards/{{000..012}}.tar'), an image, a "
        f"table ({', '.join(table.KINDS)}), or '-' for a list of files on stdin"
    )
