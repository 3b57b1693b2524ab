"""The picture-book world: scenes of simple things whose truth is known by construction.

This module names what can be in a scene, lays things out and computes relations from geometry.
It draws nothing (see ``draw``) and knows nothing of queries (see ``facts`` and ``queries``).

Lengths are in units of the picture's side; x grows to the right and y grows downwards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any, Literal, TypeVar

import numpy as np

_T = TypeVar("_T")
Split = Literal["train", "validation", "evaluation"]
Relation = Literal["left of", "right of", "above", "below", "inside"]

SPLITS: tuple[Split, ...] = ("train", "validation", "evaluation")
KINDS = (
    "person", "dog", "cat", "bird", "fish", "car", "bus", "boat",
    "bicycle", "tree", "flower", "house", "tent", "ball", "balloon", "umbrella",
)  # fmt: skip
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
SIZES = ("small", "large")
PLACES = ("beach", "forest", "city", "desert", "mountains")
WEATHERS = ("sunny", "rainy", "snowy", "night")
RELATIONS: tuple[Relation, ...] = ("left of", "right of", "above", "below", "inside")
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")
MAX_COUNT = 4  # of one group
MAX_GROUPS = 4
MAX_THINGS = 7

FLYERS = frozenset({"bird", "balloon", "ball", "umbrella"})
CONTAINERS = frozenset({"house", "tent", "bus"})
INSIDERS = frozenset({"person", "dog", "cat", "bird", "fish", "flower", "ball", "balloon", "umbrella"})

RADIUS = {"small": 0.085, "large": 0.145}
CONTAINER_RADIUS = 0.17
INSIDER_RADIUS = 0.074
# Where a container's opening lies, as a fraction of its radius below its middle. It is small
# enough that a thing inside is never left, right, above or below of its container.
OPENING = {"house": 0.36, "tent": 0.36, "bus": 0.0}

# Things sit near the nine points of a grid. The jitter is small beside the spacing, so the
# distance along an axis is below 0.14 within a row or column and above 0.17 across them.
MARGIN = 0.155
_COLUMNS = (0.19, 0.5, 0.81)
_ROWS = (0.18, 0.51, 0.82)
_JITTER_X, _JITTER_Y = 0.05, 0.035
_HELD_OUT_PERCENT = 15


@dataclass(frozen=True, kw_only=True)
class Group:
    """Things of one kind, colour and size."""

    kind: str
    colour: str
    count: int = 1
    size: str = "large"


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One drawn thing; ``inside`` is the index of the thing that contains it."""

    kind: str
    colour: str
    size: str
    x: float
    y: float
    radius: float
    inside: int | None = None


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A picture's whole truth; ``seed`` decides only the accidents of its drawing."""

    seed: int
    place: str
    weather: str
    things: tuple[Thing, ...]

    @property
    def id(self) -> str:
        """Twelve hex digits that name the scene within a stream."""
        return f"{self.seed:012x}"

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The things gathered by kind, colour and size, in order of first appearance."""
        counts: dict[tuple[str, str, str], int] = {}
        for thing in self.things:
            key = (thing.kind, thing.colour, thing.size)
            counts[key] = counts.get(key, 0) + 1
        return tuple(
            Group(kind=kind, colour=colour, count=count, size=size)
            for (kind, colour, size), count in counts.items()
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values, in full precision."""
        return {
            "id": self.id,
            "seed": self.seed,
            "place": self.place,
            "weather": self.weather,
            "things": [
                {
                    "kind": t.kind, "colour": t.colour, "size": t.size,
                    "x": t.x, "y": t.y, "radius": t.radius, "inside": t.inside,
                }
                for t in self.things
            ],
        }  # fmt: skip

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Scene:
        """The inverse of ``to_json``."""
        return cls(
            seed=values["seed"],
            place=values["place"],
            weather=values["weather"],
            things=tuple(Thing(**thing) for thing in values["things"]),
        )


def stream(split: Split, seed: int) -> np.random.Generator:
    """A generator of its own for each split and seed.

    >>> stream("train", 1).integers(1000) == stream("evaluation", 1).integers(1000)
    np.False_
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
    return np.random.default_rng(np.random.SeedSequence([_digest("split", split), seed]))


@cache
def is_seen(kind: str, colour: str, place: str) -> bool:
    """Whether training and validation scenes may show this combination."""
    return _digest("combination", kind, colour, place) % 100 >= _HELD_OUT_PERCENT


def holds(relation: Relation, scene: Scene, one: int, other: int) -> bool:
    """Whether thing ``one`` stands in ``relation`` to thing ``other`` (indices).

    Beside, above and below need a clear distance along their axis and say nothing of the other
    axis; inside needs the whole thing within a container.
    """
    a, b = scene.things[one], scene.things[other]
    if relation == "left of":
        return a.x <= b.x - MARGIN
    if relation == "right of":
        return a.x >= b.x + MARGIN
    if relation == "above":
        return a.y <= b.y - MARGIN
    if relation == "below":
        return a.y >= b.y + MARGIN
    if one == other or b.kind not in CONTAINERS:
        return False
    return float(np.hypot(a.x - b.x, a.y - b.y)) + a.radius <= b.radius


def cell(x: float, y: float) -> tuple[int, int]:
    """Row and column of the 3 x 3 grid in which a point lies.

    Two things are clear of each other along an axis just when their rows, or columns, differ.
    """
    return min(int(3 * y), 2), min(int(3 * x), 2)


def sample_scene(rng: np.random.Generator, split: Split) -> Scene:
    """A new scene; those of training and validation hold seen combinations only."""
    place, weather = pick(rng, PLACES), pick(rng, WEATHERS)
    while True:
        groups = _sample_groups(rng, place, split)
        total = sum(group.count for group in groups)
        grounded = sum(group.count for group in groups if group.kind not in FLYERS)
        if total <= MAX_THINGS and grounded <= 6:
            break
    # A container with a guest is made on purpose: by chance it would be too rare to learn.
    host, guest = groups[0], groups[1] if len(groups) > 1 else None
    inside = guest is not None and host.kind in CONTAINERS and guest.kind in INSIDERS
    inside = inside and host.count == guest.count == 1 if guest else False
    return lay_out(rng, place=place, weather=weather, groups=groups, inside=inside)


def lay_out(
    rng: np.random.Generator, *, place: str, weather: str, groups: Sequence[Group], inside: bool = False
) -> Scene:
    """Place the groups' things without overlap; ``inside`` puts group 1 into group 0.

    Both must then have one thing; the container is large and the guest small, whatever their groups say. At
    most six things may be unable to fly.
    """
    if inside:
        groups = [replace(groups[0], size="large"), replace(groups[1], size="small"), *groups[2:]]
    seed = int(rng.integers(1 << 48))
    order: list[Group] = []
    for index, group in enumerate(groups):
        if not (inside and index == 1):
            order.extend([group] * group.count)
    # Whatever cannot fly chooses first, since it has fewer places to stand.
    ranked = sorted(range(len(order)), key=lambda i: order[i].kind in FLYERS)
    free = [int(cell) for cell in rng.permutation(9)]
    cells: dict[int, int] = {}
    for index in ranked:
        flies = order[index].kind in FLYERS
        aloft = flies and rng.random() < 0.6
        fitting = [cell for cell in free if (cell < 3) == aloft and (flies or cell >= 3)]
        cells[index] = (fitting or free)[0]
        free.remove(cells[index])
    radii = [
        (CONTAINER_RADIUS if inside and i == 0 else RADIUS[g.size]) * rng.uniform(0.95, 1.05)
        for i, g in enumerate(order)
    ]
    centres = _jitter(rng, [cells[i] for i in range(len(order))], radii)
    things = [
        Thing(kind=g.kind, colour=g.colour, size=g.size, x=x, y=y, radius=round(r, 4))
        for g, r, (x, y) in zip(order, radii, centres, strict=True)
    ]
    if inside:
        guest, host = groups[1], things[0]
        y = round(host.y + OPENING[host.kind] * host.radius, 4)
        radius = round(INSIDER_RADIUS * rng.uniform(0.95, 1.02), 4)
        things.append(
            Thing(
                kind=guest.kind, colour=guest.colour, size=guest.size,
                x=host.x, y=y, radius=radius, inside=0,
            )
        )  # fmt: skip
    return Scene(seed=seed, place=place, weather=weather, things=tuple(things))


def pick(rng: np.random.Generator, options: Sequence[_T]) -> _T:
    """One of ``options``, evenly; much quicker than ``rng.choice``."""
    return options[int(rng.integers(len(options)))]


def _sample_groups(rng: np.random.Generator, place: str, split: Split) -> list[Group]:
    number = 1 + int(np.searchsorted((0.2, 0.57, 0.87), rng.random()))
    contain = number > 1 and rng.random() < 0.25
    twin = not contain and number > 1 and rng.random() < 0.25
    groups: list[Group] = []
    taken: set[tuple[str, str]] = set()
    while len(groups) < number:
        kind = pick(rng, KINDS)
        count = 1 + int(np.searchsorted((0.52, 0.74, 0.89), rng.random()))
        size = "large" if rng.random() < 0.6 else "small"
        if contain and len(groups) == 0:
            kind, count, size = pick(rng, sorted(CONTAINERS)), 1, "large"
        elif contain and len(groups) == 1:
            kind, count, size = pick(rng, sorted(INSIDERS)), 1, "small"
        elif twin and len(groups) == 1:
            kind = groups[0].kind
        colour = pick(rng, COLOURS)
        unseen = split != "evaluation" and not is_seen(kind, colour, place)
        if unseen or (kind, colour) in taken:
            continue
        taken.add((kind, colour))
        groups.append(Group(kind=kind, colour=colour, count=count, size=size))
    return groups


def _jitter(
    rng: np.random.Generator, cells: Sequence[int], radii: Sequence[float]
) -> list[tuple[float, float]]:
    centres: list[tuple[float, float]] = []
    # Crowded scenes shrink the jitter until nothing overlaps; none at all always fits.
    for reach in (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0):
        centres = []
        for cell, radius in zip(cells, radii, strict=True):
            x = _COLUMNS[cell % 3] + reach * _JITTER_X * rng.uniform(-1, 1)
            y = _ROWS[cell // 3] + reach * _JITTER_Y * rng.uniform(-1, 1)
            edge = radius + 0.005
            centres.append((round(min(max(x, edge), 1 - edge), 4), round(min(max(y, edge), 1 - edge), 4)))
        if all(
            (centres[i][0] - centres[j][0]) ** 2 + (centres[i][1] - centres[j][1]) ** 2
            >= (0.9 * (radii[i] + radii[j])) ** 2
            for i in range(len(cells))
            for j in range(i)
        ):
            break
    return centres


def _digest(*parts: str) -> int:
    text = "\0".join(("mmrerank demo world", *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
