"""Embedders that are vision-language models with an instruction: one prompt, one vector.

What distinguishes them is data (`mmrerank.embed._form.Form`) and goes into the fingerprint. The models run in
`mmrerank.vl`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from mmrerank.embed._form import Asked, Form, Pixels
from mmrerank.embed._mix import decoded, mix, unit, without
from mmrerank.embed._pixels import prepared
from mmrerank.errors import MismatchError, ModelError, UsageError
from mmrerank.images import decode
from mmrerank.paths import expanded, looked_at
from mmrerank.ports import Embedder, Vectors
from mmrerank.types import Image, Query
from mmrerank.vl.llava import MODEL_TYPES as LLAVA
from mmrerank.vl.llava import Llava
from mmrerank.vl.load import HEADLESS, Checkpoint, folder_of, load, tokenizer_digest, weights_digest
from mmrerank.vl.model_folder import json_file
from mmrerank.vl.prompts import PIXELS_VERSION
from mmrerank.vl.qwen import QwenVL

FORM_VERSION = 2
"""Raised when a vector starts to be another for the same form, such as by a mended pooling."""
_PICTURE = Image(data=b"")  # stands for an image that is at hand already
_UNSAID = frozenset({"_name_or_path", "transformers_version", "torch_dtype", "dtype", "auto_map"})
"""Entries of a ``config.json`` that no vector depends on."""
Row = tuple[Asked, Sequence[Any]]


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
        text_weight: float = 0.5,
        place: str = "",
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
        self._form, self._batch_size, self._text_weight = form, batch_size, text_weight
        self.fingerprint = fingerprint
        self.place, self.lists = place, not form.apart

    def embed_images(self, images: Sequence[Any]) -> Vectors:
        """Unit vectors ``(n, dim)`` of RGB ``PIL.Image``."""
        asked = self._form.write(Query(images=(_PICTURE,)), document=True, defuse=self._defuse)
        return self._embed([(asked, [image]) for image in images])

    def embed_queries(self, queries: Sequence[Query]) -> Vectors:
        """Unit vectors ``(n, dim)``, words and images of a query read together.

        Words to exclude are embedded alone, and half of their direction is taken away. A query's own
        ``instruction`` replaces the usual one, where the form has any. Raises `ImageError` when an image
        cannot be decoded.
        """
        if self._form.apart:
            return self._mixed(queries, document=False)
        excluded = [t.strip() for q in queries for t in q.exclude if t.strip()]
        rows = self._rows([*queries, *(Query(text=t) for t in excluded)], document=False)
        vectors = self._embed(rows)
        less = iter(vectors[len(queries) :])
        found = [
            without(vector, [next(less) for t in query.exclude if t.strip()])
            for query, vector in zip(queries, vectors, strict=False)
        ]
        return np.stack(found).astype(np.float32) if found else vectors

    def embed_documents(self, documents: Sequence[Query]) -> Vectors:
        """Unit vectors ``(n, dim)`` of what is found: words, images, or both read together."""
        if self._form.apart:
            return self._mixed(documents, document=True)
        return self._embed(self._rows(documents, document=True))

    def embed_after(self, query: Query, images: Sequence[Image]) -> Vectors:
        """The unit vector ``(dim,)`` of ``query`` read after ``images`` (E2Rank's listwise prompt)."""
        asked = self._form.write(query, before=len(images), defuse=self._defuse)
        found: Vectors = self._embed([(asked, [*map(decode, images), *decoded(query)])])[0]
        return found

    def _mixed(self, queries: Sequence[Query], *, document: bool) -> Vectors:
        def texts(words: Sequence[str]) -> Vectors:
            return self._embed(self._rows([Query(text=w) for w in words], document=document))

        return mix(queries, texts, self.embed_images, text_weight=self._text_weight)

    def _rows(self, queries: Sequence[Query], *, document: bool) -> list[Row]:
        write = self._form.write
        return [(write(q, document=document, defuse=self._defuse), decoded(q)) for q in queries]

    def _defuse(self, text: str) -> str:
        model = self._model
        return model.prompts.defuse(text) if isinstance(model, QwenVL) else model.defuse(text)

    def _embed(self, rows: Sequence[Row]) -> Vectors:
        import torch

        found = np.zeros((len(rows), self.dim), dtype=np.float32)
        run = self._qwen if isinstance(self._model, QwenVL) else self._llava
        with torch.inference_mode():
            for first in range(0, len(rows), self._batch_size):
                part = rows[first : first + self._batch_size]
                states = run(part).cpu().numpy()
                found[first : first + len(part)] = unit(states[:, : self.dim])
        return found

    def _qwen(self, rows: Sequence[Row]) -> Any:
        """The pooled states (B, width) of a Qwen-VL model."""
        model: Any = self._model
        form, processor = self._form, model.processor.image_processor
        prompts = [
            model.prompts.assemble(
                model.prompts.apply(asked.turns) if form.chat else asked.text,
                [prepared(i, form.pixels or Pixels(limits="own"), processor) for i in images],
                add_special_tokens=True,
                flat=form.positions == "flat",
            )
            for asked, images in rows
        ]
        with model.lock:
            batch = model.collate(prompts)
            states = model.hidden(batch)
        # left padding: the last token of every row stands at the end
        if form.pooling == "last":
            return states[:, -1]
        return _mean(states, batch.ids, batch.mask, model.model.config)

    def _llava(self, rows: Sequence[Row]) -> Any:
        model: Any = self._model
        texts = [model.apply(asked.turns) if self._form.chat else asked.text for asked, _ in rows]
        with model.lock:
            return model.hidden(texts, [i for _, images in rows for i in images])[:, -1]


def _mean(states: Any, ids: Any, mask: Any, config: Any) -> Any:
    """Means (B, width) over each row's tokens; of an image, over those from its start to its end."""
    start, end = (ids == config.vision_start_token_id), (ids == config.vision_end_token_id)
    # after the first start, and not after the last end
    inside = (start.cumsum(1) > 0) & (end.flip(1).cumsum(1).flip(1) > 0)
    counted = inside.where(start.any(1, keepdim=True), mask.bool()).to(states.dtype).unsqueeze(-1)
    return (states * counted).sum(1) / counted.sum(1)


def shortened(plugin: str, rest: str) -> tuple[str, int | None]:
    """``PATH_OR_NAME[@DIM]`` in two. Raises `UsageError` for a dimension that is no number."""
    name, at, number = rest.rpartition("@")
    if at and not number.isdecimal():
        raise UsageError(
            f"{number!r} is no dimension; write {plugin}:PATH_OR_NAME[@DIM], as in {plugin}:{name}@256"
        )
    return (name, int(number)) if at else (rest, None)


def opened(
    plugin: str,
    name: str,
    form: Form | Mapping[str, Form],
    types: Mapping[str, str],
    *,
    device: str | None,
    precision: str | None,
    batch_size: int,
    before: str = "",
    dim: int | None = None,
    expect: str = "",
    trust_remote_code: bool = False,
    text_weight: float = 0.5,
    adapt: Callable[[Checkpoint], None] | None = None,
    extra: Callable[[str], str] | None = None,
) -> InstructedEmbedder:
    """The embedder ``plugin:[before]name[@dim]``, its path made absolute.

    ``form`` may differ by model type. Its fingerprint is known, and compared with ``expect``, before any
    weights are loaded; ``extra`` adds to it. ``adapt`` changes the loaded weights. Raises `ModelError` and
    `MismatchError`.
    """
    folder = expanded(name)
    with looked_at(folder, "the model folder", ModelError):
        place = str(folder.resolve()) if name.strip() and folder.is_dir() else name
    fingerprint = ""
    chosen = form if isinstance(form, Form) else next(iter(form.values()))

    def compare(config: Any, processor: Any) -> None:
        nonlocal fingerprint, chosen
        chosen = form if isinstance(form, Form) else form[config.model_type]
        width = int(config.get_text_config().hidden_size)
        more = extra(place) if extra is not None else ""
        fingerprint = _fingerprint(place, processor, chosen, dim or width, more)
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
        template=False,
    )
    if chosen.chat and vars(checkpoint.processor).get("chat_template") is None:
        raise ModelError(f"{name} has no chat template, which its prompt needs; copy the whole checkpoint")
    if adapt is not None:
        adapt(checkpoint)
    spec = f"{plugin}:{before}{place}" + (f"@{dim}" if dim else "")
    return InstructedEmbedder(
        checkpoint,
        chosen,
        spec=spec,
        fingerprint=fingerprint,
        dim=dim,
        place=place,
        batch_size=batch_size,
        text_weight=text_weight,
    )


def _fingerprint(place: str, processor: Any, form: Form, dim: int, extra: str) -> str:
    config = json_file(folder_of(place) / "config.json")
    identity = {
        "weights": weights_digest(place),
        "config": {k: v for k, v in config.items() if k not in _UNSAID},
        "tokenizer": tokenizer_digest(place),
        "form": asdict(form),
        "form version": FORM_VERSION,
        "dim": dim,
        "chat template": vars(processor).get("chat_template") if form.chat else "",
        "images": processor.image_processor.to_dict(),
        "pixels": PIXELS_VERSION,
        "extra": extra,
    }
    body = json.dumps(identity, sort_keys=True, default=str).encode()
    return f"sha256:{hashlib.sha256(body).hexdigest()}"
