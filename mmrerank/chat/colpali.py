"""ColPali, ColQwen2, ColModernVBERT: ``colpali:PATH_OR_NAME``, a vector for each token, for late interaction.

These models are trained for it: `multivector` with one of them is ColPali's own score, but for the mean in
the place of the sum over the search's tokens, which orders alike. A search goes through the processor's query
side (prefix and augmentation tokens), an image through its image side, and every token counts, as the authors
have it. The ``-hf`` checkpoints are read, such as ``vidore/colqwen2-v1.0-hf``. They answer nothing else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mmrerank.errors import ChatError, ImageError, InputError, UsageError
from mmrerank.images import decode
from mmrerank.images.budget import fit
from mmrerank.messages import Ask, Reply
from mmrerank.ports import Capability, Chat
from mmrerank.types import Image, Usage
from mmrerank.vl.load import Checkpoint, load

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORM = "colpali:PATH_OR_NAME"
TYPES = {"colpali": "ColPali", "colqwen2": "ColQwen2", "colmodernvbert": "ColModernVBERT"}


class LateInteraction(Chat):
    """A model of one vector a token. Safe to call from several threads; they take turns."""

    def __init__(self, checkpoint: Checkpoint, *, batch_size: int) -> None:
        if batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, not {batch_size}")
        self.spec = f"colpali:{checkpoint.name}"
        self.fingerprint = str(checkpoint.model.dtype)
        self.capabilities: frozenset[Capability] = frozenset({"token_embeddings"})
        self._model, self._processor = checkpoint.model, checkpoint.processor
        self._batch_size, self._lock = batch_size, threading.Lock()
        # pixels a side of a visual token, of families whose tokens grow with the image
        eyes = self._processor.image_processor.to_dict()
        self._side = int(eyes.get("patch_size") or 0) * int(eyes.get("merge_size") or 0)

    def reply(self, asks: Sequence[Ask]) -> list[Reply]:
        """One array ``(n, d)`` of unit rows for each ask: of its images, or without any of its last words."""
        pieces: list[tuple[int, Any]] = []  # the ask, and an image or words
        errors: dict[int, ChatError] = {}
        for n, ask in enumerate(asks):
            try:
                pieces += [(n, piece) for piece in self._shown(ask)]
            except (ImageError, InputError, OSError, ValueError) as error:
                why = f"an image of the question cannot be shown: {error}"
                errors[n] = ChatError(why, kind="image")
            except ChatError as error:
                errors[n] = error
        start = time.perf_counter()
        found: dict[int, list[NDArray[np.float32]]] = {}
        for words in (True, False):
            same = [(n, p) for n, p in pieces if isinstance(p, str) is words and n not in errors]
            for first in range(0, len(same), self._batch_size):
                part = same[first : first + self._batch_size]
                rows = self._embedded([p for _, p in part], words=words)
                for (n, _), row in zip(part, rows, strict=True):
                    found.setdefault(n, []).append(row)
        seconds = (time.perf_counter() - start) / max(len(asks), 1)
        return [self._answer(found.get(n, []), errors.get(n), a, seconds) for n, a in enumerate(asks)]

    def _shown(self, ask: Ask) -> list[Any]:
        if ask.read != "token_embeddings":
            raise ChatError(f"{self.spec} gives vectors of tokens and nothing else")
        images = [p.image for m in ask.messages for p in m.parts if p.image is not None]
        if images:
            return [self._picture(i, ask.image_tokens) for i in images]
        words = ask.messages[-1].text.strip() if ask.messages else ""
        if not words:
            raise ChatError("token embeddings are read of images or of the user's words; there are none")
        return [words]

    def _picture(self, image: Image, tokens: int) -> Any:
        picture = decode(image)
        return fit(picture, max_tokens=tokens, pixels_per_token=self._side**2) if self._side else picture

    def _embedded(self, items: Sequence[Any], *, words: bool) -> list[NDArray[np.float32]]:
        """Unit rows of each item's tokens, those of its prompt included."""
        import torch

        processor = self._processor
        batch = processor.process_queries(text=items) if words else processor.process_images(images=items)
        with self._lock, torch.inference_mode():
            batch = batch.to(self._model.device)
            states = self._model(**batch).embeddings.float().cpu().numpy()
        mask = batch["attention_mask"].bool().cpu().numpy()
        return [np.asarray(row[kept], dtype=np.float32) for row, kept in zip(states, mask, strict=True)]

    def _answer(
        self, rows: Sequence[NDArray[np.float32]], error: ChatError | None, ask: Ask, seconds: float
    ) -> Reply:
        if error is not None:
            return Reply(error=error, finish="error", usage=Usage(calls=1))
        images = sum(p.image is not None for m in ask.messages for p in m.parts)
        tokens = sum(len(r) for r in rows)
        usage = Usage(calls=1, input_tokens=tokens, images=images, seconds=seconds)
        return Reply(states=(np.concatenate(rows),), usage=usage)


def open(
    rest: str, *, device: str | None = None, dtype: str | None = None, batch_size: int = 8
) -> LateInteraction:
    """Loads ``PATH_OR_NAME``; ``device`` and ``dtype`` as in `mmrerank.vl.load.load`.

    Raises `ModelError` when there is no such model.
    """

    def kind() -> Any:
        from transformers import AutoModelForPreTraining

        return AutoModelForPreTraining

    made = load(rest, device=device, dtype=dtype, types=TYPES, template=False, kind=kind)
    return LateInteraction(made, batch_size=batch_size)


def revision(rest: str) -> str | None:
    """The commit of a hub name's weights in the local cache; None for a folder, or where there is none."""
    from mmrerank.chat.transformers import revision as commit

    return commit(rest)
