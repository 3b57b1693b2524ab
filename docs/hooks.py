"""Fills the pages of the documentation from the package itself, so that lists cannot drift from the code.

A line ``<!-- generate: NAME -->`` in a page is replaced by what the function of that name here returns.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import MISSING, fields
from functools import cache
from typing import Any, get_args, get_type_hints

_MARK = re.compile(r"^<!-- generate: (\w+) -->$", re.M)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs for every page."""
    return _MARK.sub(lambda found: GENERATED[found[1]](), markdown)


@cache
def _listed() -> dict[str, list[dict[str, Any]]]:
    """What ``mmrerank list --output json`` prints."""
    import json

    return json.loads(_command("list", "--output", "json"))


def _command(*arguments: str) -> str:
    import os
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "mmrerank", *arguments],
        capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "88"},
    )  # fmt: skip
    return done.stdout


def _table(head: list[str], rows: list[list[Any]]) -> str:
    def line(cells: list[Any]) -> str:
        return "| " + " | ".join(str(c).replace("|", "\\|") for c in cells) + " |"

    return "\n".join([line(head), line(["---"] * len(head)), *map(line, rows)])


def _text(value: str) -> str:
    """Text that is no Markdown."""
    return " ".join(value.split()).replace("*", "\\*").replace("<", "&lt;")


def _code(value: Any) -> str:
    return f"`{value}`" if value not in ("", None) else ""


def methods() -> str:
    """One section for each method: what it does, its paper, what it needs, its calls and its options."""
    from mmrerank import registry

    return "\n\n".join(_method(name, module) for name, module in registry.every("strategy"))


def _method(name: str, module: Any) -> str:
    kind = module.Options
    options = kind()
    hints = get_type_hints(kind)
    rows = []
    for f in fields(kind):
        values = get_args(hints[f.name])
        default = f.default if f.default is not MISSING else f.default_factory()  # type: ignore[misc]
        text = str(default).lower() if isinstance(default, bool) else default
        allowed = ", ".join(map(_code, values)) if values else _code(hints[f.name].__name__)
        rows.append([_code(f.name), _code(text), allowed])
    calls = [options.calls(k) for k in (20, 100)]
    facts = [
        f"- Family: {module.FAMILY}",
        f"- Source: {module.PAPER}" if module.PAPER else "",
        f"- The model must offer: {', '.join(map(_code, module.NEEDS)) or 'nothing'}",
        "- Most questions for 20 and for 100 candidates: "
        + " and ".join("not known before" if c is None else f"{c:,}" for c in calls),
    ]
    said = inspect.getdoc(kind) or ""
    table = _table(["option", "default", "values"], rows) if rows else "It has no options."
    about = said if rows and not said.startswith(f"{kind.__name__}(") else ""
    parts = [f"## {name}", inspect.getdoc(module) or "", "\n".join(filter(None, facts)), table, about]
    return "\n\n".join(filter(None, parts))


def models() -> str:
    """The models that have a short name."""
    shown = [m for m in _listed()["models"] if not m.get("corpora")]
    return _table(
        ["name", "kind", "stands for", "about", "download", "memory", "licence"],
        [
            [
                _code(m["name"]),
                m["kind"],
                _code(m["spec"]),
                m["about"],
                _size(m["bytes"]),
                _size(m["memory"]),
                m["licence"],
            ]
            for m in shown
        ],
    )


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count else ""


def servers() -> str:
    """The servers that have a name."""
    return _table(
        ["form", "usual address", "key", "how to start it"],
        [[_code(s["form"]), _code(s["url"]), _code(s["key"]), _code(s["start"])]
         for s in _listed()["servers"]],
    )  # fmt: skip


def forms() -> str:
    """How embedders and language models are named."""
    rows = [
        [word, _code(p["form"]), p["about"]]
        for word, kind in (("`--embedder`", "embedders"), ("`--chat`", "chats"), ("`--chat`", "scorers"))
        for p in _listed()[kind]
    ]
    return _table(["flag", "form", "about"], rows)


def metrics() -> str:
    """Every metric, with its rule for equal scores."""
    return _table(
        ["metric", "what it is", "equal scores"],
        [[_code(m["form"]), m["about"], m["ties"]] for m in _listed()["metrics"]],
    )


def benchmarks() -> str:
    """Splits and options of each benchmark."""
    rows = [
        [_code(b["name"]), b["about"], ", ".join(map(_code, b["splits"])),
         ", ".join(_code(f"{o['name']}={o['default']}") for o in b["options"])]
        for b in _listed()["benchmarks"]
    ]  # fmt: skip
    return _table(["benchmark", "what is asked", "splits", "options (`--set`)"], rows)


def published() -> str:
    """Published figures of each benchmark, in percent, as its data file cites them."""
    from importlib.resources import files

    import yaml

    parts = []
    folder = files("mmrerank.evaluation") / "benchmarks"
    for path in sorted(folder.iterdir(), key=lambda p: p.name):
        if not path.name.endswith(".yaml"):
            continue
        body = yaml.safe_load(path.read_text("utf-8"))
        name = path.name.removesuffix(".yaml").replace("_", "-")
        parts += [f"### {name}", f"Source: {_text(body.get('source') or 'none')}."]
        parts += [f"How to get it: {_text(body['get'])}"] if body.get("get") else []
        rows = body.get("published") or []
        if rows:
            parts.append(_figures(rows))
    return "\n\n".join(parts)


def _figures(rows: list[dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(r["metric"] for r in rows))
    if len(columns) > 8:  # figures of many parts: one row a figure, the overall ones
        columns = [c for c in columns if "." not in c][:8] or columns[:8]
    lines: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        if row["metric"] in columns:
            value = row["value"]
            text = f"{100 * value:.2f}" if isinstance(value, float) and value <= 1 else str(value)
            lines.setdefault((row["system"], row["split"]), {})[row["metric"]] = text
    return _table(
        ["system", "split", *columns],
        [[*key, *(line.get(c, "") for c in columns)] for key, line in lines.items()],
    )


def verbs() -> str:
    """``--help`` of every verb."""
    root = _command("--help")
    listed = root.partition("Commands:\n")[2].partition("\n\n")[0]
    names = [line.split()[0] for line in listed.splitlines() if re.match(r"  \S", line)]
    parts = ["## mmrerank", f"```text\n{root.rstrip()}\n```"]
    for name in names:
        parts += [f"## {name}", f"```text\n{_command(name, '--help').rstrip()}\n```"]
    return "\n\n".join(parts)


def errors() -> str:
    """The error tree."""
    from mmrerank import errors as module

    text = inspect.getdoc(module) or ""
    return "```text\n" + text.partition("\n\n")[2].partition("\n\nExit code")[0].strip("\n") + "\n```"


GENERATED = {
    f.__name__: f for f in (methods, models, servers, forms, metrics, benchmarks, published, verbs, errors)
}
