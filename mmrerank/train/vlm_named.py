"""What the model is to know wherever a thing is named after a picture: what the picture shows of it.

``a red boat:`` is followed by what is seen, one word after the other, and each of these words needs its own
look at the picture, from a place where the thing is no longer named. So the look was taken in the last layer
only, by half of the attention, and was right for four words in five. Here the word "boat" itself, where the
look is easiest, is asked after the third layer from the end for the colours, sizes, rows and columns of the
boats there are, or whether there are none; the words after it have only to copy. A side loss like
`vlm_glance`: how much of the vector is each of the model's own words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from mmrerank.demo.facts import Noun, plural_of
from mmrerank.demo.world import COLOURS, COLUMNS, ROWS, SIZES, Scene, cell
from mmrerank.train.vlm_model import embeddings_of

WORDS = ("no", *COLOURS, *SIZES, *ROWS, *COLUMNS)
_GAIN = 10.0

Named = tuple[int, tuple[float, ...]]
"""Where in a reply the word for a thing ends, and how far each of `WORDS` is true of it."""


def shown_of(noun: Noun, scene: Scene) -> tuple[float, ...]:
    """How far each of `WORDS` holds of ``noun`` in ``scene``, or of others of its kind if it is not there."""
    found = noun.found(scene)
    things = [scene.things[n] for n in found or Noun(kind=noun.kind).found(scene)]
    held = {"no": 0.0 if found else 0.5 if things else 1.0}
    for thing in things:
        row, column = cell(thing.x, thing.y)
        for word in (thing.colour, thing.size, ROWS[row], COLUMNS[column]):
            held[word] = 1.0
    return tuple(held.get(word, 0.0) for word in WORDS)


def named_in(text: str, nouns: Sequence[Noun], scene: Scene, start: int = 0) -> tuple[Named, ...]:
    """Where ``nouns`` stand in ``text``, in their order, which itself begins at ``start`` of a reply."""
    found: list[Named] = []
    at = 0
    for noun in nouns:
        match = re.compile(rf"\b({noun.kind}|{plural_of(noun.kind)})\b").search(text, at)
        if match is None:
            raise ValueError(f"{text!r} does not name {noun.text}")
        at = match.end()
        found.append((start + at, shown_of(noun, scene)))
    return tuple(found)


def named_words(model: Any, tokenizer: Any) -> torch.Tensor:
    """The embeddings of `WORDS`, ``(words, width)``."""
    known: torch.Tensor = embeddings_of(model, tokenizer, [f" {w}" for w in WORDS])
    return known


def naming_loss(told: torch.Tensor, truth: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of what the vectors ``told`` (n, width) say of each word, given (n, `WORDS`)."""
    # what all words have in common says nothing
    apart = functional.normalize((words - words.mean(0)).float(), dim=-1)
    said = _GAIN * functional.normalize(told.float(), dim=-1) @ apart.T
    return functional.binary_cross_entropy_with_logits(said, truth)
