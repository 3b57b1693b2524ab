"""What the vision tower made of an image, kept: an image seen again is neither decoded nor looked at again.

Holds pixels until they are looked at and features afterwards. It runs no model (`mmrerank.vl.qwen` does).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmrerank.vl.feature_folder import FeatureFolder

if TYPE_CHECKING:
    import torch

BYTES = 2 << 30
"""Memory for features by default: about a thousand images of 256 tokens for a 7B Qwen2.5-VL."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """An image as the language model reads it.

    ``grid`` (3,): patches in time, height and width. ``pooled`` (tokens, hidden): the visual tokens.
    ``deep``: of Qwen3-VL, what is added after its first layers, each (tokens, hidden). ``text``: what stands
    for the image in a prompt, where that is the processor's to say.
    """

    grid: torch.Tensor
    pooled: torch.Tensor
    deep: tuple[torch.Tensor, ...] = ()
    text: str = ""

    @property
    def size(self) -> int:
        """Bytes of all tensors."""
        return sum(t.numel() * t.element_size() for t in (self.pooled, *self.deep))


@dataclass(kw_only=True, eq=False)
class Picture:
    """One image of a prompt: ``pixels`` (patches, patch width) until it was looked at, then ``features``.

    ``key`` names content and size; pictures with one key are one object while any prompt holds it.
    """

    key: str
    grid: torch.Tensor
    pixels: torch.Tensor | None = None
    features: Features | None = None

    @property
    def size(self) -> int:
        """Bytes that it holds, of pixels or of features."""
        # read once each: another thread may be looking at it
        pixels, features = self.pixels, self.features
        return pixels.nbytes if pixels is not None else features.size if features is not None else 0


class FeatureStore:
    """Features by key, least recently used first out. Safe in threads.

    ``limit`` bounds the bytes in memory; 0 keeps nothing. ``folder``, if given, keeps images' features on
    disk as well.
    """

    def __init__(self, limit: int = BYTES, *, folder: FeatureFolder | None = None) -> None:
        self._limit, self.folder = limit, folder
        self._kept: OrderedDict[str, Features] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def get(self, key: str) -> Features | None:
        """The features of an image, or None."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        found = _whole(self.folder.get(key)) if self.folder is not None else None
        if found is not None:
            self._keep(key, found)
        return found

    def put(self, key: str, features: Features) -> None:
        """Keeps ``features``, unless they are larger than everything that may be kept."""
        self._keep(key, features)
        if self.folder is not None:
            deep = {f"deep.{n}": t for n, t in enumerate(features.deep)}
            text = {"text": _letters(features.text)} if features.text else {}
            self.folder.put(key, {"grid": features.grid, "pooled": features.pooled, **deep, **text})

    def clear(self) -> None:
        """Forgets what is in memory."""
        with self._lock:
            self._kept.clear()
            self._size = 0

    def _keep(self, key: str, features: Features) -> None:
        with self._lock:
            if key in self._kept or features.size > self._limit:
                return
            self._kept[key] = features
            self._size += features.size
            while self._size > self._limit:
                _, old = self._kept.popitem(last=False)
                self._size -= old.size


def _letters(text: str) -> torch.Tensor:
    import torch

    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def _whole(found: dict[str, Any] | None) -> Features | None:
    """Tensors from disk as features; None where some are missing."""
    if found is None:
        return None
    letters = found.pop("text", None)
    names = {"grid", "pooled", *(f"deep.{n}" for n in range(len(found) - 2))}
    if set(found) != names:
        return None
    deep = tuple(found[f"deep.{n}"] for n in range(len(found) - 2))
    text = "" if letters is None else bytes(letters.tolist()).decode()
    return Features(grid=found["grid"], pooled=found["pooled"], deep=deep, text=text)
