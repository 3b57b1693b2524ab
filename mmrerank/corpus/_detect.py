"""Picks the corpus plug-in for a location by asking each whether it accepts it. Opens no image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmrerank import registry
from mmrerank.errors import InputError
from mmrerank.ports import Corpus


def open_corpus(location: str | Path, *, kind: str = "", **options: Any) -> Corpus:
    """The corpus at ``location``: a folder, ``-`` for a list on stdin, or tar shards.

    ``kind`` names a plug-in instead of letting the location decide; ``options`` go to its ``open``. Raises
    `InputError` when nothing fits or the source cannot be used, `UsageError` for an unknown ``kind``.
    """
    place = str(location)
    if kind:
        corpus: Corpus = registry.load("corpus", kind).open(place, **options)
        return corpus
    for name, plugin in registry.every("corpus"):
        try:
            accepted = plugin.accepts(place)
        except Exception as error:  # one plug-in's fault must not hide the others
            registry.warn("corpus", name, error)
            continue
        if accepted:
            corpus = plugin.open(place, **options)
            registry.check(corpus, Corpus, f"corpus {name!r}")
            return corpus
    if Path(place).exists():
        raise InputError(
            f"{place!r} is a file; give a folder, tar shards (such as 'shards/{{000..012}}.tar'), or '-' for "
            "a list of files on stdin"
        )
    raise InputError(f"there is no folder {place!r}")
