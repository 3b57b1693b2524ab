"""Scorer: a dedicated reranker's own scores, one question per image, or per group where it reads groups.

The model comes by ``--chat``, as in ``--rerank scorer --chat qwen3_vl_reranker:PATH``, and asks in the words
that it was trained on. Relevance is its score where that is 0 to 1, and the sigmoid of a logit. A model that
reads groups goes through windows from the end to the head; of several windows, relevance is the place.
``alpha`` and ``beta`` leave out calls (`mmrerank.rerank.thrift`).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

from mmrerank.limits import Count, Share, UpTo
from mmrerank.messages import Ask, Reply, Scoring
from mmrerank.ports import Capability, Judging, Outcome, StrategyOptions
from mmrerank.rerank import scoring
from mmrerank.rerank.aggregate import by_value, first_scores, fused, keep_slots
from mmrerank.rerank.relevance import chance, falling, placed
from mmrerank.rerank.schedules import windows
from mmrerank.rerank.thrift import Thrift, kept, scored
from mmrerank.types import Assessment, Candidate, Explanation, Query, Ranking, Repairs

NEEDS: tuple[Capability, ...] = ("score",)
FAMILY = "pointwise"
PAPER = "Qwen3-VL-Reranker (arXiv 2601.04720); UniME-V2 (arXiv 2510.13515); MM-R5 (arXiv 2506.12364)"


@dataclass(frozen=True, kw_only=True)
class Options(StrategyOptions):
    """``instruction`` tells the model what to look for, in place of its own; a query's goes before it.

    ``alpha`` (1 keeps all), ``beta`` (0 never stops) and ``top`` as in `mmrerank.rerank.thrift.Thrift`.
    ``weight`` is the score's share beside the first stage's. Of a model that reads groups, ``window`` bounds
    one (0: as many as it was trained on), and the next starts half a window nearer the head.
    """

    instruction: str = ""
    alpha: Share = 1.0
    beta: UpTo = 0
    top: Count = 10
    weight: Share = 1.0
    window: UpTo = 0

    def __post_init__(self) -> None:
        Thrift(alpha=self.alpha, beta=self.beta, top=self.top)
        if not 0 <= self.weight <= 1:
            raise ValueError("weight must be from 0 to 1")
        if self.window == 1:
            raise ValueError("window must be 0 (the model's own) or at least 2")

    def calls(self, k: int) -> int:
        """The most questions for ``k`` candidates; fewer with pruning, early exit or groups."""
        return 0 if k < 2 else k

    def settles(self, k: int) -> int:
        """How many of the first places are in the model's order."""
        return k if self.alpha >= 1 and not self.beta and self.weight >= 1 and not self.window else 0


@dataclass(kw_only=True)
class _Heard:
    """What the replies said so far."""

    scores: dict[str, float] = field(default_factory=dict)
    thoughts: list[str] = field(default_factory=list)
    logits: bool = False
    failed: int = 0

    def take(self, ask: Ask, reply: Reply) -> dict[str, float]:
        """The scores of one reply, which are kept."""
        assert isinstance(ask, Scoring)
        found = dict(scoring.read_fit(reply, ask))
        self.scores |= found
        self.logits = self.logits or reply.logits
        self.failed += len(ask.shown) - len(found)
        self.thoughts += [reply.text] if reply.text else []
        return found


def rank(query: Query, ranking: Ranking, options: Options) -> Judging:
    """Scores every candidate; one or none is returned without a question."""
    if len(ranking) < 2:
        return Outcome(ranking=ranking)
    size = scoring.group()
    if size > 1 and options.window:
        size = min(size, options.window)
    run = _each if size < 2 else _groups
    return (yield from run(query, ranking, options, size))


def _each(query: Query, ranking: Ranking, options: Options, _: int) -> Judging:
    heard = _Heard()

    def ask_all(some: Sequence[Candidate]) -> Generator[list[Ask], list[Reply], list[float | None]]:
        asks: list[Ask] = [scoring.fit(query, [c], instruction=options.instruction) for c in some]
        replies = yield asks
        for ask, reply in zip(asks, replies, strict=True):
            heard.take(ask, reply)
        return [heard.scores.get(c.id) for c in some]

    thrift = Thrift(alpha=options.alpha, beta=options.beta, top=options.top)
    values, failed = yield from scored(ranking, thrift, ask_all)
    mixed = fused(values, first_scores(ranking), options.weight)
    after, _repairs = ranking.reorder(by_value(ranking.ids, mixed))
    reason = "ordered by the reranker's scores"
    if left := len(ranking) - len(values) - failed:
        reason += f"; {left} were not asked about"
    if options.weight < 1:
        reason += f", {options.weight:g} of it beside the first stage's score"
    own = {i: chance(v) for i, v in values.items()} if heard.logits else values
    return _outcome(after, heard, reason, falling(after.ids, own), failed)


def _groups(query: Query, ranking: Ranking, options: Options, size: int) -> Judging:
    heard = _Heard()
    order = kept(ranking, Thrift(alpha=options.alpha, top=options.top))
    pruned = len(ranking) - len(order)
    spans = windows(len(order), size, max(1, size // 2))
    single = len(spans) == 1
    for start, end in spans:
        part = order[start:end]
        asks: list[Ask] = [scoring.fit(query, part, instruction=options.instruction)]
        (reply,) = yield asks
        found = heard.take(asks[0], reply)
        by_id = {c.id: c for c in part}
        order[start:end] = [by_id[i] for i in by_value([c.id for c in part], found)]
    judged = [c.id for c in order if c.id in heard.scores]
    if not single:  # windows give no common scale, but places do
        heard.scores = {i: -float(n) for n, i in enumerate(judged)}
    mixed = fused(heard.scores, first_scores(ranking), options.weight)
    prior = keep_slots(ranking.ids, [c.id for c in order])
    after, _repairs = ranking.reorder(by_value(prior, mixed))
    reason = "ordered by the reranker's scores" if single else f"ordered in windows of {size}"
    if pruned:
        reason += f"; {pruned} were not asked about"
    own = heard.scores if single else placed(judged)
    if single and heard.logits:
        own = {i: chance(v) for i, v in own.items()}
    lost = len(order) - len(judged)
    return _outcome(after, heard, reason, falling(after.ids, own), lost)


def _outcome(after: Ranking, heard: _Heard, reason: str, relevance: dict[str, float], failed: int) -> Outcome:
    assessments = {i: Assessment(reason=f"score {v:.4f}") for i, v in heard.scores.items()}
    reason = ". ".join([reason, *heard.thoughts])
    explanation = Explanation(
        assessments=assessments, reason=reason, scores=heard.scores, relevance=relevance
    )
    return Outcome(ranking=after, explanation=explanation, repairs=Repairs(failed=failed))
