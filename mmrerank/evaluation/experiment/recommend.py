"""Which methods a backend can run, what each costs for one query, and which one to begin with.

Costs come from driving every method over a fake with as many candidates: its questions are real, its answers
are not, and no model is asked. The one that is recommended is the first of `PREFERRED` that the backend can
run within the budget; that order is a judgement of ours (what explains itself first), not a measurement:
`mmrerank eval NAME --methods all`, such as your own queries with `mmrerank eval folder`, measures.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from types import ModuleType
from typing import Any

from mmrerank import registry
from mmrerank.budget import Budget
from mmrerank.chat.fakes.oracle import Oracle
from mmrerank.errors import UsageError
from mmrerank.ports import Chat
from mmrerank.rerank.drive import drive
from mmrerank.types import Candidate, Image, Query, Ranking, Usage

PREFERRED = ("cotrr", "grouprank", "pointwise", "listwise", "setwise", "first", "icr", "scorer", "none")
IMAGE_TOKENS = 256
TOKENS_A_WORD = 1.5
"""About what Qwen's tokenizer makes of English prompts."""
_QUERY = Query(text="a hermit crab using a piece of plastic as its shell")


@dataclass(frozen=True, kw_only=True)
class Option:
    """A method for one query of ``k`` candidates. Calls are the most it asks, tokens an estimate.

    ``lacks`` are the capabilities that the backend has not; ``over`` the limit of the budget that the
    method would pass, or empty.
    """

    method: str
    family: str
    needs: tuple[str, ...]
    calls: int
    images: int
    input_tokens: int
    output_tokens: int
    money: float | None = None
    lacks: tuple[str, ...] = ()
    over: str = ""
    recommended: bool = False

    @property
    def possible(self) -> bool:
        """Whether the backend can run it within the budget."""
        return not self.lacks and not self.over

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {**asdict(self), "possible": self.possible}


def recommend(
    capabilities: Collection[str], *, k: int = 20, budget: Budget | None = None, chat: Chat | None = None
) -> list[Option]:
    """All methods for ``k`` candidates, cheapest first; one of them is recommended.

    ``capabilities`` are a backend's (`mmrerank.ports.Capability`); an index to search again is taken to be
    there. A method that passes a limit of ``budget`` would only come to a part of its order. ``chat`` is
    asked nothing: its prompts, and what one question to it holds, are reckoned with.

    >>> [o.method for o in recommend({"generate"}, budget=Budget(calls=5)) if o.recommended]
    ['grouprank']
    """
    if k < 1:
        raise UsageError(f"k must be at least 1, not {k}")
    found = [_option(n, capabilities, k, budget or Budget(), chat) for n, _ in registry.every("strategy")]
    best = next((n for n in PREFERRED if any(o.method == n and o.possible for o in found)), "none")
    rows = sorted(found, key=lambda o: (o.calls, o.images, o.method))
    return [Option(**{**asdict(o), "recommended": o.method == best}) for o in rows]


def _option(name: str, capabilities: Collection[str], k: int, budget: Budget, chat: Chat | None) -> Option:
    module = registry.load("strategy", name)
    options = module.Options()
    needs = registry.needs_of(module, options)
    usage = cost(module, options, k, chat)
    money = None
    if budget.price is not None:
        money = round(budget.price.of(usage.input_tokens, usage.output_tokens), 6)
    limits = {
        "calls": (budget.calls, usage.calls),
        "tokens": (budget.tokens, usage.input_tokens + usage.output_tokens),
        "money": (budget.money, money),
    }
    over = [n for n, (most, own) in limits.items() if most is not None and (own or 0) > most]
    return Option(
        method=name,
        family=module.FAMILY,
        needs=needs,
        calls=usage.calls,
        images=usage.images,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        money=money,
        lacks=tuple(n for n in needs if n != "retrieve" and n not in capabilities),
        over=", ".join(over),
    )


def cost(module: ModuleType, options: Any, k: int, chat: Chat | None = None) -> Usage:
    """About what a query of ``k`` candidates costs: calls as the method counts them, the rest by the fake."""
    image = Image(data=b"never decoded")
    ranking = Ranking(tuple(Candidate(id=f"{n}", image=image, score=1 - n / (k + 1)) for n in range(k)))
    # the later the better: what a schedule meets at its worst
    fake = Oracle(lambda query, id: 0 if query.text == "N/A" else int(id) * 4 // k)
    if chat is not None:
        fake.prompts, fake.room = chat.prompts, chat.room
    counted = options.calls(k)
    (driven,) = drive([module.rank(_QUERY, ranking, options)], fake)
    if counted and not driven.usage.calls:  # it asks about other kinds of queries alone
        (driven,) = drive([module.rank(replace(_QUERY, turns=(_QUERY.text,)), ranking, options)], fake)
    calls = driven.usage.calls if counted is None else counted
    share = calls / driven.usage.calls if driven.usage.calls else 0.0
    images = round(driven.usage.images * share)
    words = driven.usage.input_tokens * share
    return Usage(
        calls=calls,
        images=images,
        input_tokens=round(words * TOKENS_A_WORD) + images * IMAGE_TOKENS,
        output_tokens=max(calls, round(driven.usage.output_tokens * share * TOKENS_A_WORD)),
    )
