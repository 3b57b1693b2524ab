"""What the vision tower made of an image, kept: an image seen again is neither decoded nor looked at again.

Holds pixels until they are looked at and features afterwards. It runs no model (`mmrerank.vl.qwen` does).
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

BYTES = 2 << 30
"""Memory for features by default: about a thousand images of 256 tokens for a 7B Qwen2.5-VL."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """An image as the language model reads it.

    ``grid`` (3,): patches in time, height and width. ``pooled`` (tokens, hidden): the visual tokens.
    ``deep``: of Qwen3-VL, what is added after its first layers, each (tokens, hidden).
    """

    grid: torch.Tensor
    pooled: torch.Tensor
    deep: tuple[torch.Tensor, ...] = ()

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


class FeatureStore:
    """Features by key, least recently used first out. Safe in threads.

    ``limit`` bounds the bytes in memory; 0 keeps nothing. ``folder``, if given, keeps every image's features
    on disk as well, in files of their own that are never deleted here; ``owner`` names the model, so that
    another model's files are not read.
    """

    def __init__(self, limit: int = BYTES, *, folder: Path | None = None, owner: str = "") -> None:
        self.owner = owner
        self._limit, self._folder = limit, folder
        self._kept: OrderedDict[str, Features] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def get(self, key: str) -> Features | None:
        """The features of an image, or None."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        found = self._read(key)
        if found is not None:
            self._keep(key, found)
        return found

    def put(self, key: str, features: Features) -> None:
        """Keeps ``features``, unless they are larger than everything that may be kept."""
        self._keep(key, features)
        if self._folder is not None:
            self._write(self._folder, key, features)

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

    def _path(self, folder: Path, key: str) -> Path:
        named = hashlib.sha256(f"{self.owner}\0{key}".encode()).hexdigest()
        return folder / f"{named}.safetensors"

    def _read(self, key: str) -> Features | None:
        if self._folder is None:
            return None
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            found: dict[str, Any] = load_file(self._path(self._folder, key))
            deep = tuple(found[f"deep.{n}"] for n in range(len(found) - 2))
            return Features(grid=found["grid"], pooled=found["pooled"], deep=deep)
        except (OSError, SafetensorError, KeyError):  # absent or damaged: looked at again
            return None

    def _write(self, folder: Path, key: str, features: Features) -> None:
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        path = self._path(folder, key)
        part = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}")
        deep = {f"deep.{n}": t for n, t in enumerate(features.deep)}
        save_file({"grid": features.grid, "pooled": features.pooled, **deep}, part)
        part.replace(path)
