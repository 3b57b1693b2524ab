"""Random weights that are always the same: drawn from a generator of their own, not from the process's."""

from __future__ import annotations

from typing import Any

_DRAWING = frozenset(
    {
        "bernoulli", "bernoulli_", "cauchy_", "exponential_", "geometric_", "log_normal_", "multinomial",
        "normal", "normal_", "rand", "randint", "randn", "random_", "randperm", "uniform_",
    }
)  # fmt: skip


def drawn_from(seed: int) -> Any:
    """A context in which this thread draws what ``torch.manual_seed(seed)`` would have it draw.

    What other threads draw meanwhile changes nothing, and nothing changes for them.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class Drawn(TorchFunctionMode):
        def __init__(self) -> None:
            super().__init__()
            self._numbers = torch.Generator().manual_seed(seed)

        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            given = dict(kwargs or {})
            # functions of `torch.nn.init` say that they draw by having a generator
            if (func.__name__ in _DRAWING or "generator" in given) and given.get("generator") is None:
                given["generator"] = self._numbers
            return func(*args, **given)

    return Drawn()
