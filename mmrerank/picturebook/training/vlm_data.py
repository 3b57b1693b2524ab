"""What the bundled multimodal model practises on: real asks about picture-book scenes, with true replies.

Every prompt is rendered by `mmrerank.rerank.judgements` and `comparisons`, the same code that asks any other
model; only the exercises of `vlm_looks` have prompts of their own. Replies are compact JSON in the schemas'
key order. Truth comes from `mmrerank.picturebook.facts`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from mmrerank.messages import Ask
from mmrerank.picturebook.cards import PROMPTS
from mmrerank.picturebook.facts import Fact, Judgement, Noun, Verdict, grade_verdicts
from mmrerank.picturebook.queries import DemoQuery
from mmrerank.picturebook.training.vlm_example import Example
from mmrerank.picturebook.training.vlm_facts import sample_facts, sample_nouns, say_bare
from mmrerank.picturebook.training.vlm_glance import fit, nouns_of, quality, whole
from mmrerank.picturebook.training.vlm_looks import find, list_all, name, tell
from mmrerank.picturebook.training.vlm_named import Named, named_in
from mmrerank.picturebook.training.vlm_notes import note, seen
from mmrerank.picturebook.training.vlm_searches import Asked, Row, Searches, as_query
from mmrerank.picturebook.world import Scene, Split, pick
from mmrerank.rerank import comparisons, judgements, prompting
from mmrerank.types import VERDICTS, Assessment, Candidate, Component, Image
from mmrerank.types import Verdict as VerdictValue

# many parts a picture: what a picture costs is paid once for all of them
_MOST_PARTS = 5
_MOST_PLACES = 10
_MOST_NAMES = 24
# a picture that shows all of a search is drawn 7 times as often as one that shows half of it
_SHARPNESS = 4.0


def compact(value: Any) -> str:
    """JSON as a grammar without white space writes it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def components_of(facts: Sequence[Fact]) -> tuple[Component, ...]:
    """Facts as the components a perfect deconstruction would name."""
    return tuple(Component(id=f"c{n}", kind=f.kind, text=f.text) for n, f in enumerate(facts, start=1))


class Exercises(Searches):
    """An endless, seeded supply of examples over a pool of scenes."""

    def __init__(
        self, scenes: Sequence[Scene], rng: np.random.Generator, split: Split, mix: Mapping[str, float]
    ) -> None:
        super().__init__(scenes, rng, split)
        makers = {
            "list": self._list,
            "tell": self._tell,
            "find": self._find,
            "name": self._name,
            "evaluate": self._evaluate,
            "deconstruct": self._deconstruct,
            "spell": self._spell,
            "order": self._order,
            "score": self._score,
            "prefer": self._prefer,
            "pick": self._pick,
            "grade": self._grade,
            "look": self._look,
        }
        self.tasks = sorted(mix)
        self._makers = [makers[task] for task in self.tasks]
        # processes that draw for this one see when it changes
        self.weights = torch.zeros(len(self.tasks), dtype=torch.float64)
        self.weights.share_memory_()  # type: ignore[no-untyped-call]
        self.practise(mix)

    def practise(self, mix: Mapping[str, float]) -> None:
        """From now on draws by ``mix``, whose tasks are among those that this was made with."""
        left_out = dict.fromkeys(self.tasks, 0.0)
        self.weights.copy_(torch.tensor(list({**left_out, **mix}.values()), dtype=torch.float64))

    def draw(self) -> Example:
        """The next example."""
        weights = self.weights.numpy().copy()
        make = self._makers[int(self.rng.choice(len(self.tasks), p=weights / weights.sum()))]
        with prompting.profile(PROMPTS):
            return make()

    # --- tasks --------------------------------------------------------------------------------------

    def _list(self) -> Example:
        n = self.scene()
        return list_all(self.scenes[n], n)

    def _tell(self) -> Example:
        n = self.scene()
        scene = self.scenes[n]
        drawn = (sample_facts(self.rng, self.split, scene, _MOST_PARTS) for _ in range(2))
        facts = list(dict.fromkeys(f for some in drawn for f in some))
        return tell(scene, n, [facts[int(i)] for i in self.rng.permutation(len(facts))])

    def _find(self) -> Example:
        n = self.scene()
        return find(self.scenes[n], n, sample_nouns(self.rng, self.scenes[n], _MOST_PLACES))

    def _name(self) -> Example:
        n = self.scene()
        nouns = sample_nouns(self.rng, self.scenes[n], _MOST_NAMES, changed=0.5)
        return name(self.scenes[n], n, [say_bare(self.rng, noun) for noun in nouns])

    def _evaluate(self) -> Example:
        if self.rng.random() < 0.2:
            # the reference shows what the image may not: parts are looked up in the image alone
            asked, (row,) = self.compared(1, category="composed")
            n, query, facts, reference = row.scene, asked.query, asked.facts, asked.reference
        else:
            n = self.scene()
            query, facts, reference = self.question(self.scenes[n], most=_MOST_PARTS)
        scene = self.scenes[n]
        components = components_of(facts)
        ask = judgements.evaluate(query, components, [_candidate("0")])
        verdicts = [f.judge(scene).verdict for f in facts]
        body: dict[str, Any] = {
            c.id: {"note": note(f, scene), "verdict": v}
            for c, f, v in zip(components, facts, verdicts, strict=True)
        }
        body["grade"] = grade_verdicts(verdicts)
        shown = (*((reference,) if reference else ()), n)
        made = _example(ask, {"A": body}, shown, fits=(fit(facts, verdicts),), nouns=nouns_of(facts))
        return replace(made, named=named_in(made.reply, scene))

    def _deconstruct(self) -> Example:
        turn = self.rng.random()
        demo = (
            self.seldom() if turn < 0.28
            else self.plain() if turn < 0.45
            else self.mixed() if turn < 0.53
            else self.search()
        )  # fmt: skip
        return self._decomposed(demo)

    def _spell(self) -> Example:
        return self._decomposed(self.strange())

    def _decomposed(self, demo: DemoQuery) -> Example:
        ask = judgements.deconstruct(as_query(demo))
        body = {"components": [{"kind": f.kind, "text": f.text} for f in demo.facts]}
        return _example(ask, body, (demo.reference,) if demo.reference else ())

    def _order(self) -> Example:
        if self.rng.random() < 0.12:
            # questions seldom have a reference, searches do as often as this
            asked, (row,) = self.compared(1, category="composed")
            scene = self.scenes[row.scene]
            query, facts, reference = asked.query, asked.facts, asked.reference
        else:
            scene = self.scenes[self.scene()]
            query, facts, reference = self.question(scene, most=5)
        # a few images are learnt from faster, twenty are what is asked
        turn = self.rng.random()
        count = int(self.rng.integers(2, 7 if turn < 0.5 else 21)) if turn < 0.8 else 20
        notes = [self._notes(f, scene) for f in facts]
        components = components_of(facts)
        brief = self.rng.random() < 0.5  # without notes a sequence holds twice as many rows
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
                    VerdictValue(component=c.id, verdict=j.verdict, note="" if brief else j.note)
                    for c, j in zip(components, judged, strict=True)
                ),
            )
            verdict_rows.append(verdicts)
            qualities.append(quality(verdicts))
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
        body = {"reason": reason, "scores": scores}
        fits = tuple(whole(v) for v in verdict_rows)
        return _example(ask, body, (reference,) if reference else (), fits=fits)

    def _score(self) -> Example:
        if self.rng.random() < 0.3:
            n = self.scene()
            query, facts, reference = self.question(self.scenes[n], easy=self.rng.random() < 0.3)
            row = self.row(n, facts)
        else:
            asked, (row,) = self.compared(1)
            query, facts, reference = asked.query, asked.facts, asked.reference
        ask = comparisons.score(query, _candidate("0"))
        shown = (*((reference,) if reference else ()), row.scene)
        fits = (fit(facts, row.verdicts),)
        made = _example(ask, None, shown, fits=fits, nouns=nouns_of(facts))
        text = ask.messages[-1].parts[-1].text or ""
        again = () if reference else named_in(text, self.scenes[row.scene])
        return replace(made, reply="yes" if row.quality == 1 else "no", again=again)

    def _prefer(self) -> Example:
        asked, rows = self.compared(2)
        ask = comparisons.prefer(asked.query, _candidate("0"), _candidate("1"))
        return self._best(ask, asked, rows)

    def _pick(self) -> Example:
        few = self.rng.random() < 0.5
        count = int(self.rng.integers(3, 6) if few else self.rng.integers(6, 21))
        asked, rows = self.compared(count, tied=not few)
        ask = comparisons.pick(asked.query, [_candidate(str(n)) for n in range(len(rows))])
        if few:
            return self._best(ask, asked, rows)
        # the letters' probabilities are to be an order: ListNet's (Cao et al., ICML 2007)
        worth = np.exp(_SHARPNESS * np.array([row.quality for row in rows]))
        chances = worth / worth.sum()
        drawn = int(self.rng.choice(len(rows), p=chances))
        made = self._about(ask, None, asked, rows)
        return replace(made, reply=ask.labels[drawn], chances=tuple(chances.tolist()))

    def _grade(self) -> Example:
        few = self.rng.random() < 0.6
        asked, rows = self.compared(
            int(self.rng.integers(2, 6) if few else self.rng.integers(6, 11)), tied=True
        )
        ask = comparisons.grade(asked.query, [_candidate(str(n)) for n in range(len(rows))])
        body = {
            label: {
                "note": "; ".join(note(f, self.scenes[row.scene]) for f in asked.facts),
                "grade": round(comparisons.TOP_MARK * row.quality),
            }
            for label, row in zip(ask.labels, rows, strict=True)
        }
        made = self._about(ask, body, asked, rows)
        named: list[Named] = []
        for label, row in zip(ask.labels, rows, strict=True):
            score = compact(body[label])
            named += named_in(
                score, self.scenes[row.scene], made.reply.index(f'"{label}":{score}') + len(label) + 3
            )
        return replace(made, named=tuple(named))

    def _look(self) -> Example:
        """Ordering by looking: `order` with the images and without verdicts."""
        few = self.rng.random() < 0.5
        asked, rows = self.compared(
            int(self.rng.integers(2, 6) if few else self.rng.integers(6, 21)), tied=True
        )
        candidates = [_candidate(str(n)) for n in range(len(rows))]
        ask = judgements.order(asked.query, (), candidates, {}, show_images=True)
        best = max(range(len(rows)), key=lambda n: rows[n].quality)
        shown = ", ".join(seen(f, self.scenes[rows[best].scene]) for f in asked.facts)
        scores = {n: round(99 * r.quality) for n, r in zip(ask.labels, rows, strict=True)}
        body = {"reason": f"{ask.labels[best]} shows {shown}", "scores": scores}
        return self._about(ask, body, asked, rows)

    # --- parts of a task ----------------------------------------------------------------------------

    def _best(self, ask: Ask, asked: Asked, rows: Sequence[Row]) -> Example:
        best = max(range(len(rows)), key=lambda n: rows[n].quality)
        return replace(self._about(ask, None, asked, rows), reply=ask.labels[best])

    @staticmethod
    def _about(ask: Ask, body: Any, asked: Asked, rows: Sequence[Row]) -> Example:
        shown: tuple[int | Scene, ...] = (
            *((asked.reference,) if asked.reference else ()),
            *(r.scene for r in rows),
        )
        fits = tuple(fit(asked.facts, r.verdicts) for r in rows)
        return _example(ask, body, shown, fits=fits, nouns=nouns_of(asked.facts))

    def _notes(self, fact: Fact, scene: Scene) -> dict[Verdict, list[Judgement]]:
        """Judgements of ``fact`` over some scenes by verdict: what a column of a matrix looks like."""
        found: dict[Verdict, list[Judgement]] = {}
        for other in (scene, *(self.scenes[self.scene()] for _ in range(25))):
            judged = Judgement(verdict=fact.judge(other).verdict, note=note(fact, other))
            found.setdefault(judged.verdict, []).append(judged)
        return found

    def _verdict(self, kinds: Mapping[Verdict, list[Judgement]], level: float) -> Judgement:
        order = [v for v in VERDICTS if v in kinds]
        good = self.rng.random() < level
        verdict = order[0] if good else order[int(self.rng.integers(len(order)))]
        return pick(self.rng, kinds[verdict])


def _candidate(name: str) -> Candidate:
    return Candidate(id=name, image=Image(data=b"candidate"))


def _example(
    ask: Ask,
    body: Any,
    scenes: tuple[int | Scene, ...],
    *,
    fits: tuple[tuple[float, ...], ...] = (),
    nouns: tuple[tuple[Noun, bool], ...] = (),
) -> Example:
    return Example(
        task=ask.kind, messages=ask.messages, reply=compact(body), scenes=scenes, fits=fits, nouns=nouns
    )
