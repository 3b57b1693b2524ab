"""Writes a picture-book world to a folder: pictures that keep their truth to themselves, and that truth.

Pictures are PNG without metadata under ``images/``, with names that are opaque. ``scenes.jsonl``,
``queries.jsonl``, ``qrels.txt`` (TREC, grades 1 to 3) and ``vocabulary.json`` stand outside that folder.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmrerank.errors import InputError, UsageError
from mmrerank.picturebook import world
from mmrerank.picturebook.draw import render
from mmrerank.picturebook.queries import DemoQuery, Truth, make_queries, qrels
from mmrerank.picturebook.world import Scene, sample_scene, stream

SIZE = 384  # pixels
_OWN = re.compile(r"[0-9a-f]{8}\.(png|part)")  # pictures of another world, and half a picture
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class World:
    """A folder of pictures and what is true of them; ``names`` are file names in the scenes' order.

    ``queries`` are those exported with it, ``references`` the files of their reference pictures by query id.
    """

    folder: Path
    scenes: tuple[Scene, ...]
    names: tuple[str, ...]
    queries: tuple[DemoQuery, ...] = ()
    references: Mapping[str, str] = field(default_factory=dict)

    @property
    def images(self) -> Path:
        """The folder that is indexed."""
        return self.folder / "images"


def evaluation_scenes(seed: int, count: int) -> tuple[Scene, ...]:
    """The first ``count`` scenes of an evaluation world; no training ever sees that stream."""
    rng = stream("evaluation", seed)
    return tuple(sample_scene(rng, "evaluation") for _ in range(count))


def evaluation_queries(seed: int, scenes: Sequence[Scene], count: int, truth: Truth) -> list[DemoQuery]:
    """The ``count`` searches that an evaluation asks of its world's ``scenes``, whose ``truth`` this is.

    Raises `ValueError` when the scenes are too few.
    """
    rng = stream("evaluation", seed + 1_000_003)
    return make_queries(scenes, count, rng, "evaluation", truth=truth)


def name_of(seed: int, index: int) -> str:
    """An opaque file name: eight hex digits that reveal neither the scene nor its place in the stream."""
    return hashlib.sha256(f"mmrerank picture\0{seed}\0{index}".encode()).hexdigest()[:8] + ".png"


def draw_world(folder: Path, *, seed: int, scenes: int, progress: Progress | None = None) -> World:
    """Draws a world into ``folder``, or reuses what is there of the same world.

    Raises `InputError` for a folder with other things in it, `UsageError` for so many scenes that two of
    them have one name.
    """
    names = tuple(name_of(seed, n) for n in range(scenes))
    if len(set(names)) < scenes:
        raise UsageError(
            f"two of {scenes:,} pictures of world {seed} would have one name; draw fewer (27,000 is safe for "
            "most worlds), or take another --seed"
        )
    drawn = evaluation_scenes(seed, scenes)
    book = World(folder=folder, scenes=drawn, names=names)
    book.images.mkdir(parents=True, exist_ok=True)
    strays = {p for p in book.images.iterdir() if p.name not in set(names)}
    if foreign := sorted(p.name for p in strays if not _OWN.fullmatch(p.name)):
        raise InputError(
            f"{book.images} holds what no picture book is made of, such as {foreign[0]}; it is left as it "
            "is: choose another name for the index"
        )
    for n, (scene, name) in enumerate(zip(drawn, names, strict=True)):
        target = book.images / name
        if not target.exists():
            # under another name first, so that a kill leaves no half picture behind
            part = target.with_suffix(".part")
            render(scene, SIZE).save(part, "PNG", compress_level=3)
            part.replace(target)
        if progress:
            progress(n + 1, scenes)
    for stray in strays:
        stray.unlink(missing_ok=True)
    return book


def export(
    directory: Path, *, seed: int, scenes: int, queries: int, progress: Progress | None = None
) -> World:
    """Writes a world with ``queries`` searches and their graded truth into a new or empty ``directory``.

    Raises `InputError` when the folder holds something or cannot be written, `UsageError` when there are too
    few scenes for the queries (each needs 3 to 60 fully matching ones).
    """
    try:
        if directory.exists() and any(directory.iterdir()):
            raise InputError(f"{directory} is not empty; give a new or an empty folder")
        return _export(directory, seed, scenes, queries, progress)
    except OSError as error:
        raise InputError(
            f"{directory} cannot be written ({error.strerror}); give a new or an empty folder"
        ) from error


def _export(directory: Path, seed: int, scenes: int, queries: int, progress: Progress | None) -> World:
    drawn = evaluation_scenes(seed, scenes)
    truth = Truth(drawn)
    try:
        asked = evaluation_queries(seed, drawn, queries, truth)
    except ValueError as error:
        raise UsageError(f"{error}; draw more with --scenes (2000 serves 200 queries)") from error
    book = draw_world(directory, seed=seed, scenes=scenes, progress=progress)
    references = _references(directory, asked, seed)
    named = {s.id: n for s, n in zip(book.scenes, book.names, strict=True)}
    _lines(
        directory / "scenes.jsonl",
        ({"image": n, **s.to_json()} for s, n in zip(book.scenes, book.names, strict=True)),
    )
    _lines(directory / "queries.jsonl", ({**q.to_json(), "reference": references.get(q.id)} for q in asked))
    table = qrels(asked, drawn, truth=truth)
    rows = (f"{q} 0 {named[s]} {g}\n" for q, grades in table.items() for s, g in grades.items())
    (directory / "qrels.txt").write_text("".join(rows), "utf-8")
    (directory / "vocabulary.json").write_text(json.dumps(vocabulary(), indent=2) + "\n", "utf-8")
    return replace(book, queries=tuple(asked), references=references)


def vocabulary() -> dict[str, Sequence[Any]]:
    """Every word the world has."""
    return {
        "things": world.KINDS,
        "colours": world.COLOURS,
        "sizes": world.SIZES,
        "counts": list(range(1, world.MAX_COUNT + 1)),
        "places": world.PLACES,
        "weathers": world.WEATHERS,
        "relations": world.RELATIONS,
    }


def _references(directory: Path, queries: Sequence[DemoQuery], seed: int) -> dict[str, str]:
    """Draws the reference pictures of composed queries beside, not among, the indexed ones."""
    found: dict[str, str] = {}
    for n, query in enumerate(queries):
        if query.reference is None:
            continue
        (directory / "references").mkdir(exist_ok=True)
        found[query.id] = f"references/{name_of(seed + 500_009, n)}"
        render(query.reference, SIZE).save(directory / found[query.id], "PNG")
    return found


def _lines(file: Path, rows: Iterable[Any]) -> None:
    file.write_text("".join(json.dumps(r) + "\n" for r in rows), "utf-8")
