"""Trains the bundled multimodal model: examples to batches, next-token loss on replies, checkpoints.

One process, one thread if need be. Learning rate: warm-up, constant, linear decay over the last part (a
run can be prolonged before the decay starts). The mix of tasks moves from listing what a picture shows,
which trains the eyes cheaply, to the judgements.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from mmrerank.demo.world import Scene, stream
from mmrerank.train.eyes import train_eyes
from mmrerank.train.log import Log, Progress
from mmrerank.train.pool import Pool, make_pool, small
from mmrerank.train.tokens import chat_tokenizer
from mmrerank.train.vlm_data import Example, Exercises
from mmrerank.train.vlm_model import VlmShape, build, save


@dataclass(frozen=True, kw_only=True)
class Phase:
    """``share`` of the steps with one ``mix`` of tasks."""

    share: float
    mix: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class VlmRecipe:
    """Everything that decides a run. ``batch_tokens`` bounds the tokens of a batch, padding included."""

    seed: int = 1
    steps: int = 4000
    batch_tokens: int = 6144
    learning_rate: float = 1.2e-3
    warmup: int = 150
    decay: float = 0.3
    weight_decay: float = 0.02
    clip_norm: float = 1.0
    bfloat16: bool = False
    scenes: int = 16000
    vocabulary: int = 1100
    checkpoint_minutes: float = 5.0
    eyes_steps: int = 500
    eyes_batch: int = 64
    eyes_learning_rate: float = 1.5e-3
    shape: Mapping[str, Any] = field(default_factory=dict)
    phases: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Right-padded rows: ``ids``, ``labels`` (B, L; -100 where no loss), pixels of all images in order."""

    ids: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor
    pixels: torch.Tensor | None
    grids: torch.Tensor | None
    tasks: tuple[str, ...]


class Encoder:
    """Examples to token ids: the chat template written out, each image as its visual tokens."""

    def __init__(self, tokenizer: Any, processor: Any, shape: VlmShape, pool: Pool) -> None:
        self.tokenizer = tokenizer
        self.shape = shape
        self.pool = pool
        self.visual = (shape.side // (2 * shape.patch)) ** 2
        images = processor.image_processor
        self.mean = np.array(images.image_mean, np.float32)
        self.std = np.array(images.image_std, np.float32)
        self.grid = shape.side // shape.patch

    def text(self, example: Example) -> str:
        """The prompt as the chat template renders it, visual tokens spelt out."""
        image = "<|vision_start|>" + "<|image_pad|>" * self.visual + "<|vision_end|>"
        turns = (
            f"<|im_start|>{m.role}\n"
            + "".join(image if p.text is None else p.text for p in m.parts)
            + "<|im_end|>\n"
            for m in example.messages
        )
        return "".join(turns) + "<|im_start|>assistant\n"

    def encode(self, example: Example) -> tuple[list[int], int]:
        """Token ids of prompt and reply, and how many belong to the prompt."""
        prompt = self.tokenizer(self.text(example), add_special_tokens=False)["input_ids"]
        reply = self.tokenizer(example.reply + "<|im_end|>", add_special_tokens=False)["input_ids"]
        return prompt + reply, len(prompt)

    def picture(self, scene: int | Scene) -> NDArray[np.uint8]:
        """The pixels of a pool scene, or of a scene drawn for one example."""
        return self.pool.pixels[scene] if isinstance(scene, int) else small(scene, self.shape.side)

    def patches(self, pictures: NDArray[np.uint8]) -> torch.Tensor:
        """What the image processor makes of ``pictures`` ``(n, side, side, 3)``: ``(n * grid^2, D)``."""
        scaled = (pictures.astype(np.float32) / 255.0 - self.mean) / self.std
        n, g, p = len(pictures), self.grid, self.shape.patch
        # blocks of 2 x 2 patches stand together, since the merger joins neighbours
        split = scaled.reshape(n, g // 2, 2, p, g // 2, 2, p, 3)
        rows = split.transpose(0, 1, 4, 2, 5, 7, 3, 6)  # n, gh, gw, mh, mw, c, ph, pw
        frames = np.repeat(rows[..., None, :, :], 2, axis=-3)  # a still is two equal frames
        return torch.from_numpy(np.ascontiguousarray(frames.reshape(n * g * g, -1)))

    def collate(self, rows: list[tuple[list[int], int, Example]]) -> Batch:
        """Right-padded tensors of some encoded examples."""
        length = max(len(ids) for ids, _, _ in rows)
        pad = self.tokenizer.pad_token_id
        ids = torch.full((len(rows), length), pad)
        labels = torch.full((len(rows), length), -100)
        mask = torch.zeros(len(rows), length, dtype=torch.long)
        for n, (tokens, prompt, _) in enumerate(rows):
            ids[n, : len(tokens)] = torch.tensor(tokens)
            labels[n, prompt : len(tokens)] = ids[n, prompt : len(tokens)]
            mask[n, : len(tokens)] = 1
        shown = [self.picture(s) for _, _, e in rows for s in e.scenes]
        grid = torch.tensor([[1, self.grid, self.grid]])
        return Batch(
            ids=ids,
            mask=mask,
            labels=labels,
            pixels=self.patches(np.stack(shown)) if shown else None,
            grids=grid.repeat(len(shown), 1) if shown else None,
            tasks=tuple(e.task for _, _, e in rows),
        )


def batches(exercises: Exercises, encoder: Encoder, tokens: int) -> Iterator[Batch]:
    """Endless batches of at most ``tokens`` padded tokens, rows of like length together."""
    rng = exercises.rng
    while True:
        rows = []
        for example in (exercises.draw() for _ in range(512)):
            ids, prompt = encoder.encode(example)
            rows.append((ids, prompt, example))
        # rows of one task share their instructions, which are then computed once
        rows.sort(key=lambda r: (r[2].task, len(r[0])))
        groups: list[list[Any]] = [[]]
        for row in rows:
            last = groups[-1]
            full = last and len(row[0]) * (len(last) + 1) > tokens
            if full or (last and last[-1][2].task != row[2].task):
                groups.append([])
            groups[-1].append(row)
        for index in rng.permutation(len(groups)):
            yield encoder.collate(groups[int(index)])


def shared(batch: Batch, image_id: int) -> int:
    """How many leading tokens all rows have in common, before any image or reply."""
    same = (batch.ids == batch.ids[:1]).all(0) & (batch.ids != image_id).all(0)
    # the token before a reply must run with the row: it predicts the reply's first token
    silent = torch.ones_like(same)
    silent[:-1] = (batch.labels[:, 1:] == -100).all(0)
    return int((same & silent).long().cumprod(0).sum())


def loss_of(model: Any, batch: Batch, image_id: int) -> torch.Tensor:
    """Mean next-token loss over reply tokens; logits are made only where there is a label.

    What all rows begin with (the instructions) runs once, and its keys and values are repeated: the same
    loss and gradients as running it in every row, at about half the cost.
    """
    from transformers import DynamicCache

    positions, _ = model.model.get_rope_index(
        batch.ids,
        mm_token_type_ids=(batch.ids == image_id).int(),
        image_grid_thw=batch.grids,
        attention_mask=batch.mask,
    )
    first = shared(batch, image_id)
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
        pixel_values=batch.pixels,
        image_grid_thw=batch.grids,
        mm_token_type_ids=(rest == image_id).int(),
        past_key_values=cache,
        use_cache=cache is not None,
    )
    targets = batch.labels[:, first + 1 :]
    chosen = targets != -100
    logits = model.lm_head(out.last_hidden_state[:, :-1][chosen])
    return functional.cross_entropy(logits.float(), targets[chosen])


def rate(step: int, recipe: VlmRecipe, steps: int) -> float:
    """Share of the peak learning rate at ``step``: warm-up, constant, linear decay to nothing."""
    start = steps * (1 - recipe.decay)
    fall = 1.0 if step < start else max(0.0, (steps - step) / (steps - start))
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
    state = torch.load(state_file, weights_only=True) if resume and state_file.exists() else None
    if state is None:
        tokenizer = chat_tokenizer(corpus(pool, phases, recipe.seed), recipe.vocabulary)
        model, processor = build(shape, tokenizer)
    else:
        from transformers import AutoProcessor

        processor = AutoProcessor.from_pretrained(out / "model")
        model, _ = build(shape, processor.tokenizer)
        model.load_state_dict(state["model"])
        tokenizer = processor.tokenizer
    encoder = Encoder(tokenizer, processor, shape, pool)
    started = time.monotonic()
    if state is None and recipe.eyes_steps:
        looks = Log(out / "eyes", columns=("step", "loss", "kinds_right"))

        def report(step: int, loss: float, right: float) -> None:
            looks.add(step, round(loss, 4), round(right, 4))
            if progress:
                progress(step, recipe.eyes_steps)

        grid = torch.tensor([[1, encoder.grid, encoder.grid]])

        def look(chosen: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
            seen = model.model.get_image_features(
                encoder.patches(pool.pixels[chosen]), grid.repeat(len(chosen), 1), return_dict=True
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
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=recipe.learning_rate,
        betas=(0.9, 0.98),
        weight_decay=recipe.weight_decay,
    )
    step, spent = 0, 0.0
    if state is not None:
        optimizer.load_state_dict(state["optimizer"])
        step, spent = state["step"], state["seconds"]
    image_id = model.config.image_token_id
    log = Log(out, columns=("step", "loss", "rate", "seconds", "samples"))
    ends = np.cumsum([p.share for p in phases]) / sum(p.share for p in phases) * steps
    current, source = -1, None
    model.train()
    saved, samples = time.monotonic(), 0
    while step < steps:
        phase = int(np.searchsorted(ends, step, side="right"))
        if phase != current or source is None:
            rng = stream("train", 1000 * recipe.seed + step + 7)
            exercises = Exercises(
                pool.scenes, rng, "train", phases[min(phase, len(phases) - 1)].mix
            )
            source, current = batches(exercises, encoder, recipe.batch_tokens), phase
        batch = next(source)
        share = rate(step, recipe, steps)
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * share
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
            loss = loss_of(model, batch, image_id)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        optimizer.step()
        step += 1
        samples += len(batch.tasks)
        seconds = spent + time.monotonic() - started
        log.add(step, round(float(loss.detach()), 4), round(share, 4), round(seconds, 1), samples)
        if progress and step % 10 == 0:
            progress(step, steps)
        if time.monotonic() - saved > 60 * recipe.checkpoint_minutes or step == steps:
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
