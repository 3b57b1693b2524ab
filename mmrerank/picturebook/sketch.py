"""A small pen: filled shapes in a thing's own coordinates, inked as one silhouette.

A thing is drawn in the square from -1 to 1 (y down). The ink is laid under all of its body parts
first and the fills over them, so overlapping parts share one outline. It knows no kinds of thing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, pi, sin

from PIL import ImageDraw

Colour = tuple[int, int, int]
Points = Sequence[tuple[float, float]]

INK: Colour = (38, 34, 48)
_CIRCLE = tuple((cos(2 * pi * i / 26), sin(2 * pi * i / 26)) for i in range(26))


@dataclass(frozen=True, kw_only=True)
class _Part:
    points: list[tuple[float, float]]
    fill: Colour
    inked: bool
    width: float  # of a stroke, in own units; 0 for a filled shape
    closed: bool


class Sketch:
    """Collects a thing's parts; ``place`` puts them on the canvas."""

    def __init__(self, colour: Colour) -> None:
        """Body parts take ``colour`` unless another is given."""
        self.colour = colour
        self.dark = mix(colour, INK, 0.28)
        self.light = mix(colour, (255, 255, 255), 0.45)
        self._parts: list[_Part] = []

    def oval(
        self,
        x: float,
        y: float,
        rx: float,
        ry: float | None = None,
        fill: Colour | None = None,
        *,
        turn: float = 0.0,
        ink: bool = True,
    ) -> None:
        """An ellipse, turned by ``turn`` radians."""
        ry = rx if ry is None else ry
        c, s = cos(turn), sin(turn)
        points = [(x + rx * u * c - ry * v * s, y + rx * u * s + ry * v * c) for u, v in _CIRCLE]
        self.poly(points, fill, ink=ink)

    def poly(self, points: Points, fill: Colour | None = None, *, ink: bool = True) -> None:
        """A filled polygon."""
        self._add(points, fill, ink, 0.0, True)

    def box(
        self,
        left: float,
        top: float,
        right: float,
        bottom: float,
        fill: Colour | None = None,
        *,
        ink: bool = True,
        round_by: float = 0.0,
    ) -> None:
        """A rectangle with its corners cut by ``round_by``."""
        q, h = round_by, round_by * 0.3
        if not q:
            points = [(left, top), (right, top), (right, bottom), (left, bottom)]
        else:
            points = [
                (left + q, top), (right - q, top), (right - h, top + h), (right, top + q),
                (right, bottom - q), (right - h, bottom - h), (right - q, bottom),
                (left + q, bottom), (left + h, bottom - h), (left, bottom - q),
                (left, top + q), (left + h, top + h),
            ]  # fmt: skip
        self.poly(points, fill, ink=ink)

    def stroke(
        self,
        points: Points,
        width: float,
        fill: Colour | None = None,
        *,
        ink: bool = True,
        closed: bool = False,
    ) -> None:
        """A line of ``width`` through the points."""
        self._add(points, fill, ink, width, closed)

    def ring(self, x: float, y: float, radius: float, width: float, fill: Colour | None) -> None:
        """A circle's line."""
        points = [(x + radius * u, y + radius * v) for u, v in _CIRCLE]
        self._add(points, fill, True, width, True)

    def place(
        self,
        canvas: ImageDraw.ImageDraw,
        *,
        x: float,
        y: float,
        scale: float,
        tilt: float = 0.0,
        mirrored: bool = False,
        stretch: float = 1.0,
        ink: float = 2.0,
    ) -> None:
        """Draw at pixel (x, y), one own unit being ``scale`` pixels, with an outline of ``ink``."""
        c, s = cos(tilt), sin(tilt)
        sx = -scale * stretch if mirrored else scale * stretch
        sy = scale / stretch
        placed = []
        for part in self._parts:
            spots = []
            for u, v in part.points:
                p, q = u * sx, v * sy
                spots.append((x + p * c - q * s, y + p * s + q * c))
            placed.append((part, spots))
        for part, spots in placed:
            if not part.inked:
                continue
            if part.width:
                _line(canvas, spots, part.width * scale + 2 * ink, INK, part.closed)
            else:
                canvas.line([*spots, *spots[:2]], fill=INK, width=round(2 * ink), joint="curve")
        for part, spots in placed:
            if part.width:
                _line(canvas, spots, part.width * scale, part.fill, part.closed)
            else:
                canvas.polygon(spots, fill=part.fill)

    def _add(self, points: Points, fill: Colour | None, ink: bool, width: float, closed: bool) -> None:
        fill = self.colour if fill is None else fill
        self._parts.append(_Part(points=list(points), fill=fill, inked=ink, width=width, closed=closed))


def mix(one: Colour, other: Colour, amount: float) -> Colour:
    """``amount`` 0 gives ``one``, 1 gives ``other``."""
    return (
        round(one[0] + (other[0] - one[0]) * amount),
        round(one[1] + (other[1] - one[1]) * amount),
        round(one[2] + (other[2] - one[2]) * amount),
    )


def _line(
    canvas: ImageDraw.ImageDraw, spots: list[tuple[float, float]], width: float, fill: Colour, closed: bool
) -> None:
    pixels = max(1, round(width))
    line = [*spots, *spots[:2]] if closed else spots
    canvas.line(line, fill=fill, width=pixels, joint="curve")
    if not closed and pixels > 2:
        for px, py in (spots[0], spots[-1]):
            h = pixels / 2 - 0.5
            canvas.ellipse((px - h, py - h, px + h, py + h), fill=fill)
