"""List what can be named: methods, models, servers, prompts, stores, metrics, benchmarks, your indexes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

import typer

from mmrerank import discovery
from mmrerank.cli.console import Output, emit, one_line, table_console
from mmrerank.cli.options import OutputFlag
from mmrerank.config import bounds_of
from mmrerank.errors import MmrerankError

if TYPE_CHECKING:
    from mmrerank import catalog
    from mmrerank.index.own import Known
    from mmrerank.rerank.profiles import Profile

EXAMPLE = """mmrerank list methods
mmrerank list --output json"""


class What(StrEnum):
    """What can be listed."""

    methods = "methods"
    chats = "chats"
    scorers = "scorers"
    embedders = "embedders"
    models = "models"
    servers = "servers"
    prompts = "prompts"
    stores = "stores"
    corpora = "corpora"
    metrics = "metrics"
    benchmarks = "benchmarks"
    indexes = "indexes"


_KIND = {
    What.chats: "chat",
    What.scorers: "scorer",
    What.embedders: "embedder",
    What.stores: "store",
    What.corpora: "corpus",
}


def list_(
    what: Annotated[
        What | None, typer.Argument(show_default=False, help="One kind (default: all of them).")
    ] = None,
    output: OutputFlag = Output.text,
) -> None:
    """List methods and their options, backends, scorers, embedders, models, servers, prompt profiles, stores,
    sources, metrics, benchmarks, and your indexes.
    """
    found = {w.value: _rows(w) for w in ([what] if what else What)}
    if output is Output.json:
        emit(found)
        return
    for name, rows in found.items():
        _print(name, rows)
        if name == What.indexes and rows:
            typer.echo("To remove one, delete its folder.")


def _rows(what: What) -> list[dict[str, Any]]:
    from mmrerank import catalog
    from mmrerank.evaluation.measure.metrics import METRICS
    from mmrerank.index import own
    from mmrerank.rerank import profiles

    if what is What.methods:
        return [method(name, module) for name, module in discovery.every("strategy")]
    if what is What.models:
        return [dataclasses.asdict(card) for card in catalog.cards()]
    if what is What.servers:
        return [server(s) for s in catalog.servers()]
    if what is What.prompts:
        return [profile(p) for p in profiles.named()]
    if what is What.metrics:
        return [metric(name) for name in METRICS]
    if what is What.benchmarks:
        return _working("benchmark", benchmark)
    if what is What.indexes:
        return [index(known) for known in own.every()]
    return _working(_KIND[what], lambda name: _plugin(_KIND[what], name))


def _working(kind: str, row: Callable[[str], dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each plug-in of a kind; a broken one costs one warning and is left out."""
    rows = []
    for name in discovery.names(kind):
        try:
            rows.append(row(name))
        except MmrerankError as error:
            discovery.warn(kind, name, error)
    return rows


def method(name: str, module: Any) -> dict[str, Any]:
    """A reranking method: what it needs, where it is from, and its options with their defaults."""
    return {
        "name": name,
        "family": module.FAMILY,
        "needs": list(module.NEEDS),
        # the most that is asked about 20 candidates with the default options
        "calls": module.Options().calls(20),
        "paper": module.PAPER,
        "about": discovery.first_sentence(module.__doc__),
        "options": _options(module.Options),
    }


def server(found: catalog.Server) -> dict[str, Any]:
    """A model server with a name: how it is named, where it listens, and the variable of its key."""
    return {"name": found.name, "form": found.form, "url": found.url, "key": found.key, "start": found.start}


def profile(found: Profile) -> dict[str, Any]:
    """A prompt profile: the models that it is meant for, and the digest of its prompts."""
    return {
        "name": found.name,
        "models": list(found.models) or ["every other model"],
        "files": len(found.files),
        "digest": found.digest,
    }


def metric(name: str) -> dict[str, Any]:
    """A metric: whether it takes a cut-off, and in which order it has documents of one score."""
    from mmrerank.evaluation.measure.metrics import METRICS

    found = METRICS[name]
    form = {"needed": f"{name}@k", "allowed": f"{name}[@k]", "absent": name}[found.cutoff]
    return {"name": name, "form": form, "about": found.about, "ties": found.tie_rule}


def benchmark(module_name: str) -> dict[str, Any]:
    """A benchmark: what it is, its splits and options, and what papers report on it."""
    from mmrerank.evaluation.tasks import benchmark_of, facts_of

    name = module_name.replace("_", "-")
    found, facts = benchmark_of(name), facts_of(name)
    return {
        "name": name,
        "about": facts.about,
        "splits": list(found.SPLITS),
        "options": _options(found.Options),
        "published": len(facts.published),
        "source": facts.source.strip(),
    }


def index(known: Known) -> dict[str, Any]:
    """An index below ./indexes, or one that `search --in` made: where it is, what of, and how large."""
    facts = known.manifest
    return {
        "index": str(known.path),
        "images": known.images,
        "bytes": known.bytes,
        "embedder": facts.embedder,
        "sources": [facts.source, *(s.location for s in facts.sources)],
        "updated": facts.updated,
    }


def _options(options: type[Any]) -> list[dict[str, Any]]:
    hints = get_type_hints(options)
    bounds = bounds_of(options)
    return [
        {
            "name": f.name,
            "type": "choice" if (choices := _choices(hints[f.name])) else _type_name(hints[f.name]),
            "default": f.default if f.default is not dataclasses.MISSING else None,
            **({"choices": choices} if choices else {}),
            **({"from": bounds[f.name].low, "to": bounds[f.name].high} if f.name in bounds else {}),
        }
        for f in dataclasses.fields(options)
    ]


def _choices(hint: Any) -> list[Any]:
    return list(get_args(hint)) if str(get_origin(hint)) == "typing.Literal" else []


def _type_name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint)


def _plugin(kind: str, name: str) -> dict[str, Any]:
    """A plug-in by its source text: a listing must not need what the plug-in needs."""
    form = discovery.form(kind, name)
    return {"name": name, **({"form": form} if form else {}), "about": discovery.about(kind, name)}


def _print(name: str, rows: list[dict[str, Any]]) -> None:
    from rich.table import Table
    from rich.text import Text

    console = table_console()
    console.print(Text(name if rows else f"{name}: none", style="bold"))
    if not rows:
        return
    columns = [c for c in dict.fromkeys(k for row in rows for k in row) if any(r.get(c) for r in rows)]
    table = Table(box=None, pad_edge=True, header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column == "name")
    for row in rows:
        table.add_row(*(Text(_cell(row.get(c))) for c in columns))
    console.print(table)


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(_option(v) if isinstance(v, dict) else str(v) for v in value)
    return one_line("" if value is None else str(value))


def _option(option: dict[str, Any]) -> str:
    default = option["default"]
    shown = str(default).lower() if isinstance(default, bool) else str(default)
    choices = f" ({'|'.join(map(str, option['choices']))})" if "choices" in option else ""
    ends = f" ({option['from']}..{option['to']})" if "from" in option else ""
    return f"{option['name']}={shown}{choices}{ends}"


COMMAND = list_
