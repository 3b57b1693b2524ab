"""Pixels as the authors of an embedder prepare them, for Qwen-VL models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmrerank.embed._form import Pixels
from mmrerank.vl.features import Picture
from mmrerank.vl.prompts import MAX_RATIO, widened

if TYPE_CHECKING:
    import PIL.Image


def prepared(image: PIL.Image.Image, pixels: Pixels, processor: Any) -> Picture:
    """A decoded RGB image as ``pixels`` says. ``processor`` is the checkpoint's image processor."""
    from qwen_vl_utils import smart_resize

    side = processor.patch_size * processor.merge_size
    square = pixels.small if pixels.small and min(image.size) < side else pixels.square
    image = image.resize((square, square)) if square else widened(image, MAX_RATIO)
    if pixels.whole:
        least, most = (n * side * side for n in pixels.whole)
        high, wide = smart_resize(image.height, image.width, side, min_pixels=least, max_pixels=most)
        image = image.resize((wide, high))
    options: dict[str, Any] = {}
    if pixels.limits is None:
        options = {"do_resize": False}
    elif pixels.limits != "own":
        shortest, longest = (n * side * side for n in pixels.limits)
        options = {"size": {"shortest_edge": shortest, "longest_edge": longest}}
    made = processor(images=[image], return_tensors="pt", **options)
    return Picture(key="", grid=made["image_grid_thw"][0], pixels=made["pixel_values"])
