"""Messages as a Qwen-VL model reads them: token ids, M-RoPE positions, pictures, and which tokens are whose.

It runs no layer of the model and holds no lock; several threads may encode at once.
"""

from __future__ import annotations

import hashlib
import math
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from mmrerank.errors import InputError, ModelError
from mmrerank.images import decode
from mmrerank.messages import Message, Role
from mmrerank.types import Image
from mmrerank.vl.features import FeatureStore, Picture
from mmrerank.vl.load import Checkpoint
from mmrerank.vl.turns import Turns

if TYPE_CHECKING:
    import PIL.Image
    import torch

PIXELS_VERSION = 2
"""Raised when decoding or resizing starts to give other pixels for the same file."""
MAX_RATIO = 180
"""Longest side over shortest; qwen-vl-utils refuses 200. Longer strips are padded in grey."""
MOST_THREADS = 8


@dataclass(frozen=True, kw_only=True)
class Words:
    """A text part of a message: tokens ``start`` to ``end`` (exclusive) of the prompt, edges included."""

    message: int
    role: Role
    start: int
    end: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoded:
    """One prompt: ``ids`` (L,), ``positions`` (3, L) for M-RoPE or (1, L), and its pictures in order.

    ``words`` is filled where `Prompts.encode` was asked for it.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    pictures: tuple[Picture, ...]
    image_id: int
    words: tuple[Words, ...] = ()
    notes: tuple[str, ...] = ()
    """What was changed of the images to show them, in words for a person."""
    company: str = ""
    """Prompts run together only with those of the same company."""

    @property
    def length(self) -> int:
        """Prompt tokens, visual ones included."""
        return len(self.ids)

    @cached_property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """Where each picture's tokens start and end (exclusive)."""
        inside = np.concatenate([[0], (self.ids == self.image_id).numpy().astype(np.int8), [0]])
        edges = np.flatnonzero(np.diff(inside))
        return tuple(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))

    def visual(self, start: int, end: int) -> NDArray[np.bool_]:
        """Which tokens from ``start`` to ``end`` (exclusive) are an image's own: no line ends, no tags."""
        found: NDArray[np.bool_] = (self.ids[start:end] == self.image_id).numpy()
        return found

    @cached_property
    def marks(self) -> NDArray[np.int64]:
        """What each token is, visual ones by their picture: equal beginnings mean equal states. (L,)."""
        marks = self.ids.numpy().astype(np.int64)
        for picture, (start, end) in zip(self.pictures, self.spans, strict=True):
            named = hashlib.sha256(picture.key.encode()).digest()[:7]
            marks[start:end] = -1 - int.from_bytes(named, "big")
        return marks

    def cut(self, at: int) -> int:
        """The last place not after ``at`` where the prompt may be cut: outside every picture."""
        return next((start for start, end in self.spans if start < at < end), at)

    def beginning(self, length: int) -> Encoded:
        """The prompt's first ``length`` tokens; no picture is cut in two."""
        pictures = tuple(self.pictures_between(0, length))
        return replace(
            self, ids=self.ids[:length], positions=self.positions[:, :length], pictures=pictures, words=()
        )

    def pictures_between(self, start: int, end: int) -> list[Picture]:
        """The pictures whose tokens lie from ``start`` to ``end``."""
        return [
            p
            for p, (first, last) in zip(self.pictures, self.spans, strict=True)
            if start <= first and last <= end
        ]


class Prompts(Turns):
    """Turns messages into `Encoded`, images by way of ``features``."""

    def __init__(self, checkpoint: Checkpoint, features: FeatureStore) -> None:
        super().__init__(checkpoint)
        self._rope: Any = checkpoint.model.model.get_rope_index
        self._features = features
        images = checkpoint.processor.image_processor
        self.patch: int = images.patch_size
        self.merged: int = images.merge_size**2
        self.pixels_per_token: int = (images.patch_size * images.merge_size) ** 2
        # pixel counts, despite what the processor calls them
        self.min_pixels: int = images.size["shortest_edge"]
        self.max_pixels: int = images.size["longest_edge"]
        self.image_id: int = checkpoint.model.config.image_token_id
        self._alive: WeakValueDictionary[str, Picture] = WeakValueDictionary()

    def encode(self, messages: Sequence[Message], *, image_tokens: int, words: bool = False) -> Encoded:
        """The prompt that asks for an answer to ``messages``, each image within ``image_tokens`` tokens.

        With ``words`` it also says which tokens are the text parts. Raises `ImageError` or `OSError` when an
        image cannot be read or decoded.
        """
        shown = [p.image for m in messages for p in m.parts if p.image is not None]
        text = self.render(messages)
        pictures = [self.picture(image, image_tokens) for image in shown]
        parts = self._parts(messages, text) if words else ()
        return self.assemble(text, pictures, parts)

    def assemble(
        self,
        text: str,
        pictures: Sequence[Picture],
        parts: Sequence[tuple[int, Role, int, int]] = (),
        *,
        add_special_tokens: bool = False,
        flat: bool = False,
    ) -> Encoded:
        """The prompt ``text``, which holds one placeholder a picture.

        ``parts`` are spans of its characters, (message, role, start, end), that come back as `Words`. With
        ``add_special_tokens`` the tokenizer adds what it adds by itself; with ``flat`` positions count
        tokens on all three axes, visual ones too.
        """
        import torch

        encoding = self._tokenizer(
            text, add_special_tokens=add_special_tokens, return_offsets_mapping=bool(parts)
        )
        plain: list[int] = encoding["input_ids"]
        if plain.count(self.image_id) != len(pictures):
            raise ModelError(f"{self._name}: its chat template drops images; give another checkpoint")
        sizes = iter(int(p.grid.prod()) // self.merged for p in pictures)
        widths = [next(sizes) if token == self.image_id else 1 for token in plain]
        ids = torch.repeat_interleave(torch.tensor(plain), torch.tensor(widths))
        if flat:
            positions = torch.arange(len(ids)).expand(3, 1, -1)
        else:
            grids = torch.stack([p.grid for p in pictures]) if pictures else None
            positions, _ = self._rope(
                ids[None], mm_token_type_ids=(ids == self.image_id).int()[None], image_grid_thw=grids
            )
        words = []
        if parts:
            starts = [0, *accumulate(widths)]
            for message, role, first, last in parts:
                own = [n for n, (a, b) in enumerate(encoding["offset_mapping"]) if a < last and b > first]
                if own:
                    span = (starts[own[0]], starts[own[-1] + 1])
                    words.append(Words(message=message, role=role, start=span[0], end=span[1]))
        return Encoded(
            ids=ids,
            positions=positions[:, 0],
            pictures=tuple(pictures),
            image_id=self.image_id,
            words=tuple(words),
        )

    def picture(self, image: Image, tokens: int) -> Picture:
        """``image`` within ``tokens`` visual tokens: its features if they are kept, else its pixels."""
        key = f"{image.digest}:{tokens}"
        alive = self._alive.get(key)
        if alive is not None:
            return alive
        features = self._features.get(key)
        if features is not None:
            made = Picture(key=key, grid=features.grid, features=features)
        else:
            made = self.prepare(decode(image), tokens, key=key)
        return self._alive.setdefault(key, made)

    def ahead(self, images: Iterable[tuple[Image, int]]) -> list[Picture]:
        """`picture` for each image and its tokens, in threads; `encode` finds them while this list is held.

        An image that cannot be shown is left out: `encode` says why.
        """
        return in_threads(self.picture, images)

    def prepare(self, image: PIL.Image.Image, tokens: int, *, key: str = "") -> Picture:
        """The pixels of a decoded RGB image, resized to within ``tokens`` visual tokens."""
        from qwen_vl_utils import process_vision_info, smart_resize

        most = max(min(tokens * self.pixels_per_token, self.max_pixels), self.pixels_per_token)
        allowed = most // self.pixels_per_token
        picture, least = widened(image, min(MAX_RATIO, allowed)), min(self.min_pixels, most)
        side = math.isqrt(self.pixels_per_token)
        high, wide = smart_resize(picture.height, picture.width, side, min_pixels=least, max_pixels=most)
        if not 0 < high * wide <= most:
            # it rounds a strip down to nothing, and what is small up to more than is allowed
            picture, least = picture.resize(_within(picture.size, side, allowed)), 0
        shown = {"type": "image", "image": picture, "min_pixels": least, "max_pixels": most}
        sized, _ = process_vision_info([{"role": "user", "content": [shown]}], image_patch_size=self.patch)
        made = self._processor.image_processor(images=sized, do_resize=False, return_tensors="pt")
        return Picture(key=key, grid=made["image_grid_thw"][0], pixels=made["pixel_values"])


def in_threads(
    picture: Callable[[Image, int], Picture], images: Iterable[tuple[Image, int]]
) -> list[Picture]:
    """``picture`` of each image and its tokens that can be shown; nothing where threads would not help."""

    def one(wanted: tuple[Image, int]) -> Picture | None:
        try:
            return picture(*wanted)
        except (InputError, OSError, ValueError):
            return None

    workers = min(_cores(), MOST_THREADS)
    distinct = list({(id(image), tokens): (image, tokens) for image, tokens in images}.values())
    if workers < 2 or len(distinct) < 2:
        return []
    with ThreadPoolExecutor(workers) as pool:
        return [p for p in pool.map(one, distinct) if p is not None]


def _within(size: tuple[int, int], side: int, tokens: int) -> tuple[int, int]:
    """The largest size of about the shape of ``size`` in whole squares of ``side``, at most ``tokens``."""
    scale = math.sqrt(tokens / (size[0] * size[1]))
    wide, high = (max(1, math.floor(length * scale)) for length in size)
    return side * min(wide, tokens), side * min(high, tokens)


def _cores() -> int:
    """Cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def widened(picture: PIL.Image.Image, ratio: int) -> PIL.Image.Image:
    """``picture``, padded with grey where its long side exceeds ``ratio`` times the short one."""
    from PIL import Image as Pillow

    wide, high = picture.size
    least = -(-max(wide, high) // max(ratio, 1))
    if min(wide, high) >= least:
        return picture
    canvas = Pillow.new("RGB", (max(wide, least), max(high, least)), (128, 128, 128))
    canvas.paste(picture, ((canvas.width - wide) // 2, (canvas.height - high) // 2))
    return canvas
