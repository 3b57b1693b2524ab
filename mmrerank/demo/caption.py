"""Captions of picture-book scenes for the dual encoder: true, of any length, worded like searches."""

from __future__ import annotations

import numpy as np

from mmrerank.demo.facts import CountFact, Fact, Noun, PlaceFact, SubjectFact, WeatherFact, related
from mmrerank.demo.wording import choose_phrasing, say
from mmrerank.demo.world import Scene, Split, pick


def caption(rng: np.random.Generator, scene: Scene, split: Split) -> str:
    """One true caption. Some say everything, some only a part, as searches do."""
    whole = rng.random() < 0.4
    facts: list[Fact] = []
    groups = [scene.groups[int(i)] for i in rng.permutation(len(scene.groups))]
    for group in groups if whole else groups[: int(rng.integers(1, len(groups) + 1))]:
        noun = Noun(kind=group.kind, colour=group.colour if whole or rng.random() < 0.75 else None)
        number = len(noun.found(scene))
        counted = number <= 4 and (number > 1 or rng.random() < 0.2)
        facts.append(CountFact(noun=noun, count=number) if counted else SubjectFact(noun=noun))
    relations = related(scene)
    if relations and rng.random() < 0.15:
        facts.append(pick(rng, relations))
    if whole or rng.random() < 0.5:
        facts.append(PlaceFact(place=scene.place))
    if whole or rng.random() < 0.5:
        facts.append(WeatherFact(weather=scene.weather))
    return say(rng, facts, choose_phrasing(rng, "caption", split))
