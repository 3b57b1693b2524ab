"""How open_clip prepares an image, in two steps: small whole numbers in the threads, floats in the batch.

The pixels are those of open_clip's own transform to the last bit. A resize by torch is three times as fast
and is not used: it rounds one pixel in 300 to the next level, which would be another preprocessing under the
same fingerprint.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from mmrerank.embed import _open_clip_part as _open_clip
from mmrerank.errors import ModelError


class Transform:
    """open_clip's image transform, made when the first image comes: texts do without torchvision.

    Safe to use from several threads.
    """

    def __init__(self, preprocess: Any) -> None:
        self._preprocess = preprocess
        self._made: Any = None
        self._lock = threading.Lock()

    def __call__(self, image: Any) -> Any:
        """The tensor ``(3, h, w)`` of float32 that open_clip makes of an RGB image."""
        return self._steps()(image)

    def pixels(self, image: Any) -> Any:
        """The resized and cropped tensor ``(3, h, w)`` of uint8: a quarter of the memory."""
        import torch

        for step in self._steps().transforms[:-2]:
            image = step(image)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)

    def normalised(self, pixels: Any) -> Any:
        """The tensor ``(n, 3, h, w)`` of float32 that the model takes, of a batch of `pixels`."""
        import torch

        scale = self._steps().transforms[-1]
        mean, deviation = (
            torch.tensor(each, dtype=torch.float32, device=pixels.device).view(-1, 1, 1)
            for each in (scale.mean, scale.std)
        )
        return pixels.to(torch.float32).div_(255).sub_(mean).div_(deviation)

    def _steps(self) -> Any:
        with self._lock:
            if self._made is None:
                made = _open_clip.image_transform(self._preprocess)
                last = [type(step).__name__ for step in made.transforms[-2:]]
                if last != ["MaybeToTensor", "Normalize"]:
                    raise ModelError(
                        f"this open_clip ends its image transform with {last}, where MaybeToTensor and "
                        "Normalize are expected; install the open_clip_torch of constraints.txt"
                    )
                self._made = made
        return self._made
