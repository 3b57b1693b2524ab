"""The mistakes in the explanations of one run that ``mmrerank eval demo --runs DIR`` wrote.

Reads DIR alone; the world is drawn again from its seed, as data and not as pictures. Counts how often the
first place is right where it can be, the sentence over an order agrees with the verdicts below it, "nothing
matches" was reported for a search, and a search was decomposed wrongly. Then, for each kind of component,
the commonest wrong verdicts with the note that led to each.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmrerank.errors import InputError
from mmrerank.evaluation.measure.runs import read_qrels
from mmrerank.picturebook.export import evaluation_queries, evaluation_scenes, name_of
from mmrerank.picturebook.figures import kind_of
from mmrerank.picturebook.queries import DemoQuery, Truth
from mmrerank.picturebook.world import Scene

Result = Mapping[str, Any]
_CLAIM = re.compile(r"(every part is met)|(\d+) of (\d+) parts met")


def sentence_fits(result: Result) -> bool | None:
    """Whether the sentence over an order names the first image and agrees with its verdicts.

    None where the sentence claims nothing that could be verified.
    """
    sentence, first = result["reason"], result["hits"][0]
    claim = _CLAIM.search(sentence)
    if claim is None:
        return None
    verdicts = [v["verdict"] for v in first["verdicts"]]
    count = (len(verdicts),) * 2 if claim[1] else (int(claim[2]), int(claim[3]))
    return sentence.split()[0] == first["id"] and count == (verdicts.count("met"), len(verdicts))


def decomposed_exactly(result: Result, query: DemoQuery) -> bool:
    """Whether the components are those that the search was made of."""
    found = {(c["kind"], c["text"]) for c in result["components"]}
    return found == {(f.kind, f.text) for f in query.facts}


def find_mistakes(folder: Path, *, method: str = "cotrr", show: int = 5) -> dict[str, Any]:
    """Counts the mistakes of ``method`` in ``folder``, with at most ``show`` examples of each.

    Raises `InputError` when the folder does not hold such a run.
    """
    try:
        world = json.loads((folder / f"{method}.json").read_text("utf-8"))["config"]
        lines = (folder / f"{method}.jsonl").read_text("utf-8").splitlines()
        results: list[Result] = [json.loads(line) for line in lines]
        seed, scenes, queries = world["seed"], world["scenes"], world["queries"]
    except OSError as error:
        raise InputError(
            f"{error.filename} cannot be read ({error.strerror}); "
            f"`mmrerank eval demo --methods {method} --runs {folder}` writes it"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder} holds no run of `mmrerank eval demo`: {error!r}") from error
    drawn = evaluation_scenes(seed, scenes)
    asked = {q.id: q for q in evaluation_queries(seed, drawn, queries, Truth(drawn))}
    grades = read_qrels(folder / "qrels.txt")

    def grade(result: Result, hit: Result) -> int:
        return grades[result["query"]["id"]].get(hit["id"], 0)

    best = [max(grade(r, h) for h in r["hits"]) for r in results]
    reachable = [r for r, top in zip(results, best, strict=True) if top == 3]
    claimed = [top for r, top in zip(results, best, strict=True) if r["no_match"]]
    return {
        "first_place": {"right": sum(grade(r, r["hits"][0]) == 3 for r in reachable), "of": len(reachable)},
        "sentence": _sentences(results, show),
        "no_match": {
            "reported": len(claimed),
            "of": len(results),
            "without_match": sum(top < 3 for top in claimed),
        },
        "decomposed": {
            name: _decomposed([(r, asked[r["query"]["id"]]) for r in results], practised, show)
            for name, practised in (("practised", True), ("new", False))
        },
        "verdicts": _verdicts(results, asked, {name_of(seed, n): s for n, s in enumerate(drawn)}, show),
    }


def _sentences(results: Sequence[Result], show: int) -> dict[str, Any]:
    fits = [sentence_fits(r) for r in results]
    doubtful = [r for r, ok in zip(results, fits, strict=True) if not ok]
    return {
        "right": fits.count(True),
        "of": len(fits),
        "unverifiable": fits.count(None),
        "examples": [{"query": r["query"]["text"], "reason": r["reason"]} for r in doubtful[:show]],
    }


def _decomposed(rows: Sequence[tuple[Result, DemoQuery]], practised: bool, show: int) -> dict[str, Any]:
    some = [(r, q) for r, q in rows if q.practised == practised]
    wrong = [(r, q) for r, q in some if not decomposed_exactly(r, q)]
    return {
        "right": len(some) - len(wrong),
        "of": len(some),
        "examples": [
            {"query": q.text, "components": [c["text"] for c in r["components"]]} for r, q in wrong[:show]
        ],
    }


def _verdicts(
    results: Sequence[Result], asked: Mapping[str, DemoQuery], scene_of: Mapping[str, Scene], show: int
) -> dict[str, Any]:
    """By kind of component, the worst first; components that no search has are left out."""
    wrong: dict[str, Counter[tuple[str, str, str]]] = defaultdict(Counter)
    counted: Counter[str] = Counter()
    for r in results:
        facts = {(f.kind, f.text): f for f in asked[r["query"]["id"]].facts}
        parts = {c["id"]: facts.get((c["kind"], c["text"])) for c in r["components"]}
        for hit in r["hits"]:
            for v in hit["verdicts"]:
                if fact := parts.get(v["component"]):
                    kind = kind_of(fact)
                    counted[kind] += 1
                    truth = fact.judge(scene_of[hit["id"]]).verdict
                    if v["verdict"] != truth:
                        wrong[kind][v["note"], v["verdict"], truth] += 1
    return {
        kind: {
            "wrong": mistakes.total(),
            "of": counted[kind],
            "examples": [
                {"note": note, "verdict": verdict, "truth": truth, "count": count}
                for (note, verdict, truth), count in mistakes.most_common(show)
            ],
        }
        for kind, mistakes in sorted(wrong.items(), key=lambda row: -row[1].total())
    }


def as_text(found: Mapping[str, Any]) -> str:
    """What `find_mistakes` found, as lines."""
    first, sentence, none = found["first_place"], found["sentence"], found["no_match"]
    lines = [
        f"first place right: {first['right']} of {first['of']} where a full match is a candidate",
        f"sentence over the order right: {sentence['right']} of {sentence['of']} "
        f"({sentence['unverifiable']} claim nothing that can be verified)",
        *(f"    {e['query']!r}: {e['reason']}" for e in sentence["examples"]),
        f"'nothing matches' reported: {none['reported']} of {none['of']} searches that have a match, "
        f"{none['without_match']} of them without a match among the candidates",
    ]
    for kind, row in found["decomposed"].items():
        lines += [f"decomposed exactly, in {kind} wordings: {row['right']} of {row['of']}"]
        lines += [f"    {e['query']!r}: {', '.join(e['components'])}" for e in row["examples"]]
    for kind, row in found["verdicts"].items():
        lines += [f"{kind}: {row['wrong']} of {row['of']} verdicts are wrong"]
        lines += [
            f"    {e['count']:3}  {e['note']}: {e['verdict']}, is {e['truth']}" for e in row["examples"]
        ]
    return "\n".join(lines)
