"""Members of a shard that belong together, and what their texts say about which of their images.

Laws: members of one sample are joined wherever they stand in the shard; an image gets the text of another
only where both are of the same plain name.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from mmrerank.corpus._tar import Member
from mmrerank.images import IMAGE_SUFFIXES
from mmrerank.ports import Sample
from mmrerank.types import Image

_MAX_TEXT_BYTES = 1 << 20
MOST_PARTS = 1_000
"""Files of one sample: each text is looked at for each image."""
MOST_METADATA = 1 << 20
"""Bytes of texts about one image: they stand in the index, and in memory with each result."""
MOST_SHARED = 1 << 24
"""Bytes of texts of one sample, counted for each image that shares them."""
_CAPTIONS = ("txt", "text", "caption")
_CLASSES = ("cls", "class")
_TEXTS = (*_CAPTIONS, *_CLASSES, "json", "jsn")

Part = dict[str, Member]
"""The members of one sample by their extension, such as ``jpg`` or ``seg.png``."""


def grouped(members: Iterable[Member]) -> dict[str, list[Part]]:
    """The samples of each key, in the order of their first members; of several with one key each is by
    itself.
    """
    found: dict[str, list[Part]] = {}
    before: Counter[tuple[str, str]] = Counter()
    for member in members:
        key, extension = split(member.name)
        parts = found.setdefault(key, [])
        number = before[key, extension]
        before[key, extension] += 1
        if number == len(parts):
            parts.append({})
        parts[number][extension] = member
    return found


def split(name: str) -> tuple[str, str]:
    """``a/b.seg.PNG`` -> ``("a/b", "seg.png")``, as WebDataset has it.

    >>> split("2024.05/b.seg.PNG")
    ('2024.05/b', 'seg.png')
    """
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return folder + slash + stem, extension.lower()


def samples_of(
    id_: str, part: Mapping[str, Member], read: Callable[[Member], bytes], picture: Callable[[Member], Image]
) -> Iterator[Sample]:
    """A sample for each image of ``part``, with what its texts say; an error for texts without an image."""
    if len(part) > MOST_PARTS:
        why = f"the sample has {len(part):,} files; at most {MOST_PARTS:,} make one"
        yield Sample(id=id_, error=why)
        return
    images = [e for e in part if f".{e.rpartition('.')[2]}" in IMAGE_SUFFIXES]
    facts: dict[str, dict[str, Any]] = {e: {} for e in images}
    alone: dict[str, list[str]] = {}
    room = dict.fromkeys(images, MOST_METADATA)
    left = MOST_SHARED
    # what is said about one image of several comes last, and stands
    for extension, member in sorted(part.items(), key=lambda item: item[0].count(".")):
        stem, _, kind = extension.rpartition(".")
        if extension in facts:
            continue
        owners = _owners(stem, images)
        if not owners:
            alone.setdefault(stem if images else "", []).append(extension)
        elif kind in _TEXTS:
            left -= member.size * len(owners)
            for owner in owners:
                room[owner] -= member.size
            if left < 0 or min(room[o] for o in owners) < 0:
                said = {"note": f"{member.name} is left out: its images have too much metadata"}
            else:
                said = _said(member, kind, read)
            for owner in owners:
                facts[owner].update(said)
    for number, extension in enumerate(images):
        member = part[extension]
        yield Sample(
            id=f"{id_}.{extension}" if number else id_,
            image=None if member.error else picture(member),
            metadata=facts[extension],
            error=member.error,
            final=bool(member.error),
        )
    for stem, extensions in alone.items():
        said = {}
        for extension in extensions:
            if (kind := extension.rpartition(".")[2]) in _TEXTS:
                said.update(_said(part[extension], kind, read))
        error = f"the sample holds no image, only: {', '.join(e or '(no suffix)' for e in extensions)}"
        yield Sample(id=f"{id_}.{stem}" if stem else id_, error=error, final=True, metadata=said)


def _owners(stem: str, images: list[str]) -> list[str]:
    """The images that a text ``STEM.txt`` is about: those of its name, or of a name that goes on behind it.

    Where there is none it is about the image whose name it goes on: ``k.caption.txt`` about ``k.jpg``.
    """
    stems = {e: e.rpartition(".")[0] for e in images}
    below = [e for e, s in stems.items() if s == stem or not stem or s.startswith(f"{stem}.")]
    if below:
        return below
    above = [e for e, s in stems.items() if not s or stem.startswith(f"{s}.")]
    longest = max((len(stems[e]) for e in above), default=0)
    return [e for e in above if len(stems[e]) == longest]


def _said(member: Member, kind: str, read: Callable[[Member], bytes]) -> dict[str, Any]:
    """What a text member says; if unusable, why, under the key ``note``."""
    if member.error:
        return {"note": f"{member.name}: {member.error}"}
    if member.size > _MAX_TEXT_BYTES:
        return {"note": f"{member.name} is too large to be metadata ({member.size} bytes)"}
    text = _decoded(read(member))
    if kind in _CAPTIONS:
        return {"caption": text.strip()}
    if kind in _CLASSES:
        word = text.strip()
        return {"class": int(word) if word.isascii() and word.isdigit() else word}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return {"note": f"{member.name} is not JSON: {error}"}
    return value if isinstance(value, dict) else {"json": value}


def _decoded(data: bytes) -> str:
    """UTF-8, with or without its mark, UTF-16 with it, else what Western Windows wrote."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")
