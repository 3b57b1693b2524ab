"""How long the rest takes, as the progress line says it."""

from __future__ import annotations

import pytest

from mmrerank.cli import console as _console
from mmrerank.durations import lasting


def test_time_left_is_counted_from_where_the_work_began(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(_console.time, "monotonic", lambda: now)
    pace = _console._Pace()
    assert pace.left(120, 200) == ""  # taken from a journal: no pace yet
    now += 10
    assert pace.left(130, 200) == "70 s"
    now += 990
    assert pace.left(140, 200) == "50 min"
    assert pace.left(200, 200) == ""
    assert pace.left(8, 50) == ""  # other work
    now += 42
    assert pace.left(29, 50) == "42 s"
    assert pace.left(3, None) == ""


def test_durations_are_for_people() -> None:
    told = [lasting(s) for s in (0, 89.4, 90, 3600, 7199, 7260, 90000)]
    assert told == ["0 s", "89 s", "2 min", "60 min", "2 h 0 min", "2 h 1 min", "25 h 0 min"]
