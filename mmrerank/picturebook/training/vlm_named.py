"""What the model is to know wherever a thing is named after a picture: what the picture shows of it.

``a red boat:`` is followed by what is seen, one word after the other, and each of these words needs its own
look at the picture, from a place where the thing is no longer named. So the look was taken in the last layer
only, by half of the attention, and was right for four words in five. Here the word "boat" itself, where the
look is easiest, is asked after the third layer from the end for the colours, sizes, rows and columns of the
boats there are and their number, or whether there are none; the words after it have only to copy. Likewise
where a prompt says the search again after its picture ("Asked for"), for the yes or no that follows. A side
loss like `vlm_glance`: how much of the vector is each of the model's own words.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch.nn import functional

from mmrerank.picturebook.facts import NUMBERS, Noun, plural_of
from mmrerank.picturebook.training.vlm_model import embeddings_of
from mmrerank.picturebook.wording import SIZE_WORDS
from mmrerank.picturebook.world import COLOURS, COLUMNS, KINDS, MAX_COUNT, ROWS, SIZES, Scene, cell

WORDS = ("no", *COLOURS, *SIZES, *ROWS, *COLUMNS, "inside", *NUMBERS[1 : 1 + MAX_COUNT])
_GAIN = 10.0
_KIND = {word: kind for kind in KINDS for word in (kind, plural_of(kind))}
_SIZE = {word: size for size, words in SIZE_WORDS.items() for word in words}
_NOUN = re.compile(
    rf"\b(?:({'|'.join(_SIZE)}) )?(?:({'|'.join(COLOURS)}) )?({'|'.join(_KIND)})\b(?! that is)"
)

Named = tuple[int, tuple[float, ...]]
"""Where in a text the word for a thing ends, and how far each of `WORDS` is true of it."""


def shown_of(noun: Noun, scene: Scene) -> tuple[float, ...]:
    """How far each of `WORDS` holds of ``noun`` in ``scene``, or of others of its kind if it is not there."""
    found = noun.found(scene)
    things = [scene.things[n] for n in found or Noun(kind=noun.kind).found(scene)]
    held = {"no": 0.0 if found else 0.5 if things else 1.0}
    for thing in things:
        row, column = cell(thing.x, thing.y)
        for word in (thing.colour, thing.size, ROWS[row], COLUMNS[column]):
            held[word] = 1.0
        if thing.inside is not None:
            held["inside"] = 1.0
    if things:
        held[NUMBERS[len(things)]] = 1.0
    return tuple(held.get(word, 0.0) for word in WORDS)


def named_in(text: str, scene: Scene, start: int = 0) -> tuple[Named, ...]:
    """The words for things in ``text``, which itself begins at ``start`` of a longer one.

    "a boat that is red" is left out: its colour is not known yet where the boat is named.
    """
    found = []
    for match in _NOUN.finditer(text):
        size, colour, word = match.groups()
        noun = Noun(kind=_KIND[word], colour=colour, size=_SIZE.get(size))
        found.append((start + match.end(), shown_of(noun, scene)))
    return tuple(found)


def named_words(model: Any, tokenizer: Any) -> torch.Tensor:
    """The embeddings of `WORDS`, ``(words, width)``."""
    known: torch.Tensor = embeddings_of(model, tokenizer, [f" {w}" for w in WORDS])
    return known


def naming_loss(states: torch.Tensor, truth: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of what the vectors ``states`` (n, width) say of each word, given (n, `WORDS`)."""
    # what all words have in common says nothing
    apart = functional.normalize((words - words.mean(0)).float(), dim=-1)
    logits = _GAIN * functional.normalize(states.float(), dim=-1) @ apart.T
    return functional.binary_cross_entropy_with_logits(logits, truth)
