"""What a language model gets right about the picture book, kind by kind, on pictures it never saw.

`mmrerank eval demo` counts verdicts on the pictures that a first stage finds, few of which are of a rare
kind. Here pictures and questions are drawn evenly. Verdicts on new combinations stand beside those on
practised ones *that are shown*: a thing that is not there is easy, and is no combination. Searches are
decomposed in practised wordings, in held-out ones, as people talk ("hunting for ... right now"), and in the
plainest ("two trees"). Five CPU minutes with 800 scenes.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mmrerank.picturebook.draw import render
from mmrerank.picturebook.facts import CountFact, Fact, Noun, SubjectFact, UnknownFact
from mmrerank.picturebook.figures import kind_of, kinds_named, looks_practised
from mmrerank.picturebook.queries import sample_query
from mmrerank.picturebook.training.vlm_data import components_of
from mmrerank.picturebook.training.vlm_facts import sample_facts
from mmrerank.picturebook.training.vlm_searches import as_query
from mmrerank.picturebook.wording import FRAMES, choose_phrasing, say
from mmrerank.picturebook.words import EVALUATION
from mmrerank.picturebook.world import COLOURS, KINDS, SIZES, pick, sample_scene, stream
from mmrerank.ports import Chat
from mmrerank.rerank import judgements, prompting
from mmrerank.types import Candidate, Image, Query

ASK_AT_ONCE = 32
GROUPS = ("practised", "new", "not shown")
# as people talk: ways that neither training nor `mmrerank eval demo` has, mostly with words of their own
TALK = (
    "got any shots of {}?", "it would be nice to see {}", "we need an illustration showing {}",
    "bring up everything that has {}", "i remember one with {}", "were there ever any with {}?",
    "my daughter drew {} once", "hunting for {} right now", "which pages of the book show {}",
    "what about {}?", "could somebody dig out {} quickly", "i'd love {}, if possible",
    "trying to locate {} for a slide", "hello, anything like {} around here?",
    "the newest ones of {} only", "there should be {} somewhere",
)  # fmt: skip


def verdicts(chat: Chat, rng: np.random.Generator, scenes: int) -> dict[str, dict[str, Any]]:
    """By kind of component and group: balanced accuracy, and (right, all) of every true verdict."""
    right: dict[tuple[str, str, str], list[bool]] = defaultdict(list)
    for at in range(0, scenes, ASK_AT_ONCE):
        asked = []
        for _ in range(min(ASK_AT_ONCE, scenes - at)):
            scene = sample_scene(rng, "evaluation")
            facts = sample_facts(rng, "evaluation", scene, int(rng.integers(2, 5)))
            data = io.BytesIO()
            render(scene, 384).save(data, "PNG")
            query = Query(text=say(rng, facts, choose_phrasing(rng, "evaluation")))
            one = Candidate(id="0", image=Image(data=data.getvalue()))
            asked.append((scene, facts, judgements.evaluate(query, components_of(facts), [one])))
        replies = chat.reply([ask for _, _, ask in asked])
        for (scene, facts, ask), reply in zip(asked, replies, strict=True):
            judged = judgements.read_evaluate(reply, ask).assessments.values()
            given = {v.component: v.verdict for one in judged for v in one.verdicts}
            shown = {g.kind for g in scene.groups}
            for component, fact in zip(ask.components, facts, strict=True):
                truth = fact.judge(scene).verdict
                named = kinds_named(fact)
                group = "practised" if looks_practised(fact, scene) else "new"
                group = "not shown" if named and not named & shown else group
                right[kind_of(fact), group, truth].append(given.get(component.id) == truth)
    table: dict[str, dict[str, Any]] = defaultdict(dict)
    for kind, group in sorted({(k, g) for k, g, _ in right}):
        rows = {t: v for (k, g, t), v in right.items() if (k, g) == (kind, group)}
        table[kind][group] = {
            "balanced": round(float(np.mean([np.mean(v) for v in rows.values()])), 3),
            **{truth: [sum(v), len(v)] for truth, v in sorted(rows.items())},
        }
    return dict(table)


def decomposed(chat: Chat, asked: Sequence[tuple[Query, Sequence[Fact]]]) -> list[int]:
    """How many of these searches are decomposed exactly, and of how many."""
    right = 0
    for at in range(0, len(asked), ASK_AT_ONCE):
        some = asked[at : at + ASK_AT_ONCE]
        replies = chat.reply([judgements.deconstruct(query) for query, _ in some])
        for (_, facts), reply in zip(some, replies, strict=True):
            found = {(c.kind, c.text) for c in judgements.read_deconstruct(reply).components}
            right += found == {(f.kind, f.text) for f in facts}
    return [right, len(asked)]


def plain() -> Iterator[tuple[str, list[Fact]]]:
    """The searches that people type first, by what they name."""
    coloured = [(kind, COLOURS[n % len(COLOURS)]) for n, kind in enumerate(KINDS)]
    yield "a thing", [SubjectFact(noun=Noun(kind=k)) for k in KINDS]
    yield "a coloured thing", [SubjectFact(noun=Noun(kind=k, colour=c)) for k, c in coloured]
    yield (
        "a large or small thing",
        [SubjectFact(noun=Noun(kind=k, colour=c, size=SIZES[n % 2])) for n, (k, c) in enumerate(coloured)],
    )
    yield "a number", [CountFact(noun=Noun(kind=k), count=2 + n % 3) for n, k in enumerate(KINDS)]
    yield (
        "a number of a colour",
        [CountFact(noun=Noun(kind=k, colour=c), count=2 + n % 3) for n, (k, c) in enumerate(coloured)],
    )
    yield "a word from outside", [UnknownFact(word=w) for w in EVALUATION]


def searches(rng: np.random.Generator, count: int) -> dict[bool, list[tuple[Query, Sequence[Fact]]]]:
    """``count`` searches without a reference in practised wordings (True) and as many in held-out ones."""
    asked: dict[bool, list[tuple[Query, Sequence[Fact]]]] = {True: [], False: []}
    while min(map(len, asked.values())) < count:
        demo = sample_query(rng, "evaluation", sample_scene(rng, "evaluation"))
        if demo.reference is None and len(asked[demo.practised]) < count:
            asked[demo.practised].append((as_query(demo), demo.facts))
    return asked


def talked(rng: np.random.Generator, count: int) -> list[tuple[Query, Sequence[Fact]]]:
    """``count`` searches without a reference, worded as people talk, each of `TALK` equally often."""
    asked: list[tuple[Query, Sequence[Fact]]] = []
    while len(asked) < count:
        demo = sample_query(rng, "evaluation", sample_scene(rng, "evaluation"))
        if demo.reference is None and not demo.turns:
            lead = TALK[len(asked) % len(TALK)]
            asked.append((Query(text=say(rng, demo.facts, (lead, pick(rng, FRAMES)))), demo.facts))
    return asked


def ask_evenly(chat: Chat, *, scenes: int = 800, seed: int = 991) -> dict[str, Any]:
    """Asks about ``scenes`` pictures and as many searches; ``verdicts`` and ``decomposed`` as plain data."""
    with prompting.profile(chat.prompts):
        return _ask(chat, scenes, seed)


def _ask(chat: Chat, scenes: int, seed: int) -> dict[str, Any]:
    rng = stream("evaluation", seed)
    judged = verdicts(chat, rng, scenes)
    apart = {
        f"{name}, {lead.format('...')!r}": decomposed(
            chat, [(Query(text=lead.format(f.text)), (f,)) for f in facts]
        )
        for name, facts in plain()
        for lead in ("{}", "show me {}")
    }
    kinds = {True: "searches in practised wordings", False: "searches in held-out wordings"}
    for practised, asked in searches(rng, scenes // 2).items():
        apart[kinds[practised]] = decomposed(chat, asked)
    apart["searches as people talk"] = decomposed(chat, talked(rng, scenes // 2))
    return {"verdicts": judged, "decomposed": apart}


def as_text(found: Mapping[str, Any]) -> str:
    """What `ask_evenly` found, as a table."""
    lines = [f"{'verdicts, balanced':22}" + "".join(f"{group:>16}" for group in GROUPS)]
    for kind, groups in found["verdicts"].items():
        row = ""
        for group in GROUPS:
            cell = groups.get(group)
            count = sum(v[1] for k, v in cell.items() if k != "balanced") if cell else 0
            row += f"{cell['balanced']:9.3f} ({count:4})" if cell else " " * 16
        lines.append(f"{kind:22}{row}")
    for name, (right, count) in found["decomposed"].items():
        lines.append(f"decomposed exactly: {right:4} of {count:4}  {name}")
    return "\n".join(lines)
