"""A recipe of an evaluation: what ``mmrerank eval NAME --config FILE.yaml`` reads and flags may override."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmrerank import config
from mmrerank.errors import UsageError
from mmrerank.evaluation.tasks import benchmark_of
from mmrerank.paths import expanded


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that a recipe may say; paths are as given. ``set`` are the benchmark's options."""

    data: str = ""
    split: str = ""
    set: dict[str, Any] = field(default_factory=dict)
    index: str = ""
    shards: str = ""
    embedder: str = ""
    images: str = ""
    rerank: str = "none"
    options: dict[str, Any] = field(default_factory=dict)
    methods: str = ""
    chat: str = ""
    candidates: int = 20
    depth: int = 0
    runs: str = ""


_PATHS = ("data", "index", "shards", "images", "runs")


def read_recipe(name: str, path: Path | None, **flags: Any) -> Recipe:
    """The recipe at ``path``, then the environment's model, then the flags that were given.

    Options of the benchmark may stand beside the other keys. Other variables of the environment would turn a
    check of files into a first stage or a reranking, so they are not read. Raises `UsageError` and
    `InputError`.
    """
    values: dict[str, Any] = {}
    if path is not None:
        values = config.filled(config.read_yaml(path), Recipe)
        if (wanted := values.pop("benchmark", name)) != name:
            raise UsageError(f"{path} is for mmrerank eval {wanted}, not {name}")
        values = with_options(name, values)
    if chat := os.environ.get(f"{config.PREFIX}CHAT"):
        values["chat"] = chat
    own = {**values.get("set", {}), **(flags.pop("set", None) or {})}
    given = {k: str(v) if isinstance(v, Path) else v for k, v in flags.items() if v is not None}
    found = config.build(Recipe, {**values, **given, "set": own}, where=str(path or f"eval {name}"))
    homes: dict[str, Any] = {n: str(expanded(p)) for n in _PATHS if (p := vars(found)[n]).startswith("~")}
    return dataclasses.replace(found, **homes)


def with_options(name: str, values: dict[str, Any]) -> dict[str, Any]:
    """``values`` with the benchmark's own options moved below ``set``."""
    known = {f.name for f in dataclasses.fields(benchmark_of(name).Options)}
    own = {k: v for k, v in values.items() if k in known and k not in Recipe.__annotations__}
    rest = {k: v for k, v in values.items() if k not in own}
    return {**rest, "set": {**own, **rest.get("set", {})}} if own else rest
