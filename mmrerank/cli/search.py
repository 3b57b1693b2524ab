"""Search a folder or an index; a language model may look at the first images and rank them."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmrerank import writing
from mmrerank.cli._collection import InFlag, NoUpdateFlag, UrlsFlag, ready
from mmrerank.cli._files import read_from, read_or_piped, write_to
from mmrerank.cli._query import query_of
from mmrerank.cli._terms import MinusFlag, PlusFlag, terms
from mmrerank.cli._where import WhereFlag, read
from mmrerank.cli.console import Output, emit, one_line, progress, say, unheard, working
from mmrerank.cli.options import (
    BudgetFlag,
    CacheFlag,
    ChatFlag,
    ChatOptionsFlag,
    CollapseFlag,
    DeviceFlag,
    DryRunFlag,
    EmbedderFlag,
    IndexFlag,
    OptionsFlag,
    OutputFlag,
    PriceFlag,
    PromptsFlag,
    RecordFlag,
    ThresholdFlag,
    TrustFlag,
    budget_of,
    chat_for,
    pairs,
    trusting,
    without_money,
)
from mmrerank.errors import DEGRADED_EXIT_CODE, InputError, UsageError

if TYPE_CHECKING:
    from mmrerank.budget import Budget
    from mmrerank.config import Settings
    from mmrerank.index.index import ImageIndex
    from mmrerank.ports import Embedder
    from mmrerank.results import SearchResult
    from mmrerank.types import Query

EXAMPLE = """mmrerank search "a dog on a beach" --in ~/Pictures
mmrerank search "two red boats at dawn" --index pictures --rerank cotrr --report why.html
mmrerank search "the same, but at night" --image boat.jpg --index pictures
mmrerank search "a gull in flight" --index pictures --where 'taken >= 2024-06 and camera ~ "Pixel"'
mmrerank search "a horse" --plus stripes --minus 2:grass --index pictures --collapse near
mmrerank search --query-vectors queries.npy --index pictures --k 100 --run out.trec"""

TextArgument = Annotated[
    str | None,
    typer.Argument(metavar="TEXT", show_default=False, help="What to look for, in words; - reads stdin."),
]
KFlag = Annotated[
    int | None,
    typer.Option(
        "--k", "--top-n", metavar="N", show_default=False, help="How many images to return (default: 10)."
    ),
]
ImageFlag = Annotated[
    list[Path] | None,
    typer.Option(
        "--image", metavar="FILE", parser=read_or_piped,
        help="A reference image; may be repeated; - reads stdin.",
    ),
]  # fmt: skip
ExcludeFlag = Annotated[
    list[str] | None,
    typer.Option("--exclude", metavar="TEXT", help="What must not be there; may be repeated."),
]
TurnFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--turn", metavar="TEXT",
        help="An earlier turn of the dialogue, oldest first; TEXT is the last one.",
    ),
]  # fmt: skip
RerankFlag = Annotated[
    str | None,
    typer.Option(
        "--rerank", metavar="METHOD", show_default=False,
        help="A method of `mmrerank list methods` (default: none).",
    ),
]  # fmt: skip
CandidatesFlag = Annotated[
    int | None,
    typer.Option(
        "--candidates", metavar="N", show_default=False,
        help="How many of the first are reranked (default: 20).",
    ),
]  # fmt: skip
RecipeFlag = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="RECIPE.yaml", parser=read_from,
        help="A recipe of these settings; a flag counts more than the recipe.",
    ),
]  # fmt: skip
ReportFlag = Annotated[
    Path | None,
    typer.Option("--report", metavar="FILE.html", parser=write_to, help="Also write a self-contained page."),
]
TraceFlag = Annotated[
    Path | None,
    typer.Option(
        "--trace", metavar="FILE.json", parser=write_to, help="Also write every question and reply."
    ),
]
RunFlag = Annotated[
    Path | None,
    typer.Option("--run", metavar="FILE.trec", parser=write_to, help="Also write a six-column TREC run."),
]
VectorsFlag = Annotated[
    Path | None,
    typer.Option(
        "--query-vectors", metavar="FILE.npy", parser=read_or_piped,
        help="Search with these vectors (rows of float) into --run, loading no model; "
        "a query's id is its row number, from 0.",
    ),
]  # fmt: skip
PathsFlag = Annotated[bool, typer.Option("--filepath-only", help="Print only the images' paths, one a line.")]
NulFlag = Annotated[
    bool,
    typer.Option("--print0", help="Print only the images' paths, each ended by a NUL byte, for `xargs -0`."),
]


def search(
    text: TextArgument = None,
    within: InFlag = None,
    no_update: NoUpdateFlag = False,
    allow_urls: UrlsFlag = False,
    index: IndexFlag = None,
    k: KFlag = None,
    image: ImageFlag = None,
    exclude: ExcludeFlag = None,
    turn: TurnFlag = None,
    plus: PlusFlag = None,
    minus: MinusFlag = None,
    collapse: CollapseFlag = None,
    where: WhereFlag = None,
    rerank: RerankFlag = None,
    candidates: CandidatesFlag = None,
    threshold: ThresholdFlag = None,
    option: OptionsFlag = None,
    chat: ChatFlag = None,
    chat_option: ChatOptionsFlag = None,
    prompts: PromptsFlag = None,
    cache: CacheFlag = None,
    record: RecordFlag = None,
    budget: BudgetFlag = None,
    price: PriceFlag = None,
    dry_run: DryRunFlag = False,
    embedder: EmbedderFlag = None,
    trust_remote_code: TrustFlag = False,
    device: DeviceFlag = None,
    recipe: RecipeFlag = None,
    report: ReportFlag = None,
    trace: TraceFlag = None,
    run: RunFlag = None,
    query_vectors: VectorsFlag = None,
    filepath_only: PathsFlag = False,
    print0: NulFlag = False,
    output: OutputFlag = Output.text,
) -> None:
    """Search a folder or an index; a language model may look at the first images and rank them."""
    from mmrerank import config
    from mmrerank.limits import check_count

    settings = config.load(
        recipe,
        flags={"index": index, "k": k, "rerank": rerank, "candidates": candidates, "chat": chat,
               "threshold": threshold, "collapse": collapse, "where": where,
               "embedder": embedder, "device": device, "cache": cache,
               "prompts": prompts, "options": pairs(option, "-o"),
               "chat_options": pairs(chat_option, "--chat-option")},
    )  # fmt: skip
    check_count("results", settings.k, "--k")
    check_count("candidates", settings.candidates, "--candidates")
    read(settings.where)  # a fault is reported before images are indexed
    if output is Output.json and (print0 or filepath_only):
        raise UsageError("--output json prints everything; leave out --filepath-only and --print0")
    if query_vectors is not None:
        from mmrerank.cli._query_vectors import search_vectors

        others = {"TEXT": text, "--image": image, "--exclude": exclude, "--turn": turn, "--report": report,
                  "--trace": trace, "--filepath-only": filepath_only, "--print0": print0,
                  "--dry-run": dry_run, "--record": record, "--budget": budget, "--price": price,
                  "--plus": plus, "--minus": minus, "--collapse": collapse,
                  "-o": option, "--chat-option": chat_option, "--threshold": threshold,
                  "--prompts": prompts, "--in": within}  # fmt: skip
        return search_vectors(settings, query_vectors, run, others, output)

    query = query_of(text, image or (), exclude or (), turn or (), terms(plus, minus))
    if dry_run:
        without_money(price, budget)
    limit = budget_of(budget, price)
    model: str | Embedder = settings.embedder
    if within:
        from mmrerank.cli._forecast import spec_of

        _ = spec_of(settings.rerank, settings.options).options  # a wrong one is reported before the indexing
        found = ready(
            within, settings, index=index, update=not no_update, allow_urls=allow_urls,
            trust=trust_remote_code,
        )  # fmt: skip
        settings, model = dataclasses.replace(settings, index=str(found.index)), found.embedder
    elif no_update or allow_urls:
        flag = "--no-update" if no_update else "--allow-urls"
        raise UsageError(f"{flag} is for --in; a search of --index never looks what changed")
    if dry_run:
        return _forecast(settings, query, output, model, trust=trust_remote_code)
    result = _result(settings, query, model, limit=limit, record=record, trust=trust_remote_code)
    # the answer first: a file that cannot be written must not cost it, nor a reader that has gone the files
    with unheard():
        if print0 or filepath_only:
            _print_paths(result, b"\0" if print0 else b"\n")
        else:
            _print(result, output)
    _save(result, report, trace, run, quiet=output is Output.json)
    if result.degraded:
        raise typer.Exit(DEGRADED_EXIT_CODE)
    return None


def _embedder(settings: Settings, index: ImageIndex, model: str | Embedder, trust: bool) -> str | Embedder:
    """What embeds the query; opened where its Python files may run, or named by the person's defaults."""
    from mmrerank import config
    from mmrerank.query_embedder import embedder_for

    if not isinstance(model, str):
        return model
    more = trusting(settings.embedder, trust)
    if not more:
        # the person's own word for what an index says of itself
        same = not model and config.usual("embedder") == index.manifest.embedder
        return index.manifest.embedder if same else model
    if settings.device:
        more["device"] = settings.device
    return embedder_for(index.manifest, index.path, model, **more)


def _result(
    settings: Settings,
    query: Query,
    model: str | Embedder,
    *,
    limit: Budget | None,
    record: Path | None,
    trust: bool,
) -> SearchResult:
    from mmrerank.cli._models import chosen
    from mmrerank.index.index import ImageIndex
    from mmrerank.search import ImageSearch

    with working(), progress("judging") as step:
        # a wrong name is reported before a model loads
        index = ImageIndex.open(settings.index)
        where = index.filter(settings.where) if settings.where else None
        backend = chat_for(
            settings.rerank, settings.options,
            lambda: chosen("chat", settings.chat, index.domain),
            device=settings.device, options=settings.chat_options, cache=settings.cache, record=record,
            prompts=settings.prompts,
        )  # fmt: skip
        searcher = ImageSearch(
            index,
            chat=backend,
            embedder=_embedder(settings, index, model, trust),
            device=settings.device,
            budget=limit,
        )
        # the batch form, where no option of a method can be taken for an argument of the search
        (result,) = searcher.search_batch(
            [query], k=settings.k, rerank=settings.rerank, candidates=settings.candidates, where=where,
            options=settings.options, threshold=settings.threshold, collapse=settings.collapse, progress=step,
        )  # fmt: skip
    return result


def _forecast(
    settings: Settings, query: Query, output: Output, model: str | Embedder, *, trust: bool
) -> None:
    from mmrerank.arithmetic import folded
    from mmrerank.cli._forecast import spec_of, tell
    from mmrerank.index.index import ImageIndex
    from mmrerank.search import ImageSearch

    _ = spec_of(settings.rerank, settings.options).options  # a wrong one is reported before a model is loaded
    with working():
        index = ImageIndex.open(settings.index)
        searcher = ImageSearch(
            index, embedder=_embedder(settings, index, model, trust), device=settings.device
        )
        (ranking,) = searcher.first_stage([query], settings.candidates, where=settings.where or None)
    tell(settings.rerank, settings.options, [(folded(query), ranking)], output)


def _print(result: SearchResult, output: Output) -> None:
    if output is Output.json:
        emit(result.to_dict())
    else:
        from mmrerank.cli._show import show

        show(result)


def _save(
    result: SearchResult, report: Path | None, trace: Path | None, run: Path | None, *, quiet: bool
) -> None:
    for path, save in ((report, _save_report), (trace, _save_trace), (run, _save_run)):
        if path:
            with working():
                save(path, result)
            if not quiet:
                say(f"wrote {path}")


def _save_report(path: Path, result: SearchResult) -> None:
    try:
        result.save_html(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error


def _save_trace(path: Path, result: SearchResult) -> None:
    try:
        body = json.dumps(dataclasses.asdict(result.trace), indent=1) + "\n"
        writing.write(path, body.encode(), private=True)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error


def _save_run(path: Path, result: SearchResult) -> None:
    """The hits as query ``0``, with the method's own scores; without any, ranks are counted down."""
    from mmrerank.benchmark import Run
    from mmrerank.evaluation.experiment.own_scores import with_scores
    from mmrerank.evaluation.measure.runs import write_run

    own = result.explanation.scores
    if result.method == "none":
        own = {h.id: h.score for h in result.hits if h.score is not None}
    rows = with_scores([h.id for h in result.hits], own)
    write_run(path, Run(rows={result.query.id or "0": rows}, tag=f"mmrerank-{result.method}"))


def _print_paths(result: SearchResult, end: bytes) -> None:
    from mmrerank.results import location

    for hit in result.hits:
        image = hit.candidate.image
        if image is not None and image.path is not None and image.offset is None:
            # the very bytes of the name, for the next command in the pipe
            name = os.fsencode(image.path)
        else:
            name = (location(image) or hit.id).encode("utf-8", "surrogateescape")
        typer.echo(name + end, nl=False)
    for warning in result.warnings:
        say(f"warning: {one_line(warning)}")


COMMAND = search
