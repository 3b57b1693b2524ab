"""A picture's look knows its copies, and no other picture."""

from __future__ import annotations

import io
import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from PIL import ImageEnhance, ImageOps

from mmrerank.images import decode
from mmrerank.images.look import Look, look_of
from mmrerank.picturebook.draw import render
from mmrerank.picturebook.export import evaluation_scenes

Picture = PIL.Image.Image


def again(picture: Picture, kind: str = "JPEG", **how: Any) -> Picture:
    file = io.BytesIO()
    picture.save(file, kind, **how)
    return PIL.Image.open(file).convert("RGB")


def copies(picture: Picture) -> Iterator[tuple[str, Picture]]:
    """What people and programs make of a picture."""
    wide, high = picture.size
    small = 160 / max(picture.size)
    half = picture.resize((wide // 2, high // 2), PIL.Image.Resampling.LANCZOS)
    yield "compressed", again(picture, quality=30)
    yield "half", again(half, quality=85)
    yield "small", again(picture.resize((round(wide * small), round(high * small))), quality=75)
    yield "webp", again(half, "WEBP", quality=50)
    yield "brighter", ImageEnhance.Brightness(picture).enhance(1.1)
    yield "darker", ImageEnhance.Brightness(picture).enhance(0.9)
    yield "contrast", ImageEnhance.Contrast(picture).enhance(1.15)


def check(pictures: list[Picture], some: int) -> None:
    """Copies of ``some`` are known, and no two are copies of each other."""
    looks = [look_of(p) for p in pictures]
    mistaken = [(a, b) for a, b in itertools.combinations(range(len(looks)), 2) if looks[a].alike(looks[b])]
    assert mistaken == []
    for n in random.Random(0).sample(range(len(pictures)), some):
        missed = [name for name, copy in copies(pictures[n]) if not looks[n].alike(look_of(copy))]
        assert missed == [], n


def test_copies_of_drawings_are_known() -> None:
    check([render(scene, 160) for scene in evaluation_scenes(5, 25)], 3)


@pytest.mark.slow
def test_copies_of_many_drawings_are_known() -> None:
    check([render(scene) for scene in evaluation_scenes(4, 150)], 20)


@pytest.mark.slow
def test_copies_of_photographs_are_known(photos: Path) -> None:
    by_bytes = {p.read_bytes(): p for p in sorted((photos / "images").iterdir())}
    check([decode(data) for data in by_bytes], 20)


def test_another_picture_of_the_scene_is_no_copy() -> None:
    scene = render(evaluation_scenes(6, 1)[0], 160)
    first = look_of(scene)
    for other in (
        ImageOps.mirror(scene),
        ImageOps.flip(scene),
        scene.rotate(90),
        ImageOps.grayscale(scene).convert("RGB"),
        ImageOps.invert(scene),
        scene.crop((0, 0, 120, 120)),
        ImageEnhance.Brightness(scene).enhance(0.5),
    ):
        assert not first.alike(look_of(other))


def ball(colour: tuple[int, int, int]) -> Look:
    picture = np.full((64, 64, 3), 200, np.uint8)
    picture[20:30, 40:50] = colour
    return look_of(PIL.Image.fromarray(picture))


def test_colours_and_plain_pictures_are_told_apart() -> None:
    assert not ball((250, 20, 20)).alike(ball((20, 120, 250)))
    plain = [look_of(PIL.Image.new("RGB", (50, 40), c)) for c in ("white", "black", "red", "blue")]
    assert not any(a.alike(b) for a, b in itertools.combinations(plain, 2))
    noise = np.random.default_rng(0).integers(250, 256, (50, 40, 3), dtype=np.uint8)
    assert plain[0].alike(look_of(PIL.Image.fromarray(noise)))


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (7, 9)])
def test_pictures_of_any_shape_have_a_look(size: tuple[int, int]) -> None:
    look = look_of(PIL.Image.new("RGB", size, "orange"))
    assert (look.bits.shape, look.colours.shape) == ((128,), (16, 16, 3))
    assert look.alike(look)
