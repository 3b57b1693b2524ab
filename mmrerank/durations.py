"""Durations for people."""

from __future__ import annotations


def lasting(seconds: float) -> str:
    """About how long, such as ``40 s``, ``12 min`` or ``3 h 5 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
