"""Describe: the model writes what the wanted image shows, and the index is searched with that description.

CoTRR's first stage for composed retrieval. A dual encoder reads "make it blue" beside a picture poorly; a
caption of the target it reads well. Queries without a reference image and without earlier turns are left
alone, and so are those that are a reference image without words. It finds and does not judge: give the order
to another method, as in ``cascade(first=describe;then=cotrr;keep=20)``. Without an index the order stands.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mmrerank.limits import ImageTokens
from mmrerank.messages import Ask, Retrieve
from mmrerank.ports import Capability, Judging, Outcome, StrategyOptions
from mmrerank.rerank.aggregate import rrf
from mmrerank.rerank.describing import described, read_description
from mmrerank.rerank.relevance import numbers
from mmrerank.types import Candidate, Explanation, Query, Ranking, Repairs

NEEDS: tuple[Capability, ...] = ("generate", "retrieve")
FAMILY = "plan"
PAPER = "CoTRR, composed retrieval by a description of the target (freshfish15/CoTRR)"


@dataclass(frozen=True, kw_only=True)
class Options(StrategyOptions):
    """``fuse`` keeps what the query itself finds: both lists together by reciprocal rank fusion; else the
    description alone decides. As many images are searched for as there are candidates. ``image_tokens``
    bounds the visual tokens per image.
    """

    fuse: bool = False
    image_tokens: ImageTokens = 256

    def calls(self, k: int) -> int:
        """One question, of a query that has something to describe."""
        return 1 if k else 0

    def hands_on(self, k: int) -> int:
        """The candidates, and as many more as may be found."""
        return 2 * k

    def settles(self, k: int) -> int:
        """None of the places is in the model's order: the index decides."""
        return 0


def rank(query: Query, ranking: Ranking, options: Options) -> Judging:
    """Describes, searches, and puts what was found first.

    ``scores`` are the index's for the description, of what it found (the fused ones with ``fuse``). They are
    no judgement of how well an image fits, so there is no relevance.
    """
    if not len(ranking) or not (query.images or query.turns) or not (query.text or query.turns):
        return Outcome(ranking=ranking)
    (reply,) = yield [described(query, image_tokens=options.image_tokens)]
    text = read_description(reply)
    if not text:
        return Outcome(ranking=ranking, repairs=Repairs(failed=1))
    # what is not wanted is kept away from in this search too
    target = replace(query, text=text, images=(), turns=())
    asks: list[Ask] = [Retrieve(query=target, k=len(ranking), kind="target")]
    (found,) = yield asks
    lists = [[c.id for c in found.found], *([list(ranking.ids)] if options.fuse else [])]
    everything = _together(ranking, found.found)
    order = sorted(points := rrf(lists), key=lambda i: -points[i]) if options.fuse else lists[0]
    after, _ = everything.reorder(order)
    scores = points if options.fuse else {c.id: c.score for c in found.found if c.score is not None}
    new = len(everything) - len(ranking)
    reason = f'searched with the description "{text}"; {new} images are new'
    if not found.found:
        return Outcome(ranking=ranking, explanation=Explanation(reason=f'described as "{text}"'))
    told = numbers(after.ids, scores)["scores"]
    return Outcome(ranking=after, explanation=Explanation(reason=reason, scores=told))


def _together(ranking: Ranking, found: tuple[Candidate, ...]) -> Ranking:
    known = set(ranking.ids)
    return Ranking((*ranking.candidates, *(c for c in found if c.id not in known)))
