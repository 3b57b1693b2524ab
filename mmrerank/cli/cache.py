"""Look into a cache of replies (--cache FILE of search, rerank and eval), or shrink it."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from mmrerank.cli.console import Output, emit, guarded, one_line, working
from mmrerank.cli.options import OutputFlag, is_file, is_folder
from mmrerank.errors import InputError, UsageError

EXAMPLE = """mmrerank cache info --cache replies.sqlite
mmrerank cache prune --cache replies.sqlite --older-than 30d --largest 500MB"""

group = typer.Typer(
    help="Look into a cache of replies (--cache FILE of search, rerank and eval), or shrink it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
FileFlag = Annotated[
    Path | None,
    typer.Option(
        "--cache", metavar="FILE", show_default=False,
        help="The cache (default: the environment's MMRERANK_CACHE).",
    ),
]  # fmt: skip
_DAYS = {"h": 1 / 24, "d": 1.0, "w": 7.0}
_BYTES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}


@guarded
def info(
    cache: FileFlag = None,
    check: Annotated[
        bool, typer.Option("--check", help="Also read every reply and test that it is whole.")
    ] = False,
    output: OutputFlag = Output.text,
) -> None:
    """Show how many replies a cache holds, of which models, since when, and its size."""
    from mmrerank.chat.around.cache import ReplyStore

    with working():
        store = ReplyStore(_there(cache))
        if check:
            store.check()
        contents = store.info()
        store.close()
    if output is Output.json:
        emit({**dataclasses.asdict(contents), **({"whole": True} if check else {})})
        return
    since = "" if contents.oldest is None else f", the oldest of {_day(contents.oldest)}"
    typer.echo(
        f"{one_line(contents.path)}: {contents.replies} replies, {contents.bytes / 1e6:.1f} MB{since}"
        + (", all whole" if check else "")
    )
    for model, count in contents.models.items():
        typer.echo(f"  {count:>8}  {one_line(model)}")


@guarded
def prune(
    cache: FileFlag = None,
    older_than: Annotated[
        str | None,
        typer.Option(
            "--older-than",
            metavar="AGE",
            show_default=False,
            help="Drop replies older than this: 12h, 30d, 8w.",
        ),
    ] = None,
    largest: Annotated[
        str | None,
        typer.Option(
            "--largest",
            metavar="SIZE",
            show_default=False,
            help="Then drop the oldest until the file is no larger: 500MB, 2GB.",
        ),
    ] = None,
    output: OutputFlag = Output.text,
) -> None:
    """Drop old replies from a cache."""
    from mmrerank.chat.around.cache import ReplyStore

    if older_than is None and largest is None:
        raise UsageError("give --older-than AGE or --largest SIZE; `mmrerank cache clear` drops all")
    age = None if older_than is None else _amount(older_than, "[hdw]", _DAYS, "an age") * 86400
    size = None if largest is None else int(_amount(largest, "[KMG]?B?", _BYTES, "a size"))
    with working():
        store = ReplyStore(_there(cache))
        dropped = store.prune(older_than=age, largest=size)
        contents = store.info()
        store.close()
    if output is Output.json:
        emit({"dropped": dropped, **dataclasses.asdict(contents)})
    else:
        typer.echo(f"{dropped} replies dropped, {contents.replies} left, {contents.bytes / 1e6:.1f} MB")


@guarded
def clear(cache: FileFlag = None, output: OutputFlag = Output.text) -> None:
    """Delete a cache, also a damaged one. Other files are refused."""
    from mmrerank.chat.around.cache import clear as delete

    path = _named(cache)
    there = delete(path)
    if output is Output.json:
        emit({"path": str(path), "deleted": there})
    else:
        typer.echo(f"deleted {path}" if there else f"there is no {path}")


def _named(cache: Path | None) -> Path:
    found = cache or os.environ.get("MMRERANK_CACHE") or ""
    if not str(found) or str(found).lower() == "off":
        raise UsageError("no cache is named: give --cache FILE, or set MMRERANK_CACHE")
    return Path(found).expanduser()


def _there(cache: Path | None) -> Path:
    path = _named(cache)
    if is_folder(path, "--cache"):
        raise InputError(f"{path} is a folder, and a cache is a file")
    if not is_file(path, "--cache"):
        raise InputError(f"there is no cache {path}; search, rerank and eval make it with --cache")
    if not path.stat().st_size:
        raise InputError(f"{path} is empty, so it is no cache yet")  # opening it would make it one
    return path


def _amount(text: str, units: str, worth: dict[str, float] | dict[str, int], what: str) -> float:
    found = re.fullmatch(rf"(\d+(?:\.\d+)?)\s*({units})", text.strip(), re.I)
    if found is None:
        shown = "12h, 30d or 8w" if "d" in units else "500MB or 2GB"
        raise UsageError(f"{what} is a number with its unit, such as {shown}, not {text!r}")
    unit = found[2] if found[2] in worth else found[2].upper().removesuffix("B")
    amount = float(found[1]) * worth[unit if unit in worth else unit.lower()]
    if not math.isfinite(amount):
        raise UsageError(f"{what} of {len(found[1])} digits is too large")
    return amount


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds).astimezone().date().isoformat()


for _verb in (info, prune, clear):
    _lines = (
        "\n".join(f"  {line}" for line in EXAMPLE.splitlines() if f" {_verb.__name__} " in line)
        or f"  mmrerank cache {_verb.__name__} --cache replies.sqlite"
    )
    group.command(_verb.__name__, epilog=f"\b\nExample:\n{_lines}")(_verb)

COMMAND = group
