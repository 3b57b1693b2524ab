"""An embedder that is known by what an index says of it, and opened when the first image needs it.

An index whose images have not changed is brought up to date without a model.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmrerank.errors import MismatchError
from mmrerank.ports import Embedder, Vectors
from mmrerank.types import Query


class LaterEmbedder(Embedder):
    """Stands for the embedder that ``opener`` opens, whose spec, fingerprint and width are known already.

    ``prepares`` says whether that embedder prepares images. ``opened`` is the real one, None until it was
    needed. What needs it raises what ``opener`` raises, and `MismatchError` where it has another fingerprint.
    """

    def __init__(
        self,
        opener: Callable[[], Embedder],
        *,
        spec: str,
        fingerprint: str,
        dim: int,
        domain: str = "",
        prepares: bool = False,
    ) -> None:
        self.spec, self.fingerprint, self.dim = spec, fingerprint, dim
        self.domain, self.prepares = domain, prepares
        self.opened: Embedder | None = None
        self._opener, self._lock = opener, threading.Lock()

    def _real(self) -> Embedder:
        with self._lock:  # threads prepare images at once
            if self.opened is None:
                found = self._opener()
                if found.fingerprint != self.fingerprint or found.dim != self.dim:
                    raise MismatchError(
                        f"the index was made with {self.spec} ({self.fingerprint[:19]}, {self.dim}-d), whose "
                        f"weights, prompt or preprocessing are now others ({found.fingerprint[:19]}, "
                        f"{found.dim}-d); bring those back, or index again with --rebuild"
                    )
                self.opened = found
            return self.opened

    def prepare(self, image: Any) -> Any:
        """As the real one."""
        return self._real().prepare(image)

    def text_tower(self) -> Mapping[str, bytes]:
        """As the real one, where that is open: no model is opened for it."""
        return self.opened.text_tower() if self.opened is not None else {}

    def embed_images(self, images: Sequence[Any]) -> Vectors:
        """As the real one."""
        return self._real().embed_images(images)

    def embed_queries(self, queries: Sequence[Query]) -> Vectors:
        """As the real one."""
        return self._real().embed_queries(queries)
