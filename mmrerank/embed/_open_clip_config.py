"""What the configuration of an open_clip folder may say: an allow-list, and no name of another folder."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmrerank.errors import ModelError
from mmrerank.vl.model_folder import ALLOW

TOKENIZER = {
    "clean": str, "strip_sep_token": bool, "language": str, "padding_side": str, "truncation_side": str,
    "model_max_length": int, "add_bos_token": bool, "add_eos_token": bool, "use_fast": bool, "legacy": bool,
}  # fmt: skip
"""The ``tokenizer_kwargs`` that a folder may give, with their types: what changes tokens, no more."""
PLAIN_TOKENIZER = ("clean",)
"""Those of open_clip's own tokenizer, which would also take the path of a vocabulary."""
LAYERS = {"norm_kwargs": ("eps", "elementwise_affine", "bias"), "act_kwargs": ("approximate", "inplace")}
MODES = ("", "clips")
_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*")


def checked(config: Mapping[str, Any], path: Path, *, trust: bool) -> dict[str, Any]:
    """The ``model_cfg`` in ``path``. Raises `ModelError` where it asks for more than a model and a tokenizer.

    With ``trust`` its ``tokenizer_kwargs`` may hold ``trust_remote_code``.
    """
    towers = {part: config[part] for part in ("vision_cfg", "text_cfg")}
    if "multimodal_cfg" in config:
        towers["multimodal_cfg"] = config["multimodal_cfg"]
    for part, tower in towers.items():
        if not isinstance(tower, dict):
            raise ModelError(f"{path}: {part} must be an object, not {tower!r}")
        for key, allowed in LAYERS.items():
            _only(tower.get(key) or {}, allowed, f"{path}: {part}.{key}")
        _named(tower, "timm_model_name", f"{path}: {part}", parts=1)
        _named(tower, "hf_model_name", f"{path}: {part}", parts=2)
    text = towers["text_cfg"]
    if (mode := text.get("tokenizer_mode") or "") not in MODES:
        raise ModelError(
            f"{path}: text_cfg.tokenizer_mode must be {' or '.join(map(repr, MODES))}, not {mode!r}"
        )
    where, given = f"{path}: text_cfg.tokenizer_kwargs", text.get("tokenizer_kwargs") or {}
    if not trust and isinstance(given, dict) and "trust_remote_code" in given:
        raise ModelError(
            f"{where} asks to run Python files of {path.parent}, and a file cannot allow that. If you trust "
            f"them, {ALLOW}"
        )
    own = (*TOKENIZER, "trust_remote_code") if trust else tuple(TOKENIZER)
    _only(given, own if text.get("hf_tokenizer_name") else PLAIN_TOKENIZER, where)
    for key, value in given.items():
        if not isinstance(value, kind := TOKENIZER.get(key, bool)):
            raise ModelError(f"{where}: {key} must be of type {kind.__name__}, not {value!r}")
    return dict(config)


def _only(given: Any, allowed: tuple[str, ...], where: str) -> None:
    if not isinstance(given, dict):
        raise ModelError(f"{where} must be an object, not {given!r}")
    if unknown := sorted(map(str, given.keys() - set(allowed))):
        raise ModelError(f"{where} holds {unknown[0]!r}; allowed are {', '.join(allowed)}")


def _named(tower: Mapping[str, Any], key: str, where: str, *, parts: int) -> None:
    """Raises `ModelError` unless it is a name of the library's or a hub's, in at most ``parts`` parts."""
    name = tower.get(key)
    if name in (None, ""):
        return
    pieces = name.split("/") if isinstance(name, str) else []
    if not 1 <= len(pieces) <= parts or not all(map(_NAME.fullmatch, pieces)):
        raise ModelError(f"{where}.{key} must be the name of a model, not {name!r}: no path, no address")
    if parts > 1 and os.path.exists(name):  # noqa: PTH110 - `Path.exists` raises for a long name
        raise ModelError(f"{where}.{key} is {name!r}, which is a folder here; a model is one folder only")
