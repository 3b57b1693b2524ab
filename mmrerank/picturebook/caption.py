"""Captions of picture-book scenes for the dual encoder: true, of any length, worded like searches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmrerank.picturebook.facts import CountFact, Fact, Noun, PlaceFact, SubjectFact, WeatherFact, related
from mmrerank.picturebook.queries import sample_query
from mmrerank.picturebook.wording import choose_phrasing, say
from mmrerank.picturebook.world import Scene, Split, pick

_SEARCHES = ("binding", "count", "relation", "relation", "exclusion", "exclusion", "setting")


@dataclass(frozen=True, kw_only=True)
class Caption:
    """A caption of a scene, and the facts in it: all of them are met there."""

    text: str
    facts: tuple[Fact, ...]


def caption(rng: np.random.Generator, scene: Scene, split: Split) -> Caption:
    """One true caption. Most are searches that the scene meets; some say everything, some a part.

    Only searches say what is *not* there and which thing is small. A dual encoder that never read such
    captions ranks "a beach without dogs" as it ranks "a beach with dogs".
    """
    turn = rng.random()
    if turn < 0.6:
        query = sample_query(rng, split, scene, category=pick(rng, _SEARCHES))
        return Caption(text=query.text, facts=query.facts)
    whole = turn < 0.76
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
    return Caption(text=say(rng, facts, choose_phrasing(rng, split)), facts=tuple(facts))
