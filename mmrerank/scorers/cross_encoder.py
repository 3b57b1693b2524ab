"""Any multimodal CrossEncoder of Sentence Transformers: ``cross_encoder:PATH_OR_NAME``.

Needs sentence-transformers 5.4 or later (``pip install 'mmrerank[rerankers]'``). The model's own activation
decides what a score is: a sigmoid's is 0 to 1, and computed here in double precision, for in half precision
many are the same; without one, scores are logits.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmrerank import cancel
from mmrerank.chat.transformers import revision as revision
from mmrerank.errors import ChatError, InputError, MissingExtraError, ModelError, UsageError
from mmrerank.images import decode
from mmrerank.paths import expanded
from mmrerank.ports import Marks, Scorer
from mmrerank.scorers._files import fetched
from mmrerank.scorers._local import sigmoid
from mmrerank.types import Candidate, Image, Query
from mmrerank.vl.model_folder import check_folder, needs_code, there, without_questions

FORM = "cross_encoder:PATH_OR_NAME"
LEAST = (5, 4)
"""The version of sentence-transformers from which CrossEncoder reads images."""
_MODULES = re.compile(r"sentence_transformers(\.\w+)+")
_FILES = ["*.json", "*.jinja", "*.txt", "*.model", "*.safetensors", "*/*.json", "*/*.safetensors"]


class CrossEncoderScorer(Scorer):
    """``model`` is a `sentence_transformers.CrossEncoder`. Safe to call from several threads."""

    def __init__(self, model: Any, *, spec: str, batch_size: int, image_tokens: int, version: str) -> None:
        import torch

        if batch_size < 1 or image_tokens < 0:
            raise UsageError("batch_size must be at least 1, image_tokens 0 or more")
        self.model, self.spec = model, spec
        self.batch, self._image_tokens = batch_size, image_tokens
        self._lock = threading.Lock()
        activation = model.activation_fn
        self._sigmoid = isinstance(activation, torch.nn.Sigmoid)
        self.logits = isinstance(activation, torch.nn.Identity)
        self.image_tokens = image_tokens or self.image_tokens
        body = [version, str(model.dtype), repr(activation), image_tokens]
        self.fingerprint = hashlib.sha256(json.dumps(body).encode()).hexdigest()[:16]

    def score(self, query: Query, candidates: Sequence[Candidate], instruction: str = "") -> Sequence[float]:
        """The model's scores, NaN where a picture cannot be shown."""
        return self.marks(query, candidates, instruction).scores

    def marks(self, query: Query, candidates: Sequence[Candidate], instruction: str = "") -> Marks:
        """`score` with the reasons of what is NaN. Raises `InputError` for a picture of the query."""
        asked = self._half(query.text, query.images)
        pairs: dict[int, tuple[Any, Any]] = {}
        failures: dict[int, ChatError] = {}
        for n, candidate in enumerate(candidates):
            try:
                shown = () if candidate.image is None else (candidate.image,)
                pairs[n] = (asked, self._half(candidate.text or "", shown))
            except (InputError, OSError) as error:
                why = f"an image of the question cannot be shown: {error}"
                failures[n] = ChatError(why, kind="image")
        scores = [math.nan] * len(candidates)
        places = list(pairs)
        for start in range(0, len(places), self.batch):
            cancel.check()
            some = {p: pairs[p] for p in places[start : start + self.batch]}
            for place, value in self._read(some, instruction.strip()).items():
                if isinstance(value, ChatError):
                    failures[place] = value
                else:
                    scores[place] = value
        return Marks(scores=tuple(scores), failures=failures)

    def _half(self, text: str, images: Sequence[Image]) -> Any:
        """One side of a pair: words, a picture, or both by name."""
        pictures = [self._picture(image) for image in images]
        if not pictures:
            return text
        shown = pictures[0] if len(pictures) == 1 else pictures
        return {"image": shown, "text": text} if text else shown if len(pictures) == 1 else {"image": shown}

    def _picture(self, image: Image) -> Any:
        from mmrerank.images import fit

        picture = decode(image)
        return fit(picture, max_tokens=self._image_tokens) if self._image_tokens else picture

    def _read(self, pairs: Mapping[int, tuple[Any, Any]], prompt: str) -> dict[int, float | ChatError]:
        """Scores by place; where a batch fails, each of it by itself."""
        why = ""
        try:
            return dict(zip(pairs, self._predict(list(pairs.values()), prompt), strict=True))
        except Exception as error:  # a model of somebody's may raise anything, out of memory above all
            why = f"{self.spec} failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        if len(pairs) == 1:
            return dict.fromkeys(pairs, ChatError(why, kind="server"))
        return {place: v for p, pair in pairs.items() for place, v in self._read({p: pair}, prompt).items()}

    def _predict(self, pairs: list[tuple[Any, Any]], prompt: str) -> list[float | ChatError]:
        import torch

        more: dict[str, Any] = {"prompt": prompt} if prompt else {}
        if self._sigmoid:
            more["activation_fn"] = torch.nn.Identity()
        with self._lock:
            found = self.model.predict(
                pairs, batch_size=len(pairs), show_progress_bar=False, convert_to_tensor=True, **more
            )
        values = found.double().cpu().reshape(len(pairs), -1)
        if values.shape[1] != 1:
            raise ValueError(f"it gives {values.shape[1]} numbers a pair, and a reranker gives one")
        plain: list[float] = values[:, 0].tolist()
        read = [sigmoid(v) if self._sigmoid else v for v in plain]
        lost = ChatError(f"{self.spec}: the model's numbers overflowed; try dtype=bfloat16 or float32")
        return [v if math.isfinite(v) else lost for v in read]


def open(
    rest: str,
    *,
    device: str | None = None,
    dtype: str | None = None,
    batch_size: int = 8,
    image_tokens: int = 0,
    model_revision: str = "",
    trust_remote_code: bool = False,
) -> CrossEncoderScorer:
    """Loads ``PATH_OR_NAME`` with Sentence Transformers.

    ``device`` and ``dtype`` are torch's; ``batch_size`` pairs are read at once. ``image_tokens`` bounds a
    picture to so many times 28 x 28 pixels (0: as it is). ``model_revision`` is a branch or commit of a hub
    name, such as ``refs/pr/11``. ``trust_remote_code`` lets Python files of the checkpoint run, with a
    warning.
    Raises `MissingExtraError` without the package, `ModelError` when there is no such model.
    """
    version, encoder = _package()
    if not rest.strip():
        raise ModelError(f"no model was named; give {FORM}")
    folder = expanded(rest)
    if not folder.is_dir():
        folder = fetched(rest, [*_FILES, "*.py", "*/*.py"] if trust_remote_code else _FILES, model_revision)
    check_folder(folder, trust=trust_remote_code)
    _check_modules(folder, trust_remote_code)
    try:
        with without_questions():
            model = encoder(
                str(folder),
                device=device or None,
                trust_remote_code=trust_remote_code,
                local_files_only=True,
                model_kwargs={"use_safetensors": True, **({"dtype": dtype} if dtype else {})},
            )
    except Exception as error:  # a configuration can make the libraries raise anything
        text = " ".join(str(error).split())[:300]
        hint = ""
        if not there(folder / "modules.json"):
            hint = (
                ". It has no modules.json, so it was not saved by Sentence Transformers: for "
                f"Qwen3-VL-Reranker use --chat qwen3_vl_reranker:{rest}, or a revision that has one "
                "(--chat-option model_revision=refs/pr/11)"
            )
        raise ModelError(needs_code(folder, error) or f"{rest} cannot be loaded: {text}{hint}") from error
    return CrossEncoderScorer(
        model, spec=f"cross_encoder:{rest}", batch_size=batch_size, image_tokens=image_tokens, version=version
    )


def _package() -> tuple[str, Any]:
    """The version of sentence-transformers and its CrossEncoder. Raises `MissingExtraError`."""
    try:
        import sentence_transformers
    except ImportError:
        raise MissingExtraError(
            "cross_encoder needs sentence-transformers 5.4 or later: pip install 'mmrerank[rerankers]'"
        ) from None
    version: str = sentence_transformers.__version__
    numbers = tuple(int(n) for n in re.findall(r"\d+", version)[:2])
    if numbers < LEAST:
        raise MissingExtraError(
            f"cross_encoder needs sentence-transformers 5.4 or later, and {version} is installed: "
            "pip install --upgrade 'mmrerank[rerankers]'"
        )
    return version, sentence_transformers.CrossEncoder


def _check_modules(folder: Path, trust: bool) -> None:
    """Raises `ModelError` where ``modules.json`` names classes that are not the library's own."""
    file = folder / "modules.json"
    if trust or not there(file):
        return
    try:
        rows = json.loads(file.read_text("utf-8"))
        types = [str(row["type"]) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{file} cannot be read ({error}); copy the checkpoint again") from error
    for name in types:
        if not _MODULES.fullmatch(name):
            raise ModelError(
                f"{file} names the class {name!r}, which is none of Sentence Transformers' own, and is not "
                "run; if you trust it, allow it with --chat-option trust_remote_code=true"
            )
