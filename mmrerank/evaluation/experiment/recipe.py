"""A recipe of an evaluation: what ``mmrerank eval NAME --config FILE.yaml`` reads and flags may override."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmrerank import config
from mmrerank.errors import UsageError
from mmrerank.evaluation.tasks import benchmark_of
from mmrerank.paths import expanded
from mmrerank.rerank.methods import MethodSpec, parse_method, split_methods


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that a recipe may say; paths are as given. ``set`` are the benchmark's options.

    ``options`` are those of the method ``rerank``, ``chat_options`` the model's. ``text_weight`` (0 to 1: the
    share of the words in a query of words and images) and ``precision`` are the embedder's.
    """

    data: str = ""
    split: str = ""
    set: dict[str, Any] = field(default_factory=dict)
    index: str = ""
    shards: str = ""
    embedder: str = ""
    text_weight: float | None = None
    precision: str = ""
    images: str = ""
    rerank: str = "none"
    options: dict[str, Any] = field(default_factory=dict)
    methods: str = ""
    chat: str = ""
    chat_options: dict[str, Any] = field(default_factory=dict)
    prompts: str = ""
    candidates: int = 20
    depth: int = 0
    runs: str = ""

    @property
    def embedder_options(self) -> dict[str, Any]:
        """What the embedder is opened with, where the recipe says so."""
        named = {"text_weight": self.text_weight, "precision": self.precision or None}
        return {name: value for name, value in named.items() if value is not None}


_PATHS = ("data", "index", "shards", "images", "runs", "prompts")


def read_recipe(name: str, path: Path | None, **flags: Any) -> Recipe:
    """The recipe at ``path``, then the environment's model, then the flags that were given; maps are merged.

    A flag that names methods goes over the recipe's one method, and the other way round; options of the
    recipe's method then go with that method wherever it is named. Options of the benchmark may stand beside
    the other keys. Other variables of the environment would turn a check of files into a first stage or a
    reranking, so they are not read. Raises `UsageError` and `InputError`.
    """
    values: dict[str, Any] = {}
    if path is not None:
        values = config.filled(config.read_yaml(path), Recipe)
        config.without_code(values, path)
        if (wanted := values.pop("benchmark", name)) != name:
            raise UsageError(f"{path} is for mmrerank eval {wanted}, not {name}")
        if isinstance(several := values.get("methods"), list):
            values["methods"] = ", ".join(map(str, several))
        for key in ("set", "options", "chat_options"):  # a flag's map must not hide that this is none
            if not isinstance(values.get(key, {}), Mapping):
                raise UsageError(f"{path}: {key} must be a mapping of names to values, not {values[key]!r}")
        values = with_options(name, values)
    if chat := os.environ.get(f"{config.PREFIX}CHAT"):
        values["chat"] = chat
    given = {k: str(v) if isinstance(v, Path) else v for k, v in flags.items() if v is not None}
    if given.get("rerank"):
        values.pop("methods", None)
        given["options"] = _options_of_one(values, given)
        values.pop("options", None)
    elif methods := given.get("methods") or values.get("methods"):
        if given.get("options"):
            raise UsageError(
                "-o goes with --rerank METHOD; among --methods, options stand with their method, such as "
                "cotrr(mode=single)"
            )
        given["methods"] = _with_recipes_options(str(methods), values)
        values = {k: v for k, v in values.items() if k not in ("rerank", "options")}
    recipe = config.build(Recipe, config.over(values, given), where=str(path or f"eval {name}"))
    if recipe.options and recipe.rerank == "none" and not recipe.methods:
        raise UsageError(f"options of a method ({', '.join(recipe.options)}) need one: --rerank METHOD")
    homes: dict[str, Any] = {n: str(expanded(p)) for n in _PATHS if (p := vars(recipe)[n]).startswith("~")}
    return dataclasses.replace(recipe, **homes)


def _options_of_one(values: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the method that a flag names: the recipe's where it is its method, then those in brackets
    behind the name, then those of ``-o``.
    """
    own, inner = parse_method(str(values.get("rerank", "none")))
    name, brackets = parse_method(str(given["rerank"]))
    recipes = {**inner, **(values.get("options") or {})} if name == own else {}
    return {**recipes, **brackets, **(given.get("options") or {})}


def _with_recipes_options(methods: str, values: Mapping[str, Any]) -> str:
    """``methods`` with the options of the recipe's one method where that is among them."""
    own, inner = parse_method(str(values.get("rerank", "none")))
    given = {**inner, **(values.get("options") or {})}
    found = []
    for text in split_methods(methods):
        name, options = parse_method(text)
        spec = MethodSpec(name=name, given={**given, **options} if name == own else options)
        found.append(spec.label)
    return ", ".join(found)


def with_options(name: str, values: dict[str, Any]) -> dict[str, Any]:
    """``values`` with the benchmark's own options moved below ``set``. Raises `UsageError` where both places
    give one, and differ.
    """
    known = {f.name for f in dataclasses.fields(benchmark_of(name).Options)}
    own = {k: v for k, v in values.items() if k in known and k not in Recipe.__annotations__}
    rest = {k: v for k, v in values.items() if k not in own}
    for key in own.keys() & rest.get("set", {}).keys():
        if own[key] != rest["set"][key]:
            raise UsageError(
                f"the recipe says {key}: {own[key]} and set: {key}: {rest['set'][key]}; leave one"
            )
    return {**rest, "set": {**own, **rest.get("set", {})}} if own else rest
