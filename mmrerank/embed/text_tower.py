"""A text tower beside an index: words are embedded by ONNX Runtime, and nothing of torch is loaded.

Holds three files: the tower, the vocabulary, and what both are of. `mmrerank.embed._text_tower_make` writes
them. Embeds no image: a query with one opens the whole model.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmrerank.embed import _text_tower_check
from mmrerank.embed._mix import mix, unit
from mmrerank.embed._model_files import is_folder, place
from mmrerank.embed._open_clip_identity import sha256
from mmrerank.embed._text_tokens import Rules, TextTokens, counted, rules_of
from mmrerank.errors import ModelError
from mmrerank.paths import looks_like_path
from mmrerank.ports import Embedder, Vectors
from mmrerank.types import Query

TOWER, VOCABULARY, FACTS = "tower.onnx", "tokenizer.json", "tower.json"
FORMAT = 1
_LOCAL = "local-dir:"
_AT_A_TIME = 32  # texts


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A file of a model: its name in the model's folder, its bytes, when it changed, and its hash."""

    name: str
    bytes: int
    changed: int  # nanoseconds
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a tower is of. ``weights`` are the model's files where it is a folder or file of a machine, so
    that others in their place are noticed.
    """

    fingerprint: str
    dim: int
    rules: Rules
    weights: tuple[Weights, ...] = ()
    domain: str = ""
    format: int = FORMAT


class TextTower(Embedder):
    """An `Embedder` of words. ``whole`` opens the model that the tower is of, for queries with images."""

    def __init__(
        self,
        files: Mapping[str, bytes],
        facts: Facts,
        *,
        spec: str,
        domain: str,
        whole: Callable[[], Embedder],
    ) -> None:
        self.spec = spec
        self.fingerprint, self.dim = facts.fingerprint, facts.dim
        self.domain = domain
        self._whole: Embedder | None = None
        self._open = whole
        self._lock = threading.Lock()
        try:
            self._tokens = TextTokens(facts.rules, files[VOCABULARY])
            self._session = session(files[TOWER])
        except (KeyError, ValueError) as error:
            raise ModelError(f"the text tower cannot be used: {error}") from error

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors ``(n, dim)``; what exceeds the model's context length is cut off at its end."""
        parts = [np.zeros((0, self.dim), dtype=np.float32)]
        for start in range(0, len(texts), _AT_A_TIME):
            with self._lock:  # the vocabulary is set up anew for each call
                ids = self._tokens(texts[start : start + _AT_A_TIME])
            parts.append(run(self._session, ids, self.dim))
        return unit(np.concatenate(parts))

    def embed_queries(self, queries: Sequence[Query]) -> Vectors:
        """Unit vectors ``(n, dim)``; `mmrerank.embed._mix.mix` says how words combine."""
        if any(q.images for q in queries):
            return self.whole().embed_queries(queries)
        none = np.zeros((0, self.dim), dtype=np.float32)
        return mix(queries, self.embed_texts, lambda _: none, text_weight=1.0)

    def embed_images(self, images: Sequence[Any]) -> Vectors:
        """Unit vectors ``(n, dim)`` by the whole model."""
        return self.whole().embed_images(images)

    def overlong(self, text: str) -> tuple[int, int] | None:
        """How many tokens ``text`` has and how many the text tower reads; None where it is read whole."""
        with self._lock:
            return overlong(self._tokens, text)

    def whole(self) -> Embedder:
        """The model that the tower is of, opened once."""
        with self._lock:
            if self._whole is None:
                self._whole = self._open()
            return self._whole


def overlong(tokens: Any, text: str) -> tuple[int, int] | None:
    """`Embedder.overlong` of one of open_clip's tokenizers, or of `TextTokens`."""
    limit = tokens.context_length
    room = len(text.encode("utf-8", "replace")) + 8  # no token is shorter than a byte
    if not limit or room <= limit:
        return None
    row, blank = tokens([text, ""], room).tolist()
    count = counted(row, blank[-1])
    return (count, limit) if count > limit else None


def session(data: bytes) -> Any:
    """The tower in ``data``, ready to run. Raises `ModelError` for what is none, or more than one."""
    import onnxruntime

    try:
        _text_tower_check.check(data)
    except ValueError as error:
        raise ModelError(f"the text tower is refused: {error}") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # one query does not repay what improving the graph and packing its weights takes
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_prepacking", "1")
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own classes share no other base
        raise ModelError(f"the text tower cannot be loaded: {str(error)[:300]}") from error


def run(tower: Any, ids: Any, dim: int) -> Vectors:
    """What the tower makes of ``ids`` ``(n, context)``: ``(n, dim)``. Raises `ModelError`."""
    try:
        (found,) = tower.run(None, {tower.get_inputs()[0].name: ids})
    except Exception as error:  # as above
        raise ModelError(f"the text tower fails: {str(error)[:300]}") from error
    vectors = np.asarray(found)
    if vectors.shape != (len(ids), dim) or vectors.dtype != np.float32 or not np.isfinite(vectors).all():
        raise ModelError(
            f"the text tower gave {vectors.dtype} {vectors.shape}, not ({len(ids)}, {dim}) numbers"
        )
    return vectors


def facts_of(data: bytes) -> Facts:
    """The facts in `FACTS`. Raises `ModelError` for what are none."""
    try:
        body = json.loads(data)
        rules = rules_of(body.pop("rules"))
        weights = tuple(Weights(**w) for w in body.pop("weights"))
        facts = Facts(rules=rules, weights=weights, **body)
        kinds = {(type(w.name), type(w.bytes), type(w.changed), type(w.sha256)) for w in weights}
        kinds |= {(type(facts.fingerprint), type(facts.dim), type(facts.format), type(facts.domain))}
        if kinds != {(str, int, int, str)} or facts.format != FORMAT:
            raise ValueError(f"format {facts.format}, {kinds}")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ModelError(f"the text tower's {FACTS} cannot be read: {error}") from error
    return facts


def named(rest: str) -> tuple[str, Path | None]:
    """What ``open_clip:REST`` names, written as the index remembers it, and where it is on this machine."""
    rest = rest.strip()
    if rest.startswith("hf-hub:"):
        return rest, None
    folder = rest.removeprefix(_LOCAL)
    if folder != rest or (looks_like_path(rest) and is_folder(rest)):
        return f"{_LOCAL}{place(folder)}", place(folder)
    arch, _, tag = rest.partition(":")
    arch = arch.replace("/", "-")
    return (f"{arch}:{place(tag)}", place(tag)) if looks_like_path(tag) else (f"{arch}:{tag}", None)


def weights_of(path: Path | None) -> tuple[Weights, ...]:
    """``path``, or each file in it; none for None. Raises `OSError`."""
    return tuple(
        Weights(name=name, bytes=size, changed=changed, sha256=sha256(file))
        for name, (file, size, changed) in _looked_at(path).items()
    )


def are_there(weights: tuple[Weights, ...], path: Path | None) -> bool:
    """Whether ``path`` holds these files and no others; one with another time is read. Raises `OSError`."""
    found = _looked_at(path)
    return found.keys() == {w.name for w in weights} and all(
        size == known.bytes and (changed == known.changed or sha256(file) == known.sha256)
        for known in weights
        for file, size, changed in [found[known.name]]
    )


def _looked_at(path: Path | None) -> dict[str, tuple[Path, int, int]]:
    if path is None:
        return {}
    inside = path.is_dir()
    files = [f for f in sorted(path.iterdir()) if f.is_file()] if inside else [path]
    return {f.name if inside else "": (f, f.stat().st_size, f.stat().st_mtime_ns) for f in files}
