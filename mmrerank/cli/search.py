"""``mmrerank search``: one query, or a file of query vectors, against one index."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from mmrerank import config
from mmrerank.cli.console import Output, emit, progress, say, unheard, working
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
    RecordFlag,
    budget_of,
    chat_for,
    existing_image,
    pairs,
    without_money,
)
from mmrerank.errors import DEGRADED_EXIT_CODE, InputError, UsageError

EXAMPLE = """mmrerank search "two red boats at dawn" --index pictures --rerank cotrr --report why.html
mmrerank search "the same, but at night" --image boat.jpg --index pictures
mmrerank search --query-vectors queries.npy --index pictures --k 100 --run out.trec"""


def search(
    text: Annotated[
        str | None,
        typer.Argument(metavar="TEXT", show_default=False, help="What to look for, in words."),
    ] = None,
    index: Annotated[
        str | None,
        typer.Option(
            "--index",
            metavar="X",
            show_default=False,
            help="Index folder, or a name below ./indexes (default: demo).",
        ),
    ] = None,
    k: Annotated[
        int | None,
        typer.Option(
            "--k", metavar="N", show_default=False, help="How many images to return (default: 10)."
        ),
    ] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option("--image", metavar="FILE", help="A reference image; may be repeated."),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", metavar="TEXT", help="What must not be there; may be repeated."),
    ] = None,
    turn: Annotated[
        list[str] | None,
        typer.Option(
            "--turn",
            metavar="TEXT",
            help="An earlier turn of the dialogue, oldest first; TEXT is the last one.",
        ),
    ] = None,
    rerank: Annotated[
        str | None,
        typer.Option(
            "--rerank",
            metavar="METHOD",
            show_default=False,
            help="A method of `mmrerank list methods` (default: none).",
        ),
    ] = None,
    candidates: Annotated[
        int | None,
        typer.Option(
            "--candidates",
            metavar="N",
            show_default=False,
            help="How many of the first are reranked (default: 20).",
        ),
    ] = None,
    option: OptionsFlag = None,
    chat: ChatFlag = None,
    chat_option: ChatOptionsFlag = None,
    cache: CacheFlag = None,
    record: RecordFlag = None,
    budget: BudgetFlag = None,
    price: PriceFlag = None,
    dry_run: DryRunFlag = False,
    embedder: Annotated[
        str | None,
        typer.Option(
            "--embedder",
            metavar="SPEC",
            show_default=False,
            help="What embeds the query (default: what built the index).",
        ),
    ] = None,
    device: DeviceFlag = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="RECIPE.yaml",
            help="A recipe of these settings; flags go before it.",
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE.html", help="Also write a self-contained page."),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option("--trace", metavar="FILE.json", help="Also write every question and reply."),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option("--run", metavar="FILE.trec", help="Also write a six-column TREC run."),
    ] = None,
    query_vectors: Annotated[
        Path | None,
        typer.Option(
            "--query-vectors",
            metavar="FILE.npy",
            help="Search with these vectors (rows of float) into --run, loading no model; "
            "a query's id is its row number, from 0.",
        ),
    ] = None,
    filepath_only: Annotated[
        bool, typer.Option("--filepath-only", help="Print only the images' paths, one a line.")
    ] = False,
    output: OutputFlag = Output.text,
) -> None:
    """Search an index; a language model may look at the first images and rank them."""
    settings = config.load(
        recipe,
        flags={
            "index": index, "k": k, "rerank": rerank, "candidates": candidates, "chat": chat,
            "embedder": embedder, "device": device, "cache": cache,
        },
    )  # fmt: skip
    if settings.k < 1:
        raise UsageError(f"--k must be at least 1, not {settings.k}")
    if query_vectors is not None:
        given = {"TEXT": text, "--image": image, "--exclude": exclude, "--turn": turn, "--report": report,
                 "--trace": trace, "--filepath-only": filepath_only, "--dry-run": dry_run,
                 "--record": record, "--budget": budget, "--price": price, "-o": option,
                 "--chat-option": chat_option}  # fmt: skip
        if wrong := [name for name, value in given.items() if value]:
            raise UsageError(f"--query-vectors searches without a model and takes no {wrong[0]}")
        if run is None:
            raise UsageError("--query-vectors needs --run FILE.trec to write to")
        if settings.rerank != "none":
            raise UsageError("--query-vectors has no words to rerank by; leave --rerank out")
        _search_vectors(settings, query_vectors, run, output)
        return

    from mmrerank.index.index import ImageIndex
    from mmrerank.search import ImageSearch
    from mmrerank.types import Image, Query

    try:
        query = Query(
            text=text or "",
            images=tuple(Image(path=existing_image(p, "--image")) for p in image or ()),
            exclude=tuple(exclude or ()),
            turns=tuple(turn or ()),
        )
    except ValueError as error:
        raise UsageError(f"{error}: give TEXT, --image or --turn") from error
    options = {**settings.options, **pairs(option, "-o")}
    limit = budget_of(budget, price)
    if dry_run:
        without_money(price, budget)
    with working(), progress("judging") as step:
        # a name that is wrong is told before a model loads
        opened = ImageIndex.open(settings.index)
        backend = chat_for(
            "none" if dry_run else settings.rerank, settings.chat, device=settings.device,
            options=chat_option, cache=settings.cache, record=record,
        )  # fmt: skip
        embedder_ = _embedder(settings.embedder, settings.device, opened.embedder_spec)
        searcher = ImageSearch(opened, chat=backend, embedder=embedder_, budget=limit)
        if dry_run:
            (ranking,) = searcher.first_stage([query], settings.candidates)
        else:
            # the batch form, where no option of a method can be taken for an argument of the search
            (result,) = searcher.search_batch(
                [query], k=settings.k, rerank=settings.rerank, candidates=settings.candidates,
                options=options, progress=step,
            )  # fmt: skip
    if dry_run:
        from mmrerank.cli._forecast import tell

        tell(settings.rerank, options, [(query, ranking)], output)
        return

    # the answer first: a file that cannot be written must not cost it, nor a reader that has gone the files
    with unheard():
        if output is Output.json:
            emit(result.to_dict())
        elif filepath_only:
            _print_paths(result)
        else:
            from mmrerank.cli._show import show

            show(result)
    for path, save in ((report, _save_report), (trace, _save_trace), (run, _save_run)):
        if path:
            with working():
                save(path, result)
            if output is Output.text:
                say(f"wrote {path}")
    if result.degraded:
        raise typer.Exit(DEGRADED_EXIT_CODE)


def _embedder(spec: str, device: str, made_with: str) -> Any:
    """The embedder when it needs more said than its spec; otherwise the spec, opened when needed."""
    if not device:
        return spec
    from mmrerank.embed.open import open_embedder

    return open_embedder(spec or made_with, device=device)


def _search_vectors(settings: config.Settings, source: Path, target: Path, output: Output) -> None:
    from mmrerank.evaluation.measure.runs import Run, Scored, write_run
    from mmrerank.index.index import ImageIndex

    start = time.monotonic()
    with working():
        index = ImageIndex.open(settings.index)
        vectors = _read_vectors(source)
        rows = {
            str(number): [Scored(id=hit.id, score=hit.score) for hit in found]
            for number, found in enumerate(index.search(vectors, settings.k))
        }
        write_run(target, Run(rows=rows))
    told = {
        "index": settings.index, "queries": len(rows), "k": settings.k, "run": str(target),
        "seconds": round(time.monotonic() - start, 3),
    }  # fmt: skip
    if output is Output.json:
        emit(told)
    else:
        typer.echo(
            f"{told['queries']} queries, {told['k']} images each, {told['seconds']} s: {target}"
        )


def _read_vectors(path: Path) -> Any:
    """The rows of a ``.npy`` file ``(q, d)`` as float32. Raises `InputError` for anything else."""
    import numpy as np

    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read as a .npy file of vectors: {error}") from error
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind != "f":
        raise InputError(f"{path} must hold rows of float16, float32 or float64")
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        raise InputError(f"{path}: row {int(finite.argmin())} is not finite (rows from 0)")
    return array.astype(np.float32)


def _save_report(path: Path, result: Any) -> None:
    try:
        result.save_html(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error


def _save_trace(path: Path, result: Any) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(dataclasses.asdict(result.trace), indent=1) + "\n", "utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error


def _save_run(path: Path, result: Any) -> None:
    """The hits as query ``0``; a reranked order has no scores, so its ranks are counted down."""
    from mmrerank.evaluation.measure.runs import Run, Scored, write_run

    plain = result.method == "none"
    n = len(result.hits)
    rows = [
        Scored(id=h.id, score=(h.score or 0.0) if plain else float(n + 1 - h.rank))
        for h in result.hits
    ]
    write_run(path, Run(rows={result.query.id or "0": rows}, tag=f"mmrerank-{result.method}"))


def _print_paths(result: Any) -> None:
    from mmrerank.results import location

    for hit in result.hits:
        image = hit.candidate.image
        if image is not None and image.path is not None and image.offset is None:
            # the very bytes of the name, for the next command in the pipe
            typer.echo(os.fsencode(image.path))
        else:
            typer.echo(location(image) or hit.id)


COMMAND = search
