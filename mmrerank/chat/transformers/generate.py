"""The decoding loop of local models: greedy or sampled, under grammars, rows of one batch side by side.

A loop of our own because `generate` of transformers has one sampling setting and one length for a batch
and knows no per-row grammar. Law: a row's tokens depend on its prompt, limits and seed alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mmrerank import cancel
from mmrerank.chat.transformers.grammar import Grammars, Writing
from mmrerank.vl.local import LocalModel
from mmrerank.vl.prefix import Prefixes, Start
from mmrerank.vl.prompts import Encoded

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Row:
    """One reply of at most ``limit`` tokens; greedy at ``temperature`` 0, else drawn from ``seed``."""

    prompt: Encoded
    limit: int
    temperature: float = 0.0
    seed: int = 0
    writing: Writing | None = None


@dataclass(frozen=True, kw_only=True)
class Generated:
    """Token ids without the stop token; ``finish`` is ``length`` when the limit cut the reply."""

    ids: tuple[int, ...]
    finish: Literal["stop", "length"]


def generate(
    qwen: LocalModel, grammars: Grammars, rows: Sequence[Row], prefixes: Prefixes, start: Start
) -> list[Generated]:
    """Replies to ``rows``, in their order; all begin with ``start``. The caller holds ``qwen.lock``."""
    import torch

    with torch.inference_mode():
        return _generate(qwen, grammars, rows, prefixes, start)


def _generate(
    qwen: LocalModel, grammars: Grammars, rows: Sequence[Row], prefixes: Prefixes, start: Start
) -> list[Generated]:
    import torch

    batch = qwen.collate([r.prompt for r in rows], start.length)
    cache = prefixes.cache(start, len(rows))
    device = batch.ids.device
    written: list[list[int]] = [[] for _ in rows]
    finish: dict[int, Literal["stop", "length"]] = {}
    draws = [torch.Generator().manual_seed(r.seed) if r.temperature > 0 else None for r in rows]
    alive = list(range(len(rows)))  # batch row -> index into rows
    mask, nexts = batch.mask, batch.positions.amax((0, 2)) + 1
    logits = qwen.forward(batch, cache)
    prefixes.keep([r.prompt for r in rows], start, cache)
    while True:
        cancel.check()
        tokens = _choose_allowed(
            logits,
            grammars,
            [None if i in finish else rows[i].writing for i in alive],
            [rows[i].temperature for i in alive],
            [draws[i] for i in alive],
        )
        for i, token in zip(alive, tokens, strict=True):
            if i in finish:  # the row only waits to be dropped; its token means nothing
                continue
            if token in qwen.stop_ids:
                finish[i] = "stop"
                continue
            written[i].append(token)
            if len(written[i]) >= rows[i].limit:
                finish[i] = "length"
        going = [n for n, i in enumerate(alive) if i not in finish]
        if not going:
            return [Generated(ids=tuple(w), finish=finish[i]) for i, w in enumerate(written)]
        # finished rows are dropped when that halves the work: shrinking the cache copies it
        if 2 * len(going) <= len(alive):
            keep = torch.tensor(going, device=device)
            cache.batch_select_indices(keep)
            mask, nexts = mask[keep], nexts[keep]
            tokens = [tokens[n] for n in going]
            alive = [alive[n] for n in going]
        mask = torch.cat([mask, mask.new_ones(len(alive), 1)], 1)
        logits = qwen.step(torch.tensor(tokens, device=device), mask, nexts, cache)
        nexts = nexts + 1


def _choose_allowed(
    logits: torch.Tensor,
    grammars: Grammars,
    written: Sequence[Writing | None],
    temperatures: Sequence[float],
    draws: Sequence[torch.Generator | None],
) -> list[int]:
    """The next token of each row, counted by its writing; only a refused choice is made again, masked.

    Asking about one token before masking all: masks of xgrammar 0.2.8 lack some tokens that its matcher
    accepts (a vocabulary with "environment" was never allowed that word). What is drawn is distributed
    as under the mask: a draw that is accepted, or else one among the allowed.
    """
    tokens = _choose(logits, temperatures, draws)
    refused = {
        n: row
        for n, (row, token) in enumerate(zip(written, tokens, strict=True))
        if row is not None and not row.take(token)
    }
    if refused:
        rows = list(refused)
        again = logits[rows]
        grammars.mask(again, list(refused.values()))
        chosen = _choose(again, [temperatures[n] for n in rows], [draws[n] for n in rows])
        for n, token in zip(rows, chosen, strict=True):
            tokens[n] = token if refused[n].take(token) else _close(logits[n], grammars, refused[n])
    return tokens


def _close(logits: torch.Tensor, grammars: Grammars, writing: Writing) -> int:
    """The likeliest single byte that brings a reply whose tokens run out nearer to its end."""
    import torch

    single = torch.tensor(grammars.bytes, device=logits.device)
    order: list[int] = single[logits[single].argsort(descending=True)].tolist()
    for token in (*order, *grammars.stop):
        if writing.take(token):
            return token
    raise RuntimeError("the reply's grammar allows no token at all")


def _choose(
    logits: torch.Tensor, temperatures: Sequence[float], draws: Sequence[torch.Generator | None]
) -> list[int]:
    """The next token of each row of ``logits`` (B, width)."""
    import torch

    tokens: list[int] = logits.argmax(-1).tolist()
    for n, (temperature, draw) in enumerate(zip(temperatures, draws, strict=True)):
        if draw is not None:
            chances = torch.softmax(logits[n].cpu() / temperature, -1)
            tokens[n] = int(torch.multinomial(chances, 1, generator=draw))
    return tokens
