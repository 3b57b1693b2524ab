"""One step of the bundled multimodal model: what its tower sees, and the loss of a batch of exercises."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from mmrerank.picturebook.training.pool import Pool
from mmrerank.picturebook.training.vlm_batches import Batch, Encoder
from mmrerank.picturebook.training.vlm_glance import LABELS, glance_loss, named_loss, words_of
from mmrerank.picturebook.training.vlm_model import first_tokens
from mmrerank.picturebook.training.vlm_named import named_words, naming_loss

_AT_ONCE = 32  # pictures; more of them fall out of a processor's cache between layers


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
    """How many leading tokens all rows share, before any image, reply, end or word that must tell."""
    same = (batch.ids == batch.ids[:1]).all(0) & (batch.ids != image_id).all(0)
    # the token before a reply must run with the row: it predicts the reply's first token
    silent = torch.ones_like(same)
    silent[:-1] = (batch.labels[:, 1:] == -100).all(0)
    silent[batch.ends[:, 1]] = False
    silent[batch.things[:, 1]] = False
    return int((same & silent).long().cumprod(0).sum())


def look(model: Any, encoder: Encoder, pictures: torch.Tensor) -> torch.Tensor:
    """What the tower hands on, ``(n, tokens, width)``, of ``pictures``, uint8 ``(n, side, side, 3)``.

    For a tower of `batch_vision`. transformers works out anew for every picture where its patches stand.
    """
    from transformers.vision_utils import get_vision_position_ids

    visual, count = model.model.visual, len(pictures)
    grid = torch.tensor([[1, encoder.grid, encoder.grid]])
    stands = get_vision_position_ids(grid, visual.spatial_merge_size).to(pictures.device)
    hidden = visual.patch_embed(encoder.patches(pictures))
    turn = tuple(t.repeat(count, 1) for t in visual.rotary_pos_emb(hidden, stands))
    starts = torch.arange(count + 1) * len(stands)
    for block in visual.blocks:
        hidden = block(hidden, cu_seqlens=starts, position_embeddings=turn)
    seen: torch.Tensor = visual.merger(hidden).view(count, -1, encoder.shape.hidden)
    return seen


def look_once(model: Any, encoder: Encoder, folder: Path | None = None) -> torch.Tensor:
    """`look` at the whole pool, ``(n, tokens, width)``, half precision: for a tower that learns no more.

    Kept in ``folder``, under the names of the tower's weights and of the pool, for a run that goes on and
    for the other processes of this one.
    """
    file = folder and folder / f"looks-{_name_of(model, encoder.pool)}.npy"
    if file and file.exists():
        return torch.from_numpy(np.load(file))
    device = next(model.parameters()).device
    with torch.inference_mode():
        parts = [
            look(model, encoder, torch.from_numpy(encoder.pool.pixels[n : n + _AT_ONCE]).to(device))
            for n in range(0, len(encoder.pool), _AT_ONCE)
        ]
    looks = torch.cat([p.half() for p in parts])
    if file:
        new = file.with_suffix(f".{os.getpid()}")
        with new.open("wb") as sink:
            np.save(sink, looks.cpu().numpy())
        new.replace(file)
    return looks


def _name_of(model: Any, pool: Pool) -> str:
    digest = hashlib.sha256(f"{len(pool)} {pool.scenes[0].id} {pool.scenes[-1].id}".encode())
    for weight in model.model.visual.state_dict().values():
        digest.update(weight.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()[:16]


def loss_of(
    model: Any,
    batch: Batch,
    encoder: Encoder,
    looks: torch.Tensor | None = None,
    *,
    count_weight: float = 1.0,
    glance_weight: float = 0.0,
) -> torch.Tensor:
    """Mean next-token loss over reply tokens; logits are made only where there is a label.

    A letter of which ``chances`` are known is compared with these. What a reply is there for counts
    ``count_weight`` times as much as any other token. To that comes ``glance_weight`` of the side loss on
    how far each image shows what is asked for (`vlm_glance`).

    What all rows begin with (the instructions) runs once, and its keys and values are repeated: the same
    loss and gradients as running it in every row, at about half the cost. With ``looks`` (`look_once`)
    the vision tower does not run for pictures of the pool.
    """
    from transformers import DynamicCache

    image_id, positions = encoder.image_id, batch.positions
    # on a GPU, where starting a computation costs more than doing it, one pass beats two short ones
    first = 0 if batch.ids.is_cuda else shared(batch, image_id)
    cache = DynamicCache(config=model.config.get_text_config()) if first > 8 else None
    words = _words_of(model, batch, encoder, looks)
    first = _prefill(model, batch, words, cache, first)
    glance = glance_weight > 0 and len(batch.ends) > 0
    naming = glance_weight > 0 and len(batch.things) > 0
    out = model.model(
        inputs_embeds=words[:, first:],
        # rows are padded on the right, where nothing is learnt: on a GPU looking back is mask enough
        attention_mask=None if batch.ids.is_cuda else batch.mask,
        position_ids=positions[:, :, first:],
        past_key_values=cache,
        use_cache=cache is not None,
        output_hidden_states=glance or naming,
    )
    targets = batch.labels[:, first + 1 :]
    chosen = targets != -100
    logits = model.lm_head(out.last_hidden_state[:, :-1][chosen])
    each = functional.cross_entropy(logits.float(), targets[chosen], reduction="none")
    heavy = batch.counts[:, first + 1 :][chosen]
    if batch.chances is not None:
        wanted = batch.chances[chosen.nonzero()[:, 0]]
        letters = first_tokens(encoder.tokenizer, LABELS)
        spread = -(wanted * logits.float().log_softmax(-1)[:, letters]).sum(-1)
        each = torch.where(heavy & (wanted.sum(-1) > 0), spread, each)
    weights = 1.0 + (count_weight - 1.0) * heavy.float()
    loss = (each * weights).sum() / weights.sum()
    if glance or naming:
        side = _side_losses(model, batch, encoder, out.hidden_states[-3:], first)
        loss = loss + glance_weight * side
    return loss


def _prefill(model: Any, batch: Batch, words: torch.Tensor, cache: Any, first: int) -> int:
    """Runs the ``first`` tokens, which all rows share, once into ``cache``; how many then need not run."""
    if cache is None:
        return 0
    model.model(
        inputs_embeds=words[:1, :first],
        attention_mask=batch.mask[:1, :first],
        position_ids=batch.positions[:, :1, :first],
        past_key_values=cache,
        use_cache=True,
    )
    cache.batch_repeat_interleave(len(batch.ids))
    return first


def _side_losses(
    model: Any, batch: Batch, encoder: Encoder, layers: Sequence[torch.Tensor], first: int
) -> torch.Tensor:
    """What images and names should say (`vlm_glance`, `vlm_named`), by the last ``layers`` (B, T, H)."""
    loss = layers[0].new_zeros(())
    if len(batch.ends):
        known = words_of(model, encoder.tokenizer)
        for states in layers[:-1]:  # after the last layers but two and but one
            ends = states[batch.ends[:, 0], batch.ends[:, 1] - first]
            loss = loss + 0.5 * glance_loss(ends, batch.fits, batch.places, known)
        if batch.marks is not None:
            # early, for the ends of the images to gather
            tokens = layers[0][batch.ids[:, first:] == encoder.image_id]
            marks = batch.marks.flatten(0, 1)
            if not marks.isnan().all():
                loss = loss + named_loss(tokens, marks, known)
    if len(batch.things):
        # two layers before the last, so that these can use what was seen
        words = layers[0][batch.things[:, 0], batch.things[:, 1] - first]
        loss = loss + naming_loss(words, batch.seen, named_words(model, encoder.tokenizer))
    return loss


def _words_of(model: Any, batch: Batch, encoder: Encoder, looks: torch.Tensor | None) -> torch.Tensor:
    """The embeddings (B, T, H) of a batch, with the tower's tokens where images stand."""
    words: torch.Tensor = model.get_input_embeddings()(batch.ids)
    if batch.known is None:
        return words
    return words.masked_scatter(
        (batch.ids == encoder.image_id)[..., None], _seen(model, batch, encoder, looks).to(words.dtype)
    )


def _seen(model: Any, batch: Batch, encoder: Encoder, looks: torch.Tensor | None) -> torch.Tensor:
    assert batch.known is not None
    number, new = batch.known.clamp(min=0), batch.known < 0
    if looks is None:
        pictures = torch.from_numpy(encoder.pool.pixels[number.cpu().numpy()]).to(number.device)
        if batch.pixels is not None:
            pictures[new] = batch.pixels
        return look(model, encoder, pictures)
    seen = looks[number].float()
    if batch.pixels is None:
        return seen
    drawn = look(model, encoder, batch.pixels).float()
    return seen.masked_scatter(new[:, None, None], drawn)
