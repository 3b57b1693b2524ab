"""The flags of `mmrerank index` for collections past one machine: a job of shards in place of one run."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmrerank.cli.console import say
from mmrerank.errors import UsageError

if TYPE_CHECKING:
    from mmrerank.index.build import BuildReport
    from mmrerank.ports import Corpus, Embedder


class Engine(StrEnum):
    """Who embeds the shards of a job."""

    local = "local"
    ray = "ray"


EngineFlag = Annotated[
    Engine | None,
    typer.Option(
        "--engine", show_default=False,
        help="Embed as a job of shards, each kept when it is done: on this machine, or on a Ray cluster "
        "(RAY_ADDRESS). Without it, one process writes the index in place.",
    ),
]  # fmt: skip
WorkersFlag = Annotated[
    int | None,
    typer.Option(
        "--workers", metavar="N", show_default=False,
        help="For --engine: processes that embed (default: 1; on Ray, one for each GPU or CPU).",
    ),
]  # fmt: skip
ShardImagesFlag = Annotated[
    int | None,
    typer.Option(
        "--shard-images", metavar="N", show_default=False,
        help="For --engine: images of a shard, the most that a killed worker loses (default: 2000).",
    ),
]  # fmt: skip


def chosen(
    engine: Engine | None, workers: int | None, shard_images: int | None, *, vectors: bool
) -> dict[str, Any]:
    """The job's settings; empty where none is wanted. Raises `UsageError` for flags without their engine."""
    settings = {"workers": workers, "shard_images": shard_images}
    given = {name: value for name, value in settings.items() if value is not None}
    if engine is None:
        if given:
            name = next(iter(given)).replace("_", "-")
            raise UsageError(f"--{name} is for --engine local or --engine ray")
        return {}
    if vectors:
        raise UsageError("--vectors need no model, and no --engine")
    return {"engine": engine.value, **given}


def build(
    name: str,
    corpora: Sequence[Corpus],
    embedder: Embedder,
    job: Mapping[str, Any],
    where: Mapping[str, Any],
    options: Mapping[str, Any],
) -> BuildReport:
    """The index, made as a job. ``where`` are the options that the embedder was opened with."""
    from mmrerank.embed.open import open_embedder
    from mmrerank.index.jobs import build_in_shards

    opener = functools.partial(open_embedder, embedder.spec, **where)
    try:
        return build_in_shards(name, corpora, embedder, opener=opener, **job, **options)
    except KeyboardInterrupt:
        say("stopped: the shards that are done stay; the same command goes on with the others")
        raise
