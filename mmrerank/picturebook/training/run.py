"""Runs a training recipe: YAML in, a model folder, a log and a loss curve out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmrerank.config import build, read_yaml
from mmrerank.errors import InputError, MissingExtraError, UsageError
from mmrerank.picturebook.training.card import write_card
from mmrerank.picturebook.training.log import Progress

MODELS = ("clip", "vlm")


def recipe_file(name: str) -> Path:
    """The file of a recipe: ``clip`` and ``vlm`` are the shipped ones, anything else is a path."""
    return Path(__file__).with_name(f"{name}.yaml") if name in MODELS else Path(name)


def train(
    recipe: Path,
    *,
    out: Path,
    steps: int | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Trains what ``recipe`` describes; the model is in ``out/model`` and is replaced at every checkpoint.

    ``steps`` overrides the recipe's (the learning rate then decays towards that end); ``resume`` goes on
    from ``out/state.pt``. Returns figures of the run. Raises `InputError` for an unreadable recipe or a
    folder that already holds a run, `UsageError` for an unknown key.
    """
    values = read_yaml(recipe)
    model = values.pop("model", None)
    if model not in MODELS:
        raise UsageError(f"{recipe}: model must be one of {', '.join(MODELS)}, not {model!r}")
    if (out / "state.pt").exists() and not resume:
        raise InputError(f"{out} already holds a run; go on with --resume, or choose another --out")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise MissingExtraError('training draws its loss; pip install "mmrerank[train]"') from None
    out.mkdir(parents=True, exist_ok=True)
    if model == "vlm":
        from mmrerank.picturebook.training.demo_vlm import VlmRecipe, train_vlm

        settings = build(VlmRecipe, values, where=str(recipe))
        figures = train_vlm(settings, out, steps=steps or settings.steps, resume=resume, progress=progress)
    else:
        from mmrerank.picturebook.training.demo_clip import ClipRecipe, train_clip

        plan = build(ClipRecipe, values, where=str(recipe))
        figures = train_clip(plan, out, steps=steps or plan.steps, resume=resume, progress=progress)
    write_card(out / "model", model, recipe=recipe.name, figures=figures)
    return figures
