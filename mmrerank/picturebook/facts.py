"""Atoms of meaning about picture-book scenes: their words, their kind and their truth.

A fact is judged against a scene's own truth, never against pixels. How facts are worded in
queries is not decided here; ``text`` is only the canonical form that components carry.

How a fact is judged:

- *met*: the scene shows it. A subject needs at least one such thing, a count exactly so many.
- *partly*: the kind of thing is there, but with another colour, size or number; or both things
  of a relation are there (whatever their colours), but not so related.
- *missed*: otherwise. Places, weathers and exclusions are met or missed, never partly.
- *cannot_tell*: the fact names something that is not in this world.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from mmrerank.picturebook.world import RELATIONS, Relation, Scene, holds

Verdict = Literal["met", "partly", "missed", "cannot_tell"]
FactKind = Literal["subject", "count", "detail", "environment", "ambience", "exclusion", "activity"]
FACT_KINDS: tuple[FactKind, ...] = get_args(FactKind)

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven")
PLURALS = {"person": "people", "fish": "fish", "bus": "buses"}
PLACE_TEXT = {
    "beach": "at the beach",
    "forest": "in the forest",
    "city": "in the city",
    "desert": "in the desert",
    "mountains": "in the mountains",
}
WEATHER_TEXT = {"sunny": "in the sun", "rainy": "in the rain", "snowy": "in the snow", "night": "at night"}
WEATHER_NOTE = {"sunny": "sun", "rainy": "rain", "snowy": "snow", "night": "night"}
_WORTH: dict[Verdict, float] = {"met": 1.0, "partly": 0.5, "missed": 0.0, "cannot_tell": 0.0}


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A verdict and the few words of what is seen that justify it."""

    verdict: Verdict
    note: str


@dataclass(frozen=True, kw_only=True)
class Noun:
    """A kind of thing, perhaps of a colour and a size."""

    kind: str
    colour: str | None = None
    size: str | None = None

    @property
    def bare(self) -> str:
        """Without an article: ``large red boat``."""
        return " ".join(word for word in (self.size, self.colour, self.kind) if word)

    @property
    def text(self) -> str:
        """With an article: ``a large red boat``."""
        return with_article(self.bare)

    @property
    def plural(self) -> str:
        """More than one of it: ``large red boats``."""
        return " ".join(word for word in (self.size, self.colour, plural_of(self.kind)) if word)

    def found(self, scene: Scene) -> list[int]:
        """Indices of the things it names in ``scene``."""
        return [
            index
            for index, thing in enumerate(scene.things)
            if thing.kind == self.kind
            and (self.colour is None or thing.colour == self.colour)
            and (self.size is None or thing.size == self.size)
        ]


@dataclass(frozen=True, kw_only=True)
class Fact(ABC):
    """One thing that a query wants, or wants not."""

    @property
    @abstractmethod
    def text(self) -> str:
        """The canonical wording."""

    @property
    @abstractmethod
    def kind(self) -> FactKind:
        """Which kind of component it is."""

    @property
    def excluded(self) -> bool:
        """Whether the query wants its absence."""
        return self.kind == "exclusion"

    @abstractmethod
    def judge(self, scene: Scene) -> Judgement:
        """How far ``scene`` shows it."""


@dataclass(frozen=True, kw_only=True)
class SubjectFact(Fact):
    """At least one such thing: ``a red boat``."""

    noun: Noun

    @property
    def text(self) -> str:  # noqa: D102
        return self.noun.text

    @property
    def kind(self) -> FactKind:  # noqa: D102
        return "subject"

    def judge(self, scene: Scene) -> Judgement:  # noqa: D102
        if self.noun.found(scene):
            return Judgement(verdict="met", note=self.noun.bare)
        return _other_look(self.noun, scene)


@dataclass(frozen=True, kw_only=True)
class CountFact(Fact):
    """Exactly so many: ``three birds``."""

    noun: Noun
    count: int

    @property
    def text(self) -> str:  # noqa: D102
        return counted(self.count, self.noun)

    @property
    def kind(self) -> FactKind:  # noqa: D102
        return "count"

    def judge(self, scene: Scene) -> Judgement:  # noqa: D102
        number = len(self.noun.found(scene))
        if number:
            verdict: Verdict = "met" if number == self.count else "partly"
            return Judgement(verdict=verdict, note=counted(number, self.noun))
        same = [group for group in scene.groups if group.kind == self.noun.kind]
        if not same:
            return Judgement(verdict="missed", note=f"no {plural_of(self.noun.kind)}")
        shown = max(same, key=lambda group: group.count)
        noun = Noun(kind=shown.kind, colour=shown.colour)
        return Judgement(verdict="partly", note=counted(len(noun.found(scene)), noun))


@dataclass(frozen=True, kw_only=True)
class RelationFact(Fact):
    """Some such thing so placed to some other: ``a boat left of a tree``."""

    one: Noun
    relation: Relation
    other: Noun

    @property
    def text(self) -> str:  # noqa: D102
        return f"{self.one.text} {self.relation} {self.other.text}"

    @property
    def kind(self) -> FactKind:  # noqa: D102
        return "detail"

    def judge(self, scene: Scene) -> Judgement:  # noqa: D102
        ones, others = self.one.found(scene), self.other.found(scene)
        pairs = [(i, j) for i in ones for j in others if i != j]
        if any(holds(self.relation, scene, i, j) for i, j in pairs):
            return Judgement(verdict="met", note=self._note(self.relation, scene, *pairs[0]))
        kinds = [thing.kind for thing in scene.things]
        for noun in (self.one, self.other):
            if noun.kind not in kinds:
                return Judgement(verdict="missed", note=f"no {noun.kind}")
        if self.one.kind == self.other.kind and kinds.count(self.one.kind) < 2:
            return Judgement(verdict="missed", note=f"one {self.one.kind}")
        for noun, found in ((self.one, ones), (self.other, others)):
            if not found:
                return _other_look(noun, scene)
        for i, j in pairs:
            for relation in _nearest(self.relation):
                if holds(relation, scene, i, j):
                    return Judgement(verdict="partly", note=self._note(relation, scene, i, j))
        note = f"{self.other.kind} inside {self.one.kind}"
        return Judgement(verdict="partly", note=note)

    def _note(self, relation: Relation, scene: Scene, i: int, j: int) -> str:
        a, b = scene.things[i], scene.things[j]
        if a.kind != b.kind:
            return f"{a.kind} {relation} {b.kind}"
        return f"{a.colour} {relation} {b.colour} {b.kind}"


@dataclass(frozen=True, kw_only=True)
class PlaceFact(Fact):
    """Where the scene is: ``at the beach``."""

    place: str

    @property
    def text(self) -> str:  # noqa: D102
        return PLACE_TEXT[self.place]

    @property
    def kind(self) -> FactKind:  # noqa: D102
        return "environment"

    def judge(self, scene: Scene) -> Judgement:  # noqa: D102
        return Judgement(verdict=_either(scene.place == self.place), note=scene.place)


@dataclass(frozen=True, kw_only=True)
class WeatherFact(Fact):
    """Weather or time of day: ``at night``."""

    weather: str

    @property
    def text(self) -> str:  # noqa: D102
        return WEATHER_TEXT[self.weather]

    @property
    def kind(self) -> FactKind:  # noqa: D102
        return "ambience"

    def judge(self, scene: Scene) -> Judgement:  # noqa: D102
        note = WEATHER_NOTE[scene.weather]
        return Judgement(verdict=_either(scene.weather == self.weather), note=note)


@dataclass(frozen=True, kw_only=True)
class ExclusionFact(Fact):
    """What must not be there: ``no red cars``, ``not at night``."""

    absent: SubjectFact | PlaceFact | WeatherFact

    @property
    def text(self) -> str:  # noqa: D102
        if isinstance(self.absent, SubjectFact):
            return f"no {self.absent.noun.plural}"
        return f"not {self.absent.text}"

    @property
    def kind(self) -> FactKind:  # noqa: D102
        return "exclusion"

    def judge(self, scene: Scene) -> Judgement:  # noqa: D102
        if isinstance(self.absent, SubjectFact):
            noun = self.absent.noun
            number = len(noun.found(scene))
            return Judgement(verdict=_either(not number), note=counted(number, noun))
        inner = self.absent.judge(scene)
        return Judgement(verdict=_either(inner.verdict == "missed"), note=inner.note)


@dataclass(frozen=True, kw_only=True)
class UnknownFact(Fact):
    """Something this world does not have: ``a violin``."""

    word: str

    @property
    def text(self) -> str:  # noqa: D102
        return with_article(self.word)

    @property
    def kind(self) -> FactKind:  # noqa: D102
        return "subject"

    def judge(self, scene: Scene) -> Judgement:  # noqa: D102
        return Judgement(verdict="cannot_tell", note=f"unknown: {self.word}")


def judge(fact: Fact, scene: Scene) -> Judgement:
    """How far ``scene`` shows ``fact``, and what is seen."""
    return fact.judge(scene)


def grade(facts: Iterable[Fact], scene: Scene) -> int:
    """How much of a query ``scene`` meets, 0 to 3.

    3: every fact is met. Otherwise the mean over facts (met 1, partly 0.5, missed and
    cannot_tell 0) decides: at least 2/3 gives 2, at least 1/3 gives 1, less gives 0.
    """
    return grade_verdicts([fact.judge(scene).verdict for fact in facts])


def grade_verdicts(verdicts: Sequence[Verdict]) -> int:
    """The grade of ``grade``, from verdicts alone.

    >>> grade_verdicts(["met", "met", "missed"]), grade_verdicts(["partly", "missed"])
    (2, 0)
    """
    if not verdicts:
        raise ValueError("a query without facts has no grade; give at least one fact")
    if all(verdict == "met" for verdict in verdicts):
        return 3
    # Thirds are compared in sixths of whole numbers, since 2/3 is not a float.
    halves = round(2 * sum(_WORTH[verdict] for verdict in verdicts))
    if 3 * halves >= 4 * len(verdicts):
        return 2
    return 1 if 3 * halves >= 2 * len(verdicts) else 0


def met_facts(scene: Scene) -> list[Fact]:
    """Every positive fact with at most a colour and a size that ``scene`` meets."""
    facts: dict[Fact, None] = {}
    for group in scene.groups:
        for colour in (None, group.colour):
            for size in (None, group.size):
                noun = Noun(kind=group.kind, colour=colour, size=size)
                facts[SubjectFact(noun=noun)] = None
            noun = Noun(kind=group.kind, colour=colour)
            facts[CountFact(noun=noun, count=len(noun.found(scene)))] = None
    for fact in related(scene):
        facts[fact] = None
    facts[PlaceFact(place=scene.place)] = None
    facts[WeatherFact(weather=scene.weather)] = None
    return list(facts)


def related(scene: Scene) -> list[RelationFact]:
    """Every relation that holds in ``scene``, with and without colours."""
    facts: dict[RelationFact, None] = {}
    for i, a in enumerate(scene.things):
        for j, b in enumerate(scene.things):
            if i == j or (a.kind, a.colour) == (b.kind, b.colour):
                continue
            for relation in RELATIONS:
                if not holds(relation, scene, i, j):
                    continue
                for one in (None, a.colour):
                    for other in (None, b.colour):
                        # Of one kind, only colours can tell the two apart.
                        if a.kind == b.kind and not (one and other):
                            continue
                        fact = RelationFact(
                            one=Noun(kind=a.kind, colour=one),
                            relation=relation,
                            other=Noun(kind=b.kind, colour=other),
                        )
                        facts[fact] = None
    return list(facts)


def with_article(words: str) -> str:
    """``a boat``, ``an orange cat``."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def plural_of(kind: str) -> str:
    """The plural of a kind of thing."""
    return PLURALS.get(kind, kind + "s")


def counted(number: int, noun: Noun) -> str:
    """``three red birds``, ``one bird``, ``no birds``."""
    return f"{NUMBERS[number]} {noun.bare if number == 1 else noun.plural}"


def _either(met: bool) -> Verdict:
    return "met" if met else "missed"


def _other_look(noun: Noun, scene: Scene) -> Judgement:
    """The judgement on a noun that is absent: its kind with another colour or size, or nothing."""
    same = [thing for thing in scene.things if thing.kind == noun.kind]
    if not same:
        return Judgement(verdict="missed", note=f"no {noun.kind}")
    if noun.size is not None:
        alike = [thing for thing in same if noun.colour in (None, thing.colour)]
        if alike:
            seen = Noun(kind=noun.kind, colour=noun.colour, size=alike[0].size)
            return Judgement(verdict="partly", note=seen.bare)
    seen = Noun(kind=noun.kind, colour=max(same, key=lambda thing: thing.radius).colour)
    return Judgement(verdict="partly", note=seen.bare)


def _nearest(relation: Relation) -> tuple[Relation, ...]:
    """The other relations, those on the same axis first."""
    if relation in ("above", "below"):
        return ("above", "below", "inside", "left of", "right of")
    return ("left of", "right of", "inside", "above", "below")
