"""What somebody could ask about a pool of scenes, with its truth, and scenes to compare by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
    Verdict,
    WeatherFact,
)
from mmrerank.picturebook.queries import DemoQuery, sample_query
from mmrerank.picturebook.training.pool import by_kind
from mmrerank.picturebook.training.vlm_facts import sample_facts
from mmrerank.picturebook.training.vlm_glance import nouns_of, quality
from mmrerank.picturebook.training.vlm_leads import any_phrasing
from mmrerank.picturebook.wording import Phrasing, choose_phrasing, is_practised, say
from mmrerank.picturebook.words import outside
from mmrerank.picturebook.world import PLACES, WEATHERS, Scene, Split, pick
from mmrerank.types import Image, Query

_PUT_TOGETHER = 0.5
"""How often a search of training has a lead of `vlm_leads`."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A query, the facts that it asks for, and the scene behind its reference image if it has one."""

    query: Query
    facts: tuple[Fact, ...]
    reference: Scene | None


@dataclass(frozen=True, kw_only=True)
class Row:
    """A scene of the pool, the verdict on it of each fact of a query, and how well it fits, 0 to 1."""

    scene: int
    verdicts: tuple[Verdict, ...]
    quality: float


def as_query(query: DemoQuery) -> Query:
    """A demo query as users would hand it in; the reference image is left as a marker."""
    images = () if query.reference is None else (Image(data=b"reference"),)
    return Query(text=query.text, turns=query.turns, images=images)


class Searches:
    """An endless, seeded supply of searches about a pool of scenes."""

    def __init__(self, scenes: Sequence[Scene], rng: np.random.Generator, split: Split) -> None:
        self.scenes = scenes
        self.rng = rng
        self.split = split
        self.alone = [n for n, scene in enumerate(scenes) if len(scene.groups) == 1]
        self.showing = by_kind(scenes)

    def search(self) -> DemoQuery:
        """Any search, once in a while for something from outside the world."""
        return self.answered(self._category(), unknown=0.1)[1]

    def seldom(self) -> DemoQuery:
        """A search with a part that few searches have or, naming two things, is easily got wrong."""
        while True:
            category = pick(self.rng, ("exclusion", "exclusion", "relation", "count", "binding"))
            for _ in range(100):  # a small pool may have none of a category
                scene = self.scenes[self.scene()]
                demo = self._asked(scene, category)
                if demo.category == "binding" or any(_is_seldom(f) for f in demo.facts):
                    return demo

    def plain(self) -> DemoQuery:
        """A search for one thing ("a red boat"), a number, a place or a word from outside, and no more."""
        group = pick(self.rng, self.scenes[self.scene()].groups)
        turn = self.rng.random()
        fact: Fact
        if turn < 0.4:
            size = group.size if self.rng.random() < 0.2 else None
            colour = group.colour if self.rng.random() < 0.6 else None
            fact = SubjectFact(noun=Noun(kind=group.kind, colour=colour, size=size))
        elif turn < 0.66:
            colour = group.colour if self.rng.random() < 0.35 else None
            fact = CountFact(noun=Noun(kind=group.kind, colour=colour), count=int(self.rng.integers(1, 5)))
        elif turn < 0.76:
            fact = (
                PlaceFact(place=pick(self.rng, PLACES))
                if self.rng.random() < 0.5
                else WeatherFact(weather=pick(self.rng, WEATHERS))
            )
        else:
            fact = UnknownFact(word=outside(self.rng, self.split))
        return self._phrased((fact,))

    def strange(self) -> DemoQuery:
        """A search with one to four words from outside, which can only be copied, and some known parts."""
        words = dict.fromkeys(outside(self.rng, self.split) for _ in range(self.rng.integers(1, 5)))
        things: list[Fact] = [UnknownFact(word=word) for word in words]
        scene = self.scenes[self.scene()]
        group = pick(self.rng, scene.groups)
        if self.rng.random() < 0.4:
            colour = group.colour if self.rng.random() < 0.6 else None
            known = SubjectFact(noun=Noun(kind=group.kind, colour=colour))
            things.insert(int(self.rng.integers(len(things) + 1)), known)
        setting: list[Fact] = []
        if self.rng.random() < 0.2:
            setting.append(PlaceFact(place=scene.place))
        if self.rng.random() < 0.2:
            setting.append(WeatherFact(weather=scene.weather))
        return self._phrased((*things, *setting))

    def mixed(self) -> DemoQuery:
        """A search with parts of any kinds beside each other, one to four of them."""
        while True:
            scene = self.scenes[self.scene()]
            facts = sample_facts(self.rng, self.split, scene, int(self.rng.integers(1, 5)))
            settings = [type(f) for f in facts if isinstance(f, PlaceFact | WeatherFact)]
            if len(set(settings)) == len(settings):
                return self._phrased(tuple(sorted(facts, key=_phrased_late)))

    def _phrased(self, facts: tuple[Fact, ...]) -> DemoQuery:
        phrasing = self._phrasing()
        text, practised = say(self.rng, facts, phrasing), is_practised(phrasing)
        return DemoQuery(category="setting", text=text, facts=facts, practised=practised)

    def _phrasing(self) -> Phrasing:
        """The picture book's own or, in training as often, one put together."""
        if self.split == "train" and self.rng.random() < _PUT_TOGETHER:
            return any_phrasing(self.rng)
        return choose_phrasing(self.rng, self.split)

    def compared(
        self, count: int, *, tied: bool = False, category: str | None = None
    ) -> tuple[Asked, list[Row]]:
        """A query and ``count`` scenes in any order; unless ``tied``, one fits better than every other.

        Mostly scenes with things that the query names, as a first stage finds them, and often the one that
        the query was made for. No more than half of a small pool.
        """
        count = min(count, max(1, len(self.scenes) // 2))
        while True:
            shown, demo = self.answered(self._category() if category is None else category)
            near = sorted(
                (self.row(n, demo.facts) for n in self._near(demo.facts, 2 * count + 4) - {shown}),
                key=lambda r: -r.quality,
            )
            # the closest others make it hard, chance ones keep it honest
            matching = self.rng.random() < (0.4 if count == 1 else 0.7)
            rows = [self.row(shown, demo.facts)] if matching else []
            while len(rows) < count and near:
                close = self.rng.random() < 0.5
                rows.append(near.pop(0 if close else int(self.rng.integers(len(near)))))
            if len(rows) < count:
                continue
            best = max(r.quality for r in rows)
            if tied or sum(r.quality == best for r in rows) == 1:
                break
        order = self.rng.permutation(count)
        asked = Asked(query=as_query(demo), facts=demo.facts, reference=demo.reference)
        return asked, [rows[int(n)] for n in order]

    def _near(self, facts: Sequence[Fact], count: int) -> set[int]:
        """Up to ``count`` scenes, two thirds of them with a thing that ``facts`` name."""
        named = [noun.kind for noun, unwanted in nouns_of(facts) if not unwanted]
        found: set[int] = set()
        for _ in range(count):
            showing = self.showing[pick(self.rng, named)] if named else []
            if showing and self.rng.random() < 0.67:
                found.add(showing[int(self.rng.integers(len(showing)))])
            else:
                found.add(self.scene())
        return found

    def row(self, scene: int, facts: Sequence[Fact]) -> Row:
        """How scene number ``scene`` fares by ``facts``."""
        verdicts = tuple(f.judge(self.scenes[scene]).verdict for f in facts)
        return Row(scene=scene, verdicts=verdicts, quality=quality(verdicts))

    def scene(self) -> int:
        """The number of some scene of the pool."""
        return int(self.rng.integers(len(self.scenes)))

    def _category(self) -> str:
        turn = self.rng.random()
        return "composed" if turn < 0.16 else "dialogue" if turn < 0.29 else ""

    def answered(self, category: str, *, unknown: float = 0.0) -> tuple[int, DemoQuery]:
        """A scene of the pool and a search of ``category`` ("": any) that it fully meets."""
        # only scenes with things of one sort can be composed from a reference
        alone = self.alone if category == "composed" else []
        n = alone[int(self.rng.integers(len(alone)))] if alone else self.scene()
        scene = self.scenes[n]
        return n, self._asked(scene, category, unknown=unknown)

    def _asked(self, scene: Scene, category: str, *, unknown: float = 0.0) -> DemoQuery:
        """A search of ``category`` that ``scene`` meets, in the book's words or in others."""
        demo = sample_query(self.rng, self.split, scene, category=category, unknown=unknown)
        if demo.turns or demo.reference:
            return demo  # these have wordings of their own
        return replace(self._phrased(demo.facts), category=demo.category)

    def question(
        self, scene: Scene, *, easy: bool = False, most: int = 6
    ) -> tuple[Query, tuple[Fact, ...], Scene | None]:
        """A query about ``scene`` with its facts, some true of it and some not, and its reference.

        At most ``most`` facts; with ``easy`` all of them are true.
        """
        if easy or self.rng.random() < 0.3:
            category = self._category()
            own = easy or self.rng.random() < 0.5
            demo = self._asked(scene, category) if own else self.answered(category)[1]
            return as_query(demo), demo.facts, demo.reference
        facts = sample_facts(self.rng, self.split, scene, int(self.rng.integers(1, most + 1)))
        return as_query(self._phrased(facts)), facts, None


def _phrased_late(fact: Fact) -> int:
    """Where a fact stands in a search: things, place, weather, what is unwanted."""
    late = (PlaceFact, WeatherFact, ExclusionFact)
    return late.index(type(fact)) + 1 if type(fact) in late else 0


def _is_seldom(fact: Fact) -> bool:
    if isinstance(fact, ExclusionFact):
        return not isinstance(fact.absent, SubjectFact)  # "not in the rain"
    if isinstance(fact, CountFact):
        return fact.count > 2
    return isinstance(fact, RelationFact) and fact.relation == "inside"
