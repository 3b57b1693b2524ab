"""Look at this machine, recommend an embedder and a language model, and keep them as your defaults."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmrerank.cli.console import Output, emit, one_line, say, table_console
from mmrerank.cli.options import OutputFlag
from mmrerank.errors import InputError, UsageError
from mmrerank.paths import absolute_spec

if TYPE_CHECKING:
    from mmrerank.advice import Advice
    from mmrerank.catalog import Card
    from mmrerank.machine import Machine

EXAMPLE = """mmrerank setup
mmrerank setup --yes
mmrerank setup --embedder siglip2-b16 --chat ollama:qwen2.5vl:7b --yes"""

_KEYS = ("embedder", "chat")


def setup(
    embedder: Annotated[
        str | None,
        typer.Option("--embedder", metavar="SPEC", show_default=False, help="Keep this embedder instead."),
    ] = None,
    chat: Annotated[
        str | None,
        typer.Option(
            "--chat", metavar="SPEC", show_default=False,
            help="Keep this language model instead, also one on a server.",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Write the defaults without asking.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be written, and stop.")] = False,
    output: OutputFlag = Output.text,
) -> None:  # fmt: skip
    """Look at this machine, recommend an embedder and a language model, and keep them as your defaults.

    Nothing is downloaded. The defaults are a file of yours, which `search --in`, `index` and `--rerank` read
    where nothing else says which model. The index that a search opens keeps the embedder that made it.
    """
    from mmrerank import config, machine
    from mmrerank.advice import advise
    from mmrerank.home import defaults_file

    there = machine.look()
    advice = advise(there)
    values = {"embedder": absolute_spec(embedder or advice.embedder.name)}
    if chat or advice.chat is not None:
        values["chat"] = absolute_spec(chat or (advice.chat.name if advice.chat else ""))
    _check(values)
    file, before = defaults_file(), {k: v for k, v in config.defaults().items() if k in _KEYS}
    if output is Output.text:
        _show(there, advice, values, before, file)
    written = values != before and not dry_run and (yes or _agreed(output))
    if written:
        _write(file, values)
    if output is Output.json:
        emit(_facts(there, advice) | {"file": str(file), "before": before, "defaults": values,
                                      "written": written})  # fmt: skip
    elif values == before:
        say(f"{file} holds these already")
    else:
        say(f"wrote {file}" if written else "nothing was written; --yes writes it")


def _check(values: Mapping[str, str]) -> None:
    """Raises `UsageError` for a spec that names nothing."""
    from mmrerank import registry

    for kind, spec in values.items():
        if not spec.isprintable() or not spec.strip():
            raise UsageError(f"--{kind} is no name of a model")
        registry.chosen(kind, spec, {})


def _agreed(output: Output) -> bool:
    if output is Output.json or not sys.stdin.isatty():
        return False
    return typer.confirm("Write these defaults?", default=True, err=True)


def _facts(there: Machine, advice: Advice) -> dict[str, Any]:
    rows = {"embedder": advice.embedder, "chat": advice.chat}
    return {
        "machine": dataclasses.asdict(there),
        "recommended": {
            kind: None if card is None else _row(kind, card) | {"why": why}
            for (kind, card), why in zip(rows.items(), advice.reasons, strict=True)
        },
    }


def _row(kind: str, card: Card) -> dict[str, Any]:
    from mmrerank import catalog

    keys = ("name", "spec", "about", "licence", "parameters", "bytes", "memory", "speed")
    facts = {k: v for k, v in dataclasses.asdict(card).items() if k in keys and v}
    return facts | {"download": catalog.repository(kind, card.name)}


def _show(
    there: Machine, advice: Advice, values: Mapping[str, str], before: Mapping[str, str], file: Path
) -> None:
    from rich.text import Text

    from mmrerank.advice import gigabytes

    console = table_console()
    memory = f", {gigabytes(there.memory)} of memory" if there.memory else ""
    gpus = ", ".join(f"{g.name} with {gigabytes(g.memory)}" for g in there.gpus) or "no GPU"
    console.print(Text(f"this machine: {there.cores} cores{memory}, {gpus}"))
    console.print(_table(advice))
    console.print(Text(_copying(advice)))
    console.print(Text(f"\n{file}" + (" (now: " + _lines(before, ", ") + ")" if before else "")))
    console.print(Text(_lines(values, "\n")))


def _table(advice: Advice) -> Any:
    from rich.table import Table
    from rich.text import Text

    from mmrerank.advice import gigabytes

    table = Table(box=None, pad_edge=True, header_style="dim")
    for column in ("for", "model", "download", "memory", "licence", "speed class", "why"):
        table.add_column(column, overflow="fold", no_wrap=column in ("for", "model", "memory"))
    for use, card, why in zip(
        ("search", "rerank"), (advice.embedder, advice.chat), advice.reasons, strict=True
    ):
        cells = (use, "none", "", "", "", "", why)
        if card is not None:
            cells = (
                use,
                card.name,
                gigabytes(card.bytes),
                gigabytes(card.memory),
                card.licence,
                card.speed,
                why,
            )
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _copying(advice: Advice) -> str:
    """How the models get to a machine that reaches no hub."""
    from mmrerank import catalog

    lines = ["For a machine that reaches no model hub: fetch them elsewhere, copy the folders and name them."]
    for kind, card, form in (
        ("embedder", advice.embedder, "open_clip:local-dir:"),
        ("chat", advice.chat, "transformers:"),
    ):
        if card is None:
            continue
        plugin = card.spec.partition(":")[0]
        form = form if plugin in form else f"{plugin}:"
        lines.append(f"  hf download {catalog.repository(kind, card.name)} --local-dir {card.name}")
        lines.append(f"  mmrerank setup --{kind} {form}/PATH/{card.name} --yes")
    return "\n".join(lines)


def _lines(values: Mapping[str, str], between: str) -> str:
    return between.join(f"{key}: {one_line(value)}" for key, value in values.items())


def _write(file: Path, values: Mapping[str, str]) -> None:
    """Sets ``values`` in the file of defaults; its other lines stay as they are. Raises `InputError`."""
    import yaml

    from mmrerank import config, writing

    try:
        text = file.read_text("utf-8") if os.path.lexists(file) else ""
        for key, value in values.items():
            line = yaml.safe_dump({key: value}, default_flow_style=False, width=1 << 20, allow_unicode=True)
            found = re.search(rf"^{key}[ \t]*:.*\n?", text, re.MULTILINE)
            start, end = found.span() if found else (len(text), len(text))
            text = _ended(text[:start]) + line + text[end:]
        if _parsed(text) != {**config.defaults(), **values}:
            raise InputError(f"{file} is written in a way that cannot be changed line by line; edit it")
        writing.write(file, text.encode())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be written: {error}") from error


def _parsed(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None


def _ended(text: str) -> str:
    return text if not text or text.endswith("\n") else f"{text}\n"


COMMAND = setup
