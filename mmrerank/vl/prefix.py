"""Beginnings that prompts share: computed once, kept for a while, and found again by their tokens.

Two prompts share the states of a beginning when its tokens and pictures are the same, because attention only
looks back. `plan` finds what the prompts of one call share; `Prefixes` keeps recent beginnings across calls.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmrerank.vl.local import LocalModel
from mmrerank.vl.prompts import Encoded

if TYPE_CHECKING:
    import torch

Marks = NDArray[np.int64]
BYTES = 1 << 30
"""Memory for kept beginnings by default: about 18,000 tokens of a 7B Qwen2.5-VL."""
MOST = 32
"""Beginnings kept at once; each is compared with every prompt."""
WORTH = 192
"""Tokens that a pass of its own must save; fewer cost less than the pass does."""
LONG = 1024
"""Prompts from here on are kept whole: whoever asks about many images often asks again."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Prefix:
    """A computed beginning: what its tokens are, and keys and values (1, heads, length, dim) by layer."""

    marks: Marks
    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]

    @property
    def size(self) -> int:
        """Bytes of keys and values."""
        return sum(t.numel() * t.element_size() for pair in self.layers for t in pair)


@dataclass(frozen=True, kw_only=True, eq=False)
class Start:
    """Where some prompts start to differ from what is computed already: ``length`` tokens of ``prefix``."""

    length: int = 0
    prefix: Prefix | None = None


NOTHING = Start()


@dataclass(frozen=True, kw_only=True)
class PromptGroup:
    """Prompts (their places) that share their first ``shared`` tokens, or what ``start`` holds of them."""

    places: tuple[int, ...]
    shared: int = 0
    start: Start = NOTHING


class Prefixes:
    """Computed beginnings of one model, least recently used first out. The caller holds ``qwen.lock``.

    ``limit`` bounds the bytes of keys and values kept, on the model's device; 0 shares nothing at all.
    """

    def __init__(self, qwen: LocalModel, limit: int = BYTES) -> None:
        from transformers.cache_utils import DynamicLayer

        self._qwen, self._limit = qwen, limit
        self._kept: list[Prefix] = []  # the most recent last
        # layers with a sliding window forget the beginning
        layers = qwen.new_cache().layers
        self._whole = qwen.resumes and all(type(layer) is DynamicLayer for layer in layers)
        self.enabled = limit > 0 and self._whole

    def clear(self) -> None:
        """Forgets every beginning, to make room."""
        self._kept.clear()

    def groups(self, prompts: Sequence[Encoded], limits: Sequence[int]) -> list[PromptGroup]:
        """Which prompts to run together; at most ``limits`` tokens of each may be taken as computed."""
        if not self.enabled:
            return [PromptGroup(places=tuple(range(len(prompts))))] if prompts else []
        found = [self.covering(p, most) for p, most in zip(prompts, limits, strict=True)]
        groups: list[PromptGroup] = []
        for places, shared in plan([p.marks for p in prompts], limits):
            shared = prompts[places[0]].cut(shared)
            rest, known = [], dict[tuple[int, int], list[int]]()
            for place in places:
                start = found[place]
                if start.length - shared >= WORTH or (len(places) == 1 and start.length > shared):
                    known.setdefault((id(start.prefix), start.length), []).append(place)
                else:
                    rest.append(place)
            groups += [PromptGroup(places=tuple(own), start=found[own[0]]) for own in known.values()]
            if rest:
                groups.append(PromptGroup(places=tuple(rest), shared=shared if len(rest) > 1 else 0))
        return groups

    def covering(self, prompt: Encoded, most: int) -> Start:
        """The longest kept beginning of ``prompt``, at most ``most`` tokens of it."""
        best = NOTHING
        for prefix in self._kept:
            length = prompt.cut(min(most, common(prefix.marks, prompt.marks)))
            if length > best.length:
                best = Start(length=length, prefix=prefix)
        if best.prefix is not None:
            self._kept.remove(best.prefix)
            self._kept.append(best.prefix)
        return best

    def compute(self, prompt: Encoded, length: int, *, slack: int = 0) -> Start:
        """The first ``length`` tokens of ``prompt``, from what is kept or by a pass over the rest.

        Up to ``slack`` tokens may be missing at the end, where that saves the pass.
        """
        import torch

        if not self._whole:
            return NOTHING
        start = self.covering(prompt, length)
        if start.length < max(length - slack, min(length, 1)):
            cache = self.cache(start, rows=1)
            beginning = prompt.beginning(length)
            with torch.inference_mode():
                self._qwen.hidden(self._qwen.collate([beginning], start.length), cache)
            start = Start(length=length, prefix=self._add(prompt.marks[:length], cache, 0, []))
        return start

    def cache(self, start: Start, rows: int) -> Any:
        """A cache for ``rows`` prompts that holds their beginning; what is kept is never written to."""
        cache = self._qwen.new_cache()
        if start.prefix is not None:
            for layer, (keys, values) in zip(cache.layers, start.prefix.layers, strict=True):
                layer.lazy_initialization(keys, values)
                # views: the layer concatenates and never writes in place
                layer.keys = keys[:, :, : start.length].expand(rows, -1, -1, -1)
                layer.values = values[:, :, : start.length].expand(rows, -1, -1, -1)
        return cache

    def keep(self, prompts: Sequence[Encoded], start: Start, cache: Any) -> None:
        """Keeps whole prompts just computed into ``cache`` that may well be asked about again."""
        if not self.enabled:
            return
        total = cache.get_seq_length()
        for row, prompt in enumerate(prompts):
            new = prompt.length - start.length
            if 2 * new >= prompt.length and (len(prompts) == 1 or new >= LONG):
                padding = list(range(start.length, total - new))
                self._add(prompt.marks, cache, row, padding)

    def _add(self, marks: Marks, cache: Any, row: int, padding: Sequence[int]) -> Prefix:
        def own(states: torch.Tensor) -> torch.Tensor:
            import torch

            mine = states[row : row + 1]
            if padding:
                mine = torch.cat([mine[:, :, : padding[0]], mine[:, :, padding[-1] + 1 :]], 2)
            # a row of a batch must not keep the batch alive
            return mine if len(states) == 1 or padding else mine.clone()

        # keys and values (1, heads, tokens, dim): rotated by M-RoPE already, so they hold at these positions
        # only, which is why a beginning is shared from its first token on and never from the middle
        layers = tuple((own(layer.keys), own(layer.values)) for layer in cache.layers)
        made = Prefix(marks=marks, layers=layers)
        if made.size <= self._limit:
            # what the new one holds as well is not needed any more
            self._kept = [p for p in self._kept if common(p.marks, marks) < len(p.marks)]
            self._kept.append(made)
            while len(self._kept) > MOST or sum(p.size for p in self._kept) > self._limit:
                self._kept.pop(0)
        return made


def common(one: Marks, other: Marks) -> int:
    """How many marks two prompts share at their beginning."""
    most = min(len(one), len(other))
    if not most or one[0] != other[0]:
        return 0
    differ = one[:most] != other[:most]
    return int(differ.argmax()) if differ.any() else most


def plan(marks: Sequence[Marks], limits: Sequence[int]) -> list[tuple[list[int], int]]:
    """Groups of prompts, each with the number of tokens that its members share.

    A group is split off its larger one only where that saves at least `WORTH` tokens: what its members share
    beyond the larger group's beginning, for all of them but one.
    """
    # Sorted, prompts that share a beginning are neighbours, and what any two of them share is the smallest of
    # the neighbours' shares between them: one pass of comparisons finds every group.
    # Bytes in place of numbers: any order will do that brings equal beginnings together.
    order = sorted(range(len(marks)), key=lambda n: marks[n].tobytes())
    heads = [marks[n][: limits[n]] for n in order]
    # shared[i]: tokens that the prompts i and i + 1 of the order share
    shared = [common(a, b) for a, b in itertools.pairwise(heads)]
    groups: list[tuple[list[int], int]] = []

    def split(first: int, last: int) -> None:
        """Groups among the prompts ``first`` to ``last`` (exclusive) of the order."""
        depth = min(shared[first : last - 1], default=0)
        rest: list[int] = []
        at = first
        while at < last:
            end = at + 1
            while end < last and shared[end - 1] > depth:
                end += 1
            # worth a pass of its own: (members - 1) x (tokens shared beyond ``depth``), at best
            if _most_saved([s - depth for s in shared[at : end - 1]]) >= WORTH:
                split(at, end)
            else:
                rest += order[at:end]
            at = end
        if rest:
            groups.append((rest, depth if (len(rest) - 1) * depth >= WORTH else 0))

    if order:
        split(0, len(order))
    return groups


def _most_saved(heights: Sequence[int]) -> int:
    """The largest rectangle under ``heights``: neighbours that share, times what they all share."""
    best = 0
    open_: list[tuple[int, int]] = []  # (where a rectangle of this height may begin, height), rising
    for place, height in enumerate([*heights, 0]):
        begin = place
        while open_ and open_[-1][1] >= height:
            begin, tall = open_.pop()
            best = max(best, tall * (place - begin))
        open_.append((begin, height))
    return best
