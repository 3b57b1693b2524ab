"""How far a training run is, and where it runs."""

from __future__ import annotations

import torch


def share_done(step: int, steps: int, seconds: float, minutes: float | None) -> float:
    """How much of a run is over, by steps or by time, whichever is further; 1 or more is the end.

    ``seconds`` counts the whole run, earlier parts of a resumed one included.
    """
    return max(step / steps, seconds / 60 / minutes if minutes else 0.0)


def best_device() -> torch.device:
    """The GPU when there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
