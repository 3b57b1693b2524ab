"""What the bundled multimodal model practises on: real asks about picture-book scenes, with true replies.

Every prompt is rendered by `mmrerank.rerank.judgements` and `comparisons`, the same code that asks any other
model; only the auxiliary task (listing what a picture shows) has a prompt of its own. Replies are compact
JSON in the schemas' key order. Truth comes from `mmrerank.demo.facts`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mmrerank.demo.facts import (
    ExclusionFact,
    Fact,
    Judgement,
    Noun,
    SubjectFact,
    Verdict,
    grade_verdicts,
)
from mmrerank.demo.queries import DemoQuery, excluded_word, sample_query
from mmrerank.demo.wording import choose_phrasing, say
from mmrerank.demo.world import (
    COLUMNS,
    KINDS,
    ROWS,
    Scene,
    Split,
    cell,
    pick,
)
from mmrerank.messages import Ask, Message, Part
from mmrerank.rerank import comparisons, judgements
from mmrerank.train.vlm_facts import sample_facts
from mmrerank.train.vlm_notes import note, seen
from mmrerank.types import VERDICTS, Assessment, Candidate, Component, Image, Query
from mmrerank.types import Verdict as VerdictValue

LIST_PROMPT = "List what the image shows."
TELL_PROMPT = "Say of each part what the image shows of it, then give a verdict."
WORTH: Mapping[str, float] = {"met": 1.0, "partly": 0.5, "missed": 0.0, "cannot_tell": 0.0}
# many parts a picture: what a picture costs is paid once for all of them
_MOST_PARTS = 5


@dataclass(frozen=True, kw_only=True)
class Example:
    """One exercise: an ask, the reply it should get, and the scenes behind its images, in order.

    ``given`` are pieces of the reply, in order, that stand there without having to be learnt.
    """

    task: str
    messages: tuple[Message, ...]
    reply: str
    scenes: tuple[int | Scene, ...]
    given: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Asked:
    query: Query
    reference: tuple[Scene, ...]


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A scene of the pool, what each fact of a query finds in it, and how well it fits, 0 to 1."""

    scene: int
    judged: tuple[Judgement, ...]
    quality: float


def compact(value: Any) -> str:
    """JSON as a grammar without white space writes it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def components_of(facts: Sequence[Fact]) -> tuple[Component, ...]:
    """Facts as the components a perfect deconstruction would name."""
    return tuple(
        Component(id=f"c{n}", kind=f.kind, text=f.text) for n, f in enumerate(facts, start=1)
    )


def as_query(query: DemoQuery, *, exclude: tuple[str, ...] = ()) -> Query:
    """A demo query as users would hand it in; the reference image is left as a marker."""
    images = () if query.reference is None else (Image(data=b"reference"),)
    return Query(text=query.text, turns=query.turns, images=images, exclude=exclude)


class Exercises:
    """An endless, seeded supply of examples over a pool of scenes."""

    def __init__(
        self,
        scenes: Sequence[Scene],
        rng: np.random.Generator,
        split: Split,
        mix: Mapping[str, float],
    ) -> None:
        self.scenes = scenes
        self.rng = rng
        self.split = split
        self.tasks = sorted(mix)
        weights = np.array([mix[t] for t in self.tasks], float)
        self.weights = weights / weights.sum()

    def draw(self) -> Example:
        """The next example."""
        task = self.tasks[int(self.rng.choice(len(self.tasks), p=self.weights))]
        example: Example = getattr(self, f"_{task}")()
        return example

    # --- tasks --------------------------------------------------------------------------------------

    def _list(self) -> Example:
        n = self._scene()
        messages = (
            Message(role="system", parts=(Part(text="You judge images for a search engine."),)),
            Message(role="user", parts=(Part(text=LIST_PROMPT), Part(image=Image(data=b"0")))),
        )
        return Example(task="list", messages=messages, reply=listing(self.scenes[n]), scenes=(n,))

    def _tell(self) -> Example:
        """Notes and verdicts and little else: many looks at a picture for what one costs in `evaluate`."""
        n = self._scene()
        scene = self.scenes[n]
        drawn = (sample_facts(self.rng, self.split, scene, _MOST_PARTS) for _ in range(2))
        facts = list(dict.fromkeys(f for some in drawn for f in some))
        facts = [facts[int(i)] for i in self.rng.permutation(len(facts))]
        asked = tuple(f"{'; ' if i else ''}{f.text}:" for i, f in enumerate(facts))
        told = [f" {seen(f, scene)}, {f.judge(scene).verdict}" for f in facts]
        messages = (
            Message(role="system", parts=(Part(text="You judge images for a search engine."),)),
            Message(role="user", parts=(Part(text=TELL_PROMPT), Part(image=Image(data=b"0")))),
        )
        reply = "".join(a + t for a, t in zip(asked, told, strict=True))
        return Example(task="tell", messages=messages, reply=reply, scenes=(n,), given=asked)

    def _evaluate(self) -> Example:
        n = self._scene()
        scene = self.scenes[n]
        query, facts, reference = self._question(scene, most=_MOST_PARTS)
        components = components_of(facts)
        ask = judgements.evaluate(query, components, [_candidate("0")])
        verdicts = [f.judge(scene).verdict for f in facts]
        body: dict[str, Any] = {
            c.id: {"note": note(f, scene), "verdict": v}
            for c, f, v in zip(components, facts, verdicts, strict=True)
        }
        body["grade"] = grade_verdicts(verdicts)
        shown = (*((reference,) if reference else ()), n)
        return _example(ask, {"A": body}, shown)

    def _deconstruct(self) -> Example:
        scene = self.scenes[self._scene()]
        demo = sample_query(self.rng, self.split, scene, category=self._category(), unknown=0.06)
        facts = demo.facts
        exclude: tuple[str, ...] = ()
        if demo.category != "composed" and self.rng.random() < 0.12:
            absent = ExclusionFact(absent=SubjectFact(noun=Noun(kind=pick(self.rng, KINDS))))
            facts, exclude = (*facts, absent), (excluded_word(absent),)
        ask = judgements.deconstruct(as_query(demo, exclude=exclude))
        body = {"components": [{"kind": f.kind, "text": f.text} for f in facts]}
        return _example(ask, body, (demo.reference,) if demo.reference else ())

    def _order(self) -> Example:
        scene = self.scenes[self._scene()]
        query, facts, reference = self._question(scene, most=4)
        count = int(self.rng.integers(2, 21)) if self.rng.random() < 0.6 else 20
        notes = [self._notes(f, scene) for f in facts]
        components = components_of(facts)
        rows: dict[str, Assessment] = {}
        qualities: list[float] = []
        verdict_rows: list[list[Verdict]] = []
        for n in range(count):
            level = self.rng.random()
            judged = [self._verdict(kinds, level) for kinds in notes]
            verdicts = [j.verdict for j in judged]
            grade = grade_verdicts(verdicts)
            if self.rng.random() < 0.1:  # a model's own grades are not always its verdicts' sum
                grade = int(np.clip(grade + self.rng.integers(-1, 2), 0, 3))
            rows[str(n)] = Assessment(
                grade=grade,
                verdicts=tuple(
                    VerdictValue(component=c.id, verdict=j.verdict, note=j.note)
                    for c, j in zip(components, judged, strict=True)
                ),
            )
            verdict_rows.append(verdicts)
            qualities.append(sum(WORTH[v] for v in verdicts) / len(verdicts))
        ask = judgements.order(query, components, [_candidate(str(n)) for n in range(count)], rows)
        best = int(np.argmax(qualities))
        met = verdict_rows[best].count("met")
        label = ask.labels[best]
        reason = (
            f"{label} fits best: every part is met"
            if met == len(facts)
            else f"{label} comes closest: {met} of {len(facts)} parts met"
        )
        scores = {n: round(99 * q) for n, q in zip(ask.labels, qualities, strict=True)}
        return _example(
            ask, {"reason": reason, "scores": scores}, (reference,) if reference else ()
        )

    def _score(self) -> Example:
        n = self._scene()
        scene = self.scenes[n]
        query, facts, reference = self._question(scene, easy=self.rng.random() < 0.5)
        ask = comparisons.score(query, _candidate("0"))
        met = all(f.judge(scene).verdict == "met" for f in facts)
        shown = (*((reference,) if reference else ()), n)
        return replace(_example(ask, None, shown), reply="yes" if met else "no")

    def _prefer(self) -> Example:
        asked, rows = self._compared(2)
        ask = comparisons.prefer(asked.query, _candidate("0"), _candidate("1"))
        return self._best(ask, asked, rows)

    def _pick(self) -> Example:
        asked, rows = self._compared(int(self.rng.integers(3, 6)))
        ask = comparisons.pick(asked.query, [_candidate(str(n)) for n in range(len(rows))])
        return self._best(ask, asked, rows)

    def _grade(self) -> Example:
        asked, rows = self._compared(int(self.rng.integers(2, 5)))
        ask = comparisons.grade(asked.query, [_candidate(str(n)) for n in range(len(rows))])
        body = {
            label: {
                "note": ", ".join(dict.fromkeys(j.note for j in row.judged)),
                "grade": round(comparisons.TOP_MARK * row.quality),
            }
            for label, row in zip(ask.labels, rows, strict=True)
        }
        return _example(ask, body, (*asked.reference, *(r.scene for r in rows)))

    def _look(self) -> Example:
        """Ordering by looking: `order` with the images and without verdicts."""
        asked, rows = self._compared(int(self.rng.integers(2, 6)))
        candidates = [_candidate(str(n)) for n in range(len(rows))]
        ask = judgements.order(asked.query, (), candidates, {}, show_images=True)
        best = max(range(len(rows)), key=lambda n: rows[n].quality)
        shown = ", ".join(dict.fromkeys(j.note for j in rows[best].judged))
        scores = {n: round(99 * r.quality) for n, r in zip(ask.labels, rows, strict=True)}
        body = {"reason": f"{ask.labels[best]} shows {shown}", "scores": scores}
        return _example(ask, body, (*asked.reference, *(r.scene for r in rows)))

    # --- parts of a task ----------------------------------------------------------------------------

    def _compared(self, count: int) -> tuple[_Asked, list[_Row]]:
        """A query and ``count`` scenes in any order, one of which fits better than every other."""
        while True:
            shown = self._scene()
            demo = sample_query(self.rng, self.split, self.scenes[shown], category=self._category())
            near = sorted(
                (self._row(n, demo.facts) for n in {self._scene() for _ in range(12)} - {shown}),
                key=lambda r: -r.quality,
            )
            # the closest others make it hard, chance ones keep it honest
            rest = [
                near.pop(0 if self.rng.random() < 0.5 else int(self.rng.integers(len(near))))
                for _ in range(count - 1)
            ]
            rows = [self._row(shown, demo.facts), *rest]
            if all(r.quality < rows[0].quality for r in rest):
                break
        order = self.rng.permutation(count)
        reference = () if demo.reference is None else (demo.reference,)
        asked = _Asked(query=as_query(demo), reference=reference)
        return asked, [rows[int(n)] for n in order]

    def _row(self, scene: int, facts: Sequence[Fact]) -> _Row:
        judged = tuple(f.judge(self.scenes[scene]) for f in facts)
        worth = sum(WORTH[j.verdict] for j in judged) / len(judged)
        return _Row(scene=scene, judged=judged, quality=worth)

    @staticmethod
    def _best(ask: Ask, asked: _Asked, rows: Sequence[_Row]) -> Example:
        best = max(range(len(rows)), key=lambda n: rows[n].quality)
        shown: tuple[int | Scene, ...] = (*asked.reference, *(r.scene for r in rows))
        return replace(_example(ask, None, shown), reply=ask.labels[best])

    def _scene(self) -> int:
        return int(self.rng.integers(len(self.scenes)))

    def _category(self) -> str:
        turn = self.rng.random()
        return "composed" if turn < 0.12 else "dialogue" if turn < 0.25 else ""

    def _question(
        self, scene: Scene, *, easy: bool = False, most: int = 6
    ) -> tuple[Query, tuple[Fact, ...], Scene | None]:
        """A query about ``scene`` with its facts, some true of it and some not, and its reference.

        At most ``most`` facts; with ``easy`` all of them are true.
        """
        if easy or self.rng.random() < 0.3:
            other = scene if easy or self.rng.random() < 0.5 else self.scenes[self._scene()]
            demo = sample_query(self.rng, self.split, other, category=self._category())
            return as_query(demo), demo.facts, demo.reference
        facts = sample_facts(self.rng, self.split, scene, int(self.rng.integers(1, most + 1)))
        text = say(self.rng, facts, choose_phrasing(self.rng, "binding", self.split))
        return Query(text=text), facts, None

    def _notes(self, fact: Fact, scene: Scene) -> dict[Verdict, list[Judgement]]:
        """Judgements of ``fact`` over some scenes by verdict: what a column of a matrix looks like."""
        found: dict[Verdict, list[Judgement]] = {}
        for other in (scene, *(self.scenes[self._scene()] for _ in range(25))):
            judged = Judgement(verdict=fact.judge(other).verdict, note=note(fact, other))
            found.setdefault(judged.verdict, []).append(judged)
        return found

    def _verdict(self, kinds: Mapping[Verdict, list[Judgement]], level: float) -> Judgement:
        order = [v for v in VERDICTS if v in kinds]
        good = self.rng.random() < level
        verdict = order[0] if good else order[int(self.rng.integers(len(order)))]
        return pick(self.rng, kinds[verdict])


def listing(scene: Scene) -> str:
    """Place, weather and every thing by where it is, in reading order."""
    things = sorted(scene.things, key=lambda t: (cell(t.x, t.y), t.inside is not None))
    told = []
    for thing in things:
        row, column = cell(thing.x, thing.y)
        where = "inside" if thing.inside is not None else f"{ROWS[row]} {COLUMNS[column]}"
        told.append(f"{where} {thing.size} {thing.colour} {thing.kind}")
    return f"{scene.place}, {scene.weather}; " + ", ".join(told)


def _candidate(name: str) -> Candidate:
    return Candidate(id=name, image=Image(data=b"candidate"))


def _example(ask: Ask, body: Any, scenes: tuple[int | Scene, ...]) -> Example:
    return Example(task=ask.kind, messages=ask.messages, reply=compact(body), scenes=scenes)
