"""What a source of images passed over, as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """What a source of images passed over: why in words, how many by name, and what to do about it.

    >>> LeftOut(reason="files of kinds that are not read", counts={".cr2": 2, ".mp4": 1}).line
    'files of kinds that are not read: .cr2 (2), .mp4 (1)'
    """

    reason: str
    counts: Mapping[str, int]
    advice: str = ""

    @property
    def line(self) -> str:
        """All of it as one line; of many names the most frequent."""
        most = sorted(self.counts.items(), key=lambda c: (-c[1], c[0]))
        shown = ", ".join(f"{name} ({n or 'none found'})" for name, n in most[:12])
        more = f", and {len(most) - 12} more names" if len(most) > 12 else ""
        return f"{self.reason}: {shown}{more}" + (f"; {self.advice}" if self.advice else "")
