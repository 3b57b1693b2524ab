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
from mmrerank.index import kept, lock, manifest, records
from mmrerank.paths import reason

VECTORS = "vectors"
_LOG = (f"{records.FILE}-wal", f"{records.FILE}-shm")
_STARTED = (lock.FILE, manifest.TEMPORARY)  # what a run that is killed at once leaves behind


@contextmanager
def replacing(folder: Path, *, rebuild: bool) -> Iterator[Path]:
    """Where to build: ``folder``, or, to replace an index there, a folder beside it that takes its place.

    The old index serves its readers, and stays when the new one comes to nothing.
    """
    old, beside = (folder.with_name(f".{folder.name}.{end}") for end in ("old", "rebuild"))
    if is_index(old):  # a run was killed between the two renames, or just behind them
        if folder.exists():
            with suppress(OSError):
                _remove(old)
        else:
            old.rename(folder)
    if not (rebuild and folder.is_dir() and is_index(folder)):
        yield folder
        return
    with lock.writing(folder):
        for place in (old, beside):
            check_free(place)
            _remove(place)
        yield beside
        folder.rename(old)
        beside.rename(folder)
    with suppress(OSError):
        _remove(old)


def _remove(folder: Path) -> None:
    """Deletes the folder of an index; killed in between, it leaves what `check_free` still takes."""
    clear(folder)
    if folder.exists():
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
    ours = {*_STARTED, manifest.FILE, *_LOG, VECTORS, kept.FILE, *registry.names("store")}
    return (folder / manifest.FILE).exists() and all(e.name in ours for e in folder.iterdir())


def clear(folder: Path) -> None:
    """Removes an index's files from ``folder``, and nothing else."""
    for name in (VECTORS, *registry.names("store")):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (*_LOG, manifest.FILE, kept.FILE, records.FILE, *_STARTED):
        (folder / name).unlink(missing_ok=True)
