"""One model on several devices gives what it gives on one, in the same order."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch

from mmrerank.embed._open_clip_images import Transform
from mmrerank.embed._replicas import Replicas, devices
from mmrerank.errors import ModelError


def visible(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(
    ("named", "count", "expected"),
    [
        (None, 0, ["cpu"]),
        (None, 2, ["cuda:0", "cuda:1"]),
        ("cuda", 3, ["cuda:0", "cuda:1", "cuda:2"]),
        ("cuda:1", 2, ["cuda:1"]),
        ("cuda:1, cuda:0", 2, ["cuda:1", "cuda:0"]),
        ("cpu,cpu", 2, ["cpu", "cpu"]),
    ],
)
def test_devices_by_name(
    monkeypatch: pytest.MonkeyPatch, named: str | None, count: int, expected: list[str]
) -> None:
    visible(monkeypatch, count)
    assert devices(named) == expected


@pytest.mark.parametrize(
    ("named", "count", "says"),
    [
        ("telepathy", 0, "there is no device 'telepathy'; use cpu, cuda, cuda:N"),
        ("cuda:0,", 2, "there is no device ''"),
        ("cuda", 0, "device 'cuda' was asked for, but torch sees no GPU; use cpu"),
        ("cuda:0,cuda:2", 2, "device 'cuda:2' was asked for, and torch sees cuda:0, cuda:1"),
    ],
)
def test_a_device_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, named: str, count: int, says: str
) -> None:
    visible(monkeypatch, count)
    with pytest.raises(ModelError, match=says):
        devices(named)


def test_batches_run_at_once_and_come_back_in_order() -> None:
    meeting = threading.Barrier(2, timeout=10)
    model = torch.nn.Linear(2, 2)
    used: list[tuple[int, str]] = []

    def work(model: Any, device: str, part: int) -> int:
        meeting.wait()  # two are under way, or this never ends
        used.append((id(model), device))
        return part * part

    replicas = Replicas(model, ["cpu", "cpu"])
    assert replicas.each([3, 1, 2, 5], work) == [9, 1, 4, 25]
    assert len({model for model, _ in used}) == 2
    assert len(replicas._models) == 2


def test_one_batch_makes_no_copy() -> None:
    replicas = Replicas(object(), ["cpu", "cpu"])
    assert replicas.each([4], lambda model, device, part: (device, part)) == [("cpu", 4)]
    assert replicas.each([], lambda *_: None) == []
    assert len(replicas._models) == 1


def test_what_one_device_raises_is_raised() -> None:
    def work(model: Any, device: str, part: int) -> int:
        if part == 2:
            raise RuntimeError("out of memory")
        return part

    with pytest.raises(RuntimeError, match="out of memory"):
        Replicas(torch.nn.Identity(), ["cpu", "cpu"]).each([1, 2, 3], work)


def test_another_order_of_steps_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.transforms import Compose, ToTensor

    part = "mmrerank.embed._open_clip_images._open_clip.image_transform"
    monkeypatch.setattr(part, lambda _: Compose([ToTensor(), ToTensor()]))
    with pytest.raises(ModelError, match=r"ends its image transform with \['ToTensor', 'ToTensor'\]"):
        Transform(None).pixels(np.zeros((2, 2, 3)))
