"""What the model is to know at the end of every image: how far it shows each kind of part of the search.

A letter or a yes at the end of a reply teaches little: one token for many images, and nothing in it says
which part of the search was missed in which of them. Where a search stands before the images, the token
that closes an image could know already how well the image fits. So it is asked, after the last layer but one,
so that the last can compare images or answer: how much of the vector is the word for a kind of part says how
much of that kind is shown, and where there are several images it says the letter of its own too, by which a
reply looks it up. The visual tokens of a thing say, a layer earlier, whether the search names it. All this is
a side loss; the words are the model's own and nothing is added to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from mmrerank.picturebook.facts import (
    CountFact,
    ExclusionFact,
    Fact,
    Noun,
    RelationFact,
    SubjectFact,
    Verdict,
)
from mmrerank.picturebook.training.vlm_model import embeddings_of
from mmrerank.picturebook.world import Scene
from mmrerank.rerank.replies import ALPHABET

WORTH: dict[Verdict, float] = {"met": 1.0, "partly": 0.5, "missed": 0.0, "cannot_tell": 0.0}
PARTS = ("subject", "count", "detail", "environment", "ambience", "exclusion")
# of the whole search: how much of it is shown, and whether all of it is
WORDS = (*PARTS, "grade", "every")
LABELS = ALPHABET[:20]
_GAIN = 10.0  # a vector that is the word and little else is sure of it


def quality(verdicts: Sequence[Verdict]) -> float:
    """How well an image fits, 0 to 1."""
    return sum(WORTH[v] for v in verdicts) / len(verdicts)


def fit(facts: Sequence[Fact], verdicts: Sequence[Verdict]) -> tuple[float, ...]:
    """How much of each of `WORDS` is shown, 0 to 1; NaN for a kind of part that is not asked for."""
    kinds: dict[str, list[Verdict]] = {}
    for fact, verdict in zip(facts, verdicts, strict=True):
        kinds.setdefault(fact.kind, []).append(verdict)
    parts = (quality(kinds[k]) if k in kinds else nan for k in PARTS)
    return (*parts, *whole(verdicts)[len(PARTS) :])


def whole(verdicts: Sequence[Verdict]) -> tuple[float, ...]:
    """`fit` without the kinds of parts: what a row of verdicts says by itself."""
    return (*(nan for _ in PARTS), quality(verdicts), float(all(v == "met" for v in verdicts)))


def nouns_of(facts: Sequence[Fact]) -> tuple[tuple[Noun, bool], ...]:
    """The things that a search names, and whether it wants their absence."""
    found: list[tuple[Noun, bool]] = []
    for fact in facts:
        match fact:
            case SubjectFact(noun=noun) | CountFact(noun=noun):
                found.append((noun, False))
            case RelationFact(one=one, other=other):
                found += [(one, False), (other, False)]
            case ExclusionFact(absent=SubjectFact(noun=noun)):
                found.append((noun, True))
    return tuple(found)


def named(
    nouns: Sequence[tuple[Noun, bool]], scene: Scene, covering: NDArray[np.int64]
) -> NDArray[np.float32]:
    """How far what each visual token shows is wanted, and unwanted, ``(tokens, 2)``; NaN: nothing there.

    1 for the thing that is named, 0.5 for its kind in another colour or size. ``covering`` is of
    `eyes.shown`.
    """
    table = np.full((len(scene.things) + 1, 2), np.nan, np.float32)
    for n, thing in enumerate(scene.things, start=1):
        table[n] = 0
        for noun, unwanted in nouns:
            if noun.kind == thing.kind:
                same = noun.colour in (None, thing.colour) and noun.size in (None, thing.size)
                side = int(unwanted)
                table[n, side] = max(table[n, side], 1.0 if same else 0.5)
    return table[covering]


def glance_loss(
    states: torch.Tensor, fits: torch.Tensor, places: torch.Tensor, words: torch.Tensor
) -> torch.Tensor:
    """What the vectors ``states`` (n, width) that close images should say, of `words_of`: mean cross-entropy.

    ``fits`` (n, `WORDS`) as `fit` has them; ``places`` (n,) which image of its search it is, -1 if the only.
    """
    logits = functional.normalize(states.float(), dim=-1) @ functional.normalize(words.float(), dim=-1).T
    fitting, letters = _GAIN * logits[:, : len(WORDS)], _GAIN * logits[:, len(WORDS) :]
    asked = ~fits.isnan()
    loss = functional.binary_cross_entropy_with_logits(fitting[asked], fits[asked])
    named = places >= 0
    if named.any():
        loss = loss + functional.cross_entropy(letters[named], places[named])
    return loss


def named_loss(states: torch.Tensor, wanted: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
    """The same of the visual tokens ``states`` (n, width) and what `named` says of them, (n, 2)."""
    both = words[[WORDS.index("subject"), WORDS.index("exclusion")]]
    logits = functional.normalize(states.float(), dim=-1) @ functional.normalize(both.float(), dim=-1).T
    there = ~wanted.isnan()
    return functional.binary_cross_entropy_with_logits(_GAIN * logits[there], wanted[there])


def words_of(model: Any, tokenizer: Any) -> torch.Tensor:
    """The embeddings of `WORDS` and of the letters as replies have them."""
    known: torch.Tensor = embeddings_of(model, tokenizer, (*(f" {w}" for w in WORDS), *LABELS))
    return known
