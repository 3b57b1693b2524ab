"""A comparison as one HTML file that needs no other: tables, pictures, and the worst failures with images.

Names, query texts and ids are escaped by the template engine. Images are small JPEG copies inside the page,
drawings are inside it too; an image that is not given or cannot be read is a tile with its id. Nothing is
fetched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from mmrerank import writing
from mmrerank.benchmark import Qrels
from mmrerank.errors import InputError
from mmrerank.evaluation.compare.charts import Picture
from mmrerank.evaluation.compare.comparison import Comparison
from mmrerank.evaluation.compare.failures import FailedQuery, lost_most, lowest
from mmrerank.evaluation.compare.rendering import ARROWS
from mmrerank.evaluation.compare.tables import (
    cost_table,
    differences_table,
    groups_table,
    heading,
    shown,
    values_table,
)
from mmrerank.images import IMAGE_SUFFIXES, data_uri
from mmrerank.result_page import environment, picture_uri
from mmrerank.terminal import one_line
from mmrerank.types import Image, Usage

SHOWN = 8
"""How many of the first images of a run a failure shows."""
_SIDE = 168  # pixels: twice what a tile measures, for sharp screens


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What failures are shown with, as far as it is known; all by query id but ``images``.

    ``references`` are the images that a query was asked with, ``labels`` its categories; ``rankings`` holds
    by run and query the ids of documents, best first.
    ``images`` is a file by document id, or a folder in which ids are files' paths, with or without suffix.
    """

    texts: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    references: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    rankings: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    qrels: Qrels = field(default_factory=dict)
    images: Mapping[str, Path] | Path | None = None


def page(
    comparison: Comparison,
    *,
    evidence: Evidence | None = None,
    usage: Mapping[str, Usage] | None = None,
    pictures: Sequence[Picture] = (),
    title: str = "Runs compared",
    worst: int = 6,
) -> str:
    """The whole page. ``pictures`` are SVG, as `pictures.draw` gives them.

    ``worst`` is how many failures of each kind are shown for each run: where it loses most against the
    baseline, and where its value is lowest, under the first metric.
    """
    metric = comparison.metrics[0]
    known = evidence or Evidence()
    drawn = {p.name: p for p in pictures}
    tables = {
        "values": values_table(comparison),
        "differences": differences_table(comparison),
        "cost": cost_table(comparison, usage, metric) if usage else None,
    }
    groups = [(g, [groups_table(comparison, g, m) for m in comparison.metrics]) for g in comparison.groupings]
    html: str = (
        environment()
        .get_template("compare.html.j2")
        .render(
            title=one_line(title),
            comparison=comparison,
            metric=heading(comparison, metric),
            tables=tables,
            groups=groups,
            drawn=drawn,
            svg=lambda p: data_uri(p.data, "image/svg+xml"),
            arrows=ARROWS,
            shown=shown,
            failures=_failures(comparison, metric, worst, known),
            has_images=known.images is not None,
        )
    )
    return html


def failing(comparison: Comparison, worst: int = 6) -> frozenset[str]:
    """The queries that `page` shows as failures: all that `Evidence` is needed of."""
    metric = comparison.metrics[0]
    return frozenset(
        f.query
        for run in comparison.challengers
        for kind in _worst(comparison, metric, run, worst)
        for f in kind
    )


def _worst(
    comparison: Comparison, metric: str, run: str, worst: int
) -> tuple[Sequence[FailedQuery], Sequence[FailedQuery]]:
    lost = lost_most(comparison, metric, run, worst)
    return lost, lowest(comparison, metric, run, worst, but={f.query for f in lost})


def save(html: str, path: Path) -> None:
    """Writes a page in one step, for its owner alone. Raises `InputError` when that cannot be done."""
    try:
        # a query may hold half a surrogate pair, which UTF-8 cannot
        writing.write(path, html.encode("utf-8", "replace"), private=True)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error


@dataclass(frozen=True, kw_only=True)
class _Tile:
    """One image of a row: its place, its grade in the qrels, and the small copy (empty: none)."""

    id: str
    rank: int
    grade: int
    uri: str


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A run's first images (``ranked``), or those that were looked for or asked with."""

    name: str
    ranked: bool
    tiles: Sequence[_Tile]
    note: str


@dataclass(frozen=True, kw_only=True)
class _Card:
    failure: FailedQuery
    text: str
    labels: Sequence[str]
    rows: Sequence[_Row]


def _failures(comparison: Comparison, metric: str, worst: int, known: Evidence) -> list[dict[str, Any]]:
    tiles = _Tiles(known)
    found = []
    for run in comparison.challengers:
        lost, low = (
            [tiles.card(f, comparison.baseline) for f in kind]
            for kind in _worst(comparison, metric, run, worst)
        )
        found.append({"run": run, "lost": lost, "low": low})
    return found


class _Tiles:
    """Makes the cards, and each small copy once."""

    def __init__(self, known: Evidence) -> None:
        self.known = known
        self.copies: dict[str, str] = {}

    def card(self, failure: FailedQuery, baseline: str) -> _Card:
        known, query = self.known, failure.query
        rows = []
        if asked := known.references.get(query, ()):
            tiles = [
                _Tile(id=one_line(f.name), rank=n, grade=0, uri=picture_uri(Image(path=f), _SIDE))
                for n, f in enumerate(asked, start=1)
            ]
            rows.append(_Row(name="asked with", ranked=False, tiles=tiles, note=""))
        wanted = [d for d, g in known.qrels.get(query, {}).items() if g > 0]
        wanted.sort(key=lambda d: -known.qrels[query][d])
        if wanted:
            more = len(wanted) - SHOWN
            note = f"and {more} more" if more > 0 else ""
            rows.append(self.row("looked for", query, wanted, note, ranked=False))
        for run in (baseline, failure.run):
            if run in known.rankings:
                ranked = known.rankings[run].get(query, ())
                rows.append(self.row(run, query, ranked, _first(ranked, wanted)))
        return _Card(
            failure=failure,
            text=known.texts.get(query) or query,
            labels=known.labels.get(query, ()),
            rows=rows,
        )

    def row(self, name: str, query: str, ids: Sequence[str], note: str, *, ranked: bool = True) -> _Row:
        grades = self.known.qrels.get(query, {})
        tiles = [
            _Tile(id=one_line(d), rank=rank, grade=max(0, grades.get(d, 0)), uri=self.copy(d))
            for rank, d in enumerate(ids[:SHOWN], start=1)
        ]
        return _Row(name=name, ranked=ranked, tiles=tiles, note=note)

    def copy(self, id_: str) -> str:
        if id_ not in self.copies:
            file = image_file(self.known.images, id_)
            self.copies[id_] = picture_uri(Image(path=file), _SIDE) if file else ""
        return self.copies[id_]


def _first(ranked: Sequence[str], wanted: Sequence[str]) -> str:
    """Where the first relevant document stands, when that is beyond what is shown."""
    if not ranked:
        return "no answer"
    if not wanted:
        return ""
    good = set(wanted)
    place = next((n for n, d in enumerate(ranked, start=1) if d in good), None)
    if place is None:
        return f"no relevant image among its {len(ranked)}"
    return f"the first relevant image is number {place}" if place > SHOWN else ""


def image_file(images: Mapping[str, Path] | Path | None, id_: str) -> Path | None:
    """The file of an image id, if there is one. In a folder, an id cannot lead out of it."""
    if images is None:
        return None
    if isinstance(images, Mapping):
        return images.get(id_)
    inside = PurePosixPath(id_)
    if not id_ or inside.is_absolute() or ".." in inside.parts or "\\" in id_:
        return None
    for suffix in ("", *sorted(IMAGE_SUFFIXES)):
        file = images / (id_ + suffix)
        try:
            if file.is_file():
                return file
        except (OSError, ValueError):  # too long for a name, or with a zero byte
            return None
    return None
