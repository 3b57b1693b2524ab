"""The options of a benchmark out of its source text, which is not run: a help text needs no plug-in.

Options that cannot be read there are still taken by ``--set NAME=VALUE``.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.main import get_command_name

from mmrerank import discovery
from mmrerank.errors import UsageError

_KINDS = ("int", "float", "str", "bool")


@dataclass(frozen=True)
class OwnOption:
    """A field of a benchmark's ``Options``; ``form`` is what stands for its value in a help text."""

    name: str
    form: str
    about: str
    is_flag: bool


def own_options(plugin: str) -> list[OwnOption]:
    """The fields of the ``Options`` of a benchmark's file."""
    where = discovery.place("benchmark", plugin)
    body = _body(where)
    for node in body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "BENCHMARK":
            call = node.value
            name = call.func.id if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) else ""
            found = _options_class(where, name)
            return _fields(found) if found else []
    return []


def every_own_option(taken: Container[str]) -> list[OwnOption]:
    """The options of all benchmarks that read files, each once, but for the names that are ``taken``."""
    found: dict[str, tuple[OwnOption, list[str]]] = {}
    for plugin in discovery.names("benchmark"):
        if not _makes_its_data(discovery.place("benchmark", plugin)):
            for option in own_options(plugin):
                if option.name not in taken:
                    found.setdefault(option.name, (option, []))[1].append(get_command_name(plugin))
    return [
        replace(o, about=f"With --benchmark {' or '.join(names)}: {o.about}") for o, names in found.values()
    ]


def parameter(option: OwnOption) -> inspect.Parameter:
    """The parameter of a command by which an option is given."""
    flag = f"--{option.name.replace('_', '-')}"
    kind: Any = bool | None if option.is_flag else str | None
    shape: dict[str, Any] = {} if option.is_flag else {"metavar": option.form}
    if "|" in option.form:
        shape["autocompletion"] = _completing(option.form.split("|"))
    hint = Annotated[kind, typer.Option(flag, show_default=False, help=option.about, **shape)]
    where = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(option.name, where, default=None, annotation=hint)


def _completing(values: list[str]) -> Callable[[str], list[str]]:
    def completed(incomplete: str) -> list[str]:
        return [v for v in values if v.startswith(incomplete)]

    return completed


def one_of_each(given: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Options by ``--set`` and by own flags. Raises `UsageError` where both give one, and differ."""
    for name, value in own.items():
        if name in given and str(given[name]) != str(value):
            flag = f"--{name.replace('_', '-')} {value}"
            raise UsageError(f"--set {name}={given[name]} and {flag} contradict each other; give one of them")
    return {**given, **own}


def _makes_its_data(module: str) -> bool:
    return any(
        isinstance(part, ast.FunctionDef) and part.name == "prepare"
        for node in _body(module)
        if isinstance(node, ast.ClassDef)
        for part in node.body
    )


def own_example(plugin: str) -> str:
    """The ``EXAMPLE`` of a benchmark's file; empty where it has none."""
    for node in _body(discovery.place("benchmark", plugin)):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "EXAMPLE":
            return str(ast.literal_eval(node.value))
    return ""


def _body(module: str) -> list[ast.stmt]:
    try:
        return ast.parse(Path(discovery.source_file(module)).read_text("utf-8")).body
    except (OSError, SyntaxError, ValueError):  # what is wrong is reported when it is run
        return []


def _class(module: str, name: str, depth: int = 0) -> tuple[str, ast.ClassDef] | None:
    """The class that ``name`` is in ``module``, there or where it is imported from."""
    for node in _body(module) if depth < 5 else ():
        if isinstance(node, ast.ClassDef) and node.name == name:
            return module, node
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _class(node.module, alias.name, depth + 1)
    return None


def _options_class(module: str, benchmark: str) -> ast.ClassDef | None:
    found = _class(module, benchmark)
    if found is None:
        return None
    where, node = found
    for part in node.body:
        if isinstance(part, ast.ClassDef) and part.name == "Options":
            return part
        if isinstance(part, ast.Assign) and ast.unparse(part.targets[0]) == "Options":
            named = _class(where, ast.unparse(part.value))
            return named[1] if named else None
    bases = (_options_class(where, ast.unparse(b)) for b in node.bases)
    return next((b for b in bases if b), None)


def _fields(options: ast.ClassDef) -> list[OwnOption]:
    found = []
    whole = discovery.first_sentence(ast.get_docstring(options))
    for node, after in zip(options.body, [*options.body[1:], None], strict=True):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        text = ast.unparse(node.annotation)
        choices = text.startswith("Literal[")
        if not choices and text not in _KINDS:
            continue
        default = ast.unparse(node.value).strip("'\"") if node.value else ""
        own = after.value if isinstance(after, ast.Expr) else None
        about = str(own.value) if isinstance(own, ast.Constant) else whole
        if choices:
            values = ast.literal_eval(text.removeprefix("Literal"))
            form = "|".join(map(str, values))
        else:
            form = {"int": "N", "float": "X"}.get(text, "TEXT")
        shown = f" (default: {default})" if default and text != "bool" else ""
        found.append(OwnOption(node.target.id, form, about.rstrip(".") + shown + ".", text == "bool"))
    return found
