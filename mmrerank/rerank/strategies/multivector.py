"""Late interaction: every token of the search finds its nearest patch of the image (MaxSim).

The index gathers by one vector an image, this refines by many: the mean over the search's tokens of the best
cosine among the image's tokens. ``alpha`` leaves out candidates far behind in the first stage, ``beta`` stops
when judging no longer changes the top, as in two-step multivector retrieval. ``colpali:PATH`` is a model that
is trained for it (ColPali, ColQwen2); the hidden states of a language model are not, and order far worse. An
image's tokens do not depend on the search: with a cache they are made once. Relevance is MaxSim, which is a
mean of cosines, negative ones counting 0.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np

from mmrerank.limits import Count, ImageTokens, Share, UpTo
from mmrerank.messages import Ask, Reply
from mmrerank.ports import Capability, Judging, Outcome, StrategyOptions
from mmrerank.rerank.aggregate import by_value
from mmrerank.rerank.relevance import numbers
from mmrerank.rerank.states import Matrix, read_tokens, tokens_of_candidate, tokens_of_query, tokens_of_text
from mmrerank.rerank.thrift import Thrift, scored
from mmrerank.types import Assessment, Candidate, Explanation, Query, Ranking, Repairs

NEEDS: tuple[Capability, ...] = ("token_embeddings",)
FAMILY = "late interaction"
PAPER = "ColPali (arXiv 2407.01449); gather and refine with pruning and early exit"


@dataclass(frozen=True, kw_only=True)
class Options(StrategyOptions):
    """``alpha`` (1 keeps all), ``beta`` (0 never stops) and ``top`` as in `mmrerank.rerank.thrift.Thrift`.

    ``image_tokens`` bounds the visual tokens per image.
    """

    alpha: Share = 1.0
    beta: UpTo = 0
    top: Count = 10
    image_tokens: ImageTokens = 256

    def __post_init__(self) -> None:
        Thrift(alpha=self.alpha, beta=self.beta, top=self.top)

    def calls(self, k: int) -> int:
        """Encodings for ``k`` candidates and the query (of its words; those of references come to it).

        An upper bound with pruning or early exit.
        """
        return 0 if k < 2 else k + 1

    def settles(self, k: int) -> int:
        """How many of the first places are in the model's order."""
        return k if self.alpha >= 1 and not self.beta else 0


def rank(query: Query, ranking: Ranking, options: Options) -> Judging:
    """Encodes and compares; one candidate or none is returned without a question."""
    if len(ranking) < 2:
        return Outcome(ranking=ranking)
    # the words alone: an exclusion's would be looked for, and not kept away from
    asks = [tokens_of_text(query.words, query)] if query.words else []
    if query.images:
        asks.append(tokens_of_query(query, image_tokens=options.image_tokens))
    replies = yield asks
    rows = [r for r in map(read_tokens, replies) if r is not None]
    if len(rows) < len(asks):
        return Outcome(ranking=ranking, repairs=Repairs(failed=1))
    asked = np.concatenate(rows)

    def scoring(group: Sequence[Candidate]) -> Generator[list[Ask], list[Reply], list[float | None]]:
        replies = yield [tokens_of_candidate(c, query, image_tokens=options.image_tokens) for c in group]
        found = [read_tokens(r) for r in replies]
        return [None if f is None else max_sim(asked, f) for f in found]

    thrift = Thrift(alpha=options.alpha, beta=options.beta, top=options.top)
    values, failed = yield from scored(ranking, thrift, scoring)
    after, _ = ranking.reorder(by_value(ranking.ids, values))
    assessments = {i: Assessment(reason=f"MaxSim {v:.3f}") for i, v in values.items()}
    return Outcome(
        ranking=after,
        explanation=Explanation(
            assessments=assessments,
            reason="the mean over the search's tokens of each one's nearest patch",
            **numbers(after.ids, values),
        ),
        repairs=Repairs(failed=failed),
    )


def max_sim(query: Matrix, image: Matrix) -> float:
    """Mean over rows of ``query`` ``(q, d)`` of the best cosine among rows of ``image`` ``(n, d)``."""
    return round(float((query @ image.T).max(1).mean()), 6)
