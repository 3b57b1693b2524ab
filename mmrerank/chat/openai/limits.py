"""How a model server is treated: how long, how often, how many at once."""

from __future__ import annotations

from dataclasses import dataclass

from mmrerank.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How a server is treated. ``timeout`` and ``backoff`` (the first pause, which doubles) are seconds.

    ``thinking`` is how many tokens a reasoning model may think before a text; 0 asks it not to. With
    ``any_model`` the name under which a server answers is
    not held against the one that was asked for. ``images`` and ``context`` are the most images and tokens
    that a question may hold; 0: found out when the server refuses one.
    """

    timeout: float = 120.0
    max_retries: int = 4
    concurrency: int = 8
    backoff: float = 0.5
    thinking: int = 0
    any_model: bool = False
    images: int = 0
    context: int = 0

    def __post_init__(self) -> None:
        if self.images < 0 or self.context < 0:
            raise UsageError("images and context must be 0 (not known) or more")
        if self.timeout <= 0 or self.max_retries < 0 or self.concurrency < 1 or self.thinking < 0:
            raise UsageError("timeout and concurrency must be positive, max_retries and thinking 0 or more")
