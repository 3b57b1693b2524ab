"""Plan: several captions of what a matching image shows, each retrieved, fused, then judged.

After plan-guided generation over content units: the query is taken apart, plans are different subsets of its
parts (diversity comes from the plan, not from chance), each becomes a short caption, and the index is
searched with every one. What several lists agree on joins the candidates (reciprocal rank fusion), and all
are ordered by the yes/no margin. Without an index to search it orders what it was given. Relevance is P(yes)
among yes and no.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from mmrerank.limits import Count, ImageTokens, UpTo
from mmrerank.messages import Ask, Reply, Retrieve
from mmrerank.ports import Capability, Judging, Outcome, StrategyOptions
from mmrerank.rerank.aggregate import by_value, rrf
from mmrerank.rerank.comparisons import read_score, score
from mmrerank.rerank.parse import answer, as_mapping, as_text, labelled
from mmrerank.rerank.parts import decomposed
from mmrerank.rerank.prompting import render
from mmrerank.rerank.relevance import chance, numbers
from mmrerank.rerank.replies import TEXT, labels_for, object_of
from mmrerank.types import Assessment, Candidate, Component, Explanation, Query, Ranking, Repairs

NEEDS: tuple[Capability, ...] = ("generate", "choice_logprobs", "retrieve")
FAMILY = "plan"
PAPER = "EDU plan-guided candidates (Adams et al., ACL 2023)"


@dataclass(frozen=True, kw_only=True)
class Options(StrategyOptions):
    """``plans``: captions that are searched with. ``found``: new images at most.

    ``write`` lets the model write the captions; else a caption is the plan's parts in a row.
    ``image_tokens`` bounds the visual tokens per image.
    """

    plans: Count = 4
    found: UpTo = 10
    write: bool = False
    image_tokens: ImageTokens = 256

    def __post_init__(self) -> None:
        if self.plans < 1 or self.found < 0:
            raise ValueError("plans must be at least 1, found 0 or more")

    def calls(self, k: int) -> int:
        """The most questions: the parts, the captions, ``k`` candidates and whatever is found."""
        return 0 if k < 2 else 1 + self.write + k + self.found

    def hands_on(self, k: int) -> int:
        """The candidates, and whatever is found."""
        return k + self.found


def rank(query: Query, ranking: Ranking, options: Options) -> Judging:
    """Plans, searches, judges; one candidate or none is returned without a question."""
    if len(ranking) < 2:
        return Outcome(ranking=ranking)
    components, repairs = yield from decomposed(query, image_tokens=options.image_tokens)
    captions = plans_of(components, options.plans)
    if options.write and captions:
        captions, mended = yield from _written(query, captions, options.image_tokens)
        repairs += mended
    found = yield from _searched(query, ranking, captions, options)
    everything = Ranking((*ranking.candidates, *found))
    replies = yield [score(query, c, image_tokens=options.image_tokens) for c in everything]
    margins = zip(everything.ids, map(read_score, replies), strict=True)
    values = {i: m for i, m in margins if m is not None}
    after, _ = everything.reorder(by_value(everything.ids, values))
    searched = "; ".join(f'"{c}"' for c in captions)
    return Outcome(
        ranking=after,
        explanation=Explanation(
            components=components,
            assessments={i: Assessment(reason=f"yes/no margin {v:+.2f}") for i, v in values.items()},
            reason=f"searched with {searched or 'nothing more'}; {len(found)} images are new; "
            "ordered by the margin of yes over no",
            **numbers(after.ids, values, chance),
        ),
        repairs=repairs + Repairs(failed=len(everything) - len(values)),
    )


def plans_of(components: Sequence[Component], count: int) -> list[str]:
    """Up to ``count`` different captions of the parts that must show: all of them, then ever fewer.

    >>> parts = [Component(id=f"c{n}", kind="subject", text=t) for n, t in enumerate(["a cat", "a hat"])]
    >>> plans_of(parts, 3)
    ['a cat, a hat', 'a cat', 'a hat']
    """
    shown = [c.text for c in components if not c.excluded]
    subsets = (s for n in range(len(shown), 0, -1) for s in combinations(shown, n))
    captions: dict[str, None] = {}
    for subset in subsets:
        captions[", ".join(subset)] = None
        if len(captions) == count:
            break
    return list(captions)


def asked_captions(query: Query, plans: Sequence[str], image_tokens: int = 256) -> Ask:
    """Asks for a caption for each plan: ``{"A": "...", ...}``."""
    labels = labels_for(len(plans))
    shown = [{"label": n, "text": p} for n, p in zip(labels, plans, strict=True)]
    schema = object_of(dict.fromkeys(labels, TEXT))
    return Ask(
        messages=render("caption", query=query, plans=shown, schema=schema),
        schema=schema,
        max_tokens=100 * len(labels),
        image_tokens=image_tokens,
        kind="caption",
        query=query,
        labels=labels,
    )


def _written(
    query: Query, plans: Sequence[str], image_tokens: int = 256
) -> Generator[list[Ask], list[Reply], tuple[list[str], Repairs]]:
    """A caption for each plan in the model's words; the plan itself where it wrote none."""
    ask = asked_captions(query, plans, image_tokens)
    labels = ask.labels
    (reply,) = yield [ask]
    body, repaired = answer(reply, labelled(labels), rows=True)
    texts = [_caption(body.get(n)) for n in labels]
    missing = not all(texts)
    captions = list(dict.fromkeys(t or p for t, p in zip(texts, plans, strict=True)))
    failed = not any(texts)
    return captions, Repairs(failed=int(failed), repaired=int((repaired or missing) and not failed))


def _caption(value: Any) -> str:
    """A caption, alone or as the one text of an object."""
    texts = [t for v in as_mapping(value).values() if (t := as_text(v))]
    return texts[0] if len(texts) == 1 else as_text(value)


def _searched(
    query: Query, ranking: Ranking, captions: Sequence[str], options: Options
) -> Generator[list[Ask], list[Reply], list[Candidate]]:
    """New candidates that the captions find, best of the fused lists first."""
    if not captions or not options.found:
        return []
    replies = yield [
        # what is not wanted is kept away from in every search
        Retrieve(query=replace(query, text=c, turns=()), k=len(ranking), kind="plan")
        for c in captions
    ]
    lists = [[c.id for c in r.found] for r in replies if r.found]
    new = {c.id: c for r in replies for c in r.found if c.id not in set(ranking.ids)}
    points = rrf([ranking.ids, *lists])
    # ties go to what was found first
    return sorted(new.values(), key=lambda c: -points[c.id])[: options.found]
