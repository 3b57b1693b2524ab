"""Loads a vision-language checkpoint, or one that reads text only, from a folder or a hub name.

Says what is wrong with a checkpoint before anything slow happens, and afterwards refuses one whose weights
are incomplete. It does not run the model (`mmrerank.vl.qwen`, `mmrerank.vl.generic`), reads safetensors only,
never pickles, and runs no Python file of a checkpoint unless ``trust_remote_code`` is set.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmrerank import hub
from mmrerank.errors import MmrerankError, ModelError
from mmrerank.loading import loading
from mmrerank.paths import check_readable, expanded, looked_at
from mmrerank.vl.model_folder import check_folder, json_file, needs_code, plain, there, without_questions

if TYPE_CHECKING:
    import torch

MODEL_TYPES: Mapping[str, str] = {
    "qwen2_vl": "Qwen2-VL",
    "qwen2_5_vl": "Qwen2.5-VL",
    "qwen3_vl": "Qwen3-VL",
    "qwen3_vl_moe": "Qwen3-VL",
}
SMALL = 50_000_000
"""Parameters below which a CPU computes in float32: such a model gains nothing from bfloat16."""

_SUCH_AS = "Qwen-VL, Gemma 3, InternVL (-hf), SmolVLM, LLaVA-OneVision or Mistral 3"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_FILES = ["*.json", "*.jinja", "*.txt", "*.model", "*.safetensors"]
"""What is fetched of a repository: no Python file, no pickle."""
HEADLESS = frozenset({"lm_head.weight"})
"""Tensors that an embedding model may lack: it never says a word."""
_TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "vocab.txt", "*.model"),
    *("added_tokens.json", "special_tokens_map.json"),
)
ABSENT = {
    "phi3_v": "transformers has no Phi-3-Vision or Phi-3.5-Vision, whose code comes with its checkpoints"
}
"""Model types that are known to need Python files of their own."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A loaded model and its processor. ``family`` is the configuration's model type.

    ``sees`` is false of a model that reads text only: its processor is a tokenizer.
    """

    name: str
    family: str
    model: Any
    processor: Any
    sees: bool = True

    @property
    def tokenizer(self) -> Any:
        """The tokenizer, of the processor where there is one."""
        return self.processor.tokenizer if self.sees else self.processor


def load(
    name: str,
    *,
    device: str | None = None,
    dtype: str | None = None,
    types: Mapping[str, str] | None = MODEL_TYPES,
    spare: frozenset[str] = frozenset(),
    trust_remote_code: bool = False,
    before: Callable[[Any, Any], None] | None = None,
    template: bool = True,
    kind: Callable[[], Any] | None = None,
) -> Checkpoint:
    """Loads ``name`` for inference.

    ``device`` is a torch device, ``auto`` (spread over what there is) or None (CUDA if present, else CPU).
    ``dtype`` is a torch dtype's name; by default float32 for a small model on a CPU, else bfloat16 where
    the device computes in it. ``types`` are the model types allowed, with their names, or None for any that
    answers messages, of images or of text alone; ``spare`` are tensors that may be missing.
    ``trust_remote_code`` lets Python files of the checkpoint run, with a warning.
    ``before`` is called with the configuration and the processor before any weights are read; what it
    raises ends the loading. Without ``template`` a checkpoint may lack a chat template. ``kind`` returns
    the auto class that loads it, where it is none that answers messages. Raises `ModelError`
    naming what was wrong, what is allowed and what to do.
    """
    if types is None:
        types, wanted = _answering(), f"a folder or a hub name of a model that answers, such as {_SUCH_AS}"
    else:
        wanted = f"a folder or a hub name of a {_either(types.values())} model"
    if not name.strip():
        raise ModelError(f"no model was named; give {wanted}, as in PLUGIN:PATH_OR_NAME")
    folder = expanded(name.strip())
    with looked_at(folder, "the model folder", ModelError):
        there = folder.exists()
    if not there:
        if not _HUB_NAME.fullmatch(name):
            raise ModelError(f"there is no folder {name!r}; give {wanted}")
        folder = _fetched(name, trust_remote_code)
    _check_folder(folder, types, wanted)
    check_folder(folder, trust=trust_remote_code)
    with loading():
        return _load(name, folder, device, dtype, spare, wanted, trust_remote_code, before, template, kind)


def _fetched(name: str, trust: bool) -> Path:
    """The folder in the hub's cache of a repository, fetched where it is not there."""
    from huggingface_hub import snapshot_download

    files = [*_FILES, "*.py"] if trust else _FILES
    with hub.asked(f"the model {name!r}", hub.copied(name, "the folder in the place of its name")):
        return Path(snapshot_download(name, allow_patterns=files, ignore_patterns=["*/*"]))


def _either(names: Iterable[str]) -> str:
    *most, last = dict.fromkeys(names)
    return f"{', '.join(most)} or {last}" if most else last


def _answering() -> Mapping[str, str]:
    """The model types that transformers loads as a model that answers messages."""
    from transformers.models.auto import modeling_auto as auto

    return dict(auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES | auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def _is_seeing(model_type: object) -> bool:
    from transformers.models.auto import modeling_auto as auto

    return model_type in auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES


def _check_folder(folder: Path, types: Mapping[str, str], allowed: str) -> None:
    """Raises `ModelError` unless ``folder`` holds the files of a checkpoint of one of ``types``."""
    if not folder.is_dir():
        raise ModelError(f"{folder} is a file; give the checkpoint's folder")
    config = folder / "config.json"
    if not there(config):
        raise ModelError(f"{folder} holds no config.json, so it is no checkpoint; give {allowed}")
    model_type = json_file(config).get("model_type")
    _check_type(str(folder), model_type, types, allowed)
    files = {
        "weights (*.safetensors; pickled weights are not read)": ("*.safetensors",),
        "a tokenizer (tokenizer.json, or vocab.json and merges.txt)": (
            *("tokenizer.json", "vocab.json", "tokenizer.model", "tekken.json"),
        ),
        "an image processor (preprocessor_config.json)": (
            "preprocessor_config.json",
            "processor_config.json",
        ),
    }
    if not _is_seeing(model_type):
        files.popitem()
    for what, patterns in files.items():
        found = [file for p in patterns for file in folder.glob(p)]
        if not found:
            raise ModelError(f"{folder} lacks {what}; copy the whole checkpoint")
        for file in found:
            check_readable(file)


def _check_type(name: str, model_type: object, types: Mapping[str, str], allowed: str) -> None:
    if model_type not in types:
        why = f": {ABSENT[model_type]}" if isinstance(model_type, str) and model_type in ABSENT else ""
        named = ", ".join(types) if len(types) < 20 else f"{len(types)} kinds that transformers knows"
        raise ModelError(f"{name} is a {model_type!r} model{why}; allowed are {named}: give {allowed}")


def _load(
    name: str,
    folder: Path,
    device: str | None,
    dtype: str | None,
    spare: frozenset[str],
    allowed: str,
    trust: bool,
    before: Callable[[Any, Any], None] | None,
    template: bool,
    kind: Callable[[], Any] | None,
) -> Checkpoint:
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

    if dtype is not None and not isinstance(vars(torch).get(dtype), torch.dtype):
        raise ModelError(f"there is no dtype {dtype!r}; allowed are float32, bfloat16 and float16")
    target = None if device == "auto" else _device(device)
    try:
        with without_questions(), _no_progress_bar():
            config = _configuration(folder, trust)
            sees = kind is not None or _is_seeing(config.model_type)
            reader = AutoProcessor if sees else AutoTokenizer
            processor = _processor(reader, folder, config, trust)
            if before is not None:
                before(config, processor)
            own = AutoModelForImageTextToText if sees else AutoModelForCausalLM
            model, info = (kind() if kind else own).from_pretrained(
                str(folder),
                config=config,
                trust_remote_code=trust,
                dtype="auto",
                use_safetensors=True,
                device_map="auto" if target is None else None,
                output_loading_info=True,
            )
    except MmrerankError:
        raise
    except Exception as error:  # a configuration can make the libraries raise anything
        text = " ".join(str(error).split())[:300]
        why = needs_code(folder, error) or (
            f"{name} cannot be loaded: {text}. Copy the whole checkpoint, or give {allowed}"
        )
        raise ModelError(why) from error
    lacking = {*info["missing_keys"], *(str(k[0]) for k in info["mismatched_keys"])}
    absent = sorted(lacking - spare)
    if absent:
        raise ModelError(
            f"{name} lacks {len(absent)} of the model's tensors, or has them in another shape, such as "
            f"{absent[0]}; copy the whole checkpoint"
        )
    if template and processor.chat_template is None:
        raise ModelError(f"{name} has no chat template; give an instruction-tuned checkpoint")
    if config.is_encoder_decoder:
        raise ModelError(f"{name} reads with one model and writes with another; give {allowed}")
    # the scales of quantised weights are for the numbers that they came as
    # transformers sets it on quantised models alone
    quantised = bool(getattr(model, "is_quantized", False))  # it is there when true
    if quantised and dtype is not None:
        raise ModelError(f"{name} is quantised and keeps its own numbers; leave dtype out")
    try:
        if target is not None and not quantised:
            model = model.to(device=target, dtype=_dtype(model, target, dtype))
        elif target is not None and model.device != target:
            model = model.to(device=target)
        elif dtype is not None:
            model = model.to(dtype=vars(torch)[dtype])
    except (ValueError, RuntimeError) as error:  # no such device, or not enough memory on it
        text = " ".join(str(error).split())[:300]
        raise ModelError(f"{name} cannot be put on {target}: {text}") from error
    _use_flash_attention(model)
    return Checkpoint(name=name, family=config.model_type, model=model.eval(), processor=processor, sees=sees)


def _use_flash_attention(model: Any) -> None:
    """Where it is installed and the model computes in what it takes; else torch's own kernels stay."""
    import torch
    from transformers.utils import is_flash_attn_2_available

    half = model.dtype in (torch.bfloat16, torch.float16)
    if "token_type_ids" in inspect.signature(model.forward).parameters:
        return  # tokens of an image look ahead within it, which those kernels cannot
    if model.device.type == "cuda" and half and is_flash_attn_2_available():
        try:
            model.set_attn_implementation("flash_attention_2")
        except (ImportError, ValueError):  # this model, or this version of it, has no such path
            model.set_attn_implementation("sdpa")


def folder_of(name: str) -> Path:
    """The folder that ``name`` is, or that the hub's cache has of it. Raises `ModelError` for neither."""
    folder = expanded(name)
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (OSError, ValueError) as error:
        raise ModelError(f"{name!r} is neither a folder nor in the hub's cache") from error


def weights_digest(name: str) -> str:
    """SHA-256, in hex, over the weights that ``name`` loads. Raises `ModelError` where there are none.

    The hub's cache names files by their SHA-256; those of a folder are read.
    """
    return files_digest(folder_of(name).glob("*.safetensors"))


def tokenizer_digest(name: str) -> str:
    """SHA-256, in hex, over the files that ``name``'s tokenizer is made of. Errors as `weights_digest`."""
    folder = folder_of(name)
    return files_digest(file for pattern in _TOKENIZER_FILES for file in folder.glob(pattern))


def files_digest(files: Iterable[Path]) -> str:
    """SHA-256, in hex, over names and contents of ``files``, in the order of their paths."""
    total = hashlib.sha256()
    for file in sorted(files):
        digest = file.resolve().name
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            with file.open("rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").hexdigest()
        total.update(f"{file.name} {digest}\n".encode())
    return total.hexdigest()


def _processor(reader: Any, folder: Path, config: Any, trust: bool) -> Any:
    """The folder's processor, the model type's own where the folder names a class of its Python files."""
    try:
        return reader.from_pretrained(str(folder), trust_remote_code=trust)
    except ValueError as error:
        if not needs_code(folder, error) or _codes(folder) != {"AutoProcessor"}:
            raise
        return reader.from_pretrained(str(folder), config=config, trust_remote_code=trust)


def _codes(folder: Path) -> set[str]:
    """What the folder's Python files stand for, of a processor and its parts: a tokenizer of its own is none
    that the library's could replace.
    """
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    found: set[str] = set()
    for name in ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json"):
        if there(folder / name):
            body = json_file(folder / name)
            found |= set(body.get("auto_map") or {})
            tokenizer = body.get("tokenizer_class")
            if tokenizer and tokenizer_class_from_name(tokenizer) is None:
                found.add("AutoTokenizer")
    return found


def _configuration(folder: Path, trust: bool) -> Any:
    """The model's configuration, without what chooses code in it unless that is trusted."""
    from transformers import CONFIG_MAPPING, AutoConfig

    if trust:
        return AutoConfig.from_pretrained(str(folder), trust_remote_code=True)
    body = plain(json_file(folder / "config.json"))
    return CONFIG_MAPPING[body["model_type"]].from_dict(body, name_or_path=str(folder))


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """A library writes nothing to the terminal; what the user set comes back afterwards."""
    from transformers.utils import logging

    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # what matters of its report on tensors is looked at below
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()


def _device(device: str | None) -> torch.device:
    """Raises `ModelError` where there is none of that name."""
    import torch

    if not device:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise ModelError(f"there is no device {device!r}; use cpu, cuda, cuda:N or auto") from error


def _dtype(model: Any, device: torch.device, dtype: str | None) -> torch.dtype:
    import torch

    if dtype is not None:
        chosen: torch.dtype = vars(torch)[dtype]
        return chosen
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if sum(p.numel() for p in model.parameters()) < SMALL:
        return torch.float32
    fast = device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if fast else torch.float32
