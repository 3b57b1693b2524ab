"""What a model's folder may ask for: data, never code. Looked at before a library opens the folder.

A folder's configurations name classes, files and other models. Here they are read first. What would load
another model or a class that is none of the library's own is an error; Python files are left alone, with a
warning. Symbolic links may lead elsewhere, as in the hub's cache: what they lead to is data too.
"""

from __future__ import annotations

import json
import os
import re
import threading
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmrerank.errors import ModelError
from mmrerank.paths import check_readable, reason, refused

MAX_CONFIG_BYTES = 64_000_000
"""The longest file of configuration that is read: the longest known tokenizer's has 35 MB, and any takes some
twenty times its length of memory. Nothing raises it but an edit here."""
CONFIGURATIONS = (
    *("config.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json"),
    *("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json"),
)
ALLOW = (
    "allow it with --chat-option trust_remote_code=true for a language model, --trust-remote-code for an "
    "embedder, trust_remote_code=True in Python"
)
QUANTISED = frozenset({"awq", "bitsandbytes", "compressed-tensors", "fp8", "gptq", "mxfp4"})
"""Kinds of quantised weights whose loaders read tensors and nothing else."""

_CHOOSES_CODE = frozenset(
    {
        *("auto_map", "custom_pipelines", "fusion_config", "distributed_config", "kernel_config"),
        *("attn_implementation", "_attn_implementation", "_attn_implementation_internal"),
        *("experts_implementation", "_experts_implementation", "_experts_implementation_internal"),
    }
)
"""Keys of a ``config.json`` that choose what computes. They are left out: what computes is chosen here."""
_CLASSES = {
    "tokenizer_class": r"\w+Tokenizer(Fast)?|PreTrainedTokenizerFast|\w+Backend",
    "processor_class": r"\w+Processor",
    "image_processor_type": r"\w+(ImageProcessor|FeatureExtractor)(Fast|Pil)?",
    "video_processor_type": r"\w+VideoProcessor",
    "feature_extractor_type": r"\w+(FeatureExtractor|ImageProcessor(Fast)?)",
}
"""Keys that name a class of the library, and what the name of one that reads files as data looks like."""
_OTHER_MODELS = {
    "adapter_config.json": "is an adapter, whose file names a model and modules; merge it into its model's "
    "weights and save those",
    "*.metadata": "is a distributed checkpoint, whose index is a pickle; save the weights as .safetensors",
    "shard-*-model-*": "is a distributed checkpoint; save its weights as one, or as numbered, .safetensors",
    "audio_tokenizer_config.json": "names another model to load, which no model here needs; delete that file",
}
_SHARD = re.compile(r"[^/\\]+\.safetensors(\.index\.json)?")
_loading = threading.RLock()


def check_folder(folder: Path, *, trust: bool = False) -> None:
    """Looks at what the files of ``folder`` ask for. Raises `ModelError` where that is more than data.

    With ``trust`` its Python files may run, and a warning says so; else one says that they do not.
    """
    for pattern, why in _OTHER_MODELS.items():
        for found in folder.glob(pattern):
            raise ModelError(f"{folder} {why}: there is {found.name} in it")
    coded = []
    for name in CONFIGURATIONS:
        if there(folder / name):
            body = json_file(folder / name)
            coded += [name] if _asks(folder / name, body, trust) else []
    for index in folder.glob("*.safetensors.index.json"):
        _check_index(folder, json_file(index), index)
    if trust:
        warn_of_code(folder)
    elif coded:
        warnings.warn(
            f"{folder} names Python files of its own ({', '.join(coded)}: auto_map), which are not run; if "
            f"you trust them, {ALLOW}",
            stacklevel=2,
        )


def warn_of_code(model: str | Path) -> None:
    """Says which model's Python files may run, and what that allows."""
    warnings.warn(
        f"trust_remote_code: Python files of {model} may run as your own code, and may read, change and send "
        "whatever you can",
        stacklevel=3,
    )


def there(path: Path) -> bool:
    """Whether there is such a file; True where nobody may look, so that reading it says why."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def json_file(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a model. Raises `ModelError`, for what is no plain file too."""
    check_readable(path)
    try:
        size = path.stat().st_size
        if size > MAX_CONFIG_BYTES:
            raise ModelError(f"{path} has {size:,} bytes; a configuration has at most {MAX_CONFIG_BYTES:,}")
        body = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if refused(error):
            raise ModelError(f"{path} cannot be read: {reason(error)}") from None
        raise ModelError(f"{path} cannot be read ({error}); copy the checkpoint again") from None
    if not isinstance(body, dict):
        raise ModelError(f"{path} cannot be read (it holds no object); copy the checkpoint again")
    return body


def plain(config: Any) -> Any:
    """A ``config.json`` without the keys that choose code, at any depth."""
    if isinstance(config, Mapping):
        return {k: plain(v) for k, v in config.items() if k not in _CHOOSES_CODE}
    return [plain(v) for v in config] if isinstance(config, list) else config


def check_pickled(path: Path) -> None:
    """Raises `ModelError` for pickled weights that are more than tensors, as far as that shows outside."""
    if os.environ.get("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"):
        raise ModelError(
            f"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is set, with which torch may run what is in {path}; unset it, "
            "or save the weights as .safetensors"
        )
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if packed := [e.filename for e in entries if e.compress_type != zipfile.ZIP_STORED]:
        raise ModelError(f"{path} cannot be loaded: {packed[0]!r} in it is compressed; torch packs nothing")
    if any("/code/" in e.filename or e.filename.endswith("/constants.pkl") for e in entries):
        raise ModelError(
            f"{path} cannot be loaded: it is a TorchScript archive, which holds code; save its state_dict as "
            ".safetensors"
        )


@contextmanager
def without_questions() -> Iterator[None]:
    """Within it transformers asks nobody whether code may run: what was not allowed is an error.

    It asks on stdin wherever ``trust_remote_code`` did not reach, such as for a model within a model.
    """
    from transformers import dynamic_module_utils

    names = vars(dynamic_module_utils)
    with _loading:
        before = names.get("TIME_OUT_REMOTE_CODE")
        names["TIME_OUT_REMOTE_CODE"] = 0  # the library's own way of not asking
        try:
            yield
        finally:
            names["TIME_OUT_REMOTE_CODE"] = before


@contextmanager
def template_of(model: str) -> Iterator[None]:
    """Within it, what a chat template must not do is a `ModelError`: the library runs it in a sandbox."""
    from jinja2 import TemplateError

    try:
        yield
    except TemplateError as error:
        raise ModelError(f"the chat template of {model} cannot be used: {error}") from error


def needs_code(folder: str | Path, error: Exception) -> str:
    """The message for ``error`` where it says that a model takes code of its own; else empty."""
    text = str(error)
    if "trust_remote_code" not in text and "custom code" not in text:
        return ""
    return (
        f"{folder} cannot be loaded without Python files of its own, and those are not run: what they do "
        f"is unknown. If you trust them, {ALLOW}"
    )


def _asks(path: Path, body: Any, trust: bool) -> bool:
    """Whether a configuration names code. Raises `ModelError` where it asks for anything else but data."""
    coded = False
    for key, value in _entries(body):
        coded |= key == "auto_map"
        if key == "audio_tokenizer":
            raise ModelError(f"{path} names another model to load ({key}), which no model here needs")
        if key == "transformers_weights" and not (isinstance(value, str) and _SHARD.fullmatch(value)):
            raise ModelError(f"{path}: {key} must be a .safetensors file of this folder, not {value!r}")
        if key == "quantization_config" and isinstance(value, Mapping):
            method = value.get("quant_method", "bitsandbytes")
            if method not in QUANTISED:
                raise ModelError(
                    f"{path}: weights quantised by {method!r} are not read; allowed are "
                    f"{', '.join(sorted(QUANTISED))}"
                )
        named = isinstance(value, str) and re.fullmatch(_CLASSES.get(key, ""), value)
        # null: not said
        if key in _CLASSES and value is not None and not named and not trust:
            raise ModelError(f"{path}: {key} is {value!r}, which is no class for that in transformers")
    return coded


def _entries(body: Any) -> Iterator[tuple[str, Any]]:
    """Every key and value, at any depth."""
    waiting = [body]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            yield from each.items()
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each


def _check_index(folder: Path, body: dict[str, Any], path: Path) -> None:
    named = body.get("weight_map")
    if not isinstance(named, dict):
        raise ModelError(f"{path} has no weight_map; copy the checkpoint again")
    for file in dict.fromkeys(map(str, named.values())):
        if not _SHARD.fullmatch(file):
            raise ModelError(f"{path} names {file!r}; weights are .safetensors files of the same folder")
        check_readable(folder / file)
