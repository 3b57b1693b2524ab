"""The plan of a job: which samples are in which shard. Made once, in the order of the sources.

``plan.json`` lists the parts with their hashes, and is written last. A part is a file with a JSON object a
line, one for each sample; images that are in no file of their own have their bytes in a file beside it.
Embeds nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mmrerank.errors import ImageIndexError
from mmrerank.index.manifest import replace, sync_folder
from mmrerank.ports import Corpus, Sample
from mmrerank.types import Image, LeftOut

FILE = "plan.json"
FOLDER = "plan"
_REMAKE = "delete that folder and run the same command again"


@dataclass(frozen=True, kw_only=True)
class PlanPart:
    """A shard to be made: ``lines`` samples of corpus number ``corpus``, of which ``images`` are embedded.

    ``sha256`` is that of its file, ``blob`` that of the file with images' bytes, empty where there is none.
    """

    number: int
    corpus: int
    lines: int
    images: int
    sha256: str
    blob: str = ""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A sample of a plan, its id as the corpus gives it. ``embed``: its shard has to have it."""

    sample: Sample
    embed: bool


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a job makes. ``facts`` say of what and how: another job with the same goes on with this plan.

    ``root`` is what paths in the index are relative to. ``left_out`` and ``remarks`` are those of each
    corpus. ``digest`` is the hash over the whole plan.
    """

    facts: Mapping[str, Any]
    root: str
    parts: tuple[PlanPart, ...]
    left_out: tuple[tuple[LeftOut, ...], ...]
    remarks: tuple[tuple[str, ...], ...]
    digest: str

    def lines(self, corpus: int) -> int:
        """How many samples a corpus has."""
        return sum(p.lines for p in self.parts if p.corpus == corpus)

    @property
    def images(self) -> int:
        """How many images are embedded."""
        return sum(p.images for p in self.parts)


def make(
    work: Path,
    facts: Mapping[str, Any],
    root: str,
    samples: Iterator[tuple[int, Sample, bool]],
    corpora: Sequence[Corpus],
    shard_images: int,
    progress: Callable[[int], None] | None = None,
) -> Plan:
    """Writes the plan of ``samples``, each with the number of its corpus and whether to embed it."""
    shutil.rmtree(work / FOLDER, ignore_errors=True)
    (work / FILE).unlink(missing_ok=True)
    (work / FOLDER).mkdir(parents=True)
    parts: list[PlanPart] = []
    with ExitStack() as stack:
        part: _Part | None = None
        for done, (corpus, sample, embed) in enumerate(samples, 1):
            if part is not None and (part.corpus != corpus or part.images >= shard_images):
                parts.append(part.end())
                part = None
            if part is None:
                part = stack.enter_context(_Part(work / FOLDER, len(parts), corpus))
            part.add(sample, embed=embed)
            if progress:
                progress(done)
        if part is not None:
            parts.append(part.end())
    sync_folder(work / FOLDER)
    body = {
        "facts": dict(facts),
        "root": root,
        "parts": [dataclasses.asdict(p) for p in parts],
        "left_out": [[dataclasses.asdict(item) for item in c.left_out()] for c in corpora],
        "remarks": [list(c.remarks()) for c in corpora],
    }
    data = json.dumps(body, indent=1, default=str).encode()
    replace(work / FILE, data)
    return _parsed(data)


def read(work: Path) -> Plan | None:
    """The plan in ``work``; None where there is none. Raises `ImageIndexError` for a damaged one."""
    try:
        return _parsed((work / FILE).read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise ImageIndexError(f"{work / FILE} is damaged ({type(error).__name__}); {_REMAKE}") from error


def _parsed(data: bytes) -> Plan:
    body = json.loads(data)
    return Plan(
        facts=body["facts"],
        root=body["root"],
        parts=tuple(PlanPart(**p) for p in body["parts"]),
        left_out=tuple(tuple(LeftOut(**item) for item in items) for items in body["left_out"]),
        remarks=tuple(tuple(told) for told in body["remarks"]),
        digest=hashlib.sha256(data).hexdigest(),
    )


def samples_of(work: Path, part: PlanPart) -> Iterator[Planned]:
    """The samples of a part, in order. Raises `ImageIndexError` when its file is not as it was written."""
    lines, blob = _files(work / FOLDER, part.number)
    for path, wanted in ((lines, part.sha256), (blob, part.blob)):
        if wanted and _sha256(path) != wanted:
            raise ImageIndexError(f"{path} is not as it was written; {_REMAKE}")
    with lines.open(encoding="ascii") as file:
        for line in file:
            yield _sample(json.loads(line), blob)


class _Part:
    """A part that is being written."""

    def __init__(self, folder: Path, number: int, corpus: int) -> None:
        self.number, self.corpus, self.images, self._lines = number, corpus, 0, 0
        self._paths = _files(folder, number)
        self._file: IO[bytes] = self._paths[0].open("wb")
        self._blob: IO[bytes] | None = None

    def __enter__(self) -> _Part:
        return self

    def __exit__(self, *error: object) -> None:
        for file in (self._file, self._blob):
            if file is not None:
                file.close()

    def add(self, sample: Sample, *, embed: bool) -> None:
        image = sample.image
        at: list[int] | None = None
        if embed and image is not None and image.path is None and not image.problem:
            if self._blob is None:
                self._blob = self._paths[1].open("wb")
            data = image.read()
            at = [self._blob.tell(), len(data)]
            self._blob.write(data)
        self._file.write(json.dumps(_line(sample, at, embed=embed), default=str).encode() + b"\n")
        self._lines += 1
        self.images += embed

    def end(self) -> PlanPart:
        for file in (self._file, self._blob):
            if file is not None:
                file.flush()
                os.fsync(file.fileno())
                file.close()
        return PlanPart(
            number=self.number,
            corpus=self.corpus,
            lines=self._lines,
            images=self.images,
            sha256=_sha256(self._paths[0]),
            blob=_sha256(self._paths[1]) if self._blob is not None else "",
        )


def _files(folder: Path, number: int) -> tuple[Path, Path]:
    return folder / f"{number:05d}.jsonl", folder / f"{number:05d}.bin"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _line(sample: Sample, at: list[int] | None, *, embed: bool) -> dict[str, Any]:
    """A sample as JSON; what is empty is left out."""
    image = sample.image
    told: dict[str, Any] = {"id": sample.id, "embed": embed, "error": sample.error, "final": sample.final}
    told |= {"metadata": dict(sample.metadata), "version": sample.version}
    told["origin"] = None if sample.origin is None else os.fspath(sample.origin)
    if image is not None:
        told |= {"path": None if image.path is None else os.fspath(image.path), "bytes": at}
        told |= {"offset": image.offset, "length": image.length, "url": image.url, "problem": image.problem}
    return {key: value for key, value in told.items() if value or (value == 0 and value is not False)}


def _sample(told: Mapping[str, Any], blob: Path) -> Planned:
    image = None
    span = {"offset": told.get("offset"), "length": told.get("length"), "url": told.get("url", "")}
    if "path" in told:
        image = Image(path=Path(told["path"]), **span)
    elif "bytes" in told:
        start, length = told["bytes"]
        data = Image(path=blob, offset=start, length=length).read()
        image = Image(data=data, url=told.get("url", ""))
    elif "problem" in told:
        image = Image(data=b"", url=told.get("url", ""), problem=told["problem"])
    version = told.get("version")
    sample = Sample(
        id=told["id"],
        image=image,
        metadata=told.get("metadata", {}),
        error=told.get("error", ""),
        final=told.get("final", False),
        origin=Path(told["origin"]) if "origin" in told else None,
        version=None if version is None else (version[0], version[1]),
    )
    return Planned(sample=sample, embed=told.get("embed", False))
