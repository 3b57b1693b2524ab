"""Questions to a model within their budgets: every one gets a reply, and each is told of as it comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace

from mmrerank import cancel as cancelling
from mmrerank.answering import Numbered, in_order, numbered
from mmrerank.budget import Meter, bound
from mmrerank.errors import BudgetError, CapabilityError, ChatError, ModelError
from mmrerank.messages import Ask, Message, Part, Reply
from mmrerank.ports import Chat
from mmrerank.rerank.stopping import Stopped
from mmrerank.rerank.taken import asked, taken
from mmrerank.types import Usage

Heard = Callable[[int, Reply], None]
"""Called with the place of a question and its reply, as soon as that is there."""


def within(
    chat: Chat | None, rows: Sequence[tuple[Ask, tuple[Meter, ...]]], heard: Heard, *, each: bool
) -> list[Reply]:
    """Replies within the budgets of their questions; without budgets, in one call.

    Near a limit only so many are asked at once as fit at the most they can cost; when their real cost is
    known, the rest is tried again. With ``each``, replies are taken as they come.
    """
    asks = [ask for ask, _ in rows]
    replies: dict[int, Reply] = {}

    def take(n: int, reply: Reply) -> None:
        replies[n] = reply
        heard(n, reply)

    if not any(meters for _, meters in rows):
        with closing(answers(chat, asks, each=each)) as found:
            for n, reply in found:
                take(n, reply)
        return [replies[n] for n in range(len(rows))]
    if chat is not None:
        for n, known in enumerate(chat.known(asks)):  # costs nothing
            if known is not None:
                take(n, taken(asks[n], known, chat.spec))
    waiting = [n for n in range(len(rows)) if n not in replies]
    most = [(bound if chat is None else chat.bound)(ask) for ask in asks]
    # Ask what fits at its largest, learn what it really cost, ask again: a budget of 40,000 tokens sends more
    # than one question although the bounds of all together would pass it.
    while waiting:
        sent: list[int] = []
        why: dict[int, tuple[Meter, str]] = {}
        for n in waiting:
            refusal = _taken(rows[n][1], most[n])
            if refusal is None:
                sent.append(n)
            else:
                why[n] = refusal
        if not sent:
            # others may hold more than they will spend; what they leave is asked for again
            if any(m.settling() for m in {m for n in waiting for m in rows[n][1]}):
                continue
            for n in waiting:
                refused, limit = why[n]
                refused.exhausted = limit
                spent = BudgetError(f"not asked: the budget of {limit} is spent")
                take(n, Reply(error=spent, finish="error"))
            break
        _send(chat, rows, sent, most, take, each=each)
        waiting = [n for n in waiting if n not in replies]
    return [replies[n] for n in range(len(rows))]


def _send(
    chat: Chat | None,
    rows: Sequence[tuple[Ask, tuple[Meter, ...]]],
    sent: Sequence[int],
    most: Sequence[Usage],
    take: Heard,
    *,
    each: bool,
) -> None:
    """Asks the questions ``sent``, for which ``most`` is set aside, and settles what each really cost."""
    open_ = dict.fromkeys(sent)
    left = [s for n in sent for m in rows[n][1] if (s := m.seconds_left()) is not None]
    try:
        found = answers(chat, [rows[n][0] for n in sent], min(left, default=None), each=each)
        with closing(found):
            for place, reply in found:
                n = sent[place]
                used = reply.usage
                if reply.error is None and used.calls and not used.input_tokens + used.output_tokens:
                    used = most[n]  # a server that does not count is taken to have used all it could
                del open_[n]
                for meter in rows[n][1]:
                    meter.settle(most[n], used)
                take(n, _late(reply, rows[n][1]))
    finally:
        # who shares a meter would wait for ever for what is set aside
        for n in open_:
            for meter in rows[n][1]:
                meter.settle(most[n], Usage())


def _late(reply: Reply, meters: tuple[Meter, ...]) -> Reply:
    """``reply``; where a backend gave up for want of time, with the budget that is spent."""
    if not isinstance(reply.error, BudgetError):
        return reply
    for meter in meters:
        if meter.seconds_left() == 0:
            meter.exhausted = f"{meter.budget.seconds:g} seconds"
            spent = BudgetError(f"{reply.error}; the budget of {meter.exhausted} is spent")
            return replace(reply, error=spent)
    return reply


def _taken(meters: tuple[Meter, ...], most: Usage) -> tuple[Meter, str] | None:
    """Sets ``most`` aside with every meter, or with none and says whose limit it does not fit, and which."""
    for place, meter in enumerate(meters):
        if why := meter.take(most):
            for other in meters[:place]:
                other.settle(most, Usage())
            return meter, why
    return None


def answers(
    chat: Chat | None, asks: Sequence[Ask], seconds: float | None = None, *, each: bool = False
) -> Numbered:
    """A reply to each of ``asks``, whatever the backend does. Raises `Stopped` for what concerns them all."""
    if not asks:
        return
    if chat is None:
        raise CapabilityError("this method asks a language model, and none was given; use --chat")

    def ask_all(some: Sequence[Ask]) -> Numbered:
        if each or seconds is not None or cancelling.heeded():
            yield from chat.reply_each(some, seconds)
        else:
            yield from numbered(chat.reply(some), some, chat.spec)

    left = dict.fromkeys(range(len(asks)))
    try:
        with closing(asked(ask_all, asks, chat.spec)) as found:
            for place, reply in found:
                left.pop(place)
                yield place, reply
    except ModelError:
        raise
    except ChatError as error:
        if error.systemic:  # it concerns every question
            raise Stopped(error, "no further question is asked") from error
        for place in left:
            yield place, Reply(error=error, finish="error")


def plain_failure(chat: Chat) -> ChatError | None:
    """How a question fails that nobody could forbid; None where it does not."""
    plain = Message(role="user", parts=(Part(text="Answer yes or no: is fire hot?"),))
    # never useful, so that no cache keeps or gives the answer: it is about now
    ask = Ask(messages=(plain,), max_tokens=16, useful=lambda _: False)

    def ask_all(some: Sequence[Ask]) -> Numbered:
        yield from numbered(chat.reply(some), some, chat.spec)

    try:
        return in_order(asked(ask_all, [ask], chat.spec))[0].error
    except ChatError as error:
        return error
