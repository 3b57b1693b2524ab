"""Searches over picture-book scenes, with the truth of every scene for each of them.

Categories: ``binding`` (which colour belongs to what), ``count``, ``relation``, ``exclusion``, ``setting``
(thing, place and weather), ``composed`` (a reference scene and a change) and ``dialogue`` (three turns).
The truth is graded 0 to 3 by `facts.grade`: 3 when every fact is met, otherwise by the mean verdict. The
wording is `wording`'s business; nothing here draws. The trees behind a forest's scene are scenery, like its
ground: "without trees" and "two trees" are about those in front.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmrerank.picturebook import words
from mmrerank.picturebook.facts import (
    CountFact,
    ExclusionFact,
    Fact,
    Noun,
    PlaceFact,
    SubjectFact,
    UnknownFact,
    WeatherFact,
    related,
)
from mmrerank.picturebook.wording import (
    PLACE_WORDS,
    WEATHER_WORDS,
    choose_phrasing,
    is_practised,
    say,
    say_noun,
)
from mmrerank.picturebook.world import (
    COLOURS,
    KINDS,
    PLACES,
    WEATHERS,
    Group,
    Scene,
    Split,
    is_seen,
    lay_out,
    pick,
    sample_scene,
)

CATEGORIES = ("binding", "count", "relation", "exclusion", "setting", "composed", "dialogue")


@dataclass(frozen=True, kw_only=True)
class DemoQuery:
    """A search and the facts it asks for. ``turns`` are the earlier turns; ``text`` is the last one.

    ``reference`` is the scene shown with a composed query. ``practised`` is false for a wording that
    training never uses.
    """

    id: str = ""
    category: str
    text: str
    facts: tuple[Fact, ...]
    turns: tuple[str, ...] = ()
    reference: Scene | None = None
    practised: bool = True

    def to_json(self) -> dict[str, Any]:
        """Plain values; the reference is named by its scene's id."""
        return {
            "id": self.id,
            "category": self.category,
            "text": self.text,
            "turns": list(self.turns),
            "reference": self.reference.id if self.reference else None,
            "components": [{"kind": f.kind, "text": f.text, "excluded": f.excluded} for f in self.facts],
        }


def sample_query(
    rng: np.random.Generator,
    split: Split,
    scene: Scene | None = None,
    *,
    category: str = "",
    unknown: float = 0.0,
) -> DemoQuery:
    """A query that ``scene`` (or a fresh one) fully meets.

    With probability ``unknown`` one thing in it is a word from outside the world, so that nothing meets it.
    """
    while True:
        chosen = category or pick(rng, CATEGORIES)
        shown = scene or sample_scene(rng, split)
        query = _compose(rng, split, shown, chosen)
        if query is not None:
            return _with_unknown(rng, split, query) if rng.random() < unknown else query
        if category and scene is not None:
            chosen = "setting"  # this scene cannot carry the category asked for
            query = _compose(rng, split, scene, chosen)
            assert query is not None
            return query


def _compose(rng: np.random.Generator, split: Split, scene: Scene, category: str) -> DemoQuery | None:
    if category == "composed":
        return _composed(rng, split, scene)
    if category == "dialogue":
        return _dialogue(rng, scene)
    facts = _facts(rng, scene, category)
    if facts is None:
        return None
    phrasing = choose_phrasing(rng, split)
    text = say(rng, facts, phrasing)
    return DemoQuery(category=category, text=text, facts=facts, practised=is_practised(phrasing))


def _facts(rng: np.random.Generator, scene: Scene, category: str) -> tuple[Fact, ...] | None:
    group = pick(rng, scene.groups)
    place, weather = PlaceFact(place=scene.place), WeatherFact(weather=scene.weather)
    thing = SubjectFact(noun=_noun(rng, group))
    if category == "binding":
        others = [
            g for g in scene.groups if g is not group and (g.kind, g.colour) != (group.kind, group.colour)
        ]
        coloured = SubjectFact(noun=Noun(kind=group.kind, colour=group.colour))
        if not others:
            return None
        other = pick(rng, others)
        # two things of one kind differ only in their colours
        bare = other.kind != group.kind and rng.random() < 0.6
        second = SubjectFact(noun=Noun(kind=other.kind, colour=None if bare else other.colour))
        return (coloured, second, *((place,) if rng.random() < 0.15 else ()))
    if category == "count":
        noun = Noun(kind=group.kind, colour=group.colour if rng.random() < 0.35 else None)
        number = len(noun.found(scene))
        if number > 4 or (number == 1 and rng.random() < 0.6):
            return None
        extra = ((place,), (weather,), ())[int(rng.integers(3))]
        return (CountFact(noun=noun, count=number), *extra)
    if category == "relation":
        relations = [f for f in related(scene) if not (f.one.colour and f.other.colour) or rng.random() < 0.2]
        if not relations:
            return None
        inside = [f for f in relations if f.relation == "inside"]
        relation = pick(rng, inside if inside and rng.random() < 0.3 else relations)
        return (relation, *((pick(rng, (place, weather)),) if rng.random() < 0.15 else ()))
    if category == "exclusion":
        absent = _absent(rng, scene)
        base: list[Fact] = [thing] if rng.random() < 0.7 else [place]
        if rng.random() < 0.5:
            base.append(pick(rng, (place, weather)) if base[0] is not place else weather)
        return (*base, absent)
    return (thing, place, weather) if rng.random() < 0.7 else (thing, pick(rng, (place, weather)))


def _noun(rng: np.random.Generator, group: Group) -> Noun:
    size = group.size if rng.random() < 0.15 else None
    return Noun(kind=group.kind, colour=group.colour if rng.random() < 0.6 else None, size=size)


def _absent(rng: np.random.Generator, scene: Scene) -> ExclusionFact:
    turn = rng.random()
    if turn < 0.12:
        place = pick(rng, [p for p in PLACES if p != scene.place])
        return ExclusionFact(absent=PlaceFact(place=place))
    if turn < 0.24:
        weather = pick(rng, [w for w in WEATHERS if w != scene.weather])
        return ExclusionFact(absent=WeatherFact(weather=weather))
    while True:
        noun = Noun(kind=pick(rng, KINDS), colour=pick(rng, COLOURS) if rng.random() < 0.25 else None)
        if not noun.found(scene):
            return ExclusionFact(absent=SubjectFact(noun=noun))


def _composed(rng: np.random.Generator, split: Split, scene: Scene) -> DemoQuery | None:
    """``scene`` is what is looked for; a reference that differs in one respect is made for it."""
    if len(scene.groups) != 1:
        return None
    group = scene.groups[0]
    noun = Noun(kind=group.kind, colour=group.colour)
    facts = (SubjectFact(noun=noun), PlaceFact(place=scene.place), WeatherFact(weather=scene.weather))
    change = int(rng.integers(3))
    # one of them: "the same" asks for the thing, and not for how many there are
    place, weather, shown = scene.place, scene.weather, replace(group, count=1)
    same = pick(rng, ("the same but ", "the same, but ", "like this but ", "this, but ", ""))
    if change == 0:
        weather = pick(rng, [w for w in WEATHERS if w != scene.weather])
        text = same + pick(rng, WEATHER_WORDS[scene.weather])
    elif change == 1:
        place = pick(rng, [p for p in PLACES if p != scene.place])
        text = same + pick(rng, PLACE_WORDS[scene.place])
    else:
        other = Noun(kind=pick(rng, [k for k in KINDS if k != group.kind]), colour=pick(rng, COLOURS))
        assert other.colour is not None
        shown = Group(kind=other.kind, colour=other.colour, count=1, size=group.size)
        text = f"{same}with {say_noun(rng, noun)} instead of the {other.kind}"
    if split != "evaluation" and not is_seen(shown.kind, shown.colour, place):
        return None
    reference = lay_out(rng, place=place, weather=weather, groups=[shown])
    return DemoQuery(category="composed", text=text, facts=facts, reference=reference)


def _dialogue(rng: np.random.Generator, scene: Scene) -> DemoQuery:
    group = pick(rng, scene.groups)
    noun = Noun(kind=group.kind, colour=group.colour if rng.random() < 0.7 else None)
    place, weather = PlaceFact(place=scene.place), WeatherFact(weather=scene.weather)
    # forms that training has for a thing alone, too
    start = pick(rng, ("{}", "looking for {}", "find {}", "i want {}"))
    it = pick(rng, ("it should be {}", "make it {}", "{}", "{} please"))
    later = {
        "colour": f"it should be {noun.colour}",
        "place": it.format(pick(rng, PLACE_WORDS[scene.place])),
        "weather": it.format(pick(rng, WEATHER_WORDS[scene.weather])),
    }
    first = Noun(kind=noun.kind) if noun.colour and rng.random() < 0.5 else noun
    steps = ["colour"] if first is not noun else []
    steps += ["place", "weather"]
    chosen = [steps[int(i)] for i in sorted(rng.permutation(len(steps))[:2])]
    if "colour" in steps and "colour" not in chosen:
        first = noun
    turns = (start.format(say_noun(rng, first)), *(later[s] for s in chosen))
    facts: tuple[Fact, ...] = (
        SubjectFact(noun=noun),
        *((place,) if "place" in chosen else ()),
        *((weather,) if "weather" in chosen else ()),
    )
    return DemoQuery(category="dialogue", text=turns[-1], turns=turns[:-1], facts=facts)


def _with_unknown(rng: np.random.Generator, split: Split, query: DemoQuery) -> DemoQuery:
    """``query`` with a word from outside the world in place of its first subject."""
    if query.turns or query.reference or not isinstance(query.facts[0], SubjectFact):
        return query
    word = words.outside(rng, split)
    facts = (UnknownFact(word=word), *query.facts[1:])
    phrasing = choose_phrasing(rng, split)
    text, practised = say(rng, facts, phrasing), is_practised(phrasing)
    return DemoQuery(category=query.category, text=text, facts=facts, practised=practised)


class Truth:
    """Grades of many queries over one list of scenes; what is known of a fact is kept."""

    def __init__(self, scenes: Sequence[Scene]) -> None:
        self.scenes = scenes
        self._halves: dict[Fact, NDArray[np.int8]] = {}

    def grades(self, facts: Iterable[Fact]) -> NDArray[np.int8]:
        """The grade of every scene, ``(n,)``; equal to `facts.grade` scene by scene."""
        rows = np.stack([self._of(fact) for fact in facts])
        total, most = rows.sum(0), 2 * len(rows)
        grades = np.where(3 * total >= 2 * most, 2, np.where(3 * total >= most, 1, 0))
        return np.where((rows == 2).all(0), 3, grades).astype(np.int8)

    def _of(self, fact: Fact) -> NDArray[np.int8]:
        if fact not in self._halves:
            worth = {"met": 2, "partly": 1}
            self._halves[fact] = np.array([worth.get(fact.judge(s).verdict, 0) for s in self.scenes], np.int8)
        return self._halves[fact]


def make_queries(
    scenes: Sequence[Scene],
    n: int,
    rng: np.random.Generator,
    split: Split,
    *,
    min_match: int = 3,
    max_match: int = 60,
    categories: Sequence[str] = CATEGORIES,
    truth: Truth | None = None,
) -> list[DemoQuery]:
    """``n`` queries in turn over the categories, each fully met by ``min_match`` to ``max_match`` scenes.

    Raises `ValueError` when the scenes are too few for a category.
    """
    known = truth or Truth(scenes)
    queries: list[DemoQuery] = []
    asked: set[tuple[str, ...]] = set()
    while len(queries) < n:
        category = categories[len(queries) % len(categories)]
        for _ in range(3000):
            query = _compose(rng, split, pick(rng, scenes), category)
            if query is None or (*query.turns, query.text) in asked:
                continue
            if min_match <= int((known.grades(query.facts) == 3).sum()) <= max_match:
                break
        else:
            raise ValueError(
                f"{len(scenes)} scenes are too few for {category} queries with {min_match} matches"
            )
        asked.add((*query.turns, query.text))
        queries.append(_named(query, f"q{len(queries):04d}"))
    return queries


def make_unmatched(
    scenes: Sequence[Scene], n: int, rng: np.random.Generator, split: Split, *, truth: Truth | None = None
) -> list[DemoQuery]:
    """``n`` queries that no scene fully meets: facts of two scenes mixed, or a word from outside."""
    known = truth or Truth(scenes)
    queries: list[DemoQuery] = []
    while len(queries) < n:
        category = pick(rng, ("binding", "setting", "count", "exclusion"))
        unknown = 1.0 if len(queries) % 4 == 3 else 0.0
        query = sample_query(rng, split, category=category, unknown=unknown)
        if not (known.grades(query.facts) == 3).any():
            queries.append(_named(query, f"n{len(queries):04d}"))
    return queries


def _named(query: DemoQuery, name: str) -> DemoQuery:
    return replace(query, id=name)


def qrels(
    queries: Sequence[DemoQuery], scenes: Sequence[Scene], *, truth: Truth | None = None
) -> Mapping[str, Mapping[str, int]]:
    """``{query id: {scene id: grade}}``; grades of 0 are left out."""
    known = truth or Truth(scenes)
    table: dict[str, dict[str, int]] = {}
    for query in queries:
        grades = known.grades(query.facts)
        table[query.id] = {scenes[int(i)].id: int(grades[i]) for i in np.flatnonzero(grades)}
    return table
