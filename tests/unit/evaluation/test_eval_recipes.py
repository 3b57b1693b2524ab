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


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_a_recipe_is_carried_out_with_what_stands_in_its_file(path: Path) -> None:
    from mmrerank import config, registry
    from mmrerank.evaluation.experiment.recipe import read_recipe

    name = config.read_yaml(path)["benchmark"]
    recipe = read_recipe(name, path)
    commands = [line[1:].strip() for line in path.read_text().splitlines() if "mmrerank " in line]
    assert f"mmrerank eval {name} --config configs/eval/{path.name}" in commands[-1]
    assert "SPEC" not in commands[-1]
    if recipe.index:
        made = [c.split() for c in commands if c.startswith("mmrerank index ")]
        assert [c[c.index("--index") + 1] for c in made] == [recipe.index]
        assert not recipe.images or made[0][2] == recipe.images
    if recipe.rerank == "none":
        return
    # a named server knows its key, its limits and its way of not thinking
    assert "://" not in recipe.chat
    registry.chosen("chat", recipe.chat, recipe.chat_options)


def test_there_are_recipes() -> None:
    assert len(RECIPES) >= 18


def test_a_recipe_says_how_the_embedder_is_opened(tmp_path: Path) -> None:
    from mmrerank.errors import UsageError
    from mmrerank.evaluation.experiment.recipe import read_recipe

    path = tmp_path / "r.yaml"
    path.write_text("benchmark: cirr\ntext_weight: 0.3\nprecision: float32\n")
    assert read_recipe("cirr", path).embedder_options == {"text_weight": 0.3, "precision": "float32"}
    flag = read_recipe("cirr", path, text_weight=0.0)
    assert flag.embedder_options == {"text_weight": 0.0, "precision": "float32"}
    assert read_recipe("cirr", None).embedder_options == {}
    path.write_text("benchmark: cirr\ntext_weight: much\n")
    with pytest.raises(UsageError, match="text_weight must be a number"):
        read_recipe("cirr", path)


def test_a_flag_changes_what_it_names_and_leaves_the_rest_of_a_recipes_maps(tmp_path: Path) -> None:
    from mmrerank.evaluation.experiment.recipe import read_recipe

    path = tmp_path / "r.yaml"
    path.write_text(
        "benchmark: cirr\nrerank: cotrr\noptions: {mode: single, image_tokens: 1024}\n"
        "chat: gemini:m\nchat_options: {thinking: 8192, timeout: 300}\n"
    )
    recipe = read_recipe("cirr", path, options={"image_tokens": "512"}, chat_options={"timeout": "60"})
    assert recipe.options == {"mode": "single", "image_tokens": "512"}
    assert recipe.chat_options == {"thinking": 8192, "timeout": "60"}
