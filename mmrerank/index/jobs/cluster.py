"""The shards of a job on Ray Data: on the cluster that ``RAY_ADDRESS`` names, else on this machine.

What travels through Ray are numbers of shards. Images are read, and shards written, by the workers
themselves, in the folders that every machine sees. Ray starts a worker that was killed again, with the shard
that it had.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmrerank.errors import MissingExtraError, ModelError, in_short
from mmrerank.index.jobs.local import Done, Opener, failed, make, worded
from mmrerank.index.jobs.plan import Plan, PlanPart

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mmrerank.ports import Embedder

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_enable_worker_prestart": "0",
}


def check() -> None:
    """Raises `MissingExtraError` where Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise MissingExtraError('--engine ray needs Ray; pip install "mmrerank[ray]"')


class _Shards:
    """What an actor of Ray does: opens the embedder once, and makes the shards that it gets."""

    def __init__(self, work: str, opener: Opener) -> None:
        self._work, self._opener = Path(work), opener
        self._embedder: Embedder | None = None

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        said = []
        for number in batch["number"]:
            try:
                self._embedder = self._embedder or self._opener()
                make(self._work, int(number), self._embedder)
                said.append("")
            except Exception as error:  # Ray would try for ever what can only fail: it is said instead
                said.append(worded(error))
        return {"number": batch["number"], "error": np.array(said, dtype=object)}


def on_ray(
    work: Path, plan: Plan, parts: Sequence[PlanPart], opener: Opener, workers: int | None, done: Done
) -> None:
    """Embeds the shards with ``workers`` actors, by default one a GPU, or one a CPU but for one.

    Raises `ModelError` where a worker cannot go on, or Ray itself.
    """
    check()
    images = {p.number: p.images for p in parts}
    with _started(workers) as ray:
        there: Mapping[str, float] = ray.cluster_resources()
        gpus, cpus = int(there.get("GPU", 0)), int(there.get("CPU", 1))
        count = min(workers or gpus or max(1, cpus - 1), len(parts))
        data = ray.data.from_items(
            [{"number": p.number} for p in parts], override_num_blocks=len(parts)
        ).map_batches(
            _Shards,
            fn_constructor_kwargs={"work": str(work), "opener": opener},
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=count),
            num_cpus=1,
            **({"num_gpus": 1} if gpus else {}),
        )
        try:
            for row in data.iter_rows():
                if row["error"]:
                    raise failed(int(row["number"]), str(row["error"]))
                done(images[int(row["number"])])
        except ray.exceptions.RayError as error:
            raise ModelError(
                f"Ray ended the job: {in_short(error, 500)}. The shards that are done are kept; the same "
                "command goes on with the others"
            ) from error


@contextmanager
def _started(workers: int | None) -> Iterator[Any]:
    """Ray, connected; what was started here is ended."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    import ray
    import ray.data

    if ray.is_initialized():
        yield ray
        return
    there: dict[str, Any] = {}
    if not os.environ.get("RAY_ADDRESS"):
        # one CPU more than workers: somebody has to hand out the numbers
        there = {"num_cpus": workers + 1 if workers else None, "include_dashboard": False}
        there["_node_ip_address"] = "127.0.0.1"
    try:
        ray.init(log_to_driver=False, **there)
    except Exception as error:  # of no class of its own: a node took too long, say
        ray.shutdown()
        raise ModelError(
            f"Ray cannot be started or reached: {in_short(error, 300)}. Try again when the machine has less "
            "to do, set RAY_ADDRESS to a cluster, or use --engine local"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()
