"""All shards of a job become one index, through the ordinary build: its laws hold here by being run.

The build is given the plan's samples with what the workers found, in place of files that would be looked at
and a model that would be asked. Holds one shard at a time in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mmrerank.errors import ImageIndexError
from mmrerank.index.intake import Intake, Looked
from mmrerank.index.jobs import plan as planning
from mmrerank.index.jobs import shards
from mmrerank.index.jobs.plan import Plan
from mmrerank.index.jobs.shards import Found
from mmrerank.index.kept import is_kept
from mmrerank.index.known import Row
from mmrerank.index.records import Record
from mmrerank.ports import Corpus, Embedder, Sample, Vectors
from mmrerank.types import LeftOut, Query

LATER = "it changed while the job ran; the next run takes it up"


@dataclass(frozen=True, kw_only=True)
class FoundSample(Sample):
    """A sample with what a worker has found of it."""

    found: Found


class PlannedCorpus(Corpus):
    """A source as the plan has it: the same facts, and the samples from the plan and the shards."""

    def __init__(self, work: Path, plan: Plan, number: int, corpus: Corpus) -> None:
        self.location, self.domain, self.listed = corpus.location, corpus.domain, corpus.listed
        self.shards, self.partial = corpus.shards, corpus.partial
        self._work, self._plan, self._number = work, plan, number

    def count(self) -> int:
        """How many samples there are."""
        return self._plan.lines(self._number)

    def left_out(self) -> Sequence[LeftOut]:
        """What the source passed over when the plan was made."""
        return self._plan.left_out[self._number]

    def remarks(self) -> Sequence[str]:
        """What the source remarked when the plan was made."""
        return self._plan.remarks[self._number]

    def samples(self) -> Iterator[Sample]:
        """Every sample, in the plan's order. Raises `ImageIndexError` for a shard that is not right."""
        for part in self._plan.parts:
            if part.corpus != self._number:
                continue
            found = shards.read(self._work, self._plan, part) if part.images else iter(())
            for planned in planning.samples_of(self._work, part):
                if not planned.embed:
                    yield planned.sample
                    continue
                one = next(found, None)
                if one is None or one.record.id != planned.sample.id:
                    raise ImageIndexError(
                        f"{shards.place(self._work, part)} does not go with the plan: it lacks "
                        f"{planned.sample.id!r}; delete it and run the same command again"
                    )
                yield FoundSample(**vars(planned.sample), found=one)


@dataclass(frozen=True, kw_only=True)
class MergeIntake(Intake):
    """Looks at what the workers have found. What they were not asked about must be as the index has it."""

    def look(self, sample: Sample, row: Row | None = None) -> Looked:
        """As `Intake.look`, with the vector in place of the pixels."""
        old = self.known.record(row)
        found = sample.found if isinstance(sample, FoundSample) else None
        lost = found is not None and found.record.error is not None and old is not None
        if found is None or lost:
            return self._later(super().look(sample, row), sample, old)
        record = replace(found.record, id=sample.id, metadata=sample.metadata)
        if record.error is not None:
            return Looked(record=record, old=old)
        assert sample.image is not None
        if sample.image.path is None:
            record = replace(record, offset=None, length=None)  # in the worker's own copy
        content = record.sha256 or ""
        if old is not None and old.row is not None and old.sha256 == content:
            known = {c: vars(old)[c] for c in ("width", "height", "taken", "camera", "row")}
            if sample.image.path is None and is_kept(old.path):
                known |= {"offset": old.offset, "length": old.length}
            else:
                record = self._keep(record, sample.image)
            return Looked(record=replace(record, **known), old=old, same=True)
        record = self._keep(record, sample.image)
        there = self.records.row_of(content)
        if there is not None:
            return Looked(record=replace(record, row=there), old=old)
        return Looked(record=record, old=old, pixels=found.vector)

    def _later(self, look: Looked, sample: Sample, old: Record | None) -> Looked:
        """``look``, but where it found pixels, which no worker has embedded."""
        if look.pixels is None:
            return look
        if old is not None and old.row is not None:
            return Looked(record=replace(old, away=LATER), old=old)
        return Looked(record=Record(id=sample.id, metadata=sample.metadata, error=LATER), old=old)


class Given(Embedder):
    """Stands for ``embedder``, whose vectors are there: what it is given as images are their vectors."""

    prepares = True  # so that nothing is counted as pixels

    def __init__(self, embedder: Embedder) -> None:
        self.spec, self.fingerprint, self.dim = embedder.spec, embedder.fingerprint, embedder.dim
        self.domain, self.place = embedder.domain, embedder.place
        self._text_tower: Callable[[], Mapping[str, bytes]] = embedder.text_tower
        self.portion = 512

    def text_tower(self) -> Mapping[str, bytes]:
        """The embedder's own."""
        return self._text_tower()

    def embed_images(self, images: Sequence[Any]) -> Vectors:
        """The vectors ``(n, dim)`` themselves."""
        return np.stack(images)

    def embed_queries(self, queries: Sequence[Query]) -> Vectors:
        """Nobody asks."""
        raise NotImplementedError
