"""``mmrerank index``: builds or updates an index from a folder, a list, shards or ready-made vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmrerank.cli._console import Output, emit, one_line, progress, say, working
from mmrerank.cli._options import DeviceFlag, OutputFlag
from mmrerank.errors import InputError, UsageError

EXAMPLE = """mmrerank index ~/Pictures --index pictures --embedder clip-b32
find . -name '*.jpg' | mmrerank index - --index found
mmrerank index photos --vectors v.npy --ids ids.jsonl --embedder open_clip:ViT-B-32:openai --index photos"""

_SHOWN = 20
"""Failures said on stderr; all of them are in the JSON."""


def index(
    source: Annotated[
        str,
        typer.Argument(help="A folder, tar shards ('shards/{000..012}.tar'), or - for a list of files on stdin."),
    ],
    name: Annotated[
        str | None,
        typer.Option("--index", metavar="X", show_default=False, help="Where the index goes: a folder, or a name below ./indexes."),
    ] = None,
    embedder: Annotated[
        str | None,
        typer.Option(
            "--embedder", metavar="SPEC", show_default=False,
            help="bundled, open_clip:ARCH:TAG, open_clip:local-dir:PATH, open_clip:ARCH:random, or a name of "
            "`mmrerank list models` (default: what the index was built with, or bundled).",
        ),
    ] = None,
    vectors: Annotated[
        Path | None,
        typer.Option("--vectors", metavar="V.npy", help="Import these vectors, one row an image; no model is loaded."),
    ] = None,
    ids: Annotated[
        Path | None,
        typer.Option("--ids", metavar="IDS.jsonl", help="For --vectors: one JSON object a row, whose key image is a path below SOURCE."),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option("--store", metavar="STORE", show_default=False, help="What searches the vectors: a name of `mmrerank list stores`."),
    ] = None,
    max_pixels: Annotated[
        int | None,
        typer.Option("--max-pixels", metavar="N", show_default=False, help="Refuse images of more pixels than this."),
    ] = None,
    allow_truncated: Annotated[
        bool, typer.Option("--allow-truncated", help="Take what can be decoded of cut-off files.")
    ] = False,
    device: DeviceFlag = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Forget what the index holds and embed everything again.")
    ] = False,
    output: OutputFlag = Output.text,
) -> None:
    """Index a folder, a list or tar shards; run again, it takes up what changed.

    The id of an image is its POSIX path relative to SOURCE.
    """
    if (vectors is None) != (ids is None):
        raise UsageError("--vectors and --ids go together: a row of one belongs to a line of the other")
    if max_pixels is not None and max_pixels < 1:
        raise UsageError(f"--max-pixels must be at least 1, not {max_pixels}")
    target = name or config.load().index
    with working(), progress("indexing") as step:
        if vectors is not None and ids is not None:
            if not embedder:
                raise UsageError("--vectors needs --embedder: say which model the vectors came from")
            report = import_vectors(
                target, source, vectors, ids, embedder=embedder, store=store, rebuild=rebuild
            )
        else:
            report = build(
                target, source, embedder=embedder, store=store, max_pixels=max_pixels,
                allow_truncated=allow_truncated, device=device, rebuild=rebuild, progress=step,
            )  # fmt: skip
