"""How the picture book's facts are phrased in a search: many wordings for one meaning.

Every wording is made of surface forms (``on a rainy day``), a lead (``show me``) and a frame (what comes
first). Some leads are kept out of training and validation, whatever is searched for, so that evaluation asks
in ways nobody practised. They say known words in a new way: no wording here uses a word that only evaluation
has.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmrerank.picturebook.facts import (
    CountFact,
    ExclusionFact,
    Fact,
    Noun,
    PlaceFact,
    RelationFact,
    SubjectFact,
    UnknownFact,
    WeatherFact,
    with_article,
)
from mmrerank.picturebook.world import Split, pick

LEADS = (
    "{}", "{}", "find {}", "show me {}", "a picture of {}", "i want {}", "looking for {}", "an image with {}",
    "please find {}", "search for {}", "can you find {}?", "pictures with {}", "a scene with {}", "{} please",
    "is there {}?",
)  # fmt: skip
# whoever adds one: it must be new to the shipped weights too, which later training goes on from
HELD_OUT_LEADS = (
    "please show me {}", "can you show me {}?", "i want to find {}", "looking for an image of {}",
    "search for pictures of {}", "is there a picture with {}?", "find me {} please", "a scene of {}",
    "i want pictures with {}", "can you search for {}?", "find an image with {} please",
    "{}, can you find it?",
)  # fmt: skip
_ALL_LEADS = LEADS + HELD_OUT_LEADS
FRAMES = ("things place weather", "place things weather", "weather things place", "weather place things",
          "things weather place", "place weather things")  # fmt: skip
JOINS = (" and ", " with ", " together with ", ", ", " and also ", " plus ")
PLACE_WORDS = {
    "beach": ("at the beach", "on the beach", "by the sea", "at the seaside"),
    "forest": ("in the forest", "in the woods", "in a forest"),
    "city": ("in the city", "in town", "in a city"),
    "desert": ("in the desert", "among the dunes", "in a desert"),
    "mountains": ("in the mountains", "near the mountains", "up in the mountains"),
}
WEATHER_WORDS = {
    "sunny": ("in the sun", "on a sunny day", "in sunshine"),
    "rainy": ("in the rain", "on a rainy day", "while it rains"),
    "snowy": ("in the snow", "on a snowy day", "while it snows"),
    "night": ("at night", "after dark", "under the moon"),
}
RELATION_WORDS = {
    "left of": ("left of", "to the left of", "on the left of"),
    "right of": ("right of", "to the right of", "on the right of"),
    # not "over" and "under": these say that one stands in the other's column too
    "above": ("above", "higher than"),
    "below": ("below", "lower than"),
    "inside": ("inside", "in", "within"),
}
SIZE_WORDS = {"small": ("small", "little"), "large": ("large", "big")}
NUMBER_WORDS = {1: ("one", "exactly one", "1"), 2: ("two", "exactly two", "2"),
                3: ("three", "exactly three", "3"), 4: ("four", "exactly four", "4")}  # fmt: skip


Phrasing = tuple[str, str]
"""A lead and a frame."""


def is_practised(phrasing: Phrasing) -> bool:
    """Whether training may say anything so: whether it may use the lead."""
    return phrasing[0] not in HELD_OUT_LEADS


def _slot(fact: Fact) -> str:
    match fact:
        case PlaceFact():
            return "place"
        case WeatherFact():
            return "weather"
        case ExclusionFact():
            return "absent"  # always stands at the end
    return "things"


def choose_phrasing(rng: np.random.Generator, split: Split) -> Phrasing:
    """A lead and a frame. Evaluation uses all of them, the others what is practised."""
    return pick(rng, _ALL_LEADS if split == "evaluation" else LEADS), pick(rng, FRAMES)


def say(rng: np.random.Generator, facts: Sequence[Fact], phrasing: Phrasing) -> str:
    """The facts as one search text in lower case."""
    things = [_thing(rng, f) for f in facts if _slot(f) == "things"]
    slots = {
        "things": pick(rng, JOINS).join(things),
        "place": " ".join(pick(rng, PLACE_WORDS[f.place]) for f in facts if isinstance(f, PlaceFact)),
        "weather": " ".join(pick(rng, WEATHER_WORDS[f.weather]) for f in facts if isinstance(f, WeatherFact)),
    }
    lead, frame = phrasing
    order = [slots[name] for name in frame.split() if slots[name]]
    # where and when may open the sentence: "at the beach, find a red boat at night"
    opening = [] if not things or order[0] == slots["things"] else [order.pop(0)]
    absent = [_absent(rng, f) for f in facts if isinstance(f, ExclusionFact)]
    body = lead.format(" ".join([*order, *absent]))
    return " ".join(", ".join([*opening, body]).replace(" ,", ",").split())


def say_noun(rng: np.random.Generator, noun: Noun, *, article: bool = True) -> str:
    """A noun in one of its wordings: ``a red boat``, ``a boat that is red``, ``red boat``."""
    size = pick(rng, SIZE_WORDS[noun.size]) if noun.size else None
    words = " ".join(w for w in (size, noun.colour, noun.kind) if w)
    turn = rng.random()
    if noun.colour and turn < 0.1:
        plain = " ".join(w for w in (size, noun.kind) if w)
        return f"{with_article(plain)} that is {noun.colour}"
    return words if not article or turn > 0.85 else with_article(words)


def _thing(rng: np.random.Generator, fact: Fact) -> str:
    match fact:
        case SubjectFact(noun=noun):
            return say_noun(rng, noun)
        case CountFact(noun=noun, count=count):
            number = pick(rng, NUMBER_WORDS[count])
            return f"{number} {noun.bare if count == 1 else noun.plural}"
        case RelationFact(one=one, relation=relation, other=other):
            words = pick(rng, RELATION_WORDS[relation])
            return f"{with_article(one.bare)} {words} {with_article(other.bare)}"
        case UnknownFact():
            return fact.text
    return fact.text


def _absent(rng: np.random.Generator, fact: ExclusionFact) -> str:
    match fact.absent:
        case SubjectFact(noun=noun):
            lead = pick(rng, ("without", "but no", "with no", "without any", "and no", "and without"))
            return f"{lead} {noun.plural}"
        case PlaceFact(place=place):
            return f"{pick(rng, ('but not', 'not'))} {pick(rng, PLACE_WORDS[place])}"
        case WeatherFact(weather=weather):
            return f"{pick(rng, ('but not', 'not'))} {pick(rng, WEATHER_WORDS[weather])}"
