"""Rerank candidates from anywhere, one request a line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmrerank.cli._files import read_or_piped
from mmrerank.cli.console import Output, emit, progress, working
from mmrerank.cli.options import (
    BudgetFlag,
    CacheFlag,
    ChatFlag,
    ChatOptionsFlag,
    DeviceFlag,
    DryRunFlag,
    OptionsFlag,
    OutputFlag,
    PriceFlag,
    PromptsFlag,
    RecordFlag,
    ThresholdFlag,
    TotalFlag,
    budget_of,
    chat_for,
    pairs,
    without_money,
)
from mmrerank.errors import DEGRADED_EXIT_CODE

if TYPE_CHECKING:
    from mmrerank.reranker import Reranker
    from mmrerank.results import SearchResult
    from mmrerank.types import Query, Ranking

EXAMPLE = """mmrerank rerank --input requests.jsonl --rerank cotrr --chat openai:MODEL@http://localhost:8000/v1
a line: {"query": {"text": "a red boat"}, "candidates": [{"id": "a", "image": "a.jpg", "score": 0.3}]}"""

BATCH = 32
"""Requests driven together: enough to fill a batch, few enough that results come as they are ready."""


InputFlag = Annotated[
    Path,
    typer.Option(
        "--input", metavar="REQUESTS.jsonl", parser=read_or_piped, help="One request a line; - reads stdin."
    ),
]
MethodFlag = Annotated[
    str | None,
    typer.Option(
        "--rerank", metavar="METHOD", show_default=False,
        help="A method of `mmrerank list methods` (default: cotrr).",
    ),
]  # fmt: skip


TopFlag = Annotated[
    int | None,
    typer.Option(
        "--top-n", metavar="N", show_default=False,
        help="How many candidates of each request to print, best first (default: all).",
    ),
]  # fmt: skip


def rerank(
    input: InputFlag,
    method: MethodFlag = None,
    top_n: TopFlag = None,
    threshold: ThresholdFlag = None,
    option: OptionsFlag = None,
    chat: ChatFlag = None,
    chat_option: ChatOptionsFlag = None,
    prompts: PromptsFlag = None,
    device: DeviceFlag = None,
    cache: CacheFlag = None,
    record: RecordFlag = None,
    budget: BudgetFlag = None,
    total_budget: TotalFlag = None,
    price: PriceFlag = None,
    dry_run: DryRunFlag = False,
    output: OutputFlag = Output.text,
) -> None:
    """Rerank candidates from anywhere, one request a line.

    Prints one result for each request, in their order. A query is a text or an object with text, images,
    exclude, turns, instruction and id; a candidate has an id, an image or a text, and may have its
    first-stage score. Images are paths, relative to the folder of REQUESTS.jsonl. The order given is the
    first-stage order.
    """
    from mmrerank import config
    from mmrerank.best import check_best
    from mmrerank.cli._models import chosen
    from mmrerank.cli._requests import read_requests
    from mmrerank.reranker import Reranker

    # every line is checked here: a mistake in the last one must not cost the calls before it
    requests = read_requests(input, sys.stdin.buffer)
    settings = config.load(
        flags={"rerank": method, "chat": chat, "device": device, "cache": cache, "prompts": prompts}
    )
    name = method or ("cotrr" if settings.rerank == "none" else settings.rerank)
    check_best(name, top_n, threshold)
    limits = budget_of(budget, price), budget_of(total_budget, price)
    options = pairs(option, "-o")
    if dry_run:
        without_money(price, budget, total_budget)
        from mmrerank.cli._forecast import tell

        return tell(name, options, requests, output)
    with working():
        backend = chat_for(
            name, options, lambda: chosen("chat", settings.chat, ""), device=settings.device,
            options=pairs(chat_option, "--chat-option"), cache=settings.cache, record=record,
            prompts=settings.prompts,
        )  # fmt: skip
        reranker = Reranker(name, backend, budget=limits[0], total=limits[1], options=options)
    if _rank(reranker, requests, output, top_n, threshold):
        raise typer.Exit(DEGRADED_EXIT_CODE)
    return None


def _rank(
    reranker: Reranker,
    requests: Sequence[tuple[Query, Ranking]],
    output: Output,
    top_n: int | None,
    threshold: float | None,
) -> bool:
    """Prints the result of each request; whether judgements failed in one of them.

    Where the run is stopped, what was complete is printed before the error is raised.
    """
    from mmrerank.rerank.stopping import Stopped

    degraded = False
    for start in range(0, len(requests), BATCH):
        try:
            with working(), progress(f"judging requests from {start + 1} on") as step:
                results = reranker.rank_batch(
                    requests[start : start + BATCH], top_n=top_n, threshold=threshold, progress=step
                )
        except Stopped as stopped:
            for number, result in stopped.results.items():
                _print(result, start + number + 1, output)
            raise
        for number, result in enumerate(results, start=start + 1):
            degraded = degraded or result.degraded
            _print(result, number, output)
        sys.stdout.flush()
    return degraded


def _print(result: SearchResult, number: int, output: Output) -> None:
    from mmrerank.cli._show import show

    if output is Output.json:
        return emit(result.to_dict())
    typer.secho(f"{result.query.id or number}: {result.query.words or 'image query'}", bold=True)
    show(result)
    typer.echo("")
    return None


COMMAND = rerank
