"""What the model is asked about a scene in training: facts, true or with one thing about them changed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mmrerank.picturebook import words
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
    met_facts,
)
from mmrerank.picturebook.world import (
    COLOURS,
    CONTAINERS,
    KINDS,
    PLACES,
    RELATIONS,
    SIZES,
    WEATHERS,
    Scene,
    Split,
    pick,
)


def sample_facts(rng: np.random.Generator, split: Split, scene: Scene, count: int) -> tuple[Fact, ...]:
    """Up to ``count`` facts about ``scene`` in the order of a search: true, changed, or of unknown words.

    Kinds of fact are about equally frequent; there is one place and one weather at most.
    """
    true = met_facts(scene)
    by_type: dict[type, list[Fact]] = {}
    for fact in true:
        if isinstance(fact, CountFact) and fact.count > 4:
            continue  # searches count to four
        by_type.setdefault(type(fact), []).append(fact)
    facts: dict[Fact, None] = {}
    while len(facts) < count:
        turn = rng.random()
        if turn < 0.12:
            facts[UnknownFact(word=words.outside(rng, split))] = None
            continue
        if turn < 0.24:
            unwanted = _exclusion(rng, scene)
            # "in the city but not in the forest": each is easily taken for the other
            beside = _setting(scene, unwanted.absent)
            if beside and len(facts) + 1 < count and rng.random() < 0.6:
                facts[beside if rng.random() < 0.7 else _changed(rng, beside, scene)] = None
            facts[unwanted] = None
            continue
        # kinds of fact are drawn evenly, or relations would crowd out the rest
        kind = pick(rng, (SubjectFact, SubjectFact, CountFact, CountFact, RelationFact, RelationFact,
                               PlaceFact, WeatherFact))  # fmt: skip
        if kind not in by_type:
            continue
        fact = pick(rng, by_type[kind])
        if isinstance(fact, RelationFact):
            # and so are relations: few scenes have one thing inside another
            related = [f for f in by_type[kind] if isinstance(f, RelationFact)]
            relation = pick(rng, sorted({f.relation for f in related}))
            fact = pick(rng, [f for f in related if f.relation == relation])
        if isinstance(fact, CountFact):
            # and numbers: most things stand alone, and one is counted at a glance
            counts = [f for f in by_type[kind] if isinstance(f, CountFact)]
            number = pick(rng, sorted({f.count for f in counts}))
            fact = pick(rng, [f for f in counts if f.count == number])
        facts[fact if rng.random() < 0.4 else _changed(rng, fact, scene)] = None
    # one place and one weather at most: "at the beach in the forest" is no search
    kept: dict[type | Fact, Fact] = {}
    for fact in facts:
        kept.setdefault(type(fact) if isinstance(fact, PlaceFact | WeatherFact) else fact, fact)
    rank = (UnknownFact, SubjectFact, CountFact, RelationFact, PlaceFact, WeatherFact, ExclusionFact)
    return tuple(sorted(kept.values(), key=lambda f: rank.index(type(f))))


def sample_nouns(
    rng: np.random.Generator, scene: Scene, count: int, *, changed: float = 0.25
) -> tuple[Noun, ...]:
    """Up to ``count`` nouns for things of ``scene``, with and without colour and size, some ``changed``."""
    nouns: dict[Noun, None] = {}
    for _ in range(count):
        group = pick(rng, scene.groups)
        noun = Noun(
            kind=group.kind,
            colour=group.colour if rng.random() < 0.6 else None,
            size=group.size if rng.random() < 0.15 else None,
        )
        nouns[_other(rng, noun, scene) if rng.random() < changed else noun] = None
    return tuple(nouns)


def say_bare(rng: np.random.Generator, noun: Noun) -> str:
    """``noun`` as searches, parts and notes have it: bare, with an article, or as more than one."""
    turn = rng.random()
    if turn < 0.4:
        return noun.bare
    if turn < 0.7:
        return noun.text
    number = pick(rng, ("no", "one", "two", "three", "four"))
    return f"{number} {noun.bare if number == 'one' else noun.plural}"


def _exclusion(rng: np.random.Generator, scene: Scene) -> ExclusionFact:
    # places and weathers often: beside another place or weather in the same search they are mixed up
    turn = rng.random()
    if turn < 0.25:
        return ExclusionFact(absent=PlaceFact(place=pick(rng, PLACES)))
    if turn < 0.5:
        return ExclusionFact(absent=WeatherFact(weather=pick(rng, WEATHERS)))
    group = pick(rng, scene.groups)
    kind = group.kind if rng.random() < 0.5 else pick(rng, KINDS)
    colour = None
    if rng.random() < 0.3:
        colour = group.colour if rng.random() < 0.5 else pick(rng, COLOURS)
    return ExclusionFact(absent=SubjectFact(noun=Noun(kind=kind, colour=colour)))


def _setting(scene: Scene, like: Fact) -> Fact | None:
    """The place or the weather of ``scene``, whichever ``like`` is about."""
    match like:
        case PlaceFact():
            return PlaceFact(place=scene.place)
        case WeatherFact():
            return WeatherFact(weather=scene.weather)
    return None


def _changed(rng: np.random.Generator, fact: Fact, scene: Scene) -> Fact:
    """``fact`` with one thing about it changed, so that it is most likely not met."""
    match fact:
        case SubjectFact(noun=noun):
            return SubjectFact(noun=_other(rng, noun, scene))
        case CountFact(noun=noun, count=count):
            if rng.random() < 0.5:
                number = pick(rng, [n for n in (1, 2, 3, 4) if n != count])
                return CountFact(noun=noun, count=number)
            return CountFact(noun=_other(rng, replace(noun, size=None), scene), count=count)
        case RelationFact(one=one, relation=relation, other=other):
            turn = rng.random()
            if turn < 0.35:
                return RelationFact(one=other, relation=relation, other=one)
            if turn < 0.55:
                changed = pick(rng, [r for r in RELATIONS if r != relation])
                if relation != "inside" and other.kind in CONTAINERS and rng.random() < 0.5:
                    changed = "inside"
                return RelationFact(one=one, relation=changed, other=other)
            if turn < 0.8:
                return RelationFact(one=_other(rng, one, scene), relation=relation, other=other)
            return RelationFact(one=one, relation=relation, other=_other(rng, other, scene))
        case PlaceFact(place=place):
            return PlaceFact(place=pick(rng, [p for p in PLACES if p != place]))
        case WeatherFact(weather=weather):
            return WeatherFact(weather=pick(rng, [w for w in WEATHERS if w != weather]))
    return fact


def _other(rng: np.random.Generator, noun: Noun, scene: Scene) -> Noun:
    turn = rng.random()
    if turn < 0.35:
        # the colour of something else in the picture: the binding mistake
        near = [g.colour for g in scene.groups if g.colour != noun.colour]
        colours = near if near and rng.random() < 0.6 else [c for c in COLOURS if c != noun.colour]
        return replace(noun, colour=pick(rng, colours))
    if turn < 0.5 and noun.size:
        return replace(noun, size=next(s for s in SIZES if s != noun.size))
    near = [g.kind for g in scene.groups if g.kind != noun.kind]
    if noun.colour and near and rng.random() < 0.35:
        return replace(noun, kind=pick(rng, near))
    return replace(noun, kind=pick(rng, [k for k in KINDS if k != noun.kind]))
