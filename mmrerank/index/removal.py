"""What a run takes out of an index, once it has seen all of a source: only what is known to be gone.

What could not be looked at is out of sight and stays, marked; so does what would go in too great a number at
once, for a filter, a half-mounted drive or a slip looks just like that.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from mmrerank.errors import ImageIndexError, InputError
from mmrerank.index import manifest
from mmrerank.index.intake import Looked
from mmrerank.index.kept import KEPT, is_kept
from mmrerank.index.records import Record, Records
from mmrerank.index.report import FIRST, Failure
from mmrerank.index.sources import Part

FREELY = 10
"""So many images of a source go without a question: what a person deletes by hand, and embeds again soon."""
SHARE = 10
"""So does one in so many: in a large source more than ten images come and go every day."""

ALLOW = "--allow-removal (allow_removal=True)"
_END = 1024
"""Bytes of zeros at the end of a tar."""
_NAMES = 3
NOT_THERE = "the source does not have it any more"
_PLACEHOLDERS = (".{}.icloud", "{}.nextcloud", "{}.owncloud", "{}.cloud")
"""How the note is called that a synchronising program leaves in the place of a file that it took away."""


def needs_leave(lost: int, of: int) -> bool:
    """Whether ``lost`` images of ``of`` are more than go without ``allow_removal``.

    >>> needs_leave(10, 10), needs_leave(11, 110), needs_leave(12, 110)
    (False, False, True)
    """
    return lost > FREELY and lost * SHARE > of


@dataclass(kw_only=True)
class Tally:
    """A number of images, with the first of them and why."""

    count: int = 0
    first: list[Failure] = field(default_factory=list)
    whys: Counter[str] = field(default_factory=Counter)

    def add(self, id_: str, why: str) -> None:
        """Counts an image."""
        self.count += 1
        self.whys[why] += 1
        if len(self.first) < FIRST or self.whys[why] <= _NAMES:
            self.first.append(Failure(source=id_, error=why))

    def names(self, why: str) -> str:
        """The first names of those for which ``why`` is the reason, with how many there are besides."""
        first = [repr(f.source) for f in self.first if f.error == why][:_NAMES]
        more = self.whys[why] - len(first)
        return ", ".join(first) + (f" and {more} more" if more else "")


@dataclass(kw_only=True)
class Seen:
    """What a run has seen of one source, and what became of it."""

    part: Part
    ids: set[str] = field(default_factory=set)
    failed: list[Looked] = field(default_factory=list)
    usable: int = 0
    kept: Tally = field(default_factory=Tally)
    withheld: Tally = field(default_factory=Tally)
    removed: int = 0
    of: int = 0
    """How many images of the source the index had, with those that are new."""
    removable: set[str] = field(default_factory=set)
    """The reasons in ``kept`` for which images are taken out with leave."""

    @property
    def location(self) -> str:
        """Where the source is."""
        return self.part.corpus.location


def finish(one: Seen, records: Records, root: Path, *, allow: bool) -> None:
    """Records what failed, and removes what the source no longer has; with ``allow``, however much it is.

    ``root`` is what paths in the records are relative to.
    """
    gone, lost, one.of = _sorted(one, records, root, allow=allow)
    bad = [f for f in one.failed if f.old is not None and f.old.row is not None]
    over = not allow and needs_leave(lost + len(bad), one.of)
    stay = over or not one.usable
    with records.transaction():
        for id_, row in gone:
            if over and row:
                one.withheld.add(id_, NOT_THERE)
                records.mark([id_], NOT_THERE)
            else:
                one.removed += row
                records.delete([id_])
        for look in one.failed:
            why = look.record.error or ""
            if stay and look in bad and look.old is not None:
                (one.withheld if over else one.kept).add(look.record.id, why)
                records.put(replace(look.old, away=why))
            else:
                records.put(look.record)


def _sorted(
    one: Seen, records: Records, root: Path, *, allow: bool
) -> tuple[list[tuple[str, bool]], int, int]:
    """What is gone for good, each with whether it has a vector; how many have one; how many images there are.

    Marks what is out of sight.
    """
    gone: list[tuple[str, bool]] = []
    of = 0
    # What is in a folder or shard that could not be read is not gone, only out of sight.
    hidden = {_below(f.record.id, one.part.prefix): f.record for f in one.failed if f.record.path is None}
    prefixes = tuple(hidden)
    sight = Sight(records, root, one)
    for id_, has_row in records.states():
        if not one.part.holds(id_):
            continue
        of += has_row
        if one.part.partial or id_ in one.ids:
            continue
        why = ""
        if prefixes and id_.startswith(prefixes):
            why = hidden[next(p for p in prefixes if id_.startswith(p))].error or ""
        elif not one.usable:
            why = "nothing in its source could be used"
        elif has_row and not allow and (why := sight.hides(id_)):
            one.removable.add(why)
        if not why:
            gone.append((id_, has_row))
        elif has_row:
            one.kept.add(id_, why)
            with records.transaction():
                records.mark([id_], why)
    return gone, sum(has_row for _, has_row in gone), of


class Sight:
    """Tells what is out of sight from what is gone, by what is where its file was. Remembers folders."""

    def __init__(self, records: Records, root: Path, one: Seen) -> None:
        self._records, self._root, self._one = records, root, one
        self._source = Path(one.location)
        self._folders: dict[Path, str] = {}

    def hides(self, id_: str) -> str:
        """Why the image with this id may still be there; empty when it is gone."""
        record = self._records.get(id_)
        if record is None or record.path is None:
            return ""
        file = self._root / os.fsdecode(record.path.removeprefix(KEPT))
        if is_kept(record.path) or record.offset is not None:
            return self._in_shard(file, record)
        for form in _PLACEHOLDERS:
            if os.path.lexists(file.with_name(form.format(file.name))):
                return "its file is a placeholder now, and the picture is in the cloud only; download it"
        return self._in_folder(file.parent)

    def _in_folder(self, folder: Path) -> str:
        """Why nothing is in ``folder``: it, or what is left of the way to it, is empty or cannot be read."""
        if folder not in self._folders:
            self._folders[folder] = self._look(folder)
        return self._folders[folder]

    def _look(self, folder: Path) -> str:
        if folder == self._source or not folder.is_relative_to(self._source):
            return ""
        try:
            with os.scandir(folder) as entries:
                empty = next(iter(entries), None) is None
        except (FileNotFoundError, NotADirectoryError):
            return self._in_folder(folder.parent)
        except OSError as error:
            return f"its folder cannot be listed: {error.strerror or error}"
        return f"its folder {folder} is empty (is a drive not mounted?)" if empty else ""

    def _in_shard(self, shard: Path, record: Record) -> str:
        """Why a shard that is still there shows less than it did: nothing at all, or no more of it."""
        if shard not in self._one.part.corpus.shards or not os.path.isfile(shard):  # noqa: PTH113
            return ""
        if shard not in self._shown:
            return f"its shard {shard} holds nothing now"
        end = (record.offset or 0) + (record.length or 0)
        try:
            cut = not is_kept(record.path) and end > shard.stat().st_size and not _ended(shard)
        except OSError as error:
            return f"its shard cannot be read: {error.strerror or error}"
        return f"its shard {shard} ends before it, without the mark of an end" if cut else ""

    @cached_property
    def _shown(self) -> set[Path]:
        """The shards that something was seen of."""
        paths = {r.path for r in self._records.everything() if r.path and r.id in self._one.ids}
        return {self._root / os.fsdecode(p.removeprefix(KEPT)) for p in paths}


def _ended(shard: Path) -> bool:
    """Whether a tar file ends as its writer meant: with two blocks of zeros."""
    with shard.open("rb") as file:
        file.seek(-min(_END, shard.stat().st_size), os.SEEK_END)
        return not file.read().strip(b"\0")


def _below(id_: str, prefix: str) -> str:
    """How the ids begin of what is in the folder (``sub/``) or the shard (``1.tar``) of this id."""
    if id_ == f"{prefix}.":  # the source's own folder
        return prefix
    return id_ if id_.endswith("/") else id_.removesuffix(".tar") + "/"


def remarks(one: Seen) -> list[str]:
    """What stayed though the source did not show it, in sentences."""
    told = []
    for why, count in one.kept.whys.items():
        way = f"; if they are deleted, {ALLOW} takes them out" if why in one.removable else ""
        told.append(
            f"{count} of the images cannot be read now, and the index still has them as they were: "
            f"{one.kept.names(why)}: {why}. The next run looks again{way}"
        )
    if one.withheld.count:
        whys = [f"{one.withheld.names(why)}: {why}" for why in one.withheld.whys]
        told.append(
            f"{one.withheld.count} of the {one.of} images of {one.location} would be taken out of the index, "
            f"and none was: {'; '.join(whys)}. More than {FREELY} at once that are more than one in {SHARE} "
            f"go only with {ALLOW}"
        )
    return told


def check_loss(old: Path, new: Path) -> None:
    """Raises `InputError` when the index in ``new``, which is to replace the one in ``old``, has lost more
    of a source than goes without leave. Sources that ``new`` does not have were left out on purpose.
    """
    try:
        before, prefixes = _good(old), _prefixes(old)
    except ImageIndexError:  # a damaged one is being replaced
        return
    after, now = _good(new), _prefixes(new)
    for location in prefixes.keys() & now.keys():
        mine = _of(before, prefixes, location)
        theirs = set(_of(after, now, location))
        lost = [i for i in mine if i not in theirs]
        if needs_leave(len(lost), len(mine)):
            raise InputError(
                f"nothing was replaced: of the {len(mine)} images that {old} has of {location}, {len(lost)} "
                f"would be lost, such as {', '.join(map(repr, lost[:_NAMES]))}. More than {FREELY} at once "
                f"that are more than one in {SHARE} go only with {ALLOW}. What was built waits in {new}: the "
                "same command goes on with it, also with that option added"
            )


def _good(folder: Path) -> list[str]:
    records = Records(folder)
    try:
        return records.ids()
    finally:
        records.close()


def _prefixes(folder: Path) -> dict[str, str]:
    """How the ids of each source begin, by its location."""
    facts = manifest.read(folder)
    return {facts.source: "", **{s.location: f"{s.name}//" for s in facts.sources}}


def _of(ids: list[str], prefixes: dict[str, str], location: str) -> list[str]:
    """The ids of one source as it gives them."""
    begin = prefixes[location]
    others = tuple(p for p in prefixes.values() if p) if not begin else ()
    return [i.removeprefix(begin) for i in ids if i.startswith(begin) and not i.startswith(others or ("\0",))]
