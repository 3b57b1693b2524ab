"""The folder of an index: what counts as one, how another takes its place, what may be deleted in it.

Whatever is not known to be an index's is left alone, whatever its name.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mmrerank import registry
from mmrerank.errors import ImageIndexError
from mmrerank.index import kept, lock, manifest, records, texts
from mmrerank.index.exchange import exchange
from mmrerank.index.integrity import integrity
from mmrerank.index.vectors import VectorFiles
from mmrerank.paths import reason

VECTORS = "vectors"
PLAN = "rebuild.json"
"""In a folder that a rebuild fills: what of, and how, so that the same command can go on with it."""
_LOG = (f"{records.FILE}-wal", f"{records.FILE}-shm")
# what a run that is killed at once leaves behind
_STARTED = (lock.FILE, manifest.TEMPORARY, PLAN, f".{PLAN}.tmp")


@contextmanager
def replacing(
    folder: Path, *, rebuild: bool, plan: str = "", told: list[str] | None = None
) -> Iterator[Path]:
    """Where to build: ``folder``, or, to replace an index there, a folder beside it that takes its place.

    The old index serves its readers, and stays when the new one comes to nothing. What was built of that
    stays too: the next call with the same ``plan`` gets it, one with another removes it. An empty plan goes
    on with nothing. ``told`` takes sentences about that.
    """
    old, beside = _old(folder), _beside(folder)
    _mend(folder)
    if not (rebuild and folder.is_dir() and is_index(folder)):
        yield folder
        return
    with lock.writing(folder):
        for place in (old, beside):
            check_free(place)
        _remove(old)
        (folder / PLAN).unlink(missing_ok=True)  # its own rebuild ended before it could do that
        _begin(beside, plan, [] if told is None else told)
        try:
            yield beside
        finally:
            if plan and not is_index(beside):  # it came to nothing: there is nothing to go on with
                _remove(beside)
        with lock.writing(beside):  # which is ``folder`` after that
            _swap(folder)
            with suppress(OSError):
                _remove(old)
                _remove(beside)
                (folder / PLAN).unlink(missing_ok=True)


def standing(folder: Path) -> Path:
    """Where the index of this name is: ``folder``, but for the moment in which another takes its place."""
    for _ in range(_LOOKS):
        if folder.exists():
            return folder
        if is_index(_old(folder)):
            return _old(folder)
    return folder


_LOOKS = 3
"""A swap may end between two looks; none lasts for more."""


def left_over(folder: Path) -> Iterator[str]:
    """Removes what was replaced beside ``folder``, whose lock is held; tells of a rebuild that stopped."""
    for place in (_old(folder), _beside(folder)):
        if not is_index(place):
            continue
        if (place / PLAN).exists():
            yield (
                f"{place} holds the {count_of(place)} images of a stopped --rebuild. The same command "
                "as then goes on with it; delete that folder if it is not wanted any more"
            )
        else:
            with suppress(OSError):
                _remove(place)


def _old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _beside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.rebuild")


def _mend(folder: Path) -> None:
    """Takes back an index whose swap was killed between its two renames."""
    if folder.exists() or not is_index(_old(folder)):
        return
    with lock.writing(_old(folder)):  # a swap that goes on holds it
        if not folder.exists():
            _old(folder).rename(folder)


def _begin(beside: Path, plan: str, told: list[str]) -> None:
    """Makes ``beside`` ready to be filled; what is there stays only when it is of the same ``plan``."""
    if is_index(beside):
        known = _plan(beside)
        if plan and known == plan and _sound(beside):
            told.append(
                f"went on with the {count_of(beside)} images that a --rebuild had embedded when it was "
                "stopped"
            )
            return
        if known:
            why = "is damaged" if known == plan else "was of other sources, options or another model"
            told.append(
                f"what a stopped --rebuild had embedded ({count_of(beside)} images) {why}, and was discarded"
            )
    _remove(beside)
    if plan:
        beside.mkdir()
        manifest.replace(beside / PLAN, plan.encode())


def _plan(folder: Path) -> str:
    try:
        return (folder / PLAN).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _sound(folder: Path) -> bool:
    """Whether an unfinished index can be gone on with: a damaged one would stop every run."""
    try:
        facts = manifest.read(folder)
        kept_records = records.Records(folder, write=True)
        try:
            VectorFiles(folder / VECTORS, facts.dim, dtype=facts.dtype).truncate(kept_records.vectors)
            return not any(isinstance(told, str) for told in integrity(kept_records))
        finally:
            kept_records.close()
    except ImageIndexError:
        return False


def count_of(folder: Path) -> int:
    """How many images the index in ``folder`` has; 0 where it does not say."""
    try:
        found = records.Records(folder)
    except ImageIndexError:
        return 0
    try:
        return found.counts()[0]
    except ImageIndexError:
        return 0
    finally:
        found.close()


def _swap(folder: Path) -> None:
    """Puts what was built beside ``folder`` in its place, and what was there away."""
    old, beside = _old(folder), _beside(folder)
    if not exchange(beside, folder):
        folder.rename(old)
        try:
            beside.rename(folder)
        except OSError:
            old.rename(folder)
            raise
    manifest.sync_folder(folder.parent)


def _remove(folder: Path) -> None:
    """Deletes the folder of an index; killed in between, it leaves what `check_free` still takes."""
    if folder.is_dir():
        clear(folder)
        shutil.rmtree(folder)


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Turns what the file system refuses inside into an `ImageIndexError`."""
    try:
        yield
    except OSError as error:
        at = "" if error.filename in (None, str(folder)) else f" ({error.filename})"
        raise ImageIndexError(f"{folder} cannot be written{at}: {reason(error)}") from error


def check_free(folder: Path) -> None:
    """Raises `ImageIndexError` when ``folder`` holds something else than an index, or one being started."""
    if not folder.exists() or is_index(folder):
        return
    if any(entry.name not in _STARTED for entry in folder.iterdir()):
        raise ImageIndexError(f"{folder} holds something else than an index; name another --index")


def is_index(folder: Path) -> bool:
    """True when ``folder`` holds an index, of whatever state."""
    if (folder / records.FILE).exists():
        return True
    # other programs have a manifest.json too
    ours = {*_STARTED, manifest.FILE, *_LOG, VECTORS, texts.FOLDER, kept.FILE, *registry.names("store")}
    return (folder / manifest.FILE).exists() and all(e.name in ours for e in folder.iterdir())


def clear(folder: Path) -> None:
    """Removes an index's files from ``folder``, and nothing else."""
    for name in (VECTORS, texts.FOLDER, *registry.names("store")):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (*_LOG, manifest.FILE, kept.FILE, records.FILE, *_STARTED):
        (folder / name).unlink(missing_ok=True)
