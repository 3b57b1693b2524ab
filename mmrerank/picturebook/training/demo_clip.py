"""Trains the bundled dual encoder: an open_clip model of about a million parameters, from nothing.

Contrastive loss between pictures and captions (`clip_batches`). It is the first stage: quick and
approximate. The checkpoint that is kept is the one with the best validation recall, and nothing about
reranking enters.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from mmrerank.errors import UsageError
from mmrerank.picturebook.caption import caption
from mmrerank.picturebook.queries import Truth, make_queries
from mmrerank.picturebook.training.clip_batches import blocks_of, choose, contrastive_loss, truth_of
from mmrerank.picturebook.training.eyes import train_eyes
from mmrerank.picturebook.training.log import Log, Progress
from mmrerank.picturebook.training.pacing import best_device, has_bfloat16, share_done
from mmrerank.picturebook.training.pool import Pool, make_pool
from mmrerank.picturebook.training.tokens import text_tokenizer
from mmrerank.picturebook.world import stream

MEAN = STD = (0.5, 0.5, 0.5)


@dataclass(frozen=True, kw_only=True)
class ClipRecipe:
    """Everything that decides a run."""

    seed: int = 1
    steps: int = 900
    minutes: float | None = None  # ends the run after that time if `steps` have not ended it before
    batch: int = 192
    learning_rate: float = 1.5e-3
    warmup: int = 60
    weight_decay: float = 0.05
    bfloat16: bool = False  # where the machine computes in it
    scenes: int = 16000
    validation_scenes: int = 2000
    vocabulary: int = 400
    evaluate_every: int = 100
    eyes_steps: int = 600
    eyes_batch: int = 96
    eyes_learning_rate: float = 1.5e-3
    shape: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises `UsageError` for a batch that no pool of so many scenes can fill."""
        if self.batch > self.scenes:
            raise UsageError(
                f"batch: {self.batch} different scenes cannot be drawn from scenes: {self.scenes}; "
                "lower batch or raise scenes"
            )


@dataclass(frozen=True, kw_only=True)
class ClipShape:
    """Sizes of the two towers."""

    side: int = 96
    patch: int = 16
    width: int = 128
    layers: int = 4
    text_layers: int = 3
    context: int = 32
    dim: int = 128


def config(shape: ClipShape, vocabulary: int) -> dict[str, Any]:
    """The ``open_clip_config.json`` of the model."""
    return {
        "model_cfg": {
            "embed_dim": shape.dim,
            "vision_cfg": {
                "image_size": shape.side,
                "layers": shape.layers,
                "width": shape.width,
                "head_width": 32,
                "patch_size": shape.patch,
            },
            "text_cfg": {
                "context_length": shape.context,
                "vocab_size": vocabulary,
                "width": shape.width,
                "heads": shape.width // 32,
                "layers": shape.text_layers,
                # any value: a local folder's own tokenizer files are used
                "hf_tokenizer_name": "mmrerank/picture-book",
            },
        },
        "preprocess_cfg": {
            "mean": list(MEAN),
            "std": list(STD),
            "interpolation": "bicubic",
            "resize_mode": "squash",
        },
    }


def train_clip(
    recipe: ClipRecipe, out: Path, *, steps: int, resume: bool, progress: Progress | None
) -> dict[str, Any]:
    """Runs ``recipe`` for ``steps`` steps into ``out``; ``out/model`` holds the best checkpoint so far."""
    torch.manual_seed(recipe.seed)
    shape = ClipShape(**recipe.shape)
    pools = out / "pool"
    pool = make_pool(
        pools, "train", seed=recipe.seed, count=recipe.scenes, side=shape.side, progress=progress
    )
    held = make_pool(pools, "validation", seed=recipe.seed, count=recipe.validation_scenes, side=shape.side)
    rng = stream("train", recipe.seed + 11)
    state_file = out / "state.pt"
    state = None
    if resume and state_file.exists():
        state = torch.load(state_file, weights_only=True, map_location="cpu")
    tokenizer, settings, model = _make(recipe, out, None if state else pool, rng)
    device = model.logit_scale.device
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay
    )
    step, best, spent = 0, -1.0, 0.0
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, best, spent = state["step"], state["best"], state["seconds"]
    log = Log(out, columns=("step", "loss", "rate", "seconds", "recall"))
    started = time.monotonic()
    if state is None and recipe.eyes_steps:
        _open_eyes(recipe, model, pool, out, min(recipe.eyes_steps, 10 * steps), progress)
    figures: dict[str, float] = {}
    blocks = blocks_of(pool.scenes)
    done = share_done(step, steps, spent, recipe.minutes)
    while done < 1:
        chosen = choose(rng, blocks, recipe.batch)
        scenes = [pool.scenes[int(i)] for i in chosen]
        captions = [caption(rng, scene, "train") for scene in scenes]
        truth = torch.from_numpy(truth_of([c.facts for c in captions], scenes)).to(device)
        share = min(1.0, (step + 1) / recipe.warmup) * 0.5 * (1 + np.cos(np.pi * done))
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * share
        model.train()
        with _precision(device, recipe.bfloat16):
            images = model.encode_image(tensor(pool.pixels[chosen]).to(device))
            words = model.encode_text(ids(tokenizer, [c.text for c in captions], shape).to(device))
        loss = contrastive_loss(_similarities(model, words, images), truth)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        done = share_done(step, steps, spent + time.monotonic() - started, recipe.minutes)
        if progress and step % 10 == 0:
            progress(step, steps)
        recall = float("nan")
        if step % recipe.evaluate_every == 0 or done >= 1:
            figures = validate(model, tokenizer, shape, held, recipe.seed)
            recall = figures["recall@20"]
            if recall > best:
                best = recall
                save(model, tokenizer, settings, out / "model")
            kept = {"step": step, "best": best, "seconds": spent + time.monotonic() - started}
            parts = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save({**parts, **kept}, out / "state.new")
            (out / "state.new").replace(state_file)
        seconds = round(spent + time.monotonic() - started, 1)
        log.add(step, round(float(loss.detach()), 4), round(float(share), 4), seconds, recall)
    log.picture("Bundled dual encoder")
    return {
        "steps": step,
        "minutes": round((spent + time.monotonic() - started) / 60, 1),
        "best recall@20": best,
        **figures,
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def _make(
    recipe: ClipRecipe, out: Path, pool: Pool | None, rng: np.random.Generator
) -> tuple[Any, dict[str, Any], Any]:
    """Tokenizer, settings and a fresh model; without ``pool`` the tokenizer of the checkpoint in ``out``."""
    import open_clip

    shape = ClipShape(**recipe.shape)
    if pool is not None:
        texts = [caption(rng, s, "train").text for s in pool.scenes[:8000]]
        tokenizer = text_tokenizer(texts, recipe.vocabulary, shape.context)
    else:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(out / "model")
    settings = config(shape, len(tokenizer))
    text_cfg = {k: v for k, v in settings["model_cfg"]["text_cfg"].items() if k[:2] != "hf"}
    model: Any = open_clip.CLIP(**{**settings["model_cfg"], "text_cfg": text_cfg})
    return tokenizer, settings, model.to(best_device())


def _similarities(model: Any, words: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Scaled cosines (captions, pictures)."""
    images = functional.normalize(images.float(), dim=-1)
    words = functional.normalize(words.float(), dim=-1)
    scaled: torch.Tensor = model.logit_scale.exp().clamp(max=100) * words @ images.T
    return scaled


def _open_eyes(
    recipe: ClipRecipe, model: Any, pool: Pool, out: Path, steps: int, progress: Progress | None
) -> None:
    """Trains the vision tower alone: without it the contrastive loss teaches next to nothing."""
    shape, device = ClipShape(**recipe.shape), model.logit_scale.device
    log = Log(out / "eyes", columns=("step", "loss", "kinds_right"))

    def look(chosen: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        with _precision(device, recipe.bfloat16):
            pooled, tokens = model.visual(tensor(pool.pixels[chosen]).to(device))
        return tokens.float(), pooled.float()

    def report(at: int, loss: float, right: float) -> None:
        log.add(at, round(loss, 4), round(right, 4))
        if progress:
            progress(at, recipe.eyes_steps)

    model.visual.output_tokens = True
    train_eyes(
        look,
        model.visual.parameters(),
        pool,
        width=shape.width,
        cells=shape.side // shape.patch,
        steps=steps,
        batch=recipe.eyes_batch,
        learning_rate=recipe.eyes_learning_rate,
        seed=recipe.seed,
        report=report,
        bag=True,
    )
    model.visual.output_tokens = False


@contextmanager
def _precision(device: torch.device, bfloat16: bool) -> Iterator[None]:
    """bfloat16 where it is wanted and there is any.

    Its fused attention on processors is slow backward: with plain products a step takes half the time.
    """
    half = bfloat16 and has_bfloat16(device)
    with ExitStack() as stack:
        if half and device.type == "cpu":
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(torch.autocast(device.type, torch.bfloat16, enabled=half))
        yield


def tensor(pixels: Any) -> torch.Tensor:
    """``(n, side, side, 3)`` uint8 as the model takes it: ``(n, 3, side, side)``, normalised."""
    scaled = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 255
    return (scaled - 0.5) / 0.5


def ids(tokenizer: Any, texts: list[str], shape: ClipShape) -> torch.Tensor:
    """Token ids ``(n, context)``, padded; the end token stays when a text is cut."""
    encoded = tokenizer(
        texts, padding="max_length", truncation=True, max_length=shape.context, return_tensors="pt"
    )
    found: torch.Tensor = encoded["input_ids"]
    return found


@torch.no_grad()
def validate(model: Any, tokenizer: Any, shape: ClipShape, pool: Pool, seed: int) -> dict[str, float]:
    """Recall and nDCG of 200 text queries over the validation scenes."""
    model.eval()
    device = model.logit_scale.device
    truth = Truth(pool.scenes)
    categories = ("binding", "count", "relation", "exclusion", "setting")
    queries = make_queries(
        pool.scenes, 200, stream("validation", seed), "validation", categories=categories, truth=truth
    )
    parts = [
        model.encode_image(tensor(pool.pixels[i : i + 250]).to(device)) for i in range(0, len(pool), 250)
    ]
    images = functional.normalize(torch.cat(parts), dim=-1)
    words = functional.normalize(
        model.encode_text(ids(tokenizer, [q.text for q in queries], shape).to(device)), dim=-1
    )
    order = (words @ images.T).argsort(dim=1, descending=True).cpu().numpy()
    recalls, gains = [], []
    discount = 1 / np.log2(np.arange(2, 12))
    for query, ranked in zip(queries, order, strict=True):
        grades = truth.grades(query.facts)
        full = grades == 3
        recalls.append(full[ranked[:20]].sum() / min(20, full.sum()))
        gain = 2.0**grades - 1
        gains.append((gain[ranked[:10]] @ discount) / (np.sort(gain)[::-1][:10] @ discount))
    return {"recall@20": round(float(np.mean(recalls)), 4), "nDCG@10": round(float(np.mean(gains)), 4)}


def save(model: Any, tokenizer: Any, settings: dict[str, Any], folder: Path) -> None:
    """Writes a folder that ``open_clip`` opens as ``local-dir:FOLDER``, in half precision."""
    from safetensors.torch import save_file

    new = folder.with_name(folder.name + ".new")
    new.mkdir(parents=True, exist_ok=True)
    weights = {k: v.detach().half().cpu().contiguous() for k, v in model.state_dict().items()}
    save_file(weights, new / "open_clip_model.safetensors")
    (new / "open_clip_config.json").write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
    tokenizer.save_pretrained(new)
    if folder.exists():
        shutil.rmtree(folder)
    new.rename(folder)
