"""Exercises to batches of tensors: the chat template written out, rows of like length together.

Batches can be made in several processes; what they hold is small (pixels as bytes), and patches are cut
where the model runs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, repeat
from math import nan
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mmrerank.picturebook.training.eyes import shown as covered
from mmrerank.picturebook.training.pool import Pool, small
from mmrerank.picturebook.training.vlm_data import Exercises
from mmrerank.picturebook.training.vlm_example import Example
from mmrerank.picturebook.training.vlm_glance import LABELS, WORDS, named
from mmrerank.picturebook.training.vlm_model import VlmShape
from mmrerank.picturebook.training.vlm_named import WORDS as NAMED
from mmrerank.picturebook.world import Scene


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Right-padded rows: ``ids``, ``labels`` (B, L; -100 where no loss), ``positions`` (3, B, L).

    ``counts`` (B, L) is true where a label is what its reply is there for (`vlm_example.COUNTS`): few tokens.

    ``ends`` (n, 2): row and column of the tokens that close those images (or rows of text) of which
    ``fits`` (n, words) says how far they show what is asked for, ``places`` (n,) which of several they are.

    ``things`` (n, 2): row and column of words for things, ``seen`` (n, words) what the picture shows of
    each (`vlm_named`).

    ``marks`` (images, tokens, 2): how far what each visual token shows is wanted and unwanted, NaN where
    nothing is asked (`vlm_glance.named`).

    ``chances`` (B, letters): the probabilities that a reply of one letter is to have, 0 for all others.

    ``known``: ``(images,)``, an image's number in the pool, or -1 for one drawn for an exercise; ``pixels``:
    uint8 ``(n, side, side, 3)`` of those drawn, in order.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor
    counts: torch.Tensor
    positions: torch.Tensor
    ends: torch.Tensor
    places: torch.Tensor
    fits: torch.Tensor
    things: torch.Tensor
    seen: torch.Tensor
    marks: torch.Tensor | None
    chances: torch.Tensor | None
    pixels: torch.Tensor | None
    known: torch.Tensor | None
    tasks: tuple[str, ...]

    def to(self, device: torch.device) -> Batch:
        """The same batch on ``device``."""
        moved: dict[str, Any] = {
            k: v.to(device, non_blocking=True) for k, v in vars(self).items() if isinstance(v, torch.Tensor)
        }
        return replace(self, **moved)


# an image, or a row that says what was found in one
_CLOSING = re.compile(r"<\|vision_end\|>|(?<=\n)Image \w: grade.*\n")

# where a reply is about to score the image of a letter
_SCORED = re.compile(r'"\w":(?=\d)')

_RECENT = 6000  # texts whose tokens are kept: those of one round of `batches`

_END, _TURN = "<|im_end|>\n", "<|im_start|>assistant\n"

End = tuple[int, int, tuple[float, ...]]
"""A token's column, which of several images it belongs to (else -1), and `vlm_glance.fit` of it."""

Row = tuple[list[int], list[int], list[bool], Example]
"""Ids, labels, what counts, and the exercise behind them."""


class Encoder:
    """Examples to token ids: the chat template written out, each image as its visual tokens."""

    def __init__(self, tokenizer: Any, processor: Any, shape: VlmShape, pool: Pool, model: Any) -> None:
        self.rope_index = model.model.get_rope_index
        self.image_id = model.config.image_token_id
        self.tokenizer = tokenizer
        self.shape = shape
        self.pool = pool
        self.visual = (shape.side // (2 * shape.patch)) ** 2
        images = processor.image_processor
        self.mean = torch.tensor(images.image_mean)
        self.std = torch.tensor(images.image_std)
        self.grid = shape.side // shape.patch
        self.known: dict[int, NDArray[np.int64]] = {}
        self.recent: dict[str, tuple[list[int], list[tuple[int, int]]]] = {}

    def text(self, example: Example) -> str:
        """The prompt as the chat template renders it, visual tokens spelt out."""
        image = "<|vision_start|>" + "<|image_pad|>" * self.visual + "<|vision_end|>"
        turns = (
            f"<|im_start|>{m.role}\n" + "".join(image if p.text is None else p.text for p in m.parts) + _END
            for m in example.messages
        )
        return "".join(turns) + _TURN

    def encode(self, example: Example) -> tuple[list[int], list[int], list[bool]]:
        """Token ids of prompt and reply, their labels (-100: nothing to learn), and which of them count."""
        ids, _ = self._tokens(self.text(example))
        labels = [-100] * len(ids)
        counts = [False] * len(ids)
        spans = example.counts
        at = 0
        for text, learnt in _pieces(example):
            tokens, starts = self._tokens(text)
            ids += tokens
            labels += tokens if learnt else [-100] * len(tokens)
            counts += [any(a <= at + n < b for a, b in spans) for n in starts]
            at += len(text)
        return ids, labels, counts

    def ends(self, example: Example) -> list[End]:
        """Where ``example`` is to know how far an image fits, or which image it is about to score."""
        fits, text = example.fits, self.text(example)
        if not fits:
            return []
        closed = self._after(text, _CLOSING)[-len(fits) :]
        found = [
            (c, n if len(fits) > 1 else -1, fit) for n, (c, fit) in enumerate(zip(closed, fits, strict=True))
        ]
        start = len(self._tokens(text)[0])
        scored = self._after(example.reply, _SCORED)
        return found + [(start + c, n, (nan,) * len(WORDS)) for n, c in enumerate(scored)]

    def named(self, example: Example) -> list[tuple[int, tuple[float, ...]]]:
        """The tokens that end words for things, where these are asked about, and what is shown of each."""
        left = list(example.named)
        found: list[tuple[int, tuple[float, ...]]] = []
        if example.again:
            text = self.text(example)
            last = text.removesuffix(_END + _TURN).rindex(example.messages[-1].parts[-1].text or "")
            ends = self._closes(text)
            found += [(int(np.searchsorted(ends, last + at)), seen) for at, seen in example.again]
        column = len(self._tokens(self.text(example))[0]) if left else 0
        at = 0
        for text, _ in _pieces(example):
            if not left:
                break
            ends = self._closes(text)
            while left and left[0][0] <= at + len(text):
                end, seen = left.pop(0)
                found.append((column + int(np.searchsorted(ends, end - at)), seen))
            column += len(ends)
            at += len(text)
        return found

    def marks(self, example: Example) -> list[NDArray[np.float32]]:
        """What each visual token of each image of ``example`` is to know of the things that are named."""
        found = []
        for n, picture in enumerate(example.scenes):
            scene = self.pool.scenes[picture] if isinstance(picture, int) else picture
            asked = bool(example.nouns) and n >= len(example.scenes) - len(example.fits)
            covering = self._covering(picture) if asked else np.zeros(self.visual, np.int64)
            found.append(named(example.nouns, scene, covering))
        return found

    def _covering(self, picture: int | Scene) -> NDArray[np.int64]:
        if isinstance(picture, Scene):
            return covered(picture, self.grid // 2)
        if picture not in self.known:
            self.known[picture] = covered(self.pool.scenes[picture], self.grid // 2)
        return self.known[picture]

    def _after(self, text: str, pattern: re.Pattern[str]) -> list[int]:
        """The tokens with which the matches of ``pattern`` end."""
        ends = self._closes(text)
        return [int(np.searchsorted(ends, m.end())) for m in pattern.finditer(text)]

    def _closes(self, text: str) -> list[int]:
        """Where in ``text`` each token ends."""
        return [b for _, b in self._split(text)[1]]

    def _tokens(self, text: str) -> tuple[list[int], list[int]]:
        """Ids, and where in ``text`` each token's word begins."""
        ids, spans = self._split(text)
        # a token may begin with the space before its word
        return ids, [a + (text[a : a + 1] == " " and b - a > 1) for a, b in spans]

    def _split(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids, and where in ``text`` each token begins and ends. The last texts are asked for again soon."""
        if text not in self.recent:
            if len(self.recent) >= _RECENT:
                self.recent.clear()
            found = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
            self.recent[text] = found["input_ids"], found["offset_mapping"]
        ids, spans = self.recent[text]
        return [*ids], spans

    def patches(self, pictures: torch.Tensor) -> torch.Tensor:
        """What the image processor makes of ``pictures`` ``(n, side, side, 3)``: ``(n * grid^2, D)``."""
        mean, std = self.mean.to(pictures.device), self.std.to(pictures.device)
        scaled = (pictures.float() / 255.0 - mean) / std
        n, g, p = len(pictures), self.grid, self.shape.patch
        # blocks of 2 x 2 patches stand together, since the merger joins neighbours
        split = scaled.reshape(n, g // 2, 2, p, g // 2, 2, p, 3)
        rows = split.permute(0, 1, 4, 2, 5, 7, 3, 6)  # n, gh, gw, mh, mw, c, ph, pw
        frames = rows[..., None, :, :].expand(*rows.shape[:-2], 2, p, p)  # a still is two equal frames
        return frames.reshape(n * g * g, -1)

    def collate(self, rows: list[Row]) -> Batch:
        """Right-padded tensors of some encoded examples."""
        length = max(len(row[0]) for row in rows)
        ids = torch.full((len(rows), length), self.tokenizer.pad_token_id)
        labels = torch.full((len(rows), length), -100)
        counts = torch.zeros(len(rows), length, dtype=torch.bool)
        mask = torch.zeros(len(rows), length, dtype=torch.long)
        for n, (tokens, learnt, heavy, _) in enumerate(rows):
            ids[n, : len(tokens)] = torch.tensor(tokens)
            labels[n, : len(tokens)] = torch.tensor(learnt)
            counts[n, : len(tokens)] = torch.tensor(heavy)
            mask[n, : len(tokens)] = 1
        ends = [(n, *end) for n, row in enumerate(rows) for end in self.ends(row[3])]
        things = [(n, *thing) for n, row in enumerate(rows) for thing in self.named(row[3])]
        marks = [m for *_, e in rows for m in self.marks(e)]
        chances = torch.zeros(len(rows), len(LABELS))
        for n, (*_, example) in enumerate(rows):
            chances[n, : len(example.chances)] = torch.tensor(example.chances)
        scenes = [s for *_, e in rows for s in e.scenes]
        drawn = [small(s, self.shape.side) for s in scenes if isinstance(s, Scene)]
        grids = torch.tensor([[1, self.grid, self.grid]]).repeat(len(scenes), 1) if scenes else None
        positions, _ = self.rope_index(
            ids, mm_token_type_ids=(ids == self.image_id).int(), image_grid_thw=grids, attention_mask=mask
        )
        return Batch(
            ids=ids,
            mask=mask,
            labels=labels,
            counts=counts,
            positions=positions,
            ends=torch.tensor([e[:2] for e in ends], dtype=torch.long).reshape(-1, 2),
            places=torch.tensor([e[2] for e in ends], dtype=torch.long),
            fits=torch.tensor([e[3] for e in ends]).reshape(-1, len(WORDS)),
            things=torch.tensor([t[:2] for t in things], dtype=torch.long).reshape(-1, 2),
            seen=torch.tensor([t[2] for t in things]).reshape(-1, len(NAMED)),
            marks=torch.from_numpy(np.stack(marks)) if marks else None,
            chances=chances if chances.any() else None,
            pixels=torch.from_numpy(np.stack(drawn)) if drawn else None,
            known=torch.tensor([s if isinstance(s, int) else -1 for s in scenes]) if scenes else None,
            tasks=tuple(e.task for *_, e in rows),
        )


def _pieces(example: Example) -> list[tuple[str, bool]]:
    """The reply and its end, cut where what is given begins and ends, and whether each has to be learnt."""
    rest = example.reply + "<|im_end|>"
    pieces: list[tuple[str, bool]] = []
    for given in example.given:
        before, _, rest = rest.partition(given)
        pieces += [(before, True), (given, False)]
    return [*pieces, (rest, True)]


def batches(exercises: Exercises, encoder: Encoder, tokens: int) -> Iterator[Batch]:
    """Endless batches of at most ``tokens`` padded tokens, rows of like length together."""
    rng = exercises.rng
    # enough for batches of the rarer tasks to be full
    count = max(512, tokens // 16)
    for size in chain((256,), repeat(count)):  # the first ones soon
        rows: list[Row] = []
        for example in (exercises.draw() for _ in range(size)):
            rows.append((*encoder.encode(example), example))
        # rows of one task share their instructions, which are then computed once
        rows.sort(key=lambda r: (r[3].task, len(r[0])))
        groups: list[list[Row]] = [[]]
        for row in rows:
            last = groups[-1]
            full = last and len(row[0]) * (len(last) + 1) > tokens
            if full or (last and last[-1][3].task != row[3].task):
                groups.append([])
            groups[-1].append(row)
        for index in rng.permutation(len(groups)):
            yield encoder.collate(groups[int(index)])


class _Stream(torch.utils.data.IterableDataset[Batch]):
    """`batches` for a loader's processes, each with a random stream of its own."""

    def __init__(self, exercises: Exercises, encoder: Encoder, tokens: int) -> None:
        self.parts = (exercises, encoder, tokens)
        self.seed = int(exercises.rng.integers(1 << 30))

    def __iter__(self) -> Iterator[Batch]:
        info = torch.utils.data.get_worker_info()
        exercises, encoder, tokens = self.parts
        exercises.rng = np.random.default_rng([self.seed, info.id if info else 0])
        return batches(exercises, encoder, tokens)


def supply(exercises: Exercises, encoder: Encoder, *, tokens: int, workers: int) -> Iterator[Batch]:
    """Endless `batches`, made in ``workers`` processes (at most one per core) when there are any."""
    if not workers:
        return batches(exercises, encoder, tokens)
    # by name: handing over an open file for each tensor takes five times as long
    torch.multiprocessing.set_sharing_strategy("file_system")  # type: ignore[no-untyped-call]
    source = _Stream(exercises, encoder, tokens)
    return iter(
        torch.utils.data.DataLoader(
            source, batch_size=None, num_workers=min(workers, os.cpu_count() or 1), prefetch_factor=4
        )
    )
