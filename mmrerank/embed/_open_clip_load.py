"""Finds, checks and loads an open_clip model, and computes its fingerprint.

Weights are matched strictly: a model is loaded completely or refused. Imported by the plug-in when a model is
opened, never before.
"""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmrerank import hub
from mmrerank.embed import _open_clip_part as _open_clip
from mmrerank.embed._model_files import is_folder, place, repository
from mmrerank.embed._open_clip_config import checked
from mmrerank.embed._open_clip_identity import compare, fingerprint_of, released, sha256
from mmrerank.embed._open_clip_images import Transform
from mmrerank.embed._random_weights import drawn_from
from mmrerank.errors import ModelError
from mmrerank.loading import loading
from mmrerank.near import near
from mmrerank.paths import check_readable, is_windows_path, looked_at, looks_like_path
from mmrerank.vl.model_folder import (
    check_folder,
    check_pickled,
    json_file,
    needs_code,
    there,
    without_questions,
)

RANDOM_SEED = 0

WEIGHTS = (  # the order of preference is open_clip's own
    "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin", "open_clip_pytorch_model.pth",
    "model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth",
)  # fmt: skip
_LOCAL, _HUB = "local-dir:", "hf-hub:"
_FOLDER = f"--embedder open_clip:{_LOCAL}FOLDER"
_CONFIG = "open_clip_config.json"
_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors", ".ckpt", ".npz")
_MORE_OF_A_TOKENIZER = ("merges.txt", "*.model", "special_tokens_map.json", "added_tokens.json")
_TOKENIZERS = ["tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "*.model", "config.json"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Loaded:
    """A model on the CPU in float32, with what belongs to it. ``name`` completes ``open_clip:``.

    ``crops`` says that the transform scales the shorter side and keeps the middle of the longer one.
    """

    name: str
    model: Any
    transform: Any
    crops: bool
    tokenizer: Any
    dim: int
    fingerprint: str
    random: bool = False


def load(rest: str, *, expect: str = "", trust_remote_code: bool = False) -> Loaded:
    """Loads what ``rest`` names, in one of the forms of ``FORM``.

    ``expect`` is the fingerprint that it must have: where the files alone say that it has another, no weights
    are loaded. ``trust_remote_code`` lets Python files of a folder run, with a warning. Raises `ModelError`,
    and `MismatchError` for another fingerprint.
    """
    rest = rest.strip()
    if rest.startswith(_HUB):
        return _load_repository(rest.removeprefix(_HUB), expect, trust_remote_code)
    folder = rest.removeprefix(_LOCAL)
    if folder != rest or (looks_like_path(rest) and is_folder(rest)):
        if not folder.strip():
            raise ModelError(f"no model folder was named; write open_clip:{_LOCAL}PATH")
        return _load_folder(place(folder), expect, trust_remote_code)
    arch, _, tag = rest.partition(":")
    # a drive is no architecture
    if is_windows_path(rest) or not arch or not tag:
        raise ModelError(_unclear(rest))
    with loading(), _quiet():
        open_clip = _open_clip.part()
        known = open_clip.list_models()
        arch = arch if arch in known else arch.replace("/", "-")  # ViT-B/32, as in papers
        if arch not in known:
            found = near(arch, known)
            hint = f"did you mean {' or '.join(found)}?" if found else "see open_clip.list_models()"
            raise ModelError(f"open_clip has no architecture {arch!r}; {hint}")
        if tag == "random":
            return _load_random(arch)
        tags = open_clip.list_pretrained_tags_by_model(arch)
        if tag in tags:
            return _load_hub(arch, tag)
        if looks_like_path(tag) or Path(tag).suffix in _SUFFIXES:
            return _load_file(arch, place(tag), expect)
        raise ModelError(
            f"open_clip has no weights {tag!r} for {arch}; there are: {', '.join([*tags, 'random'])}. "
            f"A file of weights is open_clip:{arch}:/PATH/FILE, a folder open_clip:{_LOCAL}PATH"
        )


def _unclear(rest: str) -> str:
    """What is wrong with a name that says too little."""
    path = place(rest) if looks_like_path(rest) else None
    if path is not None and path.is_file():
        return (
            f"{path} holds weights alone, and no architecture; write open_clip:ARCH:{path}, or put them "
            f"beside an open_clip_config.json and write open_clip:{_LOCAL}{path.parent}"
        )
    if path is not None and (rest.startswith(("~", ".", "/")) or is_windows_path(rest)):
        return f"there is no model folder {path}"
    hint = ""
    arch, slash, tag = rest.rpartition("/")
    if slash and arch in _open_clip.part().list_models():
        hint = f"; did you mean open_clip:{arch}:{tag}?"
    elif re.fullmatch(r"[\w.-]+/[\w.-]+(@\w+)?", rest):
        hint = f"; did you mean open_clip:{_HUB}{rest}?"
    return (
        f"open_clip:{rest} does not say which weights; write open_clip:ARCH:TAG, open_clip:ARCH:/PATH/FILE, "
        f"open_clip:{_HUB}ORG/NAME, open_clip:{_LOCAL}PATH or open_clip:ARCH:random{hint}"
    )


def _load_repository(name: str, expect: str, trust: bool) -> Loaded:
    """A model of the hub, ``ORG/NAME`` or ``ORG/NAME@REVISION``: a folder in the hub's cache."""
    with hub.asked(f"the model {_HUB}{name}", hub.copied(name, _FOLDER)):
        folder = repository(name, _CONFIG, WEIGHTS, [*_TOKENIZERS, "*.py"] if trust else _TOKENIZERS)
    return _load_folder(folder, expect, trust, name=f"{_HUB}{name}")


def _load_file(arch: str, file: Path, expect: str) -> Loaded:
    """Weights in a file of their own, of an architecture that open_clip knows."""
    what = f"the weights {file}"
    with looked_at(file, "the weights", ModelError):
        if file.is_dir():
            raise ModelError(f"{file} is a folder; write open_clip:{_LOCAL}{file}")
        if not file.is_file():
            raise ModelError(f"there is no file of weights {file}; a folder is open_clip:{_LOCAL}PATH")
    check_readable(file)
    config = _open_clip.part().get_model_config(arch)
    config["quick_gelu"] = bool(config.get("quick_gelu"))
    open_clip = _suited(config)
    digest, preprocess = sha256(file), released(open_clip, arch)
    compare(open_clip, config, preprocess, digest, expect)
    try:
        _check_weights(file)
        model = _create(open_clip, what, arch, pretrained=str(file), require_pretrained=True)
    except ModelError as error:
        raise ModelError(
            f"{error}. They must be the weights of a {arch}; those of another model go beside its "
            f"open_clip_config.json: open_clip:{_LOCAL}PATH"
        ) from error
    tokenizer = _hub_tokenizer(open_clip, arch)
    return _loaded(open_clip, f"{arch}:{file}", model, tokenizer, config, digest, preprocess=preprocess)


def _check_weights(file: Path) -> None:
    check_readable(file)
    if file.suffix != ".safetensors":
        check_pickled(file)


def _load_folder(folder: Path, expect: str, trust: bool, *, name: str = "") -> Loaded:
    local, name = f"{_LOCAL}{folder}", name or f"{_LOCAL}{folder}"
    with looked_at(folder, "the model folder", ModelError):
        if folder.is_file():
            raise ModelError(f"{folder} is a file; give the model's folder, or open_clip:ARCH:{folder}")
        if not folder.is_dir():
            raise ModelError(f"there is no model folder {folder}")
    config, preprocess = _config(folder / _CONFIG, trust=trust)
    check_folder(folder, trust=trust)
    weights = next((folder / n for n in WEIGHTS if (folder / n).is_file()), None)
    if weights is None:
        raise ModelError(
            f"{folder} holds no weights; one of {', '.join(WEIGHTS[:3])} must stand beside its {_CONFIG}"
        )
    _check_weights(weights)
    extra = ""
    if foreign := bool(config["text_cfg"].get("hf_tokenizer_name")):
        tokenizer_files = sorted(folder.glob("tokenizer*.json")) + sorted(folder.glob("vocab*"))
        extra = "".join(sha256(f) for f in tokenizer_files if f.is_file())
        # files that came in later are named, so that older fingerprints without them stay
        more = sorted(f for pattern in _MORE_OF_A_TOKENIZER for f in folder.glob(pattern))
        extra += "".join(f" {f.name} {sha256(f)}" for f in more if f.is_file())
    digest = sha256(weights) + extra
    with loading(), _quiet():
        open_clip = _suited(config)
        compare(open_clip, config, preprocess, digest, expect)
        model = _create(open_clip, f"the weights in {weights}", local, require_pretrained=True)
        try:
            if foreign:
                with without_questions():
                    tokenizer = open_clip.get_tokenizer(local, trust_remote_code=trust)
            else:
                tokenizer = open_clip.get_tokenizer(local)
        except Exception as error:  # whatever a tokenizer raises that is not whole
            raise ModelError(
                needs_code(folder, error)
                or f"{folder} names the tokenizer {config['text_cfg'].get('hf_tokenizer_name')!r}, but its "
                f"files are not in the folder or unreadable: {_line(error)}"
            ) from error
        return _loaded(open_clip, name, model, tokenizer, config, digest)


def _config(path: Path, *, trust: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """The ``model_cfg`` and the ``preprocess_cfg`` in an ``open_clip_config.json``."""
    if not there(path):
        other = (
            f"; its config.json is of {kind}, which open_clip does not read" if (kind := _kind(path)) else ""
        )
        raise ModelError(f"{path.parent} is no open_clip model: there is no {path.name} in it{other}")
    body = json_file(path)
    config, preprocess = body.get("model_cfg"), body.get("preprocess_cfg") or {}
    if not isinstance(config, dict) or not {"embed_dim", "vision_cfg", "text_cfg"} <= config.keys():
        raise ModelError(f"{path}: model_cfg needs embed_dim, vision_cfg and text_cfg")
    if not isinstance(preprocess, dict):
        raise ModelError(f"{path}: preprocess_cfg must be an object, not {preprocess!r}")
    return checked(config, path, trust=trust), preprocess


def _kind(path: Path) -> str:
    """What model the transformers library would take a folder for; empty where it holds none."""
    try:
        return str(json.loads((path.parent / "config.json").read_text("utf-8"))["model_type"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _suited(config: dict[str, Any]) -> Any:
    """As much of open_clip as a model takes."""
    return _open_clip.part() if _open_clip.suffices(config) else _open_clip.whole()


def _load_random(arch: str) -> Loaded:
    config = _open_clip.part().get_model_config(arch)
    open_clip = _suited(config)
    with drawn_from(RANDOM_SEED):
        model = _create(open_clip, f"the architecture {arch}", arch)
    # Another torch may draw other numbers from the same seed; a few parameters show that.
    few = [p for p in model.parameters() if p.numel() <= 100_000]
    drawn = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in few)).hexdigest()
    tokenizer = _hub_tokenizer(open_clip, arch)
    return _loaded(open_clip, f"{arch}:random", model, tokenizer, config, drawn, random=True)


def _load_hub(arch: str, tag: str) -> Loaded:
    config = _open_clip.part().get_model_config(arch)
    open_clip = _suited(config)
    facts = open_clip.get_pretrained_cfg(arch, tag)
    place_there = str(facts.get("hf_hub") or "").strip("/")
    way = hub.copied(place_there, _FOLDER) if place_there else f"name a folder of the model: {_FOLDER}"
    with hub.asked(f"the model {arch}:{tag}", way):
        weights = Path(open_clip.download_pretrained(facts))
    # Weights trained with QuickGELU are wrong without it, and only some architecture names imply it.
    config["quick_gelu"] = bool(facts.get("quick_gelu") or config.get("quick_gelu"))
    model = _create(
        open_clip,
        f"the weights {weights}",
        arch,
        pretrained=tag,
        require_pretrained=True,
        force_quick_gelu=config["quick_gelu"],
    )
    # The hub's cache names files by their SHA-256.
    digest = weights.resolve().name
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        digest = sha256(weights)
    tokenizer = _hub_tokenizer(open_clip, arch)
    return _loaded(open_clip, f"{arch}:{tag}", model, tokenizer, config, digest)


def _create(open_clip: Any, what: str, name: str, **options: Any) -> Any:
    """``open_clip.create_model`` on the CPU in float32, with its failures made readable."""
    try:
        # weights of a tower alone are never fetched
        with without_questions() if "transformers" in sys.modules else nullcontext():
            return open_clip.create_model(
                name, precision="fp32", device="cpu", weights_only=True, pretrained_text=False, **options
            )
    except pickle.UnpicklingError as error:  # torch says how to run what is in the file, which nobody should
        raise ModelError(
            f"{what} cannot be loaded: they are no tensors alone, and code in such a file is never run. Save "
            "the state_dict as .safetensors, or as .pt with nothing but tensors and numbers in it"
        ) from error
    except Exception as error:  # torch and open_clip raise many kinds for weights that do not fit
        raise ModelError(f"{what} cannot be loaded: {_line(error)}") from error


def _hub_tokenizer(open_clip: Any, arch: str) -> Any:
    theirs = open_clip.get_model_config(arch)["text_cfg"].get("hf_tokenizer_name")
    if not theirs:
        return open_clip.get_tokenizer(arch)
    with hub.asked(f"the tokenizer of {arch}", hub.copied(theirs, _FOLDER)), without_questions():
        return open_clip.get_tokenizer(arch)


def _loaded(
    open_clip: Any,
    name: str,
    model: Any,
    tokenizer: Any,
    config: Any,
    weights: str,
    *,
    random: bool = False,
    preprocess: Any = None,
) -> Loaded:
    own = open_clip.get_model_preprocess_cfg(model)
    preprocess = open_clip.PreprocessCfg(**open_clip.merge_preprocess_dict(own, preprocess or {}))
    return Loaded(
        name=name,
        model=model,
        transform=Transform(preprocess),
        crops=preprocess.resize_mode == "shortest",
        tokenizer=tokenizer,
        dim=int(config["embed_dim"]),
        fingerprint=fingerprint_of(preprocess, config, weights),
        random=random,
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps open_clip's remarks on the root logger off the screen; errors come as exceptions anyway.

    Without any handler there, its first remark would install one that prints, for good.
    """
    root = logging.getLogger()
    handler = logging.NullHandler()

    def theirs(record: logging.LogRecord) -> bool:
        return "open_clip" not in record.pathname

    root.addHandler(handler)
    root.addFilter(theirs)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.removeFilter(theirs)
        root.removeHandler(handler)
