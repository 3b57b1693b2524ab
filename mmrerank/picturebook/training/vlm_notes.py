"""What the model is taught to note before a verdict: what was asked for, then what is seen of it.

``a red boat: blue boat``. The note says the part of the search again, so that the words after the colon
look things up in the picture with what stands just before them, and the verdict then compares two short
phrases side by side. From notes that hold only what is seen, the model read places without a mistake and
still judged a quarter of them wrongly: what was asked for stood too far away.

Numbers and relations are noted by way of where things are, so that no word needs two looks at once.
"""

from __future__ import annotations

from mmrerank.picturebook.facts import (
    NUMBERS,
    WEATHER_NOTE,
    CountFact,
    ExclusionFact,
    Fact,
    Noun,
    PlaceFact,
    RelationFact,
    SubjectFact,
    WeatherFact,
)
from mmrerank.picturebook.world import COLUMNS, ROWS, Scene, cell, holds


def note(fact: Fact, scene: Scene) -> str:
    """What is asked for and what ``scene`` shows of it."""
    return f"{fact.text}: {seen(fact, scene)}"


def seen(fact: Fact, scene: Scene) -> str:
    """What ``scene`` shows of what ``fact`` asks for."""
    match fact:
        case SubjectFact(noun=noun):
            return _look(noun, scene)
        case CountFact(noun=noun):
            found = noun.found(scene)
            if not found:
                return _look(noun, scene)
            cells = sorted(cell(scene.things[n].x, scene.things[n].y) for n in found)
            places = ", ".join(f"{ROWS[row]} {COLUMNS[column]}" for row, column in cells)
            return f"{places}: {NUMBERS[len(found)]}"
        case RelationFact():
            return _related(fact, scene)
        case PlaceFact():
            return scene.place
        case WeatherFact():
            return WEATHER_NOTE[scene.weather]
        case ExclusionFact(absent=absent):
            return seen(absent, scene)
    return "unknown"


def _look(noun: Noun, scene: Scene) -> str:
    """The noun itself, or its kind as it is there, or that there is none."""
    if noun.found(scene):
        return noun.bare
    same = [thing for thing in scene.things if thing.kind == noun.kind]
    if not same:
        return f"no {noun.kind}"
    alike = [thing for thing in same if noun.colour in (None, thing.colour)]
    if noun.size is not None and alike:
        return Noun(kind=noun.kind, colour=noun.colour, size=alike[0].size).bare
    return Noun(kind=noun.kind, colour=max(same, key=lambda t: t.radius).colour).bare


def _related(fact: RelationFact, scene: Scene) -> str:
    """Both things, and where those stand that come nearest to the relation."""
    one, other = fact.one, fact.other
    ones, others = one.found(scene), other.found(scene)
    first, second = _look(one, scene), _look(other, scene)
    if one.kind == other.kind and sum(t.kind == one.kind for t in scene.things) == 1:
        return f"{first}, no other"  # the one there is cannot be both
    if fact.relation == "inside":
        if ones:
            within = any(holds("inside", scene, i, j) for i in ones for j in others)
            first += " inside" if within else " not inside"
        return f"{first}, {second}"
    axis, words = (1, COLUMNS) if fact.relation in ("left of", "right of") else (0, ROWS)
    nearest, farthest = (min, max) if fact.relation in ("left of", "above") else (max, min)

    def at(n: int) -> int:
        return cell(scene.things[n].x, scene.things[n].y)[axis]

    # the relation holds of some pair just when it holds of the outermost two
    if ones:
        first += f" {words[nearest(map(at, ones))]}"
    if others:
        second += f" {words[farthest(map(at, others))]}"
    return f"{first}, {second}"
