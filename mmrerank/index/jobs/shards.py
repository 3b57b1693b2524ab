"""One shard of a job: embedded by whoever takes it, written beside the others, read when all are there.

``shard-00012/`` holds ``vectors.npy`` (float32, one row for equal bytes), ``records.jsonl`` (a line for each
image, in the plan's order) and ``manifest.json`` with their hashes. It is made under another name, synced and
renamed: a shard that is there is whole. Knows no engine.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmrerank.errors import ImageIndexError, MismatchError, ModelError
from mmrerank.index.build import embedded
from mmrerank.index.intake import Intake, Looked
from mmrerank.index.jobs import plan as planning
from mmrerank.index.jobs.plan import Plan, PlanPart
from mmrerank.index.kept import Kept
from mmrerank.index.known import Known
from mmrerank.index.manifest import replace, sync_folder
from mmrerank.index.record import COLUMNS
from mmrerank.index.records import Record, Records
from mmrerank.ports import Embedder, Vectors

MANIFEST, VECTORS, RECORDS = "manifest.json", "vectors.npy", "records.jsonl"
FORMAT = 1
ATTEMPTS = 3
"""How often a shard is begun in one run: one that ends its worker each time must not go on for ever."""
_ATTEMPTS = "attempts"
_FIELDS = tuple(c for c in COLUMNS if c not in ("id", "metadata", "row", "away"))
Tick = Callable[[int], None]
"""Called with the number of images that were looked at since the last call."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a worker has found of one image: its record (without a row), and its vector ``(dim,)``."""

    record: Record
    vector: Vectors | None


def place(work: Path, part: PlanPart) -> Path:
    """The folder of a shard."""
    return work / f"shard-{part.number:05d}"


def is_done(work: Path, plan: Plan, part: PlanPart) -> bool:
    """Whether the shard is there, and of this plan. Whether its files are whole, `read` says."""
    try:
        return str(_manifest(work, part)["plan"]) == plan.digest
    except ImageIndexError:
        return False


def unfinished(work: Path, plan: Plan) -> list[PlanPart]:
    """The parts that have something to embed, and no shard yet."""
    return [p for p in plan.parts if p.images and not is_done(work, plan, p)]


def forget_attempts(work: Path) -> None:
    """Begins a new run of the job: every shard may be begun `ATTEMPTS` times again."""
    shutil.rmtree(work / _ATTEMPTS, ignore_errors=True)
    (work / _ATTEMPTS).mkdir()
    for left in work.glob(".shard-*"):
        shutil.rmtree(left, ignore_errors=True)


def embed(work: Path, plan: Plan, part: PlanPart, embedder: Embedder, tick: Tick | None = None) -> None:
    """Makes the shard of ``part`` in ``work``, unless it is there.

    Raises `MismatchError` for another embedder than the plan's, `ModelError` when it gives what can be no
    vector, or when this shard has ended its worker `ATTEMPTS` times.
    """
    if is_done(work, plan, part):
        return
    if embedder.fingerprint != plan.facts["fingerprint"]:
        raise MismatchError(
            f"this worker's {embedder.spec} has other weights or preprocessing ({embedder.fingerprint[:19]}) "
            f"than the job's ({plan.facts['fingerprint'][:19]}); give every machine the same files"
        )
    _begin(work, part)
    temporary = work / f".{place(work, part).name}.{uuid.uuid4().hex[:8]}"
    temporary.mkdir()
    try:
        facts = _write(temporary, work, plan, part, embedder, tick)
        files = {name: _hashed(temporary / name) for name in (VECTORS, RECORDS)}
        body = {"format": FORMAT, "plan": plan.digest, "part": part.number, **facts, "files": files}
        replace(temporary / MANIFEST, json.dumps(body, indent=1).encode())
        sync_folder(temporary)
        target = place(work, part)
        shutil.rmtree(target, ignore_errors=True)  # of another plan, or damaged
        try:
            temporary.rename(target)
        except OSError:
            if not is_done(work, plan, part):  # else another worker was faster
                raise
        sync_folder(work)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _begin(work: Path, part: PlanPart) -> None:
    """Counts the attempt. Raises `ModelError` when there were too many."""
    for attempt in range(ATTEMPTS):
        try:
            (work / _ATTEMPTS / f"{part.number:05d}.{attempt}").open("x").close()
            return
        except FileExistsError:
            continue
    raise ModelError(
        f"shard {part.number:05d} has ended its worker {ATTEMPTS} times (out of memory, as a rule); its "
        f"images are listed in {work / planning.FOLDER}/{part.number:05d}.jsonl. Other shards are "
        "kept: run the same command again, with smaller --shard-images or fewer --workers if it is memory"
    )


def _write(
    temporary: Path, work: Path, plan: Plan, part: PlanPart, embedder: Embedder, tick: Tick | None
) -> dict[str, Any]:
    """Embeds the images of ``part`` and writes what was found. Returns counts, for the manifest."""
    rows: dict[str, int] = {}
    vectors = [np.zeros((0, embedder.dim), dtype=np.float32)]
    waiting: list[object] = []
    errors = 0
    with (temporary / RECORDS).open("wb") as file:
        for look in _looked(work, plan, part, embedder):
            errors += look.record.error is not None
            file.write(_line(look, rows, waiting))
            if len(waiting) >= embedder.portion:
                vectors.append(embedded(embedder, waiting))
                waiting.clear()
            if tick:
                tick(1)
        if waiting:
            vectors.append(embedded(embedder, waiting))
        file.flush()
        os.fsync(file.fileno())
    with (temporary / VECTORS).open("wb") as file:
        np.save(file, np.concatenate(vectors).astype("<f4"))
        file.flush()
        os.fsync(file.fileno())
    counts = {"images": part.images, "vectors": len(rows), "errors": errors}
    return {"fingerprint": embedder.fingerprint, "dim": embedder.dim, **counts}


def _looked(work: Path, plan: Plan, part: PlanPart, embedder: Embedder) -> Iterator[Looked]:
    """A look at each image of ``part``, as at those of an index in which nothing is."""
    samples = (p.sample for p in planning.samples_of(work, part) if p.embed)
    with ExitStack() as opened:
        aside = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="mmrerank-shard-")))
        none = opened.enter_context(closing(Records(aside, write=True)))
        intake = Intake(
            records=none,
            known=Known(none, Path(plan.root)),
            kept=opened.enter_context(closing(Kept(aside, 0))),
            root=Path(plan.root),
            max_pixels=plan.facts["max_pixels"],
            allow_truncated=plan.facts["allow_truncated"],
            prepare=embedder.prepare if embedder.prepares else None,
        )
        depth = max(128, 4 * embedder.portion) if embedder.prepares else 8
        looked = opened.enter_context(closing(intake.looked(samples, depth=depth)))  # type: ignore[type-var]
        for look in looked:
            assert look is not None  # nothing is known
            yield look


def _line(look: Looked, rows: dict[str, int], waiting: list[object]) -> bytes:
    """The line of an image; new pixels join those that are waiting for the model."""
    record = look.record
    row = None
    if record.error is None and record.sha256:
        if record.sha256 not in rows:
            rows[record.sha256] = len(rows)
            waiting.append(look.pixels)
        row = rows[record.sha256]
    told = {c: vars(record)[c] for c in _FIELDS if vars(record)[c] is not None}
    if record.path is not None:
        told["path"] = record.path.hex()
    return json.dumps({"id": record.id, **told, "row": row}).encode() + b"\n"


def read(work: Path, plan: Plan, part: PlanPart) -> Iterator[Found]:
    """What the shard holds, in the plan's order. Raises `ImageIndexError` when it was changed."""
    folder, body = place(work, part), _manifest(work, part)
    again = f"delete {folder} and run the same command again"
    if (body["plan"], body["dim"], body["images"]) != (plan.digest, plan.facts["dim"], part.images):
        raise ImageIndexError(f"{folder} is of another plan; {again}")
    for name in (VECTORS, RECORDS):
        if body["files"][name] != _hashed(folder / name):
            raise ImageIndexError(f"{folder / name} is not as it was written; {again}")
    vectors = np.load(folder / VECTORS, mmap_mode="r", allow_pickle=False)
    if vectors.shape != (body["vectors"], plan.facts["dim"]) or vectors.dtype != np.dtype("<f4"):
        raise ImageIndexError(f"{folder / VECTORS} has the shape {vectors.shape}; {again}")
    with (folder / RECORDS).open(encoding="ascii") as file:
        for line in file:
            told = json.loads(line)
            row = told.pop("row")
            if "path" in told:
                told["path"] = bytes.fromhex(told["path"])
            vector = None if row is None else np.array(vectors[row])
            yield Found(record=Record(**told), vector=vector)


def _manifest(work: Path, part: PlanPart) -> dict[str, Any]:
    path = place(work, part) / MANIFEST
    try:
        body = json.loads(path.read_bytes())
        if isinstance(body, dict) and body["format"] == FORMAT and body["part"] == part.number:
            return body
    except (OSError, ValueError, KeyError) as error:
        raise ImageIndexError(f"{path} cannot be read ({type(error).__name__})") from error
    raise ImageIndexError(f"{path} is not the manifest of this shard")


def _hashed(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return {"bytes": file.tell(), "sha256": digest}
    except OSError as error:
        raise ImageIndexError(f"{path} cannot be read ({error.strerror}); delete its folder") from error
