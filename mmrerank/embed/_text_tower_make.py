"""Exports the text tower of an open_clip model, and compares what was made with the model itself.

Imported when an index is made, never for a search. Keeps nothing that does not agree.
"""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from mmrerank.embed._mix import unit
from mmrerank.embed._text_tokens import CLEANS, MARKS, Rules, TextTokens
from mmrerank.embed.text_tower import FACTS, TOWER, VOCABULARY, Facts, named, run, session, weights_of
from mmrerank.errors import ModelError
from mmrerank.loading import loading
from mmrerank.ports import Vectors

LARGEST = 1_900_000_000
"""Bytes of a tower's weights in float32: an ONNX file has room for two gigabytes."""
TOLERANCE = {"float32": (0.9999, 0.002), "bfloat16": (0.995, 0.05), "float16": (0.999, 0.02)}
"""By the precision of the model: the least cosine, and the largest difference of a number of a unit vector.
The tower itself always computes in float32."""
_ODD = (
    "", " ", "\n\t ", "a", "A RED BOAT", "Zürich, Österreich", "naïve café", "nai\u0308ve cafe\u0301",
    "日本の寺", "красная лодка", "قارب أحمر", "एक लाल नाव", "🐶🏖️ on a beach", "👩‍👩‍👧‍👦",
    "don't, we'll, it's", "&amp;amp; &lt;b&gt;", "â€œquotesâ€\x9d", "100,000 km² in 2024",
    "<start_of_text> <end_of_text>", "tab\tand\r\nline", "\u200bzero\ufeffwidth", "ﬁne ﬂow Ⅷ ½",
    "-- !? ... ///", "x" * 300, "a long walk on a beach " * 40, "寺" * 90, "\x00\x1b[31mred",
)  # fmt: skip
_THINGS = ("dog", "red boat", "lighthouse at dawn", "child with an umbrella", "bowl of noodles")
_FORMS = (
    "a photo of a {}", "{}", "A {} IN THE RAIN", "two {}s beside a river", "the same {}, but at night",
    "a {} without people", "close-up of a {}, 35mm", "où est le {} ?", "ein {} im Schnee", "{} 🌊",
    "a drawing of a {}", "{}; {}; {}", "an old {}", "many {}s", "no {}",
)  # fmt: skip
TEXTS = (*_ODD, *(form.format(*[thing] * 3) for form in _FORMS for thing in _THINGS))
"""Whose tokens are compared; of every sixth, the vectors too."""
_SIXTH = slice(None, None, 6)


def make(
    model: Any, tokenizer: Any, *, name: str, facts: dict[str, Any], dtype: str,
    embed: Callable[[Sequence[str]], Vectors],
) -> dict[str, bytes]:  # fmt: skip
    """The files of a text tower, by name.

    ``model`` and ``tokenizer`` are open_clip's, ``name`` stands behind ``open_clip:``, ``facts`` are
    fingerprint, dim and domain, and ``embed`` is what the tower must agree with, in ``dtype``. Raises
    `ModelError` with the reason where there is no tower, or none that agrees.
    """
    rules, vocabulary = _written(tokenizer)
    tokens = TextTokens(rules, vocabulary)
    theirs = np.asarray(tokenizer(list(TEXTS)))
    if (differ := np.flatnonzero((tokens(TEXTS) != theirs).any(axis=1))).size:
        raise ModelError(f"its tokens of {TEXTS[differ[0]][:40]!r} are others than the model's")
    data = _exported(model, theirs[:2])
    made = unit(run(session(data), theirs[_SIXTH], int(facts["dim"])))
    _compare(made, embed(TEXTS[_SIXTH]), dtype)
    try:
        weights = weights_of(named(name)[1])
    except OSError as error:
        raise ModelError(f"the files of {name} cannot be looked at: {error}") from error
    known = dataclasses.asdict(Facts(rules=rules, weights=weights, **facts))
    return {TOWER: data, VOCABULARY: vocabulary, FACTS: json.dumps(known, indent=1).encode()}


def _compare(made: Vectors, wanted: Vectors, dtype: str) -> None:
    least, most = TOLERANCE[dtype]
    cosine = float((made * wanted).sum(axis=1).min())
    difference = float(np.abs(made - wanted).max())
    if not (cosine >= least and difference <= most):
        raise ModelError(
            f"it does not agree with the model: cosine {cosine:.6f} (at least {least}), "
            f"difference {difference:.6f} (at most {most})"
        )


def _exported(model: Any, ids: Any) -> bytes:
    """The text tower of ``model`` in float32 as ONNX, for any number of texts."""
    import torch

    # everything but the images' tower
    text = copy.deepcopy(model, {id(model.visual): None}).to(device="cpu", dtype=torch.float32).eval()
    if (size := 4 * sum(p.numel() for p in text.parameters())) > LARGEST:
        raise ModelError(f"its weights take {size:,} bytes, and an ONNX file has room for {LARGEST:,}")

    class Texts(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.text = text

        def forward(self, ids: Any) -> Any:
            return self.text.encode_text(ids)

    file: Any = io.BytesIO()  # its annotation knows the new exporter alone
    with loading(), _without_onnx(), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # that this exporter is the old one; the new one takes more packages
        try:
            torch.onnx.export(
                Texts(), (torch.as_tensor(ids),), file, dynamo=False, opset_version=17,
                input_names=["ids"], output_names=["vectors"],
                dynamic_axes={"ids": {0: "texts"}, "vectors": {0: "texts"}},
            )  # fmt: skip
        except Exception as error:  # tracing runs the model's code, and raises what that does
            line = " ".join(str(error).split())[:200]
            raise ModelError(f"it cannot be exported: {type(error).__name__}: {line}") from error
    made: bytes = file.getvalue()
    return made


@contextmanager
def _without_onnx() -> Iterator[None]:
    """Lets torch export where the package ``onnx`` is not installed.

    torch reads the finished model once more with it, only to look for functions of added libraries. A text
    tower has none, which `mmrerank.embed._text_tower_check` verifies.
    """
    try:
        import onnx  # type: ignore[import-not-found,unused-ignore]  # noqa: F401
    except ImportError:
        empty = ModuleType("onnx")
        vars(empty)["load_model_from_string"] = lambda _: SimpleNamespace(graph=SimpleNamespace(node=()))
        sys.modules["onnx"] = empty
        try:
            yield
        finally:
            del sys.modules["onnx"]
    else:
        yield


def _written(tokenizer: Any) -> tuple[Rules, bytes]:
    """The rules and the vocabulary of open_clip's ``tokenizer``. Raises `ModelError` for another kind."""
    kind = type(tokenizer).__name__
    clean = tokenizer.clean_fn.__name__.removeprefix("_clean_") if "clean_fn" in vars(tokenizer) else ""
    if clean not in CLEANS or not tokenizer.context_length:
        raise ModelError(f"its tokenizer {kind} is not known")
    common: dict[str, Any] = {"clean": clean, "context": int(tokenizer.context_length)}
    if kind == "SimpleTokenizer":
        return _clip(tokenizer, common)
    if kind == "HFTokenizer":
        return _transformers(tokenizer, common)
    raise ModelError(f"its tokenizer {kind} is not known")


def _clip(tokenizer: Any, common: dict[str, Any]) -> tuple[Rules, bytes]:
    from tokenizers import Tokenizer, models

    ids = [tokenizer.encoder.get(mark) for mark in MARKS]
    if tokenizer.reduction_fn is not None or tokenizer.all_special_ids != ids:
        raise ModelError("its tokenizer has special tokens, or leaves out words by chance")
    bpe = models.BPE(
        vocab=tokenizer.encoder, merges=list(tokenizer.bpe_ranks), end_of_word_suffix="</w>"
    )  # fmt: skip
    written = Tokenizer(bpe).to_str().encode()
    return Rules(kind="clip", start=ids[0], end=ids[1], **common), written


def _transformers(tokenizer: Any, common: dict[str, Any]) -> tuple[Rules, bytes]:
    theirs = tokenizer.tokenizer
    if not theirs.is_fast:
        raise ModelError(f"its tokenizer {type(theirs).__name__} exists in Python only")
    vocabulary = theirs.backend_tokenizer.to_str().encode()
    clips = tokenizer.tokenizer_mode == "clips"
    if clips:
        common |= {"start": theirs.bos_token_id, "end": theirs.eos_token_id, "last": theirs.cls_token_id}
    rules = Rules(
        kind="clips" if clips else "hf",
        pad=theirs.pad_token_id,
        pad_token=str(theirs.pad_token),
        pad_type=theirs.pad_token_type_id,
        padding=theirs.padding_side,
        truncation=theirs.truncation_side,
        strip=theirs.sep_token_id if tokenizer.strip_sep_token else None,
        **common,
    )
    return rules, vocabulary
