"""VisDial as ChatIR uses it: pictures found by a dialogue of eleven turns, judged after every turn.

Hits@10 is cumulative: once found, a dialogue stays found. R@10 looks at each round alone. BRI, the integral
of the logarithm of the best rank so far, is better when lower. Ranks count from 0, so 9 is a hit.
Sources: Levy et al. 2023, arXiv 2305.20062, levymsn/ChatIR eval.py, commit 81b9bb8; Lee et al. 2024 (PlugIR),
arXiv 2406.03411, Saehyung-Lee/PlugIR eval.py, commit ce79c9f.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import pairwise
from pathlib import Path
from typing import Literal

from mmrerank.benchmark import Answer, Benchmark, BenchmarkQuery, Measured, Ranked, Short, Task
from mmrerank.evaluation.measure.files import json_names, json_rows
from mmrerank.evaluation.measure.list_metrics import LIST_TIES
from mmrerank.evaluation.measure.short import either, room_of, too_short
from mmrerank.evaluation.tasks import count_warnings, find, one_run, renamed

NAME = "visdial"
ROUNDS = 11
_WITHIN = 10


@dataclass(frozen=True, kw_only=True)
class VisDialOptions:
    """``dialogues``: another file of the same form below the folder, such as rewritten ones. ``turns``:
    ``joined`` asks all turns so far, ``last`` the last alone, which rewritten dialogues are made for.
    """

    dialogues: str = ""
    turns: Literal["joined", "last"] = "joined"


@dataclass(frozen=True, kw_only=True)
class DialogueTask(Task):
    """``targets`` is the picture of each dialogue."""

    targets: Mapping[str, str]


class VisDial(Benchmark):
    """A dialogue of eleven turns, judged after every turn."""

    SPLITS = ("val",)
    Options = VisDialOptions

    def load(self, data: Path, split: str, options: VisDialOptions) -> DialogueTask:
        """``dialogues/VisDial_v1.0_queries_val.json`` and ``ChatIR_Protocol/Search_Space_val_50k.json``."""
        own = (options.dialogues,) if options.dialogues else ()
        path = find(
            data, NAME, *(own or ("dialogues/VisDial_v1.0_queries_val.json", "VisDial_v1.0_queries_val.json"))
        )
        space = find(
            data,
            NAME,
            "ChatIR_Protocol/Search_Space_val_50k.json",
            "Protocol/Search_Space_val_50k.json",
            "Search_Space_val_50k.json",
        )
        gallery = json_names(space, "an image path")
        known = set(gallery)
        asked: dict[str, BenchmarkQuery] = {}
        targets: dict[str, str] = {}
        for number, row in enumerate(json_rows(path, ("img", "dialog"))):
            image = row.text("img")
            if image not in known:
                raise row.wrong("img", f"the image {image!r} is not in {space.name}")
            turns = row.texts("dialog", empty=True)
            if len(turns) != ROUNDS:
                raise row.wrong("dialog", f"must hold {ROUNDS} turns, not {len(turns)}")
            targets[str(number)] = image
            for n, turn in enumerate(turns):
                before = tuple(turns[:n]) if options.turns == "joined" else ()
                asked[f"{number}/{n}"] = BenchmarkQuery(text=turn, turns=before)
        sizes = {"dialogues": len(targets)}
        return DialogueTask(
            queries=asked,
            qrels={q: {targets[q.partition("/")[0]]: 1} for q in asked},
            gallery=gallery,
            targets=targets,
            warnings=(
                *count_warnings(NAME, split, sizes, str(path)),
                *count_warnings(NAME, split, {"images": len(gallery)}, str(space)),
            ),
        )

    def canonical(self, task: DialogueTask, rows: Mapping[str, Ranked]) -> Mapping[str, Ranked]:
        """Images by path, by file name, or by the name without its ending."""
        names: dict[str, str] = {}
        for path in task.gallery or ():
            name = path.rpartition("/")[2]
            for spelling in (name, name.rpartition(".")[0]):
                # a name that two images have is none
                names[spelling] = path if names.get(spelling, path) == path else spelling
        known = frozenset(task.gallery or ())
        return renamed(rows, lambda i: i if i in known else names.get(i.rpartition("/")[2], i))

    def warnings(self, task: DialogueTask, answers: Sequence[Answer]) -> list[str]:
        """A warning where rounds have no answer, and where BRI takes a rank that no list has."""
        rows = one_run(task, answers).rows
        dialogues = dict.fromkeys(q.partition("/")[0] for q in rows)
        gone = [q for d in dialogues for n in range(ROUNDS) if (q := f"{d}/{n}") not in rows]
        found = []
        if gone:
            found = [
                f"{len(gone)} rounds of dialogues that are answered have no answer, such as {gone[0]!r}: "
                f"Hits@{_WITHIN} and BRI take such a round as if it changed nothing, R@{_WITHIN} as a miss"
            ]
        cut = [q for q, r in rows.items() if task.targets[q.partition("/")[0]] not in r.ids]
        if not cut:
            return found
        return [
            *found,
            f"{len(cut)} of {len(rows)} lists end before their picture, such as {cut[0]!r}: BRI takes it "
            f"for the last of {len(task.gallery or ()):,}, and may be lower with longer lists (--depth)",
        ]

    def score(self, task: DialogueTask, answers: Sequence[Answer]) -> dict[str, Measured]:
        """``Hits@10.roundT`` (cumulative), ``R@10.roundT``, their means over rounds, and BRI.

        A dialogue counts as scored from its first answered round on; a mean over rounds has every round,
        those without an answer as nothing. Where a list does not hold the picture, BRI takes its rank for
        the last of the gallery.
        """
        rows = one_run(task, answers).rows
        worst = max(len(task.gallery or ()) - 1, 0)
        dialogues = list(task.targets)
        room = room_of(task)
        near = _by_dialogue(too_short(rows, task.qrels, _WITHIN, room=room, first=True))
        far = _by_dialogue(too_short(rows, task.qrels, None, room=room, first=True))
        hits: list[dict[str, float]] = [{} for _ in range(ROUNDS)]
        alone: list[dict[str, float]] = [{} for _ in range(ROUNDS)]
        bri: dict[str, float] = {}
        for dialogue, target in task.targets.items():
            best, found, answered = worst, False, False
            logs = []
            for n in range(ROUNDS):
                ranked = rows.get(f"{dialogue}/{n}")
                if ranked is not None:
                    answered = True
                    rank = ranked.ids.index(target) if target in ranked.ids else worst
                    hit = target in ranked.ids[:_WITHIN]
                    best, found = min(best, rank), found or hit
                    alone[n][dialogue] = float(hit)
                if answered:
                    hits[n][dialogue] = float(found)
                logs.append(math.log(best + 1))
            if answered:
                bri[dialogue] = sum((a + b) / 2 for a, b in pairwise(logs)) / (ROUNDS - 1)
        made: dict[str, Measured] = {}
        for name, rounds in ((f"Hits@{_WITHIN}", hits), (f"R@{_WITHIN}", alone)):
            so_far: Short | None = None
            for n, values in enumerate(rounds):
                so_far = either(near[n], so_far) if rounds is hits else near[n]
                made[f"{name}.round{n}"] = Measured(
                    name=f"{name}.round{n}",
                    values=values,
                    expected=dialogues,
                    tie_rule=LIST_TIES,
                    short=so_far and replace(so_far, explained=True),  # the mean's warning says it
                )
            # a dialogue is one unit: its rounds are alike, and are no eleven proofs of a difference
            made[name] = Measured(
                name=name,
                values={d: sum(values.get(d, 0.0) for values in rounds) / ROUNDS for d in bri},
                expected=dialogues,
                tie_rule=LIST_TIES,
                short=reduce(either, near),
            )
        whole = reduce(either, far)
        made["BRI"] = Measured(
            name="BRI",
            values=bri,
            expected=dialogues,
            tie_rule=LIST_TIES,
            absent=math.log(worst + 1),
            lower_is_better=True,
            short=whole and replace(whole, explained=True),
        )
        return made


def _by_dialogue(short: Short | None) -> list[Short | None]:
    """The lists too short of each round, under the dialogues."""
    found: list[Short | None] = []
    for n in range(ROUNDS):
        own = [q for q in (short.held if short else ()) if q.partition("/")[2] == str(n)]
        name = {q: q.partition("/")[0] for q in own}
        found.append(
            Short(
                held={name[q]: short.held[q] for q in own},
                wanted={name[q]: short.wanted[q] for q in own},
                lacking=frozenset(name[q] for q in own if q in short.lacking),
            )
            if short and own
            else None
        )
    return found


BENCHMARK = VisDial()
