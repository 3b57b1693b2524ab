"""Trains the vision tower first: what is where, asked of every visual token directly.

Language modelling alone takes long to open a small model's eyes. Here each visual token says, through
linear heads, which kind, colour and size of thing covers it, and all tokens together say place and weather.
With ``positions`` each token also says in which row and column it is: the tower's own positions are relative
ones, and a language model as short as ours tells columns apart too badly by its rotary embedding alone. It
says both as one, too: of two things, two rows and two columns do not tell which column goes with which row.
With `anchors` the heads are the language model's own embeddings of those words, so that a token that shows a
red boat looks to it like the words "red" and "boat" laid over each other. The tower goes on into the
language model's training; throw-away heads are dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from mmrerank.picturebook.training.pool import Pool
from mmrerank.picturebook.world import COLOURS, COLUMNS, KINDS, PLACES, ROWS, SIZES, WEATHERS, Scene, cell

_GAIN = 10.0  # so that holding a word's embedding once is enough to be sure of the word
_CELLS = tuple(f"{row} {column}" for row in ROWS for column in COLUMNS)
_COVER = 0.95  # of a thing's radius: how far from its middle a token still counts as showing it


def shown(scene: Scene, cells: int) -> NDArray[np.int64]:
    """Which thing covers each of ``cells x cells`` tokens, counted from 1, ``(cells^2,)``; 0 is nothing."""
    found = np.zeros((cells, cells), np.int64)
    middle = (np.arange(cells) + 0.5) / cells
    nearest = np.full((cells, cells), np.inf)
    for number, thing in enumerate(scene.things, start=1):
        far = np.hypot(middle[None, :] - thing.x, middle[:, None] - thing.y)
        # the nearest token counts whatever the size, and what is inside hides its container
        far = far - (1.0 if thing.inside is not None else 0.0)
        reach = _COVER * thing.radius - (1.0 if thing.inside is not None else 0.0)
        covers = (far <= max(reach, float(far.min()))) & (far < nearest)
        nearest[covers] = far[covers]
        found[covers] = number
    return found.reshape(-1)


def labels(scene: Scene, cells: int) -> NDArray[np.int64]:
    """Kind, colour and size covering each of ``cells x cells`` tokens, ``(cells^2, 3)``; 0 is nothing."""
    names = [
        (1 + KINDS.index(t.kind), 1 + COLOURS.index(t.colour), 1 + SIZES.index(t.size)) for t in scene.things
    ]
    return np.array([(0, 0, 0), *names], np.int64)[shown(scene, cells)]


def positions_of(scene: Scene, cells: int) -> NDArray[np.int64]:
    """Row and column, of three each, and the two as one of nine, of each token, ``(cells^2, 3)``.

    A token that shows a thing says where the thing is, which may reach over its neighbour's line.
    """
    middle = (np.arange(cells) + 0.5) / cells
    own = np.array([cell(x, y) for y in middle for x in middle], np.int64)
    things = np.array([(0, 0), *(cell(t.x, t.y) for t in scene.things)], np.int64)
    covering = shown(scene, cells)
    found = np.where(covering[:, None] > 0, things[covering], own)
    return np.column_stack([found, found @ (len(COLUMNS), 1)])


Look = Callable[[NDArray[np.int64]], tuple[torch.Tensor, torch.Tensor]]
"""Pool indices (n,) to the tower's tokens (n, cells^2, width) and what it says of the whole (n, width)."""


def train_eyes(
    look: Look,
    tower: Iterable[nn.Parameter],
    pool: Pool,
    *,
    width: int,
    cells: int,
    steps: int,
    batch: int,
    learning_rate: float,
    seed: int,
    report: Callable[[int, float, float], None],
    bag: bool = False,
    positions: bool = False,
    anchors: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Trains the parameters ``tower`` in place; ``report`` gets (step, loss, share of kinds named right).

    With ``bag`` the whole also says which kinds in which colours are anywhere in the picture, which is
    what a single vector has to hold. With ``positions`` each token also says where it is. ``anchors`` are
    fixed embeddings ``(width,)`` of the world's words.
    """
    rng = np.random.default_rng(seed)
    tower = list(tower)
    device = tower[0].device
    heads = _Heads(width, anchors, positions).to(device)
    parameters = [*tower, *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.02)
    truth = np.stack([labels(s, cells) for s in pool.scenes])
    stands = np.stack([positions_of(s, cells) for s in pool.scenes]) if positions else None
    settings = np.array([(PLACES.index(s.place), WEATHERS.index(s.weather)) for s in pool.scenes])
    held = np.stack([_bag(s) for s in pool.scenes]) if bag else None
    for step in range(steps):
        share = min(1.0, (step + 1) / 50) * min(1.0, 4 * (1 - step / steps))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * share
        chosen = rng.integers(len(pool), size=batch)
        tokens, pooled = look(chosen)
        target = torch.from_numpy(truth[chosen]).to(device)
        loss = heads.loss(
            tokens,
            pooled,
            target,
            torch.from_numpy(settings[chosen]).to(device),
            None if stands is None else torch.from_numpy(stands[chosen]).to(device),
            None if held is None else torch.from_numpy(held[chosen]).to(device),
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % 10 == 9:
            there = target[..., 0] > 0
            right = heads.things[0](tokens).argmax(-1)[there] == target[..., 0][there]
            report(step + 1, float(loss.detach()), float(right.float().mean()))


class _Heads(nn.Module):
    """What tokens and pictures are asked while the tower learns: things, where these are, the setting."""

    def __init__(self, width: int, anchors: Mapping[str, torch.Tensor] | None, positions: bool) -> None:
        super().__init__()
        self.things = nn.ModuleList(_head(width, v, anchors, nothing=True) for v in (KINDS, COLOURS, SIZES))
        self.where = nn.ModuleList(
            _head(width, v, a)
            for v, a in (((ROWS, anchors), (COLUMNS, anchors), (_CELLS, None)) if positions else ())
        )
        self.whole = nn.ModuleList(_head(width, v, anchors) for v in (PLACES, WEATHERS))
        self.bags = nn.Linear(width, len(KINDS) * len(COLOURS))

    def loss(
        self,
        tokens: torch.Tensor,
        pooled: torch.Tensor,
        target: torch.Tensor,
        settings: torch.Tensor,
        stands: torch.Tensor | None,
        held: torch.Tensor | None,
    ) -> torch.Tensor:
        """Of ``tokens`` (n, t, width) and ``pooled`` (n, width); ``target`` (n, t, 3) is 0 for nothing.

        ``settings`` (n, 2) are place and weather, ``stands`` (n, t, 3) row, column and cell, ``held``
        (n, kinds x colours) what is anywhere.
        """
        loss = torch.zeros((), device=tokens.device)
        for n, head in enumerate(self.things):
            flat, wanted = head(tokens).flatten(0, 1), target[..., n].flatten()
            each = functional.cross_entropy(flat, wanted, reduction="none")
            # most tokens show nothing: they count less
            weight = torch.where(wanted > 0, 1.0, 0.25)
            loss = loss + (each * weight).sum() / weight.sum()
        there = target[..., 0] > 0
        for n, head in enumerate(self.where):
            assert stands is not None
            wanted = stands[..., n].flatten()
            each = functional.cross_entropy(head(tokens).flatten(0, 1), wanted, reduction="none")
            weight = torch.where(there.flatten(), 1.0, 0.25)
            loss = loss + (each * weight).sum() / weight.sum()
        for n, head in enumerate(self.whole):
            loss = loss + 0.5 * functional.cross_entropy(head(pooled), settings[:, n])
        if held is not None:
            of_all = functional.binary_cross_entropy_with_logits(self.bags(pooled), held)
            loss = loss + 20 * of_all
        return loss


class _Anchored(nn.Module):
    """Logits of words by how much of each word's embedding a token holds; a learnt vector says nothing."""

    def __init__(self, words: torch.Tensor, nothing: bool) -> None:
        super().__init__()
        self.words: torch.Tensor
        self.register_buffer("words", words.detach().clone())
        self.nothing = nn.Parameter(torch.zeros(int(nothing), words.shape[1]))
        self.bias = nn.Parameter(torch.zeros(int(nothing) + len(words)))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return _GAIN * functional.linear(tokens, torch.cat([self.nothing, self.words]), self.bias)


def _head(
    width: int, words: Sequence[str], anchors: Mapping[str, torch.Tensor] | None, nothing: bool = False
) -> nn.Module:
    if anchors is None:
        return nn.Linear(width, int(nothing) + len(words))
    return _Anchored(torch.stack([anchors[w] for w in words]), nothing)


def _bag(scene: Scene) -> NDArray[np.float32]:
    found = np.zeros((len(KINDS), len(COLOURS)), np.float32)
    for thing in scene.things:
        found[KINDS.index(thing.kind), COLOURS.index(thing.colour)] = 1
    return found.reshape(-1)
