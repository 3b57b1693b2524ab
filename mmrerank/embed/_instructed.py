"""Embedders that are vision-language models with an instruction: one prompt, one vector.

What distinguishes them is data (`Form`) and goes into the fingerprint. The models run in `mmrerank.vl`.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from mmrerank.embed._mix import decoded, unit, without
from mmrerank.errors import MismatchError, ModelError, UsageError
from mmrerank.paths import expanded, looked_at
from mmrerank.ports import Embedder, Vectors
from mmrerank.types import Query
from mmrerank.vl.llava import MODEL_TYPES as LLAVA
from mmrerank.vl.llava import Llava
from mmrerank.vl.load import HEADLESS, Checkpoint, load, weights_digest
from mmrerank.vl.prompts import PIXELS_VERSION
from mmrerank.vl.qwen import QwenVL


@dataclass(frozen=True, kw_only=True)
class Form:
    """How a family of models is asked for a vector.

    ``image``, ``text`` and ``both`` are what the user's turn says of an image, of words, and of images with
    words; images stand first, ``{text}`` and ``{instruction}`` are filled in. ``instructions`` by kind of
    query (``document`` for what is indexed) stand where ``role`` says. The vector is the state of the
    ``pooling`` token of the last layer, cut to the first numbers where fewer are asked for, and scaled
    by ``norm``.
    """

    image: str
    text: str
    both: str
    role: Literal["user", "system"]
    instructions: Mapping[str, str] = field(default_factory=dict)
    full_stop: bool = False
    pooling: Literal["last"] = "last"
    norm: Literal["l2"] = "l2"
    image_tokens: int


class InstructedEmbedder(Embedder):
    """A vision-language model as an embedder (`mmrerank.ports.Embedder`). Made by the plug-ins' ``open``."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        form: Form,
        *,
        spec: str,
        fingerprint: str,
        dim: int | None = None,
        batch_size: int,
    ) -> None:
        if batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, not {batch_size}")
        self._model = (Llava if checkpoint.family in LLAVA else QwenVL)(checkpoint)
        width = self._model.width
        if dim is not None and not 1 <= dim <= width:
            raise ModelError(f"{spec}: a vector of this model has 1 to {width} numbers, not {dim}")
        self.spec = spec
        self.domain = ""
        self.dim = dim or width
        self._form, self._batch_size = form, batch_size
        self.fingerprint = fingerprint

    def embed_images(self, images: Sequence[Any]) -> Vectors:
        """Unit vectors ``(n, dim)`` of RGB ``PIL.Image``."""
        turns = self._turns(1, "", "document", "")
        return self._embed([(turns, [image]) for image in images])

    def embed_queries(self, queries: Sequence[Query]) -> Vectors:
        """Unit vectors ``(n, dim)``, words and images of a query read together.

        Words to exclude are embedded alone, and half of their direction is taken away. A query's own
        ``instruction`` replaces the usual one. Raises `ImageError` when an image cannot be decoded.
        """
        rows = [self._row(q) for q in queries]
        excluded = [t.strip() for q in queries for t in q.exclude if t.strip()]
        rows += [self._row(Query(text=t)) for t in excluded]
        vectors = self._embed(rows)
        less = iter(vectors[len(queries) :])
        found = [
            without(vector, [next(less) for t in query.exclude if t.strip()])
            for query, vector in zip(queries, vectors, strict=False)
        ]
        return np.stack(found).astype(np.float32) if found else vectors

    def _row(self, query: Query) -> tuple[list[dict[str, Any]], list[Any]]:
        images = decoded(query)
        return self._turns(len(images), query.words, query.kind, query.instruction), images

    def _turns(self, images: int, words: str, kind: str, instruction: str) -> list[dict[str, Any]]:
        form, defuse = self._form, self._defuse
        given = instruction.strip() or form.instructions.get(kind, "")
        if form.full_stop and given and not unicodedata.category(given[-1]).startswith("P"):
            given += "."
        template = form.both if images and words else form.image if images else form.text
        text = template.format(text=defuse(words), instruction=defuse(given))
        content: list[dict[str, Any]] = [{"type": "image"} for _ in range(images)]
        content += [{"type": "text", "text": text}] if text else []
        turns: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if form.role == "system" and given:
            system = {"role": "system", "content": [{"type": "text", "text": defuse(given)}]}
            turns.insert(0, system)
        return turns

    def _defuse(self, text: str) -> str:
        model = self._model
        return model.prompts.defuse(text) if isinstance(model, QwenVL) else model.defuse(text)

    def _embed(self, rows: Sequence[tuple[list[dict[str, Any]], Sequence[Any]]]) -> Vectors:
        import torch

        found = np.zeros((len(rows), self.dim), dtype=np.float32)
        run = self._qwen if isinstance(self._model, QwenVL) else self._llava
        with torch.inference_mode():
            for first in range(0, len(rows), self._batch_size):
                part = rows[first : first + self._batch_size]
                # left padding: the last token of every row stands at the end
                states = run(part)[:, -1].cpu().numpy()
                found[first : first + len(part)] = unit(states[:, : self.dim])
        return found

    def _qwen(self, rows: Sequence[tuple[list[dict[str, Any]], Sequence[Any]]]) -> Any:
        model: Any = self._model
        prompts = [
            model.prompts.assemble(
                model.prompts.apply(turns),
                [model.prompts.prepare(i, self._form.image_tokens) for i in images],
            )
            for turns, images in rows
        ]
        with model.lock:
            return model.hidden(model.collate(prompts))

    def _llava(self, rows: Sequence[tuple[list[dict[str, Any]], Sequence[Any]]]) -> Any:
        model: Any = self._model
        texts = [model.apply(turns) for turns, _ in rows]
        with model.lock:
            return model.hidden(texts, [i for _, images in rows for i in images])


def opened(
    plugin: str,
    name: str,
    form: Form,
    types: Mapping[str, str],
    *,
    device: str | None,
    precision: str | None,
    batch_size: int,
    before: str = "",
    dim: int | None = None,
    expect: str = "",
    trust_remote_code: bool = False,
) -> InstructedEmbedder:
    """The embedder ``plugin:[before]name[@dim]``, its path made absolute.

    Its fingerprint is known, and compared with ``expect``, before any weights are loaded. Raises `ModelError`
    and `MismatchError`.
    """
    folder = expanded(name)
    with looked_at(folder, "the model folder", ModelError):
        place = str(folder.resolve()) if name.strip() and folder.is_dir() else name
    fingerprint = ""

    def compare(config: Any, processor: Any) -> None:
        nonlocal fingerprint
        width = int(config.get_text_config().hidden_size)
        fingerprint = _fingerprint(place, processor, form, dim or width)
        if expect and fingerprint != expect:
            raise MismatchError(f"the files have the fingerprint {fingerprint[:19]}, not {expect[:19]}")

    checkpoint = load(
        place,
        device=device,
        dtype=precision,
        types=types,
        spare=HEADLESS,
        trust_remote_code=trust_remote_code,
        before=compare,
    )
    spec = f"{plugin}:{before}{place}" + (f"@{dim}" if dim else "")
    return InstructedEmbedder(
        checkpoint, form, spec=spec, fingerprint=fingerprint, dim=dim, batch_size=batch_size
    )


def _fingerprint(place: str, processor: Any, form: Form, dim: int) -> str:
    identity = {
        "weights": weights_digest(place),
        "form": asdict(form),
        "dim": dim,
        "chat template": vars(processor).get("chat_template"),
        "images": processor.image_processor.to_dict(),
        "pixels": PIXELS_VERSION,
    }
    body = json.dumps(identity, sort_keys=True, default=str).encode()
    return f"sha256:{hashlib.sha256(body).hexdigest()}"
