"""The recipes in configs/eval name what exists: splits, methods, options, published weights."""

from __future__ import annotations

from pathlib import Path

import pytest

RECIPES = sorted((Path(__file__).parents[3] / "configs/eval").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_every_recipe_says_what_exists(path: Path) -> None:
    from open_clip import list_pretrained

    from mmrerank import config, registry
    from mmrerank.evaluation.experiment.recipe import Recipe, with_options
    from mmrerank.evaluation.tasks import benchmark_of

    values = config.read_yaml(path)
    name = values.pop("benchmark")
    benchmark = benchmark_of(name)
    recipe = config.build(Recipe, with_options(name, values), where=path.name)
    assert not recipe.split or recipe.split in benchmark.SPLITS
    method = registry.load("strategy", recipe.rerank)
    config.build(method.Options, recipe.options, where=path.name)
    config.build(benchmark.Options, recipe.set, where=path.name)
    if recipe.embedder:
        kind, architecture, weights = recipe.embedder.split(":")
        assert kind == "open_clip"
        assert (architecture, weights) in list_pretrained()
    for line in path.read_text().splitlines():
        if "--embedder open_clip" in line:
            _, architecture, weights = line.split()[-1].split(":")
            assert (architecture, weights) in list_pretrained()


def test_there_are_recipes() -> None:
    assert len(RECIPES) >= 18
