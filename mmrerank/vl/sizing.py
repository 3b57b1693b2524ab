"""How a picture comes within a budget of visual tokens, whatever a family's processor makes of it.

Nothing is predicted: the processor is asked, and what it made is counted. Families whose tokens grow with the
picture get it smaller; families that cut it into tiles get fewer tiles; where neither helps, the fewest
tokens that the family can do are taken, and a note says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import PIL.Image

TRIES = 8
"""Times that a picture is made smaller at most."""
_LEAST = 16
"""Pixels of a side below which no picture is shrunk."""
_KNOBS = ("crop_to_patches", "do_image_splitting", "do_pan_and_scan")
"""Options of image processors that cut a picture into more tiles than one."""
Options = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Made:
    """What the processor made of one picture: visual ``tokens``, its ``inputs`` and the ``text`` for it."""

    image: PIL.Image.Image
    options: Options
    tokens: int
    text: str
    inputs: Mapping[str, Any]


Make = Callable[["PIL.Image.Image", Options], Made]


class Sizing:
    """The knobs of one image processor, found once.

    ``settings`` are the processor's own; ``make`` runs it. ``pixels_per_token`` is measured, and 0 where the
    tokens do not grow with the picture.
    """

    def __init__(self, settings: Mapping[str, Any], make: Make) -> None:
        self._settings, self._make = settings, make
        self.knob = next((k for k in _KNOBS if k in settings), "")
        # whole squares of 14, 16, 28 and 32 pixels
        one, two = self._blank(448, 448, self._off).tokens, self._blank(896, 448, self._off).tokens
        grows = 1.6 * one < two < 2.5 * one
        self.pixels_per_token = round(math.sqrt(896 * 448 / two)) ** 2 if grows else 0
        self.least = one if grows else self._blank(64, 64, self._off).tokens
        """The fewest tokens of a picture, or those of a small one where they grow with it."""

    @property
    def _off(self) -> Options:
        return {self.knob: False} if self.knob else {}

    def _blank(self, wide: int, high: int, options: Options | None = None) -> Made:
        from PIL import Image as Pillow

        return self._make(Pillow.new("RGB", (wide, high), (128, 128, 128)), options or {})

    def fit(self, image: PIL.Image.Image, tokens: int) -> Made:
        """``image`` with at most ``tokens`` visual tokens, or as few as the family can."""
        if self.pixels_per_token and not self.knob:
            image = self._whole_squares(image, tokens)
        made: Made | None = None
        for options in self._rungs(image, tokens):
            made = self._make(image, options)
            if made.tokens <= tokens:
                return made
        assert made is not None  # there is always a rung
        return self._shrunk(made, tokens)

    def why(self) -> str:
        """What decides how many tokens a picture has, for a person."""
        if self.pixels_per_token and not self.knob:
            side = math.isqrt(self.pixels_per_token)
            return f"{side} x {side} pixels a token, as many as are asked for"
        if self.knob in ("crop_to_patches", "do_image_splitting"):
            return f"tiles of {self.least} tokens each ({self.knob}), as many as fit what is asked for"
        return f"{self.least} tokens or more an image, whatever is asked for"

    def _whole_squares(self, image: PIL.Image.Image, tokens: int) -> PIL.Image.Image:
        if image.width * image.height <= tokens * self.pixels_per_token:
            return image
        side = math.isqrt(self.pixels_per_token)
        scale = math.sqrt(tokens * self.pixels_per_token / (image.width * image.height))
        size = [max(side, math.floor(n * scale / side) * side) for n in image.size]
        return image.resize((size[0], size[1]))

    def _rungs(self, image: PIL.Image.Image, tokens: int) -> Iterator[Options]:
        """Options from many tokens to few, none of them without hope."""
        room = tokens // max(self.least, 1)
        if self.knob == "crop_to_patches":
            # beside several tiles stands the whole picture as one more
            most = min(int(self._settings.get("max_patches") or 12), room - 1)
            if most > 1:
                yield {"crop_to_patches": True, "max_patches": most}
        elif self.knob == "do_image_splitting" and "max_image_size" in self._settings:
            edge = int(self._settings["max_image_size"]["longest_edge"])
            ratio = min(image.size) / max(image.size)
            for count in range(int(self._settings["size"]["longest_edge"]) // edge, 1, -1):
                if count * math.ceil(count * ratio) + 1 <= room:
                    yield {"do_image_splitting": True, "size": {"longest_edge": count * edge}}
        yield self._off

    def _shrunk(self, first: Made, tokens: int) -> Made:
        """The first smaller picture that fits, or the largest one with the fewest tokens."""
        best, image, idle = first, first.image, 0
        for _ in range(TRIES):
            scale = min(0.9, 0.97 * math.sqrt(tokens / max(best.tokens, 1)))
            size = [max(_LEAST, round(n * scale)) for n in image.size]
            if size == list(image.size):
                break
            image = first.image.resize((size[0], size[1]))
            made = self._make(image, first.options)
            if made.tokens < best.tokens:
                best, idle = made, 0
            else:
                idle += 1
            if best.tokens <= tokens or idle == 2:
                break
        return best
