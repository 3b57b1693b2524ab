"""Adds the adapter of one task to a model's weights: plain LoRA in safetensors, several tasks in one file.

W becomes W + scale x B A, which is what the adapter does beside W. So no other library is needed, and none
opens the adapter's files.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from mmrerank import hub
from mmrerank.errors import ModelError
from mmrerank.paths import expanded
from mmrerank.vl.load import files_digest, folder_of
from mmrerank.vl.model_folder import json_file, there

FOLDER, CONFIG, WEIGHTS = "adapters", "adapter_config.json", "adapter_model.safetensors"
_KEY = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<side>[AB])\.(?:(?P<task>.+)\.)?weight")
_OTHER = ("use_dora", "fan_in_fan_out", "lora_bias", "alpha_pattern", "rank_pattern", "modules_to_save")
"""Settings that make more of an adapter than B A at one scale."""
_HEADS = ("multi_vector_projector", "single_vector_projector")
"""Modules for other outputs than a state, which no model here has."""


def fetched(name: str) -> Path | None:
    """The folder of ``name``'s adapters, fetched where ``name`` is no folder here; None without any."""
    if not expanded(name).is_dir():
        from huggingface_hub import snapshot_download

        with hub.asked(f"the model {name!r}", hub.copied(name, "the folder in the place of its name")):
            snapshot_download(name, allow_patterns=[f"{FOLDER}/{CONFIG}", f"{FOLDER}/{WEIGHTS}"])
    folder = folder_of(name) / FOLDER
    if not there(folder):
        return None
    for file in (CONFIG, WEIGHTS):
        if not (folder / file).is_file():
            raise ModelError(f"{folder} holds no {file}; copy the whole checkpoint")
    return folder


def adapter_digest(folder: Path | None) -> str:
    """SHA-256, in hex, over the adapter's files; empty without any."""
    return files_digest([folder / CONFIG, folder / WEIGHTS]) if folder is not None else ""


def merge(model: Any, folder: Path | None, task: str) -> None:
    """Adds ``task``'s part of the adapter in ``folder`` to ``model``; nothing where there is no folder.

    Parts for heads (``_HEADS``) are left out. Raises `ModelError` for an adapter of another kind, without
    that task, for other modules, or of other shapes.
    """
    if folder is None:
        return
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    scale = _scale(folder / CONFIG)
    try:
        tensors = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{folder / WEIGHTS} cannot be read ({error}); copy the checkpoint again") from None
    pairs: dict[str, dict[str, torch.Tensor]] = {}
    tasks = set()
    for key, tensor in tensors.items():
        found = _KEY.fullmatch(key)
        if found is None:
            raise ModelError(f"{folder / WEIGHTS} holds {key!r}, which is no part of a LoRA")
        tasks.add(found["task"])
        if found["task"] in (task, None):
            pairs.setdefault(found["module"], {})[found["side"]] = tensor
    if not pairs:
        known = ", ".join(sorted(map(str, tasks)))
        raise ModelError(f"{folder / WEIGHTS} has no part for {task!r}; there are: {known or 'none'}")
    modules = dict(model.named_modules())
    with torch.no_grad():
        for name, pair in pairs.items():
            if name.rpartition(".")[2] in _HEADS:
                continue
            try:
                weight = modules[_known(name, modules)].weight
                delta = scale * (pair["B"].float() @ pair["A"].float())
                weight.copy_((weight.float() + delta.to(weight.device)).to(weight.dtype))
            except (KeyError, AttributeError, RuntimeError) as error:
                raise ModelError(f"{folder / WEIGHTS} does not fit the model at {name}: {error}") from error


def _known(name: str, modules: dict[str, Any]) -> str:
    """The module of this name; older checkpoints name the language model otherwise."""
    tries = (name, name.replace("model.layers.", "model.language_model.layers."))
    return next((t for t in tries if t in modules), "")


def _scale(path: Path) -> float:
    body = json_file(path)
    if body.get("peft_type", "LORA") != "LORA":
        raise ModelError(f"{path} is of the kind {body['peft_type']!r}; only LoRA is read")
    if other := [key for key in _OTHER if body.get(key)]:
        raise ModelError(f"{path} sets {other[0]}, which is more than plain LoRA; merge the adapter yourself")
    rank, alpha = body.get("r"), body.get("lora_alpha")
    if not (isinstance(rank, int) and rank > 0 and isinstance(alpha, int | float)):
        raise ModelError(f"{path} must hold r and lora_alpha, numbers, not {rank!r} and {alpha!r}")
    return float(alpha) / (math.sqrt(rank) if body.get("use_rslora") else rank)
