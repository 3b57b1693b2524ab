"""What a run of ``mmrerank eval demo --runs DIR`` told people, and where that was wrong.

    python benchmarks/told.py DIR [--method cotrr] [--show 5]

Reads DIR alone (the world is worked out again from its seed). Printed are how often the first place is right
where it can be, the sentence over an order agrees with the verdicts below it, "nothing matches" was said of
a search that has a match, and a search was taken apart wrongly; then, for each kind of part, the commonest
wrong verdicts with the note that led to each.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmrerank.evaluation.measure.runs import read_qrels
from mmrerank.picturebook.export import evaluation_queries, evaluation_scenes, name_of
from mmrerank.picturebook.figures import kind_of
from mmrerank.picturebook.queries import DemoQuery, Truth

_SAYS = re.compile(r"(every part is met)|(\d+) of (\d+) parts met")


def sentence_fits(result: Mapping[str, Any]) -> bool | None:
    """Whether the sentence over an order names the first image and says what its verdicts say.

    None where it says nothing that could be checked.
    """
    said, first = result["reason"], result["hits"][0]
    claim = _SAYS.search(said)
    if claim is None:
        return None
    verdicts = [v["verdict"] for v in first["verdicts"]]
    count = (len(verdicts),) * 2 if claim[1] else (int(claim[2]), int(claim[3]))
    return said.split()[0] == first["id"] and count == (verdicts.count("met"), len(verdicts))


def apart(result: Mapping[str, Any], query: DemoQuery) -> bool:
    """Whether the search was taken apart exactly."""
    found = {(c["kind"], c["text"]) for c in result["components"]}
    return found == {(f.kind, f.text) for f in query.facts}


def main() -> None:
    """Prints the counts and the mistakes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("--method", default="cotrr")
    parser.add_argument("--show", type=int, default=5)
    wanted = parser.parse_args()
    world = json.loads((wanted.runs / f"{wanted.method}.json").read_text("utf-8"))["config"]
    lines = (wanted.runs / f"{wanted.method}.jsonl").read_text("utf-8").splitlines()
    results = [json.loads(line) for line in lines]

    seed = world["seed"]
    scenes = evaluation_scenes(seed, world["scenes"])
    named = {name_of(seed, n): scene for n, scene in enumerate(scenes)}
    asked = {q.id: q for q in evaluation_queries(seed, scenes, world["queries"], Truth(scenes))}
    grades = read_qrels(wanted.runs / "qrels.txt")

    def best(result: Mapping[str, Any]) -> int:
        return max(grades[result["query"]["id"]].get(h["id"], 0) for h in result["hits"])

    reachable = [r for r in results if best(r) == 3]
    right = sum(grades[r["query"]["id"]].get(r["hits"][0]["id"]) == 3 for r in reachable)
    print(
        f"the first place is right: {right} of {len(reachable)} where a full match is among the candidates"
    )
    fits = [sentence_fits(r) for r in results]
    print(f"the sentence over an order is right: {fits.count(True)} of {len(fits)} "
          f"({fits.count(None)} say nothing that could be checked)")  # fmt: skip
    for r in [r for ok, r in zip(fits, results, strict=True) if not ok][: wanted.show]:
        print(f"    {r['query']['text']!r}: {r['reason']}")
    told = [r for r in results if r["no_match"]]
    without = sum(best(r) < 3 for r in told)
    print(f"'nothing matches', though something does: {len(told)} of {len(results)} searches, of which "
          f"{without} have no match among their candidates")  # fmt: skip
    for known in (True, False):
        some = [(r, q) for r in results if (q := asked[r["query"]["id"]]).practised == known]
        exact = [apart(r, q) for r, q in some]
        kind = "practised" if known else "new"
        print(f"taken apart exactly, in {kind} wordings: {sum(exact)} of {len(exact)}")
        for r, q in [row for row, ok in zip(some, exact, strict=True) if not ok][: wanted.show]:
            print(f"    {q.text!r}: {', '.join(c['text'] for c in r['components'])}")

    wrong: dict[str, Counter[tuple[str, str, str]]] = defaultdict(Counter)
    counted: Counter[str] = Counter()
    for r in results:
        facts = {(f.kind, f.text): f for f in asked[r["query"]["id"]].facts}
        parts = {c["id"]: facts.get((c["kind"], c["text"])) for c in r["components"]}
        for hit in r["hits"]:
            for v in hit["verdicts"]:
                if fact := parts.get(v["component"]):
                    counted[kind_of(fact)] += 1
                    is_so = fact.judge(named[hit["id"]]).verdict
                    if v["verdict"] != is_so:
                        wrong[kind_of(fact)][v["note"], v["verdict"], is_so] += 1
    for kind, mistakes in sorted(wrong.items(), key=lambda row: -row[1].total()):
        print(f"{kind}: {mistakes.total()} of {counted[kind]} verdicts are wrong")
        for (note, noted, truth), count in mistakes.most_common(wanted.show):
            print(f"    {count:3}  {note}: {noted}, is {truth}")


if __name__ == "__main__":
    main()
