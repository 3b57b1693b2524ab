"""What may be spent, and the meter that holds a ranking or a whole run to it. Pure counting, no I/O.

The promise: a question is sent only while the most that it can cost still fits. So calls never pass their
limit, and tokens and money do not either unless the model counts more tokens than `bound` allows a question
(another tokenizer's idea of an image, a template of its own); then by that difference of the questions that
were under way. A call is a question: tries after a failure are none of their own, and neither is the second
asking, in words, of a server that turns out to ignore a schema; the tokens of that one count, and may pass a
limit. No question is sent after the seconds are over; one under way is given up where the backend can do
that, and otherwise ends.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, fields

from mmrerank.errors import UsageError
from mmrerank.limits import ANY, shown
from mmrerank.messages import Ask
from mmrerank.types import Usage

PER_MESSAGE = 64
"""Tokens allowed for what a chat template writes around one message."""
PER_IMAGE = 16
"""Tokens allowed for what it writes around one image."""


@dataclass(frozen=True, kw_only=True)
class Price:
    """Money per million tokens, in whatever currency.

    >>> Price(input=0.15, output=0.60).of(8000, 400)
    0.00144
    """

    input: float
    output: float

    @staticmethod
    def parse(text: str) -> Price:
        """``IN,OUT``, such as ``0.5,1.5``. Raises `UsageError` for anything else."""
        try:
            values = [float(part) for part in text.split(",")]
        except ValueError:
            values = []
        if len(values) != 2 or not all(math.isfinite(v) and v >= 0 for v in values):
            raise UsageError(f"a price is IN,OUT per million tokens, such as 0.5,1.5, not {text!r}")
        return Price(input=values[0], output=values[1])

    def of(self, input_tokens: float, output_tokens: float) -> float:
        """What so many tokens cost."""
        return (input_tokens * self.input + output_tokens * self.output) / 1e6


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits; None is no limit. ``tokens`` count in and out, ``seconds`` are wall time from the start.

    ``money`` needs a ``price``. Raises `UsageError` for a limit that is negative or not a number.

    >>> Budget.parse("calls=40,seconds=30") == Budget(calls=40, seconds=30)
    True
    """

    calls: int | None = None
    tokens: int | None = None
    seconds: float | None = None
    money: float | None = None
    price: Price | None = None

    def __post_init__(self) -> None:
        for name in ("calls", "tokens", "seconds", "money"):
            value = vars(self)[name]
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise UsageError(f"a budget's {name} must be a number, not {shown(value)}")
            if value is not None and not 0 <= value < math.inf:
                raise UsageError(f"a budget's {name} must be 0 or more, not {shown(value)}")
            if value is not None:
                ANY.check(value, f"a budget's {name}")
        if self.money is not None and self.price is None:
            raise UsageError("a budget of money needs a price, IN,OUT per million tokens")

    @staticmethod
    def parse(text: str, price: Price | None = None) -> Budget:
        """``calls=40,seconds=30``: any of calls, tokens, seconds and money. Raises `UsageError`."""
        known = [f.name for f in fields(Budget) if f.name != "price"]
        values: dict[str, float] = {}
        for part in text.split(","):
            name, _, number = (p.strip() for p in part.partition("="))
            try:
                value = float(number) if name in ("seconds", "money") else int(number)
            except ValueError:
                name = ""
            if name not in known:
                raise UsageError(
                    f"a budget is {','.join(f'{n}=N' for n in known)} or some of these, not {text!r}"
                )
            values[name] = value
        return Budget(price=price, **values)  # type: ignore[arg-type] # numbers of the right kind


def bound(ask: Ask) -> Usage:
    """The most that ``ask`` is taken to cost: a token a byte of text, ``image_tokens``, ``max_tokens``.

    Thoughts before a choice are written first and read again with the rest.

    No byte-level tokenizer makes more tokens than bytes.
    """
    parts = [p for m in ask.messages for p in m.parts]
    images = sum(p.image is not None for p in parts)
    text = sum(len(p.text.encode("utf-8", "replace")) for p in parts if p.text)
    read = text + PER_MESSAGE * (len(ask.messages) + 1) + (ask.image_tokens + PER_IMAGE) * images
    written = 1 if ask.choices or ask.read else ask.max_tokens
    if ask.think and ask.choices:
        read, written = 2 * (read + PER_MESSAGE) + ask.max_tokens, ask.max_tokens + 1
        images *= 2
    return Usage(calls=1, input_tokens=read, output_tokens=written, images=images)


class Meter:
    """Counts against one budget; safe for several threads. The clock starts with the first question."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.spent = Usage()
        self.exhausted = ""
        """The limit that a question was refused for at last; empty while there was none."""
        self._held = Usage()
        self._start: float | None = None
        self._lock = threading.Condition()

    def take(self, most: Usage) -> str:
        """Sets ``most`` aside and returns an empty text, or says which limit it does not fit."""
        with self._lock:
            if self._start is None:
                self._start = time.monotonic()
            would = self.spent + self._held + most
            limits = self.budget
            if limits.calls is not None and would.calls > limits.calls:
                return f"{limits.calls} calls"
            if limits.tokens is not None and would.input_tokens + would.output_tokens > limits.tokens:
                return f"{limits.tokens} tokens"
            if limits.money is not None and limits.price is not None:
                cost = limits.price.of(would.input_tokens, would.output_tokens)
                if cost > limits.money * (1 + 1e-9):
                    return f"{limits.money:g} to pay"
            if limits.seconds is not None and time.monotonic() - self._start >= limits.seconds:
                return f"{limits.seconds:g} seconds"
            self._held += most
            return ""

    def settle(self, most: Usage, used: Usage) -> None:
        """Puts what a question really cost in place of the ``most`` that was set aside."""
        with self._lock:
            self._held += Usage(**{name: -value for name, value in vars(most).items()})
            self.spent += used
            self._lock.notify_all()

    def settling(self) -> bool:
        """Whether something is still set aside; waits a moment for it to be settled."""
        with self._lock:
            if self._held == Usage():
                return False
            self._lock.wait(timeout=1.0)
            return True

    def seconds_left(self) -> float | None:
        """Seconds until the time is over; None without such a limit."""
        if self.budget.seconds is None:
            return None
        with self._lock:
            gone = 0.0 if self._start is None else time.monotonic() - self._start
        return max(self.budget.seconds - gone, 0.0)
