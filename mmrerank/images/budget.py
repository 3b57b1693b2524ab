"""Sizes images for a model before they are sent: within a budget of visual tokens, and no side too short.

Never crops or pads.
"""

from __future__ import annotations

import math
import re

import PIL.Image

LEAST_SIDE = 32
"""Pixels that a side has at least where a model looks at it: the patches of Qwen3-VL (28 for Qwen2.5-VL)."""
MOST_RATIO = 196
"""How many times longer one side may be than the other: Qwen-VL takes less than 200."""

_LARGE = re.compile(r"qwen-?(3[-_.:]?vl|3\.[5-9])")
"""Names of models whose patches are of 16 pixels, four to a token."""


def pixels_per_token(model: str) -> int:
    """Pixels that a token of ``model`` sees, by its name: 32 x 32 for Qwen3-VL and Qwen3.5, else 28 x 28.

    >>> pixels_per_token("Qwen/Qwen3-VL-8B-Instruct"), pixels_per_token("Qwen/Qwen2.5-VL-7B-Instruct")
    (1024, 784)
    """
    return 32 * 32 if _LARGE.search(model.casefold()) else 28 * 28


def fit(image: PIL.Image.Image, *, max_tokens: int, pixels_per_token: int = 28 * 28) -> PIL.Image.Image:
    """The image itself, or a smaller copy with ``width * height <= max_tokens * pixels_per_token``.

    The aspect ratio is kept up to rounding; each side stays at least one pixel. Raises `ValueError` when
    the budget is below one pixel.
    """
    budget = max_tokens * pixels_per_token
    if budget < 1:
        raise ValueError(f"a budget of {max_tokens} tokens leaves no pixel; give at least 1")
    width, height = image.size
    if width * height <= budget:
        return image
    scale = math.sqrt(budget / (width * height))
    # A very long strip would shrink below one pixel on its short side; the long side then gives way.
    new_width = max(1, math.floor(width * scale))
    new_height = max(1, min(math.floor(height * scale), budget // new_width))
    new_width = min(new_width, budget // new_height)
    return image.resize((new_width, new_height), PIL.Image.Resampling.LANCZOS)


def viewable(
    image: PIL.Image.Image,
    *,
    max_tokens: int,
    pixels_per_token: int = 28 * 28,
    least_side: int = LEAST_SIDE,
    most_side: int = 0,
) -> PIL.Image.Image:
    """`fit`, where every side has at least ``least_side`` pixels and at most ``most_side`` (0: any number).

    What is smaller is enlarged in its shape. Where there is no room for that, as for a strip longer than
    `MOST_RATIO` times its width, the long side gives way and the shape is lost. One square of
    ``least_side`` is always allowed, whatever the budget.
    """
    fitted = fit(image, max_tokens=max_tokens, pixels_per_token=pixels_per_token)
    budget = max(max_tokens * pixels_per_token, least_side * least_side)
    short, long = sorted(fitted.size)
    if least_side <= short and long <= min(MOST_RATIO * short, most_side or long):
        return fitted
    # from the image itself: what was shrunk first would be blurred by growing again
    short, long = sorted(image.size)
    scale = (
        max(1.0, least_side / short) if short < least_side else min(1.0, math.sqrt(budget / (short * long)))
    )
    if most_side:
        scale = min(scale, most_side / long)
    short = max(least_side, round(short * scale))
    long = min(max(least_side, round(long * scale)), MOST_RATIO * short, most_side or budget, budget // short)
    long = max(long, least_side)
    size = (short, long) if image.width <= image.height else (long, short)
    return fitted if size == fitted.size else image.resize(size, PIL.Image.Resampling.LANCZOS)
