"""No reranking: the first stage's order, without a model. The baseline every method is compared with."""

from __future__ import annotations

from dataclasses import dataclass

from mmrerank.ports import Capability, Judging, Outcome, StrategyOptions
from mmrerank.types import Query, Ranking

NEEDS: tuple[Capability, ...] = ()
FAMILY = "baseline"
PAPER = ""


@dataclass(frozen=True, kw_only=True)
class Options(StrategyOptions):
    """No options."""

    def calls(self, k: int) -> int:
        """None."""
        return 0

    def settles(self, k: int) -> int:
        """None: no model is asked."""
        return 0


def rank(query: Query, ranking: Ranking, options: Options) -> Judging:
    """Returns ``ranking`` as it is."""
    yield from ()
    return Outcome(ranking=ranking)
