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


def has_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` computes in bfloat16 itself: emulated, it is ten times slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return device.type == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
