"""Looks at samples ahead of the model, in threads: has it changed, what are its bytes, what are its pixels.

Writes nothing. What is wrong with an image becomes its record's error.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmrerank.errors import ImageError, TruncatedImageError
from mmrerank.images import probe
from mmrerank.images.decode import ImageInfo, decode_with_info
from mmrerank.index.kept import KEPT, Kept, is_kept
from mmrerank.index.known import PORTION, Known, Row
from mmrerank.index.records import Record, Records
from mmrerank.paths import LFS_WAY, is_lfs_pointer
from mmrerank.plain_files import open_plain
from mmrerank.ports import Sample
from mmrerank.types import Image

EMPTY = "the file is empty (0 bytes)"
MOST_THREADS = 16
_BLOCK = 1 << 20
_READ_WHOLE = 1 << 26  # bytes; larger files are hashed in blocks and decoded from the file
_PORTION_BYTES = 1 << 23  # of images that come in memory: so many of them are looked up together
_MOST_WAITING = 4096  # samples that need no look and wait for one that does


@dataclass(frozen=True, kw_only=True)
class Looked:
    """A sample after a look at it. ``record.row`` is set where a vector exists already.

    ``pixels`` is the decoded image when one has yet to be made. ``old`` is the record of an earlier run;
    ``same`` says that the image's bytes are still those of ``old``. Where nothing could be learnt about an
    image that ``old`` has a vector of, the record is ``old`` with `Record.away` set.
    """

    record: Record
    old: Record | None = None
    same: bool = False
    pixels: Any = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class Intake:
    """How samples are looked at. ``prepare`` takes a decoded image and returns what the embedder takes.

    ``records`` are read only. `looked` does all of it for many samples.
    """

    records: Records
    known: Known
    kept: Kept
    root: Path
    max_pixels: int
    allow_truncated: bool
    prepare: Callable[[Any], Any] | None = None

    def looked(self, samples: Iterable[Sample], *, depth: int) -> Iterator[Looked | None]:
        """What a look at each sample finds, in order; None for one that is in the index just as it is.

        Only those that changed take a thread, and at most ``depth`` of them are under way or wait.
        """
        waiting: deque[Future[Looked] | None] = deque()
        under_way = 0
        with ThreadPoolExecutor(threads(), thread_name_prefix="intake") as pool:
            try:
                for portion in _portions(samples):
                    known = self.known.fetch([s.id for s in portion])
                    for sample in portion:
                        row = known.get(sample.id)
                        if self.known.is_same(sample, row):
                            waiting.append(None)
                        else:
                            waiting.append(pool.submit(self.look, sample, row))
                            under_way += 1
                        while waiting and (
                            waiting[0] is None or under_way >= depth or len(waiting) > _MOST_WAITING
                        ):
                            first = waiting.popleft()
                            under_way -= first is not None
                            yield first.result() if first else None
                while waiting:
                    last = waiting.popleft()
                    yield last.result() if last else None
            finally:
                for future in waiting:
                    if future is not None:
                        future.cancel()

    def look(self, sample: Sample, row: Row | None = None) -> Looked:
        """Looks at one sample, of which ``row`` is known; never raises on account of the image."""
        old = self.known.record(row)
        record = Record(id=sample.id, metadata=sample.metadata)
        if sample.image is None:
            return _unread(sample.error or "there is no image", record, old, final=sample.final)
        try:
            if sample.image.path is None:
                origin = KEPT + os.fsencode(sample.origin or "")
                record = replace(record, path=origin, size=len(sample.image.read()))
                return self._read(sample.image, record, old)
            record = replace(record, **place(sample.image, self.root))
            record = replace(record, **status(sample.image, changed=True))
            if sample.version is not None:
                _check_version(sample.image, sample.version)
            if old and unchanged(old, record):
                return Looked(record=replace(old, metadata=sample.metadata, away=None), old=old, same=True)
            if record.size == 0:
                return _unread(EMPTY, record, old, final=False)
            return self._read(sample.image, record, old)
        except Exception as error:  # one strange file must not end a run over millions; its record says why
            final = not _out_of_reach(error)
            if final and record.size and sample.image.path and is_lfs_pointer(sample.image.path):
                return _unread(f"the file {LFS_WAY}", record, old, final=False)
            return _unread(reason(error), record, old, final=final)

    def _read(self, image: Image, record: Record, old: Record | None) -> Looked:
        whole = image.read() if (record.size or 0) <= _READ_WHOLE else None
        if whole is not None and len(whole) != record.size:
            raise OSError(errno.EAGAIN, "it changed while it was read")
        content = sha256(image) if whole is None else digest(whole)
        record = replace(record, sha256=content)
        source = image if whole is None else whole
        if old and old.row is not None and old.sha256 == content:
            known = {c: vars(old)[c] for c in ("width", "height", "taken", "camera", "row")}
            if image.path is None and is_kept(old.path):
                known |= {"offset": old.offset, "length": old.length}
            elif image.path is None:
                record = self._keep(record, image)
            return Looked(record=replace(record, **known), old=old, same=True)
        row = self.records.row_of(content)
        if row is not None:
            record = replace(record, **_seen(probe(source, max_pixels=self.max_pixels)))
            return Looked(record=replace(self._keep(record, image), row=row), old=old)
        try:
            found = decode_with_info(source, max_pixels=self.max_pixels, allow_truncated=self.allow_truncated)
        except TruncatedImageError as error:
            raise ImageError(f"{error}; --allow-truncated takes what there is of it") from error
        record = replace(record, **_seen(found.info))
        prepared = self.prepare(found.pixels) if self.prepare else found.pixels
        return Looked(record=self._keep(record, image), old=old, pixels=prepared)

    def _keep(self, record: Record, image: Image) -> Record:
        """``record`` with the place of a copy in the index, where the image is in no file of its own."""
        if image.path is not None:
            return record
        there = self.records.kept(record.sha256 or "")
        data = image.read()
        offset = self.kept.add(data) if there is None else there[0]
        return replace(record, offset=offset, length=len(data))


def _unread(why: str, record: Record, old: Record | None, *, final: bool) -> Looked:
    """What becomes of an image that cannot be read: with a vector it stays, unless its contents are bad."""
    if final or old is None or old.row is None:
        return Looked(record=replace(record, error=why), old=old)
    return Looked(record=replace(old, away=why), old=old)


def _out_of_reach(error: BaseException | None) -> bool:
    """Whether the system is the reason, so that nothing is known about the image: Pillow's errors have no
    number.
    """
    if isinstance(error, MemoryError):
        return True
    while error is not None and not (isinstance(error, OSError) and error.errno is not None):
        error = error.__cause__
    return error is not None


def _check_version(image: Image, version: tuple[int, int]) -> None:
    """Raises `OSError` when the file that holds ``image`` is not the one that the source looked into."""
    assert image.path is not None
    now = image.path.stat()
    if (now.st_mtime_ns, now.st_size) != version:
        raise OSError(errno.EAGAIN, "another file took its place while it was read")


def threads() -> int:
    """How many threads decode: one for each processor that this process may use, and at least two."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        cores = os.cpu_count() or 1
    return min(max(cores, 2), MOST_THREADS)


def _portions(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    """Samples in portions of at most `PORTION`; those whose images are in memory in small ones."""
    portion: list[Sample] = []
    held, most = 0, 16  # small at first: the model waits for the first images
    for sample in samples:
        portion.append(sample)
        if sample.image is not None and sample.image.data is not None:
            held += len(sample.image.data)
        if len(portion) >= most or held >= _PORTION_BYTES:
            yield portion
            portion, held, most = [], 0, min(2 * most, PORTION)
    if portion:
        yield portion


def _seen(info: ImageInfo) -> dict[str, Any]:
    return {"width": info.width, "height": info.height, "taken": info.taken, "camera": info.camera}


def place(image: Image, root: Path) -> dict[str, Any]:
    """The columns that say where an image is: below ``root`` where possible."""
    assert image.path is not None
    path = Path(os.path.abspath(image.path))  # noqa: PTH100 - `resolve` would follow links
    if path.is_relative_to(root):
        path = path.relative_to(root)
    return {"path": os.fsencode(path), "offset": image.offset, "length": image.length}


def status(image: Image, *, changed: bool = False) -> dict[str, Any]:
    """The columns size and time, and with ``changed`` the time of the last change of any kind.

    Raises `OSError`, or `ImageError` for what is no regular file.
    """
    assert image.path is not None
    found = image.path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ImageError("it is not a regular file")
    size = found.st_size if image.length is None else image.length
    told = {"size": size, "mtime_ns": found.st_mtime_ns}
    return {**told, "ctime_ns": found.st_ctime_ns} if changed else told


def unchanged(old: Record, new: Record) -> bool:
    """True when place, size and time say that the image is still the same."""
    # the time of the last change of any kind tells an orientation that was set with the old time kept
    keys = ("path", "offset", "length", "size", "mtime_ns", "ctime_ns")
    return (
        old.row is not None and new.mtime_ns is not None and all(vars(old)[k] == vars(new)[k] for k in keys)
    )


def digest(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def sha256(image: Image) -> str:
    """SHA-256 of the encoded bytes, read in blocks where they are in a file."""
    if image.path is None:
        return digest(image.read())
    found = hashlib.sha256()
    with open_plain(image.path) as file:
        file.seek(image.offset or 0)
        left = image.length
        while block := file.read(_BLOCK if left is None else min(left, _BLOCK)):
            found.update(block)
            left = None if left is None else left - len(block)
    return found.hexdigest()


def reason(error: Exception) -> str:
    """Why an image could not be used, in one line."""
    if isinstance(error, ImageError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"the file cannot be read: {error.strerror}"
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
