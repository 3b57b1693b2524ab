"""CLIP-like embedders through open_clip: a hub model, a local folder, or random weights.

Loads weights completely or not at all, trains nothing, and compares no vectors. Weights run in bfloat16
(float16 on older GPUs) where the hardware has it, except in tiny models, where it would only lose precision.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mmrerank.embed import text_tower
from mmrerank.embed._mix import mix, unit
from mmrerank.embed._replicas import Replicas, devices
from mmrerank.errors import UsageError
from mmrerank.loading import running
from mmrerank.ports import Embedder, Vectors
from mmrerank.types import Query

if TYPE_CHECKING:
    from mmrerank.embed._open_clip_load import Loaded

FORM = (
    "open_clip:ARCH:TAG, open_clip:ARCH:/PATH/FILE, open_clip:local-dir:PATH, open_clip:hf-hub:ORG/NAME, "
    "open_clip:ARCH:random"
)
PREPARES = True
RANDOM_DOMAIN = "random weights: for plumbing and speed only"
TINY_PARAMETERS = 20_000_000
_LONGEST = 8  # longer side over shorter side


class OpenClipEmbedder(Embedder):
    """An open_clip model as an embedder (`mmrerank.ports.Embedder`). Made by `open`.

    `embed_images` also takes what `prepare` returns, so that threads can do the resizing beforehand.
    """

    def __init__(
        self, loaded: Loaded, *, devices: Sequence[str], dtype: str, batch_size: int, text_weight: float
    ) -> None:
        import torch

        self.prepares = True
        self.spec = f"open_clip:{loaded.name}"
        self.fingerprint = loaded.fingerprint
        self.dim = loaded.dim
        self.domain = RANDOM_DOMAIN if loaded.random else ""
        self.device = devices[0]
        self.dtype = dtype
        self.portion = batch_size * len(devices)
        self._batch_size = batch_size
        self._text_weight = text_weight
        self._dtype = vars(torch)[dtype]
        self._model = loaded.model.to(device=self.device, dtype=self._dtype).eval()
        self._replicas = Replicas(self._model, devices)
        self._transform = loaded.transform
        self._crops = loaded.crops
        self._tokenizer = loaded.tokenizer
        # Fast tokenizers may not be entered by two threads at once.
        self._lock = threading.RLock()
        self._name = loaded.name

    def prepare(self, image: Any) -> Any:
        """The resized and cropped pixels ``(3, h, w)`` of an RGB image, as uint8. Safe in threads."""
        return self._transform.pixels(_centre(image) if self._crops else image)

    def embed_images(self, images: Sequence[Any]) -> Vectors:
        """Unit vectors ``(n, dim)`` of RGB ``PIL.Image`` or of what `prepare` made of them."""
        import torch

        def encode(model: Any, device: str, part: Sequence[Any]) -> Any:
            pixels = torch.stack([x if isinstance(x, torch.Tensor) else self.prepare(x) for x in part])
            return model.encode_image(self._transform.normalised(pixels.to(device)).to(self._dtype))

        return self._in_batches(images, encode)

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors ``(n, dim)``; what exceeds the model's context length is cut off at its end."""

        def encode(model: Any, device: str, part: Sequence[str]) -> Any:
            with self._lock:
                tokens = self._tokenizer(list(part))
            return model.encode_text(tokens.to(device))

        return self._in_batches(texts, encode)

    def overlong(self, text: str) -> tuple[int, int] | None:
        """How many tokens ``text`` has and how many the text tower reads; None where it is read whole."""
        with self._lock:
            return text_tower.overlong(self._tokenizer, text)

    def text_tower(self) -> dict[str, bytes]:
        """The files of `mmrerank.embed.text_tower`, compared with this model. Raises `ModelError`."""
        from mmrerank.embed import _text_tower_make

        facts = {"fingerprint": self.fingerprint, "dim": self.dim, "domain": self.domain}
        with self._lock:
            return _text_tower_make.make(
                self._model, self._tokenizer, name=self._name, facts=facts, dtype=self.dtype,
                embed=self.embed_texts,
            )  # fmt: skip

    def embed_queries(self, queries: Sequence[Query]) -> Vectors:
        """Unit vectors ``(n, dim)``; `mmrerank.embed._mix.mix` says how words and images combine."""
        return mix(queries, self.embed_texts, self.embed_images, text_weight=self._text_weight)

    def _in_batches(self, items: Sequence[Any], encode: Any) -> Vectors:
        import torch

        def run(model: Any, device: str, part: Sequence[Any]) -> Any:
            with torch.inference_mode():
                return encode(model, device, part).float().cpu().numpy()

        size = self._batch_size
        batches = [items[start : start + size] for start in range(0, len(items), size)]
        with running():
            parts = self._replicas.each(batches, run)
        if not parts:
            return np.zeros((0, self.dim), dtype=np.float32)
        return unit(np.concatenate(parts))


def open(
    rest: str,
    *,
    device: str | None = None,
    precision: str | None = None,
    batch_size: int = 32,
    text_weight: float = 0.5,
    expect: str = "",
    trust_remote_code: bool = False,
) -> OpenClipEmbedder:
    """The embedder that ``rest`` names, in one of the forms of ``FORM``.

    ``device`` is ``cpu``, ``cuda`` (every GPU that is visible), ``cuda:N`` or several with commas between,
    which share the batches (default: CUDA where there is one). ``precision`` is ``float32``, ``bfloat16`` or
    ``float16`` (default: the fastest that the first device has);
    ``text_weight`` (0 to 1) is the share of the words in a query of words and images. ``expect`` is the
    fingerprint that the model must have, compared before its weights are loaded where the files say it.
    ``trust_remote_code`` lets Python files of a model's folder run, with a warning.

    Raises `ModelError` when the model, its weights or the device is not there, `MismatchError` for another
    fingerprint, `UsageError` for an option out of range.
    """
    if batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, not {batch_size}")
    if not 0 <= text_weight <= 1:
        raise UsageError(f"text_weight must be between 0 and 1, not {text_weight}")
    if precision not in (None, "float32", "bfloat16", "float16"):
        raise UsageError(f"precision must be float32, bfloat16 or float16, not {precision!r}")
    from mmrerank.embed._open_clip_load import load

    places = devices(device)
    loaded = load(rest, expect=expect, trust_remote_code=trust_remote_code)
    parameters = sum(p.numel() for p in loaded.model.parameters())
    dtype = precision or ("float32" if parameters < TINY_PARAMETERS else _fastest(places[0]))
    return OpenClipEmbedder(
        loaded, devices=places, dtype=dtype, batch_size=batch_size, text_weight=text_weight
    )


def _centre(image: Any) -> Any:
    """The middle of a very long image, which is all that the cropping behind the resizing leaves of it.

    Resizing one of 1 x 20,000 pixels first would make it one of 224 x 4,480,000.
    """
    width, height = image.size
    keep = _LONGEST * min(width, height)
    if max(width, height) <= keep:
        return image
    x, y = max(0, (width - keep) // 2), max(0, (height - keep) // 2)
    return image.crop((x, y, x + min(width, keep), y + min(height, keep)))


def _fastest(device: str) -> str:
    import torch

    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    # Emulated bfloat16 is slower than float32, so only real instructions count.
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    native = any(vars(torch.cpu).get(name, bool)() for name in probes)  # private
    return "bfloat16" if device == "cpu" and native else "float32"
