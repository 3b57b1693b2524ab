"""Index a folder, a list or tar shards; run again, it takes up what changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmrerank.cli import _engine
from mmrerank.cli._again import again
from mmrerank.cli._collection import stopped
from mmrerank.cli._engine import EngineFlag, ShardImagesFlag, WorkersFlag
from mmrerank.cli._models import announce, chosen
from mmrerank.cli.console import Output, emit, one_line, progress, say, working
from mmrerank.cli.options import DeviceFlag, OutputFlag, TrustFlag, trusting
from mmrerank.errors import DEGRADED_EXIT_CODE, ImageIndexError, UsageError

if TYPE_CHECKING:
    from mmrerank.index.build import BuildReport, Failure
    from mmrerank.index.manifest import Manifest

EXAMPLE = """mmrerank index ~/Pictures --index pictures --embedder clip-b32
mmrerank index ~/Pictures /mnt/scans --exclude-dir 'raw*' --index pictures --embedder clip-b32
find . -name '*.jpg' | mmrerank index - --index found --embedder clip-b32
mmrerank index photos.parquet --image-column photo --index table --embedder clip-b32
mmrerank index photos --vectors v.npy --ids ids.jsonl --embedder open_clip:ViT-B-32:openai --index photos"""

_SHOWN = 20
"""Failures printed on stderr; all of them are in the JSON."""
_UNSEEN = 1000
"""Images without a file in the JSON report: an import may have millions, and memory is for vectors."""

SourceArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE",
        help="Folders, images, tar shards ('shards/{000..012}.tar'), tables (.csv, .tsv, .jsonl, .parquet), "
        "data sets of Hugging Face (hf:FOLDER, hf:NAME:SPLIT), or - for a list of files on stdin.",
    ),
]
ExcludeFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude-dir", metavar="GLOB", show_default=False,
        help="Leave out folders of this name, such as 'raw*', or of this path below SOURCE. May be given "
        "again.",
    ),
]  # fmt: skip
NameFlag = Annotated[
    str,
    typer.Option(
        "--index", metavar="X", envvar="MMRERANK_INDEX",
        help="Where the index goes: a folder, or a name below ./indexes.",
    ),
]  # fmt: skip
EmbedderFlag = Annotated[
    str | None,
    typer.Option(
        "--embedder", metavar="SPEC", show_default=False,
        help="open_clip:ARCH:TAG, open_clip:local-dir:PATH, qwen3_vl:PATH_OR_NAME, another form of "
        "`mmrerank list embedders`, or a name of `mmrerank list models` (default: the one that made the "
        "index, unless that is a folder or file of this machine, or the one that is meant for such images, "
        "if any).",
    ),
]  # fmt: skip
VectorsFlag = Annotated[
    Path | None,
    typer.Option(
        "--vectors", metavar="V",
        help="Import these vectors, one row an image; no model is loaded. A .npy file with --ids, a Parquet "
        "file that also names the images, or a folder with img_emb/*.npy and metadata/*.parquet.",
    ),
]  # fmt: skip
IdsFlag = Annotated[
    Path | None,
    typer.Option(
        "--ids", metavar="IDS.jsonl",
        help="For --vectors V.npy: one JSON object a row, whose key image is a path below SOURCE.",
    ),
]  # fmt: skip
StoreFlag = Annotated[
    str | None,
    typer.Option(
        "--store", metavar="STORE", show_default=False,
        help="What searches the vectors: a name of `mmrerank list stores`, or auto, which chooses by their "
        "number, their width and this machine (default: auto, or what the index was made for).",
    ),
]  # fmt: skip
HalfFlag = Annotated[
    bool,
    typer.Option(
        "--half",
        help="Keep the vectors of a new index in float16: half the disk, and scores that differ in the "
        "fourth digit.",
    ),
]
PixelsFlag = Annotated[
    int | None,
    typer.Option(
        "--max-pixels", metavar="N", show_default=False,
        help="Refuse images of more pixels than this (default: 50 million).",
    ),
]  # fmt: skip
TruncatedFlag = Annotated[
    bool,
    typer.Option("--allow-truncated", help="Accept truncated files, as far as they can be decoded."),
]  # fmt: skip
RebuildFlag = Annotated[
    bool, typer.Option("--rebuild", help="Forget what the index holds and embed everything again.")
]
UrlsFlag = Annotated[
    bool,
    typer.Option(
        "--allow-urls",
        help="Fetch the images that tables name by their addresses, and shards at addresses.",
    ),
]  # fmt: skip
ImageColumnFlag = Annotated[
    str,
    typer.Option(
        "--image-column", metavar="NAME", show_default=False,
        help="The column of a table or data set that holds the images: paths, addresses, bytes or base64 "
        "(default: one that is called like it).",
    ),
]  # fmt: skip
IdColumnFlag = Annotated[
    str,
    typer.Option(
        "--id-column", metavar="NAME", show_default=False,
        help="The column that holds the ids (default: id, else the path, else the number of the row).",
    ),
]  # fmt: skip
ImageRootFlag = Annotated[
    str,
    typer.Option(
        "--image-root", metavar="DIR", show_default=False,
        help="The folder that paths in a table are below (default: the table's own).",
    ),
]  # fmt: skip
AllowFlag = Annotated[
    bool,
    typer.Option(
        "--allow-removal",
        help="Take out of the index what SOURCE does not have any more, however many images these are. "
        "Without it, more than ten at once that are more than a tenth stay.",
    ),
]
TowerFlag = Annotated[
    bool,
    typer.Option(
        "--no-text-tower",
        help="Keep no text tower of an open_clip model in the index; every search then loads the model.",
    ),
]
StrictFlag = Annotated[
    bool, typer.Option("--strict", help="For --vectors: refuse them when an image file is not there.")
]


def index(
    context: typer.Context,
    sources: SourceArgument,
    name: NameFlag,
    embedder: EmbedderFlag = None,
    trust_remote_code: TrustFlag = False,
    vectors: VectorsFlag = None,
    ids: IdsFlag = None,
    exclude: ExcludeFlag = None,
    allow_urls: UrlsFlag = False,
    image_column: ImageColumnFlag = "",
    id_column: IdColumnFlag = "",
    image_root: ImageRootFlag = "",
    store: StoreFlag = None,
    half: HalfFlag = False,
    max_pixels: PixelsFlag = None,
    allow_truncated: TruncatedFlag = False,
    device: DeviceFlag = None,
    rebuild: RebuildFlag = False,
    allow_removal: AllowFlag = False,
    strict: StrictFlag = False,
    no_text_tower: TowerFlag = False,
    engine: EngineFlag = None,
    workers: WorkersFlag = None,
    shard_images: ShardImagesFlag = None,
    output: OutputFlag = Output.text,
) -> None:
    """Index a folder, a list or tar shards; run again, it takes up what changed.

    The id of an image is its POSIX path relative to SOURCE. A SOURCE that the index does not have yet is
    added to it, and the ids of its images begin with its name and two slashes.
    """
    if (vectors is None and ids is not None) or (vectors is not None and ids is None and not _whole(vectors)):
        raise UsageError("--vectors and --ids go together: a row of one belongs to a line of the other")
    if strict and vectors is None:
        raise UsageError("--strict is for --vectors, whose images need not be there")
    if max_pixels is not None and max_pixels < 1:
        raise UsageError(f"--max-pixels must be at least 1, not {max_pixels}")
    job = _engine.chosen(engine, workers, shard_images, vectors=vectors is not None)
    with working(), progress("indexing") as step:
        options: dict[str, Any] = {"rebuild": rebuild, "store": store, "half": half, "progress": step}
        if vectors is not None:
            if len(sources) > 1 or exclude:
                raise UsageError(
                    "--vectors go with one SOURCE, the folder of their images, and no --exclude-dir"
                )
            options |= {"strict": strict, "allow_removal": allow_removal}
            report = _import(name, sources[0], vectors, ids, image_column, spec=embedder, **options)
        else:
            options |= {"allow_truncated": allow_truncated, "allow_removal": allow_removal}
            options["text_tower"] = not no_text_tower
            if max_pixels is not None:
                options["max_pixels"] = max_pixels
            given: dict[str, Any] = {
                "exclude": exclude or (), "allow_urls": allow_urls, "image_root": image_root,
                "image_column": image_column, "id_column": id_column,
            }  # fmt: skip
            report = _build(name, sources, given, embedder, device, options, job, trust=trust_remote_code)
    remedy = again(context, "--allow-removal") if report.withheld else ""
    if remedy:
        pipe = "pipe the same list again: " if sources == ["-"] else ""
        remedy = f"to take these {report.withheld} images out of the index: {pipe}{remedy}"
    _show(report, output, remedy)
    if report.kept or report.withheld:
        raise typer.Exit(DEGRADED_EXIT_CODE)


def _show(report: BuildReport, output: Output, remedy: str) -> None:
    counts = {
        "added": report.added, "changed": report.changed, "removed": report.removed,
        "unchanged": report.unchanged,
    }  # fmt: skip
    stayed = {"kept": report.kept, "withheld": report.withheld}
    failed, unseen = _listed(report.failed), _listed(report.unseen[:_UNSEEN])
    warnings = [*report.remarks, *([remedy] if remedy else [])]
    if len(report.unseen) > _UNSEEN and output is Output.json:
        warnings.append(
            f"`unseen` lists the first {_UNSEEN:,} of {len(report.unseen):,} images; "
            "mmrerank verify lists all"
        )
    if output is Output.json:
        left_out = [
            {"reason": e.reason, "counts": dict(e.counts), "advice": e.advice} for e in report.left_out
        ]
        body = {"index": str(report.index), "sources": list(report.sources), **counts, **stayed}
        body |= {"store": report.store, "store_reason": report.store_reason}
        first = {"kept_first": _listed(report.kept_first), "withheld_first": _listed(report.withheld_first)}
        emit(
            {**body, **first, "failed": failed, "unseen": unseen, "left_out": left_out, "warnings": warnings}
        )
    else:
        counts |= {name: count for name, count in stayed.items() if count}
        typer.echo(one_line(str(report.index)) + ": " + ", ".join(f"{n} {k}" for k, n in counts.items()))
        if len(report.sources) > 1:
            say(f"the index has {len(report.sources)} sources: {', '.join(map(one_line, report.sources))}")
        if report.store:
            say(f"store: {report.store} ({one_line(report.store_reason)})")
        for each in report.left_out:
            say(f"left out: {one_line(each.line)}")
    for remark in warnings:
        say(f"warning: {one_line(remark)}")
    for failure in failed[:_SHOWN]:
        say(f"failed: {one_line(failure['source'])}: {one_line(failure['error'])}")
    if failed:
        more = f", {len(failed) - _SHOWN} of them not shown here" if len(failed) > _SHOWN else ""
        say(f"{len(failed)} could not be indexed{more}; the others can be searched")


def _listed(failures: Sequence[Failure]) -> list[dict[str, str]]:
    return [{"source": f.source, "error": f.error} for f in failures]


def _build(
    name: str,
    places: Sequence[str],
    given: dict[str, Any],
    spec: str | None,
    device: str | None,
    options: dict[str, Any],
    job: dict[str, Any],
    *,
    trust: bool,
) -> BuildReport:
    from mmrerank import config
    from mmrerank.corpus import open_corpora
    from mmrerank.embed.open import open_embedder
    from mmrerank.index.index import ImageIndex, index_path
    from mmrerank.query_embedder import check_remembered, embedder_for

    # a wrong source is reported before a model is loaded for it
    corpora = open_corpora(places, **given)
    domains = {c.domain for c in corpora}
    domain = domains.pop() if len(domains) == 1 else ""
    settings = config.load(flags={"embedder": spec, "device": device})
    where = {"device": settings.device or None, **trusting(settings.embedder, trust)}
    made = _made_with(name, rebuild=options["rebuild"], named=settings.embedder)
    if made is not None:
        compare = not options["rebuild"]
        if not settings.embedder:
            check_remembered(made, index_path(name))
        announce("embedder", settings.embedder or made.embedder)
        embedder = embedder_for(made, index_path(name), settings.embedder, compare=compare, **where)
    else:
        spec = chosen("embedder", settings.embedder, domain)
        announce("embedder", spec)
        embedder = open_embedder(spec, **where)
    if embedder.domain and embedder.domain != domain:
        say(f"warning: the embedder {embedder.spec} is limited: {embedder.domain}")
    try:
        if job:
            return _engine.build(name, corpora, embedder, job, where, options)
        return ImageIndex.build(name, corpora, embedder, **options)
    except KeyboardInterrupt:
        if not job:
            stopped(index_path(name))
        raise typer.Exit(130) from None


def _import(
    name: str, source: str, vectors: Path, ids: Path | None, column: str, *, spec: str | None, **options: Any
) -> BuildReport:
    from mmrerank import registry
    from mmrerank.corpus import embeddings
    from mmrerank.index.index import ImageIndex

    if not spec:
        raise UsageError("--vectors needs --embedder: say which model the vectors came from")
    if meant := registry.misspelt("embedder", spec):
        raise UsageError(f"there is no embedder {spec!r}. {meant}")
    corpus = embeddings.open(source, vectors=vectors, ids=ids or "", column=column)
    return ImageIndex.import_vectors(name, corpus, embedder_spec=spec, **options)


def _whole(vectors: Path) -> bool:
    from mmrerank.corpus import embeddings

    return embeddings.brings_ids(vectors)


def _made_with(name: str, *, rebuild: bool, named: str) -> Manifest | None:
    """The facts of the index that is there already, finished or not, where its embedder counts.

    None where there is none, or where it is rebuilt with the embedder ``named``. Raises `ImageIndexError`
    where the index does not name its embedder, `UsageError` where ``rebuild`` is to mend that.
    """
    from mmrerank.index import manifest
    from mmrerank.index.folders import is_index, standing
    from mmrerank.index.index import index_path

    place = standing(index_path(name))
    if named and rebuild:
        return None
    try:
        return manifest.read(place) if is_index(place) else None
    except ImageIndexError as error:
        if not rebuild:
            raise
        raise UsageError(
            f"{place} does not name the embedder that made it any more; name one with --embedder"
        ) from error


COMMAND = index
