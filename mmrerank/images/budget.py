"""Shrinks images to a budget of visual tokens before they are sent. Never enlarges, crops or pads."""

from __future__ import annotations

import math

import PIL.Image


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
