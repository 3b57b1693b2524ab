"""Backgrounds: sky, ground and the muted scenery of each place, and the weather over them.

Nothing here is ever asked about by kind: scenery has no ink, little colour and none of the
foreground's silhouettes, so that the things of a scene stand out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, pi, sin

import numpy as np
from PIL import Image, ImageDraw

from mmrerank.picturebook.sketch import Colour, mix

HORIZON = 0.42
_SKY: dict[str, tuple[Colour, Colour]] = {
    "sunny": ((150, 198, 226), (226, 238, 236)),
    "rainy": ((120, 130, 142), (176, 184, 190)),
    "snowy": ((188, 198, 210), (226, 231, 236)),
    "night": ((22, 28, 62), (66, 74, 116)),
}
_TINT: dict[str, tuple[Colour, float]] = {
    "sunny": ((255, 246, 220), 0.06),
    "rainy": ((106, 116, 128), 0.42),
    "snowy": ((238, 242, 247), 0.56),
    "night": ((26, 32, 70), 0.64),
}
_GROUND: dict[str, tuple[Colour, Colour]] = {
    "beach": ((226, 208, 168), (238, 224, 190)),
    "forest": ((134, 148, 112), (158, 168, 132)),
    "city": ((158, 158, 160), (184, 183, 182)),
    "desert": ((216, 180, 132), (230, 202, 160)),
    "mountains": ((152, 166, 134), (178, 186, 154)),
}


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What a painter of scenery needs; ``side`` is the canvas's, in pixels."""

    canvas: ImageDraw.ImageDraw
    side: int
    weather: str
    rng: np.random.Generator

    def tint(self, colour: Colour) -> Colour:
        """``colour`` in this weather's light."""
        light, amount = _TINT[self.weather]
        return mix(colour, light, amount)

    def poly(self, points: list[tuple[float, float]], colour: Colour) -> None:
        """A polygon in the picture's own units."""
        side = self.side
        self.canvas.polygon([(x * side, y * side) for x, y in points], fill=self.tint(colour))

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        """A rectangle in the picture's own units."""
        side = self.side
        spot = (left * side, top * side, max(right, left) * side, max(bottom, top) * side)
        self.canvas.rectangle(spot, fill=self.tint(colour))


def backdrop(place: str, weather: str, side: int, rng: np.random.Generator) -> Image.Image:
    """The picture behind the things."""
    top, bottom = _SKY[weather]
    light, amount = _TINT[weather]
    far, near = (mix(c, light, amount) for c in _GROUND[place])
    horizon = HORIZON + 0.015 * float(rng.uniform(-1, 1))
    stops = (0.0, horizon, horizon + 1e-6, 1.0)
    heights = np.linspace(0, 1, side)
    column = np.stack(
        [np.interp(heights, stops, [top[i], bottom[i], far[i], near[i]]) for i in range(3)], axis=1
    )  # (side, 3)
    pixels = np.repeat(column[:, None].astype(np.uint8), side, axis=1)  # (side, side, 3)
    image = Image.fromarray(pixels)
    stage = Stage(canvas=ImageDraw.Draw(image), side=side, weather=weather, rng=rng)
    _LIGHTS[weather](stage)
    _PLACES[place](stage, horizon)
    return image


def foreground(weather: str, canvas: ImageDraw.ImageDraw, side: int, rng: np.random.Generator) -> None:
    """Rain or snow in front of everything."""
    if weather == "rainy":
        spots = rng.random((58, 3)).tolist()
        for x, y, length in spots:
            reach = (0.03 + 0.03 * length) * side
            px, py = (x * 1.1) * side, (y * 1.1 - 0.05) * side
            canvas.line(
                (px, py, px - 0.3 * reach, py + reach),
                fill=(206, 220, 234), width=max(1, round(side / 190)),
            )  # fmt: skip
    elif weather == "snowy":
        for x, y, size in rng.random((64, 3)).tolist():
            r = (0.005 + 0.007 * size) * side
            px, py = x * side, y * side
            canvas.ellipse((px - r, py - r, px + r, py + r), fill=(255, 255, 255))


def _sun(stage: Stage) -> None:
    x, y = (0.07 if stage.rng.random() < 0.5 else 0.93), 0.07
    for i in range(16):
        a = 2 * pi * i / 16
        b = a + 0.13
        stage.poly(
            [(x, y), (x + 0.17 * cos(a), y + 0.17 * sin(a)), (x + 0.17 * cos(b), y + 0.17 * sin(b))],
            (252, 240, 190),
        )
    side, r = stage.side, 0.075
    spot = ((x - r) * side, (y - r) * side, (x + r) * side, (y + r) * side)
    stage.canvas.ellipse(spot, fill=(255, 236, 150))


def _clouds(stage: Stage) -> None:
    side = stage.side
    grey = (146, 154, 164) if stage.weather == "rainy" else (214, 220, 228)
    for i in range(5):
        x = (i + float(stage.rng.uniform(0.1, 0.9))) / 5
        y = float(stage.rng.uniform(-0.01, 0.07))
        for dx, r in ((-0.07, 0.045), (0.0, 0.065), (0.075, 0.05)):
            spot = ((x + dx - r) * side, (y - r * 0.7) * side, (x + dx + r) * side, (y + r * 0.7) * side)
            stage.canvas.ellipse(spot, fill=grey)


def _moon(stage: Stage) -> None:
    side, canvas = stage.side, stage.canvas
    for x, y, size in stage.rng.random((34, 3)).tolist():
        r = (0.0025 + 0.003 * size) * side
        px, py = x * side, y * HORIZON * side
        canvas.ellipse((px - r, py - r, px + r, py + r), fill=(236, 236, 214))
    x, y, r = (0.08 if stage.rng.random() < 0.5 else 0.92), 0.08, 0.06
    canvas.ellipse(((x - r) * side, (y - r) * side, (x + r) * side, (y + r) * side), fill=(246, 240, 206))
    x += 0.03
    sky = mix(_SKY["night"][0], _SKY["night"][1], 0.2)
    canvas.ellipse(((x - r) * side, (y - r * 1.1) * side, (x + r) * side, (y + r * 0.9) * side), fill=sky)


def _beach(stage: Stage, horizon: float) -> None:
    shore = 0.62 + 0.02 * float(stage.rng.uniform(-1, 1))
    phase = float(stage.rng.uniform(0, 6))
    waves = [(i / 16, shore + 0.012 * sin(phase + i * 0.9)) for i in range(17)]
    stage.poly([(0, horizon), (1, horizon), *[(x, y + 0.02) for x, y in waves[::-1]]], (236, 238, 232))
    stage.poly([(0, horizon), (1, horizon), *waves[::-1]], (122, 168, 184))
    stage.box(0, horizon, 1, horizon + 0.05, (104, 150, 172))
    for x, y in stage.rng.random((9, 2)).tolist():
        top = horizon + 0.06 + y * (shore - horizon - 0.1)
        stage.box(x, top, x + 0.07, top + 0.006, (168, 200, 208))
    for x, y in stage.rng.random((14, 2)).tolist():
        top = shore + 0.06 + 0.32 * y
        stage.box(x, top, x + 0.012, top + 0.006, (206, 186, 146))


def _forest(stage: Stage, horizon: float) -> None:
    for row, (count, base, height) in enumerate(((12, 0.02, 0.34), (9, 0.07, 0.30))):
        colour = ((120, 142, 122), (96, 120, 102))[row]
        for i in range(count):
            x = (i + float(stage.rng.uniform(0.2, 0.8))) / count
            h = height * float(stage.rng.uniform(0.75, 1.1))
            y, w = horizon + base, 0.055
            stage.box(x - 0.009, y - 0.06, x + 0.009, y, (108, 98, 88))
            for k in range(3):
                low = y - 0.045 - k * h * 0.26
                stage.poly(
                    [(x - w * (1 - 0.22 * k), low), (x, low - h * 0.44), (x + w * (1 - 0.22 * k), low)],
                    colour,
                )
    for x, y in stage.rng.random((22, 2)).tolist():
        top = horizon + 0.12 + 0.46 * y
        stage.box(x, top, x + 0.004, top + 0.016, (116, 132, 96))


def _city(stage: Stage, horizon: float) -> None:
    lit = stage.weather == "night"
    x = -0.03
    while x < 1:
        w = float(stage.rng.uniform(0.07, 0.13))
        h = float(stage.rng.uniform(0.12, 0.33))
        shade = int(stage.rng.integers(128, 162))
        stage.box(x, horizon - h, x + w, horizon + 0.02, (shade, shade + 4, shade + 12))
        pane: Colour = (196, 202, 208)
        columns = max(2, int(w / 0.03))
        for row in range(int(h / 0.05)):
            for column in range(columns):
                left = x + w * (column + 0.3) / columns
                top = horizon - h + 0.02 + 0.05 * row
                if lit and (row * 7 + column * 3 + shade) % 3:
                    side = stage.side
                    spot = (left * side, top * side, (left + 0.013) * side, (top + 0.02) * side)
                    stage.canvas.rectangle(spot, fill=(206, 190, 132))
                else:
                    stage.box(left, top, left + 0.013, top + 0.02, pane)
        x += w + 0.004
    stage.box(0, horizon + 0.02, 1, horizon + 0.06, (196, 195, 192))
    stage.box(0, 0.64, 1, 0.69, (196, 195, 192))
    for i in range(6):
        left = i / 6 + 0.03
        stage.box(left, 0.835, left + 0.09, 0.85, (214, 213, 208))


def _desert(stage: Stage, horizon: float) -> None:
    for base, height, colour in (
        (horizon + 0.01, 0.08, (214, 184, 144)),
        (horizon + 0.16, 0.07, (224, 192, 146)),
        (horizon + 0.36, 0.06, (232, 206, 166)),
    ):
        phase = float(stage.rng.uniform(0, 6))
        crest = [(i / 14, base - height * (0.5 + 0.5 * sin(phase + i * 0.55))) for i in range(15)]
        stage.poly([*crest, (1, base + 0.14), (0, base + 0.14)], colour)
    for x, y in ((0.05, 0.5), (0.355, 0.44), (0.655, 0.47), (0.95, 0.6)):
        if stage.rng.random() < 0.25:
            continue
        x += 0.02 * float(stage.rng.uniform(-1, 1))
        green: Colour = (138, 150, 112)
        stage.box(x - 0.012, y - 0.11, x + 0.012, y + 0.01, green)
        stage.box(x - 0.04, y - 0.06, x, y - 0.044, green)
        stage.box(x - 0.04, y - 0.09, x - 0.026, y - 0.045, green)
        stage.box(x, y - 0.045, x + 0.04, y - 0.03, green)
        stage.box(x + 0.026, y - 0.08, x + 0.04, y - 0.032, green)


def _mountains(stage: Stage, horizon: float) -> None:
    for low, high, count, colour in ((0.16, 0.34, 3, (150, 160, 176)), (0.1, 0.2, 4, (130, 142, 152))):
        for i in range(count):
            x = (i + 0.5 + 0.3 * float(stage.rng.uniform(-1, 1))) / count
            h = float(stage.rng.uniform(low, high))
            w = 0.62 / count + 0.06
            top = horizon - h
            stage.poly([(x - w, horizon + 0.02), (x, top), (x + w, horizon + 0.02)], colour)
            if count == 3:
                c = 0.3
                cap = [
                    (x, top), (x + w * c, top + h * c), (x + w * 0.12, top + h * 0.24),
                    (x, top + h * 0.36), (x - w * 0.14, top + h * 0.23), (x - w * c, top + h * c),
                ]  # fmt: skip
                stage.poly(cap, (240, 242, 245))
    stage.poly(
        [(0, horizon + 0.01), (0.5, horizon + 0.06), (1, horizon), (1, 0.5), (0, 0.5)], (160, 174, 142)
    )
    for x, y in stage.rng.random((16, 2)).tolist():
        top = horizon + 0.1 + 0.46 * y
        stage.box(x, top, x + 0.02, top + 0.01, (146, 150, 142))


_LIGHTS: dict[str, Callable[[Stage], None]] = {
    "sunny": _sun,
    "rainy": _clouds,
    "snowy": _clouds,
    "night": _moon,
}
_PLACES: dict[str, Callable[[Stage, float], None]] = {
    "beach": _beach,
    "forest": _forest,
    "city": _city,
    "desert": _desert,
    "mountains": _mountains,
}
