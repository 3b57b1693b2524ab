"""The fingerprint of an open_clip model, of a loaded one and of files alone. Loads nothing."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from mmrerank.errors import MismatchError

DECODE_VERSION = 2
"""Raised when `mmrerank.images.decode` or the resizing starts to give other pixels for the same file."""


def sha256(path: Path) -> str:
    """Of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint_of(preprocess: Any, config: dict[str, Any], weights: str) -> str:
    """Of a model with these settings and the weights of this digest."""
    identity = {
        "weights": weights,
        "config": config,
        "size": preprocess.size,
        "mean": preprocess.mean,
        "std": preprocess.std,
        "interpolation": preprocess.interpolation,
        "resize_mode": preprocess.resize_mode,
        "fill_color": preprocess.fill_color,
        "dim": int(config["embed_dim"]),
        "decode": DECODE_VERSION,
    }
    body = json.dumps(identity, sort_keys=True, default=str).encode()
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def compare(
    open_clip: Any, config: dict[str, Any], preprocess: dict[str, Any], weights: str, expect: str
) -> None:
    """Raises `MismatchError` where a model of these files cannot have the fingerprint ``expect``.

    That is known without the model where its image tower is a transformer of open_clip's own.
    """
    vision = config["vision_cfg"]
    if not expect or vision.get("timm_model_name") or not isinstance(vision.get("layers", 12), int):
        return
    size = vision.get("image_size", 224)
    try:
        every = open_clip.merge_preprocess_dict(open_clip.PreprocessCfg(), preprocess)
        every["size"] = tuple(size) if isinstance(size, list) else (size, size)
        found = fingerprint_of(open_clip.PreprocessCfg(**every), config, weights)
    except (AssertionError, TypeError, ValueError):
        return  # no model at all: loading it says why
    if found != expect:
        raise MismatchError(f"the files have the fingerprint {found[:19]}, not {expect[:19]}")


def released(open_clip: Any, arch: str) -> dict[str, Any]:
    """How images are prepared for the weights that open_clip lists for ``arch``, where all agree.

    A file of weights alone does not say it; SigLIP, PE-Core and MobileCLIP2 prepare otherwise than CLIP.
    Empty where they differ or none is listed: then open_clip's default stands.
    """
    every = [open_clip.get_pretrained_cfg(arch, t) for t in open_clip.list_pretrained_tags_by_model(arch)]
    names = ("mean", "std", "interpolation", "resize_mode")
    found = [{name: facts[name] for name in names if facts.get(name) is not None} for facts in every]
    return found[0] if found and all(f == found[0] for f in found) else {}
