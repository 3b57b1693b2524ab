"""A training run's log: a CSV line a step, and the loss as a picture."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

Progress = Callable[[int, int], None]
"""Called with (done, of how many)."""


class Log:
    """Appends to ``out/log.csv``; `picture` draws ``out/loss.png`` from all of it."""

    def __init__(self, out: Path, *, columns: Sequence[str]) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.file = out / "log.csv"
        self.columns = tuple(columns)
        self._recent: deque[float] = deque(maxlen=500)
        if not self.file.exists():
            self.file.write_text(",".join(columns) + "\n", "utf-8")

    def add(self, *values: float) -> None:
        """One line; the second value is the loss."""
        with self.file.open("a", encoding="utf-8") as file:
            csv.writer(file).writerow(values)
        self._recent.append(values[1])

    def mean(self, last: int) -> float:
        """Mean loss over the last steps of this process."""
        recent = list(self._recent)[-last:]
        return round(sum(recent) / len(recent), 4) if recent else float("nan")

    def picture(self, title: str) -> None:
        """Draws the loss over steps, smoothed, on a logarithmic scale."""
        from matplotlib.figure import Figure

        with self.file.open(encoding="utf-8") as file:
            rows = [(float(r["step"]), float(r["loss"])) for r in csv.DictReader(file)]
        smooth, level = [], rows[0][1]
        for _, loss in rows:
            level += 0.02 * (loss - level)
            smooth.append(level)
        figure = Figure(figsize=(7, 3.5), layout="constrained")
        axes = figure.subplots()
        axes.plot([s for s, _ in rows], [v for _, v in rows], color="#c8d4e3", linewidth=0.6)
        axes.plot([s for s, _ in rows], smooth, color="#1f5a99", linewidth=1.6)
        axes.set(title=title, xlabel="step", ylabel="loss", yscale="log")
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(self.file.with_name("loss.png"), dpi=110)
