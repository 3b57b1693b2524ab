"""How each kind of thing looks: one small function per kind, in own coordinates from -1 to 1.

Everything is mostly its colour. The functions know nothing of scenes; ``sway`` is a number from
-1 to 1 that varies proportions, so that no two drawings of a kind are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from math import cos, pi, sin

from mmrerank.picturebook.sketch import INK, Colour, Sketch, mix

GLASS: Colour = (205, 226, 236)
TYRE: Colour = (58, 56, 66)
WOOD: Colour = (124, 88, 62)
LEAF: Colour = (98, 134, 88)
PAPER: Colour = (255, 253, 246)
HOLLOW: Colour = (78, 70, 80)
SKINS: tuple[Colour, ...] = ((244, 208, 178), (214, 165, 126), (158, 108, 78), (112, 76, 58))


def person(s: Sketch, sway: float) -> None:
    skin = SKINS[int((sway + 1) * 1.999)]
    lift = 0.25 * sway
    s.stroke([(-0.17, 0.4), (-0.22, 0.92)], 0.2, s.dark)
    s.stroke([(0.17, 0.4), (0.22, 0.92)], 0.2, s.dark)
    s.stroke([(-0.22, -0.2), (-0.58, 0.08 + lift)], 0.2)
    s.stroke([(0.22, -0.2), (0.58, -0.22 - lift)], 0.2)
    s.poly([(-0.26, -0.36), (0.26, -0.36), (0.42, 0.5), (-0.42, 0.5)])
    s.oval(0, -0.64, 0.27, 0.28, skin)
    s.poly([(-0.29, -0.7), (-0.24, -0.92), (0, -1.0), (0.24, -0.92), (0.29, -0.7)])
    s.oval(-0.1, -0.6, 0.04, fill=INK, ink=False)
    s.oval(0.1, -0.6, 0.04, fill=INK, ink=False)


def dog(s: Sketch, sway: float) -> None:
    for x in (-0.62, -0.38, 0.14, 0.38):
        s.stroke([(x, 0.2), (x, 0.78)], 0.19)
    s.stroke([(-0.62, -0.08), (-0.88, -0.4 + 0.1 * sway), (-0.9, -0.62 + 0.1 * sway)], 0.14)
    s.oval(-0.12, 0.08, 0.66, 0.34)
    s.poly([(0.2, 0.1), (0.3, -0.5), (0.62, -0.5), (0.58, 0.15)])
    s.oval(0.48, -0.46, 0.31, 0.3)
    s.oval(0.78, -0.36, 0.23, 0.16)
    s.oval(0.28, -0.36, 0.13, 0.33, s.dark, turn=0.2)
    s.oval(0.97, -0.41, 0.08, fill=INK, ink=False)
    s.oval(0.57, -0.54, 0.055, fill=INK, ink=False)
    s.box(0.2, -0.14, 0.62, -0.05, mix(s.colour, INK, 0.6), ink=False)


def cat(s: Sketch, sway: float) -> None:
    t = 0.1 * sway
    s.stroke([(0.4, 0.74), (0.78, 0.66), (0.86, 0.3 + t), (0.66, 0.04 + t), (0.74, -0.16)], 0.15)
    s.poly([(-0.3, -0.2), (0.3, -0.2), (0.5, 0.45), (0.46, 0.86), (-0.46, 0.86), (-0.5, 0.45)])
    s.poly([(-0.52, -0.42), (-0.56, -1.0), (-0.1, -0.72)])
    s.poly([(0.52, -0.42), (0.56, -1.0), (0.1, -0.72)])
    s.oval(0, -0.36, 0.55, 0.42)
    s.poly([(-0.44, -0.62), (-0.47, -0.84), (-0.26, -0.7)], s.dark, ink=False)
    s.poly([(0.44, -0.62), (0.47, -0.84), (0.26, -0.7)], s.dark, ink=False)
    for side in (-1, 1):
        s.oval(0.22 * side, -0.42, 0.075, 0.1, INK, ink=False)
        for rise in (-0.06, 0.08):
            s.stroke([(0.2 * side, -0.2), (0.72 * side, -0.2 + rise)], 0.03, INK, ink=False)
        s.stroke([(0.17 * side, 0.5), (0.17 * side, 0.82)], 0.04, s.dark, ink=False)
    s.poly([(-0.08, -0.27), (0.08, -0.27), (0, -0.18)], (196, 96, 110), ink=False)


def bird(s: Sketch, sway: float) -> None:
    t = 0.12 * sway
    s.poly([(-0.4, 0.1), (-1.0, -0.08), (-0.92, 0.16), (-1.0, 0.36)])
    s.poly([(0.72, -0.3), (1.02, -0.16), (0.72, -0.06)], (238, 164, 52))
    s.oval(-0.02, 0.12, 0.6, 0.38)
    s.oval(0.5, -0.2, 0.32)
    s.poly([(-0.34, 0.02), (-0.52, -0.92 + t), (-0.16, -0.72 + t), (0.26, 0.06)], s.dark)
    s.oval(0.58, -0.26, 0.06, fill=INK, ink=False)
    s.stroke([(-0.08, 0.46), (-0.12, 0.74)], 0.06, (150, 104, 50), ink=False)
    s.stroke([(0.14, 0.46), (0.14, 0.74)], 0.06, (150, 104, 50), ink=False)


def fish(s: Sketch, sway: float) -> None:
    t = 0.06 * sway
    s.poly([(-0.44, 0), (-1.0, -0.5 - t), (-0.84, 0), (-1.0, 0.5 + t)])
    s.poly([(-0.2, -0.3), (0.04, -0.74 + t), (0.34, -0.32)], s.dark)
    s.poly([(-0.1, 0.3), (-0.14, 0.66), (0.16, 0.34)], s.dark)
    s.oval(0.2, 0, 0.74, 0.46)
    for x in (-0.2, 0.06, 0.32):
        s.stroke([(x, -0.2), (x + 0.09, 0), (x, 0.2)], 0.06, s.dark, ink=False)
    s.oval(0.63, -0.12, 0.12, fill=PAPER, ink=False)
    s.oval(0.65, -0.12, 0.07, fill=INK, ink=False)


def car(s: Sketch, sway: float) -> None:
    t = 0.05 * sway
    s.poly([(-0.6, -0.05), (-0.4, -0.5 + t), (0.28, -0.5 + t), (0.58, -0.05)])
    s.box(-0.98, -0.08, 0.98, 0.38, round_by=0.16)
    s.poly([(-0.44, -0.06), (-0.31, -0.38 + t), (-0.1, -0.38 + t), (-0.1, -0.06)], GLASS, ink=False)
    s.poly([(0.02, -0.06), (0.02, -0.38 + t), (0.21, -0.38 + t), (0.41, -0.06)], GLASS, ink=False)
    s.box(0.82, 0.02, 0.97, 0.14, (252, 240, 170), ink=False)
    for x in (-0.54, 0.54):
        s.oval(x, 0.38, 0.26, fill=TYRE)
        s.oval(x, 0.38, 0.11, fill=(190, 192, 198), ink=False)


def bus(s: Sketch, sway: float) -> None:
    t = 0.03 * sway
    s.box(-0.98, -0.72 + t, 0.98, 0.62, round_by=0.1)
    s.box(-0.98, 0.3, 0.98, 0.4, s.dark, ink=False)
    for x in (-0.86, -0.57, 0.36, 0.65):
        s.box(x, -0.54 + t, x + 0.22, -0.1, GLASS, ink=False)
    s.box(-0.25, -0.54 + t, 0.25, -0.1, GLASS, ink=False)
    for x in (-0.56, 0.56):
        s.oval(x, 0.62, 0.21, fill=TYRE)
        s.oval(x, 0.62, 0.09, fill=(190, 192, 198), ink=False)


def open_bus(s: Sketch, sway: float) -> None:
    """A bus with one great window, through which a passenger shows."""
    s.box(-0.98, -0.74, 0.98, 0.66, round_by=0.1)
    for x in (-0.86, 0.64):
        s.box(x, -0.54, x + 0.22, -0.05, GLASS, ink=False)
    s.box(-0.52, -0.54, 0.52, 0.48, INK, ink=False)
    s.box(-0.48, -0.5, 0.48, 0.44, (232, 236, 234), ink=False)
    for x in (-0.7, 0.7):
        s.oval(x, 0.66, 0.19, fill=TYRE)
        s.oval(x, 0.66, 0.08, fill=(190, 192, 198), ink=False)


def boat(s: Sketch, sway: float) -> None:
    t = 0.08 * sway
    s.stroke([(0, 0.3), (0, -0.95)], 0.07, WOOD)
    s.poly([(0.07, -0.88), (0.07, 0.16), (0.8 + t, 0.16)])
    s.poly([(-0.07, -0.7), (-0.07, 0.16), (-0.6 - t, 0.16)], s.light)
    s.poly([(-0.98, 0.28), (0.98, 0.28), (0.62, 0.78), (-0.62, 0.78)])
    s.poly([(-0.88, 0.42), (0.88, 0.42), (0.82, 0.51), (-0.82, 0.51)], s.dark, ink=False)


def bicycle(s: Sketch, sway: float) -> None:
    t = 0.05 * sway
    s.ring(-0.55, 0.3, 0.37, 0.13, s.colour)
    s.ring(0.55, 0.3, 0.37, 0.13, s.colour)
    s.stroke([(-0.55, 0.3), (-0.2, -0.28), (0.4, -0.28), (-0.02, 0.3)], 0.13, closed=True)
    s.stroke([(0.55, 0.3), (0.36, -0.52 + t), (0.64, -0.6 + t)], 0.13)
    s.stroke([(-0.2, -0.28), (-0.26, -0.48)], 0.12)
    s.stroke([(-0.44, -0.52), (-0.1, -0.52)], 0.15, TYRE)


def tree(s: Sketch, sway: float) -> None:
    t = 0.08 * sway
    s.poly([(-0.15, 0.1), (0.15, 0.1), (0.22, 0.98), (-0.22, 0.98)], WOOD)
    s.oval(-0.42, 0.0, 0.42, 0.38)
    s.oval(0.42, 0.02 + t, 0.42, 0.38)
    s.oval(-0.26, -0.48 + t, 0.44, 0.42)
    s.oval(0.3, -0.46, 0.44, 0.42)
    s.oval(0, -0.2, 0.5, 0.5, ink=False)
    s.oval(0, -0.66, 0.36, 0.32)
    for x, y in ((-0.4, -0.05), (0.36, -0.42), (0.02, -0.12), (0.42, 0.08), (-0.2, -0.56)):
        s.stroke([(x - 0.1, y), (x, y + 0.07), (x + 0.1, y)], 0.055, s.dark, ink=False)


def flower(s: Sketch, sway: float) -> None:
    s.stroke([(0.06 * sway, -0.2), (0.0, 0.95)], 0.12, LEAF)
    s.oval(-0.24, 0.62, 0.25, 0.11, LEAF, turn=0.5)
    s.oval(0.24, 0.74, 0.25, 0.11, LEAF, turn=-0.5)
    turn = 0.3 * sway
    for i in range(6):
        a = turn + i * pi / 3
        s.oval(0.42 * cos(a), -0.3 + 0.42 * sin(a), 0.31, 0.23, turn=a)
    yellow = s.colour[0] > 210 and s.colour[1] > 130 and s.colour[2] < 120
    s.oval(0, -0.3, 0.21, fill=(122, 78, 44) if yellow else (248, 208, 76))


def house(s: Sketch, sway: float) -> None:
    t = 0.05 * sway
    s.box(0.38, -0.86, 0.6, -0.3, s.dark)
    s.box(-0.74, -0.14, 0.74, 0.92)
    s.poly([(-1.0, -0.1), (0, -0.94 + t), (1.0, -0.1)], s.dark)
    s.box(-0.5, 0.28, -0.12, 0.92, mix(WOOD, INK, 0.15))
    s.oval(-0.2, 0.62, 0.04, fill=(240, 210, 120), ink=False)
    s.box(0.14, 0.14, 0.56, 0.54, INK, ink=False)
    s.box(0.17, 0.17, 0.53, 0.51, GLASS, ink=False)
    s.stroke([(0.35, 0.17), (0.35, 0.51)], 0.045, INK, ink=False)
    s.stroke([(0.17, 0.34), (0.53, 0.34)], 0.045, INK, ink=False)


def open_house(s: Sketch, sway: float) -> None:
    """A house with a great doorway."""
    s.box(0.38, -0.86, 0.6, -0.3, s.dark)
    s.box(-0.8, -0.2, 0.8, 0.92)
    s.poly([(-1.0, -0.14), (0, -0.94), (1.0, -0.14)], s.dark)
    s.box(-0.52, -0.12, 0.52, 0.92, INK, ink=False)
    s.box(-0.48, -0.08, 0.48, 0.9, (232, 224, 208), ink=False)


def tent(s: Sketch, sway: float) -> None:
    t = 0.06 * sway
    s.stroke([(0, -0.7), (0, -0.95)], 0.06, WOOD)
    s.poly([(-1.0, 0.8), (t, -0.82), (1.0, 0.8)])
    s.poly([(t, -0.82), (0.42, -0.13), (0.62, 0.8), (1.0, 0.8)], s.dark, ink=False)
    s.poly([(-0.3, 0.8), (t * 0.5, -0.16), (0.3, 0.8)], HOLLOW, ink=False)
    s.poly([(-0.3, 0.8), (t * 0.5, -0.16), (-0.46, 0.74)], s.light, ink=False)


def open_tent(s: Sketch, sway: float) -> None:
    """A tent with its flaps drawn wide."""
    s.stroke([(0, -0.8), (0, -0.98)], 0.06, WOOD)
    s.poly([(-1.0, 0.9), (-0.12, -0.86), (0.12, -0.86), (1.0, 0.9)])
    s.poly([(-0.66, 0.9), (-0.2, -0.28), (0.2, -0.28), (0.66, 0.9)], INK, ink=False)
    s.poly([(-0.6, 0.88), (-0.17, -0.24), (0.17, -0.24), (0.6, 0.88)], (226, 220, 206), ink=False)


def ball(s: Sketch, sway: float) -> None:
    s.oval(0, 0, 0.84)
    tilt = 0.5 * sway
    for i in range(3):
        a = tilt + i * 2 * pi / 3
        wedge = [(0.0, 0.0)]
        wedge += [(0.84 * cos(a + k * pi / 18), 0.84 * sin(a + k * pi / 18)) for k in range(7)]
        s.poly(wedge, mix(s.colour, PAPER, 0.72) if s.colour[2] < 225 else s.dark, ink=False)
    s.oval(0, 0, 0.2, fill=s.dark, ink=False)


def balloon(s: Sketch, sway: float) -> None:
    t = 0.14 * sway
    s.stroke([(0, 0.42), (0.1 + t, 0.6), (-0.1 + t, 0.8), (0.04, 1.0)], 0.05, INK, ink=False)
    s.poly([(-0.13, 0.52), (0, 0.32), (0.13, 0.52)], s.dark)
    s.oval(0, -0.28, 0.56, 0.7)
    s.oval(-0.2, -0.54, 0.1, 0.2, mix(s.colour, PAPER, 0.8), turn=0.4, ink=False)


def umbrella(s: Sketch, sway: float) -> None:
    hook = [(0, -0.1), (0, 0.72), (0.08, 0.88), (0.22, 0.88), (0.3, 0.72)]
    s.stroke(hook, 0.11, WOOD)
    s.stroke([(0, -0.7), (0, -0.92)], 0.08, WOOD)
    rim = [(0.98, 0.06), (0.66, -0.08), (0.34, 0.06), (0, -0.08), (-0.34, 0.06), (-0.66, -0.08)]
    dome = [(-0.98 * cos(pi * k / 14), 0.06 - 0.84 * sin(pi * k / 14)) for k in range(14)]
    s.poly([*dome, *rim])
    s.poly([(0.34, 0.04), (0.66, -0.09), (0.98, 0.04), (0.62, -0.52), (0, -0.78)], s.dark, ink=False)
    s.poly([(-0.34, 0.04), (0, -0.09), (0.34, 0.04), (0, -0.78)], s.light, ink=False)


SHAPES: dict[str, Callable[[Sketch, float], None]] = {
    "person": person,
    "dog": dog,
    "cat": cat,
    "bird": bird,
    "fish": fish,
    "car": car,
    "bus": bus,
    "boat": boat,
    "bicycle": bicycle,
    "tree": tree,
    "flower": flower,
    "house": house,
    "tent": tent,
    "ball": ball,
    "balloon": balloon,
    "umbrella": umbrella,
}
OPEN_SHAPES = {"bus": open_bus, "house": open_house, "tent": open_tent}
