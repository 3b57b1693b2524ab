"""Trains the bundled multimodal model: its eyes first, then its language, with checkpoints on the way.

Learning rate: warm-up, constant, linear decay over the last part (a run can be prolonged before the decay
starts). On processors the language may be trained by several processes, each with exercises of its own,
which add up their gradients at every step.
"""

from __future__ import annotations

import multiprocessing
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmrerank.picturebook.training.log import Log, Progress
from mmrerank.picturebook.training.pacing import best_device, has_bfloat16, share_done
from mmrerank.picturebook.training.pool import Pool, make_pool
from mmrerank.picturebook.training.tokens import chat_tokenizer
from mmrerank.picturebook.training.vlm_batches import Encoder, supply
from mmrerank.picturebook.training.vlm_data import Exercises
from mmrerank.picturebook.training.vlm_eyes import open_eyes
from mmrerank.picturebook.training.vlm_fast import run_layers_fast
from mmrerank.picturebook.training.vlm_model import VlmShape, build, save
from mmrerank.picturebook.training.vlm_step import batch_vision, look_once, loss_of
from mmrerank.picturebook.world import stream

_CORPUS = 4000  # exercises of each phase, whose texts make the tokenizer
_WORTH_COMPILING = 1000  # steps


@dataclass(frozen=True, kw_only=True)
class Phase:
    """``share`` of the steps with one ``mix`` of tasks."""

    share: float
    mix: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class VlmRecipe:
    """Everything that decides a run. ``batch_tokens`` bounds the tokens of a batch, padding included.

    ``minutes`` ends the language's training after that time if ``steps`` have not ended it before; the
    learning rate and the phases follow whichever is nearer its end. ``workers`` processes make the
    exercises for a GPU; ``processes`` share the work on processors, each with batches of ``batch_tokens``.
    ``vision_rate`` is the vision tower's share of the learning rate once it has been trained on its own:
    0 keeps it as it is.
    At 1 the first noisy gradients of the language model undo what it knew.
    ``bfloat16`` is used where the machine computes in it, and float32 elsewhere.
    ``count_weight`` is how much a verdict, a digit or a letter counts among the other tokens of a reply;
    ``glance_weight`` that of the side losses on what each image shows of a search (`vlm_glance`) and of each
    thing that is named after it (`vlm_named`).
    """

    seed: int = 1
    steps: int = 4000
    batch_tokens: int = 6144
    learning_rate: float = 1.2e-3
    warmup: int = 150
    decay: float = 0.3
    weight_decay: float = 0.02
    clip_norm: float = 1.0
    bfloat16: bool = False
    minutes: float | None = None
    workers: int = 0
    processes: int = 1
    vision_rate: float = 0.0
    count_weight: float = 1.0
    glance_weight: float = 0.0
    scenes: int = 16000
    vocabulary: int = 1100
    checkpoint_minutes: float = 5.0
    eyes_steps: int = 500
    eyes_batch: int = 64
    eyes_learning_rate: float = 1.5e-3
    words_steps: int = 200
    words_learning_rate: float = 1e-3
    shape: Mapping[str, Any] = field(default_factory=dict)
    phases: tuple[Mapping[str, Any], ...] = ()


def rate(step: int, done: float, recipe: VlmRecipe) -> float:
    """Share of the peak learning rate when ``done`` of the run is over: warm-up, constant, linear decay."""
    fall = min(1.0, max(0.0, 1 - done) / recipe.decay)
    return min(1.0, (step + 1) / recipe.warmup) * fall


def corpus(pool: Pool, phases: tuple[Phase, ...], seed: int) -> list[str]:
    """Texts for the tokenizer: prompts and replies in the proportions the model will meet them."""
    texts: list[str] = []
    for phase in phases:
        exercises = Exercises(pool.scenes, stream("train", seed + 99), "train", phase.mix)
        for _ in range(_CORPUS):
            example = exercises.draw()
            texts += [*("".join(p.text or "" for p in m.parts) for m in example.messages)]
            texts.append(example.reply)
    return texts


def train_vlm(
    recipe: VlmRecipe, out: Path, *, steps: int, resume: bool, progress: Progress | None
) -> dict[str, Any]:
    """Runs ``recipe`` for ``steps`` steps into ``out``; ``out/model`` always holds the last checkpoint."""
    # drawn before any helper starts: only the first process may start painters of its own
    pool = _pool(recipe, out, progress)
    if not (resume and (out / "state.pt").exists()):
        _open_eyes(recipe, out, pool, steps, progress)
    alone = recipe.processes == 1 or best_device().type == "cuda"
    if alone:
        return _train_language(recipe, out, steps, pool=pool, progress=progress)
    meeting = out / "meeting"
    meeting.unlink(missing_ok=True)
    context = multiprocessing.get_context("spawn")
    helpers = [
        context.Process(
            target=_train_language,
            args=(recipe, out, steps),
            kwargs={"rank": rank, "meeting": meeting},
            daemon=True,
        )
        for rank in range(1, recipe.processes)
    ]
    for helper in helpers:
        helper.start()
    try:
        return _train_language(recipe, out, steps, pool=pool, meeting=meeting, progress=progress)
    finally:
        for helper in helpers:
            helper.join(30)
            helper.terminate()
        meeting.unlink(missing_ok=True)


def _pool(recipe: VlmRecipe, out: Path, progress: Progress | None = None) -> Pool:
    side = VlmShape(**recipe.shape).side
    return make_pool(
        out / "pool", "train", seed=recipe.seed, count=recipe.scenes, side=side, progress=progress
    )


def _open_eyes(recipe: VlmRecipe, out: Path, pool: Pool, steps: int, progress: Progress | None) -> None:
    """A new model whose vision tower has been trained, as the checkpoint of step 0."""
    torch.manual_seed(recipe.seed)
    shape = VlmShape(**recipe.shape)
    phases = tuple(Phase(**p) for p in recipe.phases)
    tokenizer = chat_tokenizer(corpus(pool, phases, recipe.seed), recipe.vocabulary)
    model, processor = build(shape, tokenizer)
    encoder = Encoder(tokenizer, processor, shape, pool, model)
    device = best_device()
    model.to(device)
    batch_vision(model)
    if recipe.eyes_steps:
        open_eyes(
            model,
            encoder,
            out / "eyes",
            steps=min(recipe.eyes_steps, 10 * steps),
            words_steps=min(recipe.words_steps, 10 * steps),
            batch=recipe.eyes_batch,
            learning_rate=recipe.eyes_learning_rate,
            words_learning_rate=recipe.words_learning_rate,
            seed=recipe.seed,
            progress=progress,
        )
        save(model, processor, out / "eyes" / "model")
    _checkpoint(out, model, processor, None, 0, 0.0, 0)


def _train_language(
    recipe: VlmRecipe,
    out: Path,
    steps: int,
    *,
    pool: Pool | None = None,
    rank: int = 0,
    meeting: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Goes on from the checkpoint in ``out``. All processes do this; that of ``rank`` 0 keeps the books."""
    if rank:
        torch.set_num_threads(1)
    phases = tuple(Phase(**p) for p in recipe.phases)
    pool = pool or _pool(recipe, out)
    state = torch.load(out / "state.pt", weights_only=True, map_location="cpu")
    model, encoder, processor = _load(recipe, out, pool, state)
    device = best_device()
    looks = None if recipe.vision_rate > 0 else look_once(model, encoder, out / "pool").to(device)
    half = recipe.bfloat16 and has_bfloat16(device)
    if half:
        on_cpu = device.type == "cpu"
        if on_cpu:
            model.set_attn_implementation("eager")  # which hands on a mask that can be added
        run_layers_fast(model, compiled=on_cpu and steps > _WORTH_COMPILING)
    optimizer = _optimizer(model, recipe, state)
    step, spent, samples = state["step"], state["seconds"], state.get("samples", 0)
    log = Log(out, columns=("step", "loss", "rate", "seconds", "samples")) if rank == 0 else None
    ends = np.cumsum([p.share for p in phases]) / sum(p.share for p in phases)
    rng = stream("train", 1000 * recipe.seed + step + 7 + 1_000_003 * rank)
    tasks = {task: 1.0 for phase in phases for task in phase.mix}
    exercises = Exercises(pool.scenes, rng, "train", tasks)
    current, source = None, None
    model.train()
    started = saved = time.monotonic()
    done = share_done(step, steps, spent, recipe.minutes)
    with _together(recipe.processes, rank, meeting) as add_up:
        while done < 1:
            number = int(np.searchsorted(ends, done, side="right"))
            phase = phases[min(number, len(phases) - 1)]
            if phase is not current:
                exercises.practise(phase.mix)
                current = phase
            if source is None:
                source = supply(exercises, encoder, tokens=recipe.batch_tokens, workers=recipe.workers)
            batch = next(source)
            share = rate(step, done, recipe)
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * share * group["share"]
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                loss = loss_of(
                    model,
                    batch.to(device),
                    encoder,
                    looks,
                    count_weight=recipe.count_weight,
                    glance_weight=recipe.glance_weight,
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            seconds = spent + time.monotonic() - started
            # one clock decides for all when a phase or the run is over
            done = add_up(model, share_done(step + 1, steps, seconds, recipe.minutes))
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
            optimizer.step()
            step += 1
            samples += len(batch.tasks) * (recipe.processes if meeting else 1)
            if log is None:
                continue
            if device.type == "cpu" or step % 10 == 0:  # reading a loss waits for the GPU
                value = round(float(loss.detach()), 4)
                log.add(step, value, round(share, 4), round(seconds, 1), samples)
            if progress and step % 10 == 0:
                progress(step, steps)
            if time.monotonic() - saved > 60 * recipe.checkpoint_minutes or done >= 1:
                _checkpoint(out, model, processor, optimizer, step, seconds, samples)
                log.picture("Bundled multimodal model")
                saved = time.monotonic()
    return {
        "steps": step,
        "minutes": round((spent + time.monotonic() - started) / 60, 1),
        "samples": samples,
        "loss": log.mean(50) if log else 0.0,
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def _load(recipe: VlmRecipe, out: Path, pool: Pool, state: Mapping[str, Any]) -> tuple[Any, Encoder, Any]:
    """The model of a checkpoint on the best device, with what encodes for it and its processor."""
    from transformers import AutoProcessor

    shape = VlmShape(**recipe.shape)
    processor = AutoProcessor.from_pretrained(out / "model")
    model, _ = build(shape, processor.tokenizer)
    model.load_state_dict(state["model"])
    encoder = Encoder(processor.tokenizer, processor, shape, pool, model)
    model.to(best_device())
    batch_vision(model)
    return model, encoder, processor


def _optimizer(model: Any, recipe: VlmRecipe, state: Mapping[str, Any]) -> torch.optim.AdamW:
    """AdamW over two groups, language and vision, whose ``share`` is their part of the learning rate."""
    vision = set(model.model.visual.parameters())
    for weight in vision:
        weight.requires_grad_(recipe.vision_rate > 0)
    parts = (
        ([w for w in model.parameters() if w not in vision], 1.0),
        (list(model.model.visual.parameters()), recipe.vision_rate),
    )
    optimizer = torch.optim.AdamW(
        [{"params": weights, "share": part} for weights, part in parts],
        lr=recipe.learning_rate,
        betas=(0.9, 0.98),
        weight_decay=recipe.weight_decay,
        fused=best_device().type == "cuda",
    )
    if state["optimizer"] is not None:
        optimizer.load_state_dict(state["optimizer"])
        for group, (_, part) in zip(optimizer.param_groups, parts, strict=True):
            group["share"] = part  # the recipe's, not the saved one
    return optimizer


@contextmanager
def _together(processes: int, rank: int, meeting: Path | None) -> Iterator[Any]:
    """Yields a function that averages gradients over all processes and returns rank 0's ``done``."""
    if meeting is None:
        yield lambda model, done: done
        return
    from torch import distributed

    distributed.init_process_group(
        "gloo", init_method=meeting.resolve().as_uri(), rank=rank, world_size=processes
    )

    def add_up(model: Any, done: float) -> float:
        # a weight that this batch did not need has no gradient here, but may have one elsewhere
        weights = [w for w in model.parameters() if w.requires_grad]
        for weight in weights:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        count = torch.tensor([0.0 if rank else done * processes])
        flat = torch.cat([*(w.grad.flatten() for w in weights), count])
        distributed.all_reduce(flat)
        flat /= processes
        parts = torch.split(flat[:-1], [w.numel() for w in weights])
        for weight, part in zip(weights, parts, strict=True):
            weight.grad.copy_(part.view_as(weight))
        return float(flat[-1])

    try:
        yield add_up
    finally:
        distributed.destroy_process_group()


def _checkpoint(
    out: Path, model: Any, processor: Any, optimizer: Any, step: int, seconds: float, samples: int
) -> None:
    new, old = out / "model.new", out / "model"
    save(model, processor, new)
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer and optimizer.state_dict(),
        "step": step,
        "seconds": seconds,
        "samples": samples,
    }
    torch.save(state, out / "state.new")
    (out / "state.new").replace(out / "state.pt")
    if old.exists():
        shutil.rmtree(old)
    new.rename(old)
