"""Draw a scene at any size.

The scene's own seed decides every accident of the drawing, so the same scene gives the same
picture. A drawing adds nothing to a scene's truth.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from mmrerank.picturebook.scenery import HORIZON, backdrop, foreground
from mmrerank.picturebook.shapes import OPEN_SHAPES, SHAPES
from mmrerank.picturebook.sketch import Colour, Sketch, mix
from mmrerank.picturebook.world import Scene, Thing

PAINT: dict[str, Colour] = {
    "red": (214, 40, 44),
    "orange": (245, 134, 24),
    "yellow": (250, 216, 44),
    "green": (44, 158, 62),
    "blue": (40, 96, 214),
    "purple": (128, 58, 178),
    "pink": (250, 150, 200),
    "white": (250, 250, 250),
}
_STEADY = frozenset({"house", "tent", "bus", "car", "boat"})  # these hardly tilt


def render(scene: Scene, size: int = 384) -> Image.Image:
    """The scene as an RGB picture of ``size`` by ``size`` pixels."""
    # Small pictures need more samples for a pixel, large ones are smooth with fewer.
    factor = 3 if size <= 100 else 2
    side = size * factor
    rng = np.random.default_rng(scene.seed)
    image = backdrop(scene.place, scene.weather, side, rng)
    canvas = ImageDraw.Draw(image)
    hosts = {thing.inside for thing in scene.things}
    order = sorted(
        range(len(scene.things)), key=lambda i: (scene.things[i].inside is not None, scene.things[i].y)
    )
    accidents = rng.uniform(-1, 1, (len(scene.things), 6)).tolist()
    for index in order:
        _draw(canvas, scene.things[index], side, accidents[index], host=index in hosts)
    foreground(scene.weather, canvas, side, rng)
    return image.resize((size, size), Image.Resampling.LANCZOS, reducing_gap=None)


def paint(colour: str, lighter: float = 0.0, warmer: float = 0.0) -> Colour:
    """A colour of the world, varied by shares from -1 to 1 that never change its name."""
    base = PAINT[colour]
    if colour == "white":
        return mix(base, (232, 232, 232), abs(lighter) * 0.5)
    shifted = mix(base, (255, 255, 255) if lighter > 0 else (0, 0, 0), 0.08 * abs(lighter))
    warm = round(7 * warmer)
    return (_byte(shifted[0] + warm), _byte(shifted[1]), _byte(shifted[2] - warm))


def _draw(
    canvas: ImageDraw.ImageDraw, thing: Thing, side: int, accidents: list[float], *, host: bool
) -> None:
    sway, tilt, lighter, warmer, stretch, mirror = accidents
    sketch = Sketch(paint(thing.colour, lighter, warmer))
    # A host stands straight, so that its opening is where its guest is.
    shape = OPEN_SHAPES[thing.kind] if host else SHAPES[thing.kind]
    shape(sketch, sway)
    x, y, scale = thing.x * side, thing.y * side, thing.radius * side
    if thing.inside is None and thing.y > HORIZON:
        _shadow(canvas, x, y + 0.86 * scale, scale)
    sketch.place(
        canvas,
        x=x,
        y=y,
        scale=scale * 0.97,
        tilt=0.0 if host else tilt * (0.03 if thing.kind in _STEADY else 0.1),
        mirrored=mirror < 0 and not host,
        stretch=1.0 if host else 1 + 0.05 * stretch,
        ink=max(1.0, side * 0.0034),
    )


def _shadow(canvas: ImageDraw.ImageDraw, x: float, y: float, scale: float) -> None:
    # The ground's own colour at that spot, darkened: cheaper than blending.
    image: Image.Image = canvas._image
    px = min(max(int(x), 0), image.width - 1)
    py = min(max(int(y), 0), image.height - 1)
    ground = image.getpixel((px, py))
    assert isinstance(ground, tuple)
    dark = mix((int(ground[0]), int(ground[1]), int(ground[2])), (30, 30, 50), 0.22)
    canvas.ellipse((x - 0.8 * scale, y - 0.1 * scale, x + 0.8 * scale, y + 0.14 * scale), fill=dark)


def _byte(value: int) -> int:
    return min(max(value, 0), 255)
