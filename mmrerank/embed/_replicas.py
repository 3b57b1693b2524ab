"""One model on several devices: each batch goes to a device that is free, and the results are in order.

Knows nothing of what the model computes.
"""

from __future__ import annotations

import copy
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mmrerank.errors import ModelError


class Replicas:
    """``model`` on the first of ``devices``; the others get a copy with the first work that needs one.

    >>> Replicas(None, ["cpu"]).each([1, 2], lambda model, device, part: part * 2)  # doctest: +SKIP
    [2, 4]
    """

    def __init__(self, model: Any, devices: Sequence[str]) -> None:
        self._devices = tuple(devices)
        self._models = [model]
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._devices)

    def each(self, parts: Sequence[Any], work: Callable[[Any, str, Any], Any]) -> list[Any]:
        """``work(model, device, part)`` of every part, in order; as many at once as there are devices."""
        first = self._models[0], self._devices[0]
        if len(parts) < 2 or len(self) < 2:
            return [work(*first, part) for part in parts]
        free: queue.SimpleQueue[tuple[Any, str]] = queue.SimpleQueue()
        for replica in self._all():
            free.put(replica)

        def on_one(part: Any) -> Any:
            replica = free.get()
            try:
                return work(*replica, part)
            finally:
                free.put(replica)

        with ThreadPoolExecutor(len(self), thread_name_prefix="replica") as pool:
            return list(pool.map(on_one, parts))

    def _all(self) -> list[tuple[Any, str]]:
        with self._lock:
            for device in self._devices[len(self._models) :]:
                self._models.append(copy.deepcopy(self._models[0]).to(device))
        return list(zip(self._models, self._devices, strict=True))


def devices(named: str | None) -> list[str]:
    """The devices that ``named`` names: ``cpu``, ``cuda:0,cuda:1``; ``cuda`` is every GPU that is visible.

    By default GPUs where there are any. Raises `ModelError` for one that is not there.
    """
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    every = [f"cuda:{n}" for n in range(count)]
    if named is None:
        return every or ["cpu"]
    found: list[str] = []
    for one in (part.strip() for part in named.split(",")):
        try:
            device = torch.device(one)
        except RuntimeError as error:
            raise ModelError(f"there is no device {one!r}; use cpu, cuda, cuda:N or cuda:0,cuda:1") from error
        if device.type == "cuda" and not count:
            raise ModelError(f"device {one!r} was asked for, but torch sees no GPU; use cpu")
        if device.type == "cuda" and device.index is not None and device.index >= count:
            raise ModelError(f"device {one!r} was asked for, and torch sees {', '.join(every)}")
        found += every if one == "cuda" else [one]
    return found
