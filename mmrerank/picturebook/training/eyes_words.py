"""Teaches the vision tower to say what it sees in the language model's own words, laid over each other.

After `eyes` alone a token holds everything, but in a twentieth of its length: the rest is whatever the tower
needed on its way. A language model this narrow finds "dog" among such tokens by a match of a few parts in a
hundred, and its notes stay imprecise however long it practises. So each token is made the sum of the words
for what it shows (kind, colour, size, row and column, both as one of nine, place, weather) and little else,
and where nothing stands of place and weather alone: first in closed form, by least squares for the tower's
last layer, then by gradient for the whole tower. The words are unit vectors, without what all of them have
in common. Kinds of thing, the hardest to see, are also asked for by name: a token is to be nearer to its own
kind than to any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from mmrerank.picturebook.training.eyes import labels, positions_of, shown
from mmrerank.picturebook.training.pool import Pool
from mmrerank.picturebook.world import COLOURS, COLUMNS, KINDS, PLACES, ROWS, SIZES, WEATHERS, Scene

_SETTING = 0.7  # how loud place and weather are, which every token of a picture says
# how much a token counts by what it shows: what is inside another is seldom, small and half covered
_EMPTY, _SMALL, _INSIDE = 0.25, 2.0, 6.0
_KINDS = 0.3  # how much distinguishing kinds counts beside being near the sum of words
_GAIN = 10.0


class WordSums:
    """What tokens are to be: tables of unit vectors for the words of each question."""

    def __init__(self, words: Mapping[str, torch.Tensor]) -> None:
        groups = (KINDS, COLOURS, SIZES, ROWS, COLUMNS, PLACES, WEATHERS)
        known = torch.stack([words[w] for g in groups for w in g]).float().cpu()
        units = functional.normalize(known - known.mean(0), dim=1)
        self.tables = list(torch.split(units, [len(g) for g in groups]))
        # nine directions that no word has, for row and column as one
        basis, _ = torch.linalg.qr(units.T)
        cells = torch.randn(9, units.shape[1], generator=torch.Generator().manual_seed(5))
        self.cells = functional.normalize(cells - cells @ basis @ basis.T, dim=1)

    def of(self, scenes: Sequence[Scene], cells: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The tokens of ``scenes``, ``(n, cells^2, width)``, how much each counts, and its kind (0: none)."""
        things = torch.from_numpy(np.stack([labels(s, cells) for s in scenes]))
        stands = torch.from_numpy(np.stack([positions_of(s, cells) for s in scenes]))
        kinds, colours, sizes, rows, columns, places, weathers = self.tables
        target = rows[stands[..., 0]] + columns[stands[..., 1]] + self.cells[stands[..., 2]]
        # where nothing stands there is nothing to look up, and a look that strays there learns nothing wrong
        target = target * (things[..., :1] > 0)
        for n, table in enumerate((kinds, colours, sizes)):
            target = target + functional.pad(table, (0, 0, 1, 0))[things[..., n]]  # 0 is nothing
        place = places[[PLACES.index(s.place) for s in scenes]]
        weather = weathers[[WEATHERS.index(s.weather) for s in scenes]]
        weights = torch.stack([_weights(s, cells) for s in scenes])
        return target + _SETTING * (place + weather)[:, None], weights, things[..., 0]

    def kind_logits(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits ``(..., kinds)`` of what ``tokens`` say, by what each kind's word has to itself."""
        own = self.tables[0] - self.tables[0].mean(0)
        return _GAIN * tokens.float() @ own.T.to(tokens.device)


def _weights(scene: Scene, cells: int) -> torch.Tensor:
    of_things = [
        _INSIDE if t.inside is not None else _SMALL if t.size == "small" else 1.0 for t in scene.things
    ]
    return torch.tensor([_EMPTY, *of_things])[torch.from_numpy(shown(scene, cells))]


Look = Callable[[NDArray[np.int64]], torch.Tensor]
"""Pool indices (n,) to the tower's tokens (n, cells^2, width)."""


def fit_last_layer(
    look: Look, last: nn.Linear, pool: Pool, sums: WordSums, *, cells: int, scenes: int = 4000
) -> None:
    """Sets the tower's last layer to the least-squares map onto ``sums``, from some scenes of ``pool``."""
    kept: list[torch.Tensor] = []
    hook = last.register_forward_pre_hook(lambda _, given: kept.append(given[0].detach().cpu()))
    count = min(scenes, len(pool))
    with torch.inference_mode():
        for n in range(0, count, 128):
            look(np.arange(n, min(n + 128, count)))
    hook.remove()
    target, weights, _ = sums.of(pool.scenes[:count], cells)
    given = torch.cat(kept).flatten(0, -2).double()
    given = torch.cat([given, torch.ones(len(given), 1, dtype=torch.float64)], 1)
    weighted = given * weights.flatten().double()[:, None]
    square = weighted.T @ given
    square += 1e-3 * square.diagonal().mean() * torch.eye(len(square), dtype=torch.float64)
    solved = torch.linalg.solve(square, weighted.T @ target.flatten(0, 1).double())
    with torch.no_grad():
        last.weight.copy_(solved[:-1].T)
        last.bias.copy_(solved[-1])


def train_words(
    look: Look,
    tower: Iterable[nn.Parameter],
    pool: Pool,
    sums: WordSums,
    *,
    cells: int,
    steps: int,
    batch: int,
    learning_rate: float,
    seed: int,
    report: Callable[[int, float, float], None],
) -> None:
    """Trains the parameters ``tower`` in place; ``report`` gets (step, squared distance, kinds right)."""
    rng = np.random.default_rng(seed)
    tower = list(tower)
    optimizer = torch.optim.AdamW(tower, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.02)
    for step in range(steps):
        share = min(1.0, (step + 1) / 30) * min(1.0, 2 * (1 - step / steps))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * share
        chosen = rng.integers(len(pool), size=batch)
        scenes = [pool.scenes[int(n)] for n in chosen]
        tokens = look(chosen)
        target, weight, kinds = (t.to(tokens.device) for t in sums.of(scenes, cells))
        far = (tokens.float() - target).square().sum(-1)
        there = kinds > 0
        logits = sums.kind_logits(tokens[there])
        named = functional.cross_entropy(logits, kinds[there] - 1, reduction="none")
        near = (far * weight).sum() / weight.sum()
        loss = near + _KINDS * (named * weight[there]).sum() / weight[there].sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(tower, 1.0)
        optimizer.step()
        if step % 10 == 9:
            right = logits.argmax(-1) == kinds[there] - 1
            report(step + 1, float(near.detach()), float(right.float().mean()))
