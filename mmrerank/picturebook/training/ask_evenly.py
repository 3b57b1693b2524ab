"""What the bundled language model gets right, kind by kind, on pictures and searches that it never saw.

    python benchmarks/bundled.py [--scenes 800] [--seed 991] [--chat SPEC] [--output json]

``mmrerank eval demo`` counts verdicts on the pictures that a first stage finds, few of which are of a rare
kind. Here pictures and what is asked of them are drawn evenly, and verdicts on things in new combinations
stand beside those on practised ones *that are shown*: that nothing is there is easily said, and is no
combination at all. Searches are taken apart in wordings that training has, in held-out ones, as people
talk ("hunting for ... right now"), and in the plainest ("two trees"). Five CPU minutes.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np

from mmrerank.chat.open import open_chat
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
from mmrerank.rerank import judgements
from mmrerank.types import Candidate, Image, Query

ASK_AT_ONCE = 32
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
    """By kind of part and by what is shown: balanced accuracy, and right and all of every true verdict."""
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
            told = judgements.read_evaluate(reply, ask).assessments.values()
            said = {v.component: v.verdict for one in told for v in one.verdicts}
            shown = {g.kind for g in scene.groups}
            for component, fact in zip(ask.components, facts, strict=True):
                truth = fact.judge(scene).verdict
                named = kinds_named(fact)
                group = "practised" if looks_practised(fact, scene) else "new"
                group = "not shown" if named and not named & shown else group
                right[kind_of(fact), group, truth].append(said.get(component.id) == truth)
    table: dict[str, dict[str, Any]] = defaultdict(dict)
    for kind, group in sorted({(k, g) for k, g, _ in right}):
        rows = {t: v for (k, g, t), v in right.items() if (k, g) == (kind, group)}
        table[kind][group] = {
            "balanced": round(float(np.mean([np.mean(v) for v in rows.values()])), 3),
            **{truth: [sum(v), len(v)] for truth, v in sorted(rows.items())},
        }
    return dict(table)


def taken_apart(chat: Chat, asked: Sequence[tuple[Query, Sequence[Fact]]]) -> list[int]:
    """How many of these searches are taken apart exactly, and of how many."""
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
        [
            SubjectFact(noun=Noun(kind=k, colour=c, size=SIZES[n % 2]))
            for n, (k, c) in enumerate(coloured)
        ],
    )
    yield "a number", [CountFact(noun=Noun(kind=k), count=2 + n % 3) for n, k in enumerate(KINDS)]
    yield (
        "a number of a colour",
        [
            CountFact(noun=Noun(kind=k, colour=c), count=2 + n % 3)
            for n, (k, c) in enumerate(coloured)
        ],
    )
    yield "a word from outside", [UnknownFact(word=w) for w in EVALUATION]


def searches(
    rng: np.random.Generator, count: int
) -> dict[bool, list[tuple[Query, Sequence[Fact]]]]:
    """``count`` searches without a reference in practised wordings (True) and as many in held-out ones."""
    asked: dict[bool, list[tuple[Query, Sequence[Fact]]]] = {True: [], False: []}
    while min(map(len, asked.values())) < count:
        demo = sample_query(rng, "evaluation", sample_scene(rng, "evaluation"))
        if demo.reference is None and len(asked[demo.practised]) < count:
            asked[demo.practised].append((as_query(demo), demo.facts))
    return asked


def talked(rng: np.random.Generator, count: int) -> list[tuple[Query, Sequence[Fact]]]:
    """``count`` searches without a reference, said as people talk, each of `TALK` equally often."""
    asked: list[tuple[Query, Sequence[Fact]]] = []
    while len(asked) < count:
        demo = sample_query(rng, "evaluation", sample_scene(rng, "evaluation"))
        if demo.reference is None and not demo.turns:
            lead = TALK[len(asked) % len(TALK)]
            asked.append((Query(text=say(rng, demo.facts, (lead, pick(rng, FRAMES)))), demo.facts))
    return asked


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scenes", type=int, default=800)
    parser.add_argument("--seed", type=int, default=991)
    parser.add_argument("--chat", default="bundled")
    parser.add_argument("--output", choices=("table", "json"), default="table")
    wanted = parser.parse_args()
    chat = open_chat(wanted.chat)
    rng = stream("evaluation", wanted.seed)
    print(f"asking {wanted.chat} about {wanted.scenes} pictures ...", file=sys.stderr)
    seen = verdicts(chat, rng, wanted.scenes)
    apart = {
        f"{name}, {lead.format('...')!r}": taken_apart(
            chat, [(Query(text=lead.format(f.text)), (f,)) for f in facts]
        )
        for name, facts in plain()
        for lead in ("{}", "show me {}")
    }
    kinds = {True: "searches in practised wordings", False: "searches in held-out wordings"}
    for practised, asked in searches(rng, wanted.scenes // 2).items():
        apart[kinds[practised]] = taken_apart(chat, asked)
    apart["searches as people talk"] = taken_apart(chat, talked(rng, wanted.scenes // 2))
    if wanted.output == "json":
        print(json.dumps({"verdicts": seen, "taken_apart": apart}))
        return
    print(
        f"{'verdicts, balanced':22}"
        + "".join(f"{g:>16}" for g in ("practised", "new", "not shown"))
    )
    for kind, groups in seen.items():
        row = ""
        for group in ("practised", "new", "not shown"):
            told = groups.get(group)
            count = sum(v[1] for k, v in told.items() if k != "balanced") if told else 0
            row += f"{told['balanced']:9.3f} ({count:4})" if told else " " * 16
        print(f"{kind:22}{row}")
    for name, (good, count) in apart.items():
        print(f"taken apart exactly: {good:4} of {count:4}  {name}")


if __name__ == "__main__":
    main()
