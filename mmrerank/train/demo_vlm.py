"""Trains the bundled multimodal model: examples to batches, next-token loss on replies, checkpoints.

One process, one thread if need be. Learning rate: warm-up, constant, linear decay over the last part (a
run can be prolonged before the decay starts). The mix of tasks moves from listing what a picture shows,
which trains the eyes cheaply, to the judgements.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from mmrerank.demo.world import stream
from mmrerank.train.eyes import train_eyes
from mmrerank.train.log import Log, Progress
from mmrerank.train.pacing import best_device, share_done
from mmrerank.train.pool import Pool, make_pool
from mmrerank.train.tokens import chat_tokenizer
from mmrerank.train.vlm_batches import Batch, Encoder, supply
from mmrerank.train.vlm_data import Exercises
from mmrerank.train.vlm_model import VlmShape, build, save


@dataclass(frozen=True, kw_only=True)
class Phase:
    """``share`` of the steps with one ``mix`` of tasks."""

    share: float
    mix: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class VlmRecipe:
    """Everything that decides a run. ``batch_tokens`` bounds the tokens of a batch, padding included.

    ``minutes`` ends a run after that time if ``steps`` have not ended it before; the learning rate and the
    phases follow whichever is nearer its end. ``workers`` processes make the exercises. ``vision_rate`` is
    the vision tower's share of the learning rate once it has been trained on its own: 0 keeps it as it is.
    At 1 the first noisy gradients of the language model undo what it knew (`configs/train/RUNS.md`).
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
    vision_rate: float = 0.0
    scenes: int = 16000
    vocabulary: int = 1100
    checkpoint_minutes: float = 5.0
    eyes_steps: int = 500
    eyes_batch: int = 64
    eyes_learning_rate: float = 1.5e-3
    shape: Mapping[str, Any] = field(default_factory=dict)
    phases: tuple[Mapping[str, Any], ...] = ()


def batch_vision(model: Any) -> None:
    """Lets the vision tower attend within all pictures at once: they are of one size here.

    transformers runs one attention call per picture, since pictures in general differ. Same results
    (a test compares them); on a GPU many times faster.
    """
    from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as qwen

    for block in model.model.visual.blocks:
        attention = block.attn

        def attend(
            hidden_states: torch.Tensor,
            cu_seqlens: torch.Tensor,
            position_embeddings: tuple[torch.Tensor, torch.Tensor],
            attention: Any = attention,
            **_: Any,
        ) -> torch.Tensor:
            pictures = len(cu_seqlens) - 1
            tokens = len(hidden_states)
            mixed = attention.qkv(hidden_states).reshape(tokens, 3, attention.num_heads, -1)
            query, key, value = mixed.permute(1, 0, 2, 3).unbind(0)
            query, key = qwen.apply_rotary_pos_emb_vision(query, key, *position_embeddings)
            each = [
                x.reshape(pictures, -1, *x.shape[1:]).transpose(1, 2).to(value.dtype)
                for x in (query, key, value)
            ]
            seen = functional.scaled_dot_product_attention(*each)
            out: torch.Tensor = attention.proj(seen.transpose(1, 2).reshape(tokens, -1))
            return out

        attention.forward = attend


def shared(batch: Batch, image_id: int) -> int:
    """How many leading tokens all rows have in common, before any image or reply."""
    same = (batch.ids == batch.ids[:1]).all(0) & (batch.ids != image_id).all(0)
    # the token before a reply must run with the row: it predicts the reply's first token
    silent = torch.ones_like(same)
    silent[:-1] = (batch.labels[:, 1:] == -100).all(0)
    return int((same & silent).long().cumprod(0).sum())


def loss_of(model: Any, batch: Batch, encoder: Encoder) -> torch.Tensor:
    """Mean next-token loss over reply tokens; logits are made only where there is a label.

    What all rows begin with (the instructions) runs once, and its keys and values are repeated: the same
    loss and gradients as running it in every row, at about half the cost.
    """
    from transformers import DynamicCache

    image_id, positions = encoder.image_id, batch.positions
    # on a GPU, where starting a computation costs more than doing it, one pass beats two short ones
    first = 0 if batch.ids.is_cuda else shared(batch, image_id)
    cache = DynamicCache(config=model.config.get_text_config()) if first > 8 else None
    if cache is not None:
        model.model(
            input_ids=batch.ids[:1, :first],
            attention_mask=batch.mask[:1, :first],
            position_ids=positions[:, :1, :first],
            past_key_values=cache,
            use_cache=True,
        )
        cache.batch_repeat_interleave(len(batch.ids))
    else:
        first = 0
    rest = batch.ids[:, first:]
    out = model.model(
        input_ids=rest,
        attention_mask=batch.mask,
        position_ids=positions[:, :, first:],
        pixel_values=None if batch.pixels is None else encoder.patches(batch.pixels),
        image_grid_thw=batch.grids,
        mm_token_type_ids=(rest == image_id).int(),
        past_key_values=cache,
        use_cache=cache is not None,
    )
    targets = batch.labels[:, first + 1 :]
    chosen = targets != -100
    logits = model.lm_head(out.last_hidden_state[:, :-1][chosen])
    return functional.cross_entropy(logits.float(), targets[chosen])


def rate(step: int, done: float, recipe: VlmRecipe) -> float:
    """Share of the peak learning rate when ``done`` of the run is over: warm-up, constant, linear decay."""
    fall = min(1.0, max(0.0, 1 - done) / recipe.decay)
    return min(1.0, (step + 1) / recipe.warmup) * fall


def corpus(pool: Pool, phases: tuple[Phase, ...], seed: int) -> list[str]:
    """Texts for the tokenizer: prompts and replies in the proportions the model will meet them."""
    texts: list[str] = []
    for phase in phases:
        exercises = Exercises(pool.scenes, stream("train", seed + 99), "train", phase.mix)
        for _ in range(4000):
            example = exercises.draw()
            texts += [*("".join(p.text or "" for p in m.parts) for m in example.messages)]
            texts.append(example.reply)
    return texts


def train_vlm(
    recipe: VlmRecipe,
    out: Path,
    *,
    steps: int,
    resume: bool,
    progress: Progress | None,
) -> dict[str, Any]:
    """Runs ``recipe`` for ``steps`` steps into ``out``; ``out/model`` always holds the last checkpoint."""
    torch.manual_seed(recipe.seed)
    shape = VlmShape(**recipe.shape)
    phases = tuple(Phase(**p) for p in recipe.phases)
    pool = make_pool(
        out / "pool",
        "train",
        seed=recipe.seed,
        count=recipe.scenes,
        side=shape.side,
        progress=progress,
    )
    state_file = out / "state.pt"
    state = None
    if resume and state_file.exists():
        state = torch.load(state_file, weights_only=True, map_location="cpu")
    if state is None:
        tokenizer = chat_tokenizer(corpus(pool, phases, recipe.seed), recipe.vocabulary)
        model, processor = build(shape, tokenizer)
    else:
        from transformers import AutoProcessor

        processor = AutoProcessor.from_pretrained(out / "model")
        model, _ = build(shape, processor.tokenizer)
        model.load_state_dict(state["model"])
        tokenizer = processor.tokenizer
    encoder = Encoder(tokenizer, processor, shape, pool, model)
    device = best_device()
    model.to(device)
    batch_vision(model)
    started = time.monotonic()
    if state is None and recipe.eyes_steps:
        looks = Log(out / "eyes", columns=("step", "loss", "kinds_right"))

        def report(step: int, loss: float, right: float) -> None:
            looks.add(step, round(loss, 4), round(right, 4))
            if progress:
                progress(step, recipe.eyes_steps)

        grid = torch.tensor([[1, encoder.grid, encoder.grid]], device=device)

        def look(chosen: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
            seen = model.model.get_image_features(
                encoder.patches(torch.from_numpy(pool.pixels[chosen]).to(device)),
                grid.repeat(len(chosen), 1),
                return_dict=True,
            )
            tokens = torch.stack(tuple(seen.pooler_output))
            return tokens, tokens.mean(1)

        train_eyes(
            look,
            model.model.visual.parameters(),
            pool,
            width=shape.hidden,
            cells=encoder.grid // 2,
            steps=min(recipe.eyes_steps, 10 * steps),
            batch=recipe.eyes_batch,
            learning_rate=recipe.eyes_learning_rate,
            seed=recipe.seed,
            report=report,
        )
        save(model, processor, out / "eyes" / "model")
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
        fused=device.type == "cuda",
    )
    step, spent = 0, 0.0
    if state is not None:
        optimizer.load_state_dict(state["optimizer"])
        for group, (_, part) in zip(optimizer.param_groups, parts, strict=True):
            group["share"] = part  # the recipe's, not the saved one
        step, spent = state["step"], state["seconds"]
    log = Log(out, columns=("step", "loss", "rate", "seconds", "samples"))
    ends = np.cumsum([p.share for p in phases]) / sum(p.share for p in phases)
    current, source = -1, None
    model.train()
    saved, samples = time.monotonic(), 0
    done = share_done(step, steps, spent, recipe.minutes)
    while done < 1:
        phase = int(np.searchsorted(ends, done, side="right"))
        if phase != current or source is None:
            rng = stream("train", 1000 * recipe.seed + step + 7)
            exercises = Exercises(
                pool.scenes, rng, "train", phases[min(phase, len(phases) - 1)].mix
            )
            source = supply(exercises, encoder, tokens=recipe.batch_tokens, workers=recipe.workers)
            current = phase
        batch = next(source)
        share = rate(step, done, recipe)
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * share * group["share"]
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.bfloat16):
            loss = loss_of(model, batch.to(device), encoder)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        optimizer.step()
        step += 1
        samples += len(batch.tasks)
        seconds = spent + time.monotonic() - started
        done = share_done(step, steps, seconds, recipe.minutes)
        if device.type == "cpu" or step % 10 == 0:  # reading a loss waits for the GPU
            value = round(float(loss.detach()), 4)
            log.add(step, value, round(share, 4), round(seconds, 1), samples)
        if progress and step % 10 == 0:
            progress(step, steps)
        if time.monotonic() - saved > 60 * recipe.checkpoint_minutes or done >= 1:
            _checkpoint(out, model, processor, optimizer, step, seconds)
            log.picture("Bundled multimodal model")
            saved = time.monotonic()
    return {
        "steps": step,
        "minutes": round((spent + time.monotonic() - started) / 60, 1),
        "samples": samples,
        "loss": log.mean(50),
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def _checkpoint(
    out: Path, model: Any, processor: Any, optimizer: Any, step: int, seconds: float
) -> None:
    new = out / "model.new"
    save(model, processor, new)
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
        "seconds": seconds,
    }
    torch.save(state, out / "state.new")
    (out / "state.new").replace(out / "state.pt")
    old = out / "model"
    if old.exists():
        import shutil

        shutil.rmtree(old)
    new.rename(old)
