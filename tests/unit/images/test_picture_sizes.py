"""Sizes that models take: no side below a patch, no strip that is too long, within the budget."""

from __future__ import annotations

import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrerank.images import fit
from mmrerank.images.budget import LEAST_SIDE, MOST_RATIO, viewable


@pytest.mark.parametrize(
    ("size", "tokens", "seen"),
    [
        ((320, 240), 256, (320, 240)),
        ((32, 32), 256, (32, 32)),
        ((20, 20), 256, (32, 32)),
        ((1, 1), 256, (32, 32)),
        ((257, 27), 256, (305, 32)),
        ((31, 639), 256, (32, 660)),
        ((1200, 4), 256, (6272, 32)),
        ((1, 100_000), 256, (32, 6272)),
        ((3000, 60), 64, (1568, 32)),
        ((10_000, 10_000), 64, (224, 224)),
        ((20, 20), 1, (32, 32)),
    ],
)
def test_sides(size: tuple[int, int], tokens: int, seen: tuple[int, int]) -> None:
    assert viewable(PIL.Image.new("L", size), max_tokens=tokens).size == seen


def test_what_a_server_says_counts() -> None:
    wide = PIL.Image.new("L", (1200, 40))
    assert viewable(wide, max_tokens=256, least_side=56).size == (1680, 56)
    assert viewable(PIL.Image.new("L", (1200, 900)), max_tokens=1280, most_side=500).size == (500, 375)


def test_a_strip_keeps_its_colours() -> None:
    strip = PIL.Image.new("RGB", (1200, 4), (156, 60, 60))
    assert viewable(strip, max_tokens=256).resize((1, 1)).getpixel((0, 0)) == (156, 60, 60)


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 600), st.sampled_from([0, 64, 500, 2000]))
def test_every_size_can_be_shown(wide: int, high: int, tokens: int, most: int) -> None:
    image = PIL.Image.new("1", (wide, high))
    seen = viewable(image, max_tokens=tokens, most_side=most).size
    short, long = sorted(seen)
    assert short >= LEAST_SIDE
    assert long <= MOST_RATIO * short
    assert short * long <= max(tokens * 784, LEAST_SIDE**2)
    assert not most or long <= most
    fitted = fit(image, max_tokens=tokens)
    if min(fitted.size) >= LEAST_SIDE and max(fitted.size) <= min(
        MOST_RATIO * min(fitted.size), most or 3000
    ):
        assert seen == fitted.size
