"""Settings of a run: a person's defaults, YAML recipe, environment (``MMRERANK_*``), flags, in this order.

Maps (options of a method, of a model) are merged name by name: a flag changes what it names and nothing else.
One frozen record for the command line, the app and Python. An unknown key is an error that names the
allowed ones; nothing is read from anywhere else.

The defaults are one file of the person's own (`mmrerank.home.defaults_file`), with the keys of a recipe. Its
``embedder`` and ``chat`` are taken where nothing else says which (`usual`): they never replace what made an
index, nor what is meant for its images.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from mmrerank.errors import InputError, UsageError
from mmrerank.home import defaults_file
from mmrerank.limits import ANY, Bounds, shown
from mmrerank.near import meant
from mmrerank.paths import expanded, reason
from mmrerank.reading import whole

T = TypeVar("T")
PREFIX = "MMRERANK_"
TRUST = "trust_remote_code"
"""The option of models that lets their Python files run. No file may set it."""
_NODES = 10_000
"""Values of a recipe: hundreds of times what any needs, and few enough to be shown in an error."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a search needs to know. ``options`` are the method's own (``-o name=value``), ``chat_options`` the
    model's (``--chat-option name=value``).

    An empty ``index`` is the only one below ``./indexes``, an empty ``embedder`` the one that made the index,
    an empty ``chat`` the catalogue's model that is meant for such images; where there is none, an error
    says what to name. ``where`` is the text of a `mmrerank.Filter`; an empty one leaves all images.
    ``threshold`` is the least relevance of what is returned; without one, all is.
    ``collapse`` is that of `mmrerank.duplicates`. Empty ``prompts`` are the model's own profile.
    """

    index: str = ""
    embedder: str = ""
    chat: str = ""
    rerank: str = "none"
    k: int = 10
    candidates: int = 20
    threshold: float | None = None
    where: str = ""
    collapse: Literal["none", "identical", "near"] = "none"
    device: str = ""
    cache: str = ""
    prompts: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    chat_options: Mapping[str, Any] = field(default_factory=dict)


_MAPS = ("options", "chat_options")


def load(
    recipe: Path | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Settings:
    """Settings of a run; flags that are None are left out. Raises `UsageError` or `InputError`."""
    values = {k: v for k, v in defaults(environment).items() if k not in USUAL}
    if recipe is not None:
        values = over(values, without_code(filled(read_yaml(recipe), Settings), recipe))
    env = os.environ if environment is None else environment
    named: dict[str, Any] = {}
    for name, hint in get_type_hints(Settings).items():
        variable = PREFIX + name.upper()
        if name not in _MAPS and (value := env.get(variable)):
            # here, so that a wrong one is not blamed on the recipe
            named[name] = _convert(value, hint, variable)
    for more in (named, {k: v for k, v in (flags or {}).items() if v is not None}):
        values = over(values, more)
    return build(Settings, values, where=str(recipe) if recipe else "settings")


USUAL = ("embedder", "chat")
"""What of the defaults is taken where nothing else says which model."""


def defaults(environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What the person's file of defaults holds; nothing where there is no file.

    Raises `UsageError` for a key that no recipe may have, ``index`` and a model's own code among them, and
    `InputError` for a file that cannot be read.
    """
    file = defaults_file(environment)
    if not os.path.lexists(file):
        return {}
    values = without_code(filled(read_yaml(file), Settings), file)
    if "index" in values:
        raise UsageError(f"{file}: an index is named on the command line, or by MMRERANK_INDEX")
    build(Settings, values, where=str(file))
    return dict(values)


def usual(kind: str, environment: Mapping[str, str] | None = None) -> str:
    """The person's default ``embedder`` or ``chat``; empty without one. Raises as `defaults`."""
    found = defaults(environment).get(kind)
    return "" if found is None else str(found)


def over(values: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` with ``more`` over them; maps within are merged in the same way.

    A method that is named with options in brackets goes over ``options`` of the same names.

    >>> over({"options": {"mode": "single"}}, {"options": {"image_tokens": "512"}})
    {'options': {'mode': 'single', 'image_tokens': '512'}}
    """
    found = dict(values)
    below = found.get("options")
    if isinstance(below, Mapping) and isinstance(method := more.get("rerank"), str):
        inner = method.partition("(")[2].rpartition(")")[0]
        given = {pair.partition("=")[0].strip() for pair in inner.split(";")}
        found["options"] = {k: v for k, v in below.items() if k not in given}
    for name, value in more.items():
        before = found.get(name)
        if isinstance(before, Mapping):
            value = _mapping(value)
        found[name] = (
            over(before, value) if isinstance(before, Mapping) and isinstance(value, Mapping) else value
        )
    return found


def _mapping(value: Any) -> Any:
    """``value``, where it is the JSON text of an object that object."""
    if not isinstance(value, str) or not value.lstrip().startswith("{"):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping. Raises `InputError` naming the file and the line."""
    import yaml

    try:
        text = whole(expanded(path), most="line_bytes").decode("utf-8")
        if _expanded(yaml.compose(text, Loader=yaml.SafeLoader)) > _NODES:
            raise InputError(f"{path} has more than {_NODES:,} values, its aliases written out; use fewer")
        body = yaml.safe_load(text)
    except OSError as error:
        raise InputError(f"cannot read the recipe {path}: {reason(error)}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(body, dict):
        raise InputError(f"{path} must hold a mapping of names to values")
    return body


def without_code(values: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """``values`` of the recipe at ``path``. Raises `UsageError` where they allow a model's own code to run.

    A recipe is a file, and may be somebody else's: only a person allows that, on the command line.
    """
    options = _mapping(values.get("chat_options"))
    if isinstance(options, Mapping) and any(str(k).strip() == TRUST for k in options):
        raise UsageError(
            f"{path}: {TRUST} cannot be set in a file, which may come from anybody. Give it on the command "
            f"line: --chat-option {TRUST}=true"
        )
    return values


def _expanded(node: Any) -> int:
    """The nodes of a YAML document with every alias written out, counted as far as is allowed.

    Aliases double what they name at each step, and merging maps writes them out.
    """
    count, waiting = 0, [node]
    while waiting and count <= _NODES:
        found = waiting.pop()
        count += 1
        inner = found.value if found is not None else ()
        if isinstance(inner, list):
            waiting += [n for item in inner for n in (item if isinstance(item, tuple) else (item,))]
    return count


def filled(values: Mapping[str, Any], kind: type[Any]) -> dict[str, Any]:
    """``values`` without the keys of ``kind`` that a file leaves empty (``device:``): the default stands."""
    known = {f.name for f in dataclasses.fields(kind)}
    return {k: v for k, v in values.items() if v is not None or k not in known}


def build(kind: type[T], values: Mapping[str, Any], *, where: str) -> T:
    """An options dataclass out of plain values (strings are converted to the field's type).

    Raises `UsageError` for an unknown name, a value of the wrong type, or one the class refuses.
    """
    hints = get_type_hints(kind)
    bounds = bounds_of(kind)
    known = [f.name for f in dataclasses.fields(kind)]  # type: ignore[arg-type]
    converted: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            allowed = f"it takes {', '.join(known)}" if known else "it takes no options"
            raise UsageError(f"{where}: unknown option {name!r}; {allowed}.{meant(str(name), known, 1)}")
        converted[name] = _convert(value, hints[name], f"{where}: {name}")
    try:
        built = kind(**converted)
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from error
    for name, value in converted.items():
        if isinstance(value, int | float) and name in bounds:
            bounds[name].check(value, f"{where}: {name}")
    return built


def bounds_of(kind: type[Any]) -> dict[str, Bounds]:
    """The bounds that an options dataclass declares for its numbers, as ``Annotated[int, Bounds(1, 9)]``."""
    hints = get_type_hints(kind, include_extras=True)
    return {
        name: found
        for name, hint in hints.items()
        if get_origin(hint) is Annotated
        for found in get_args(hint)[1:]
        if isinstance(found, Bounds)
    }


_WORDS = {"true": True, "yes": True, "on": True, "1": True,
          "false": False, "no": False, "off": False, "0": False}  # fmt: skip


def _convert(value: Any, hint: Any, where: str) -> Any:
    if allowed := (get_args(hint) if str(get_origin(hint)) == "typing.Literal" else ()):
        if value not in allowed and "true" in allowed and "false" in allowed:
            # a switch with a third way: YAML and Python say true and false without quotes
            word = _WORDS.get(str(value).lower())
            value = value if word is None else str(word).lower()
        if value not in allowed:
            raise UsageError(f"{where} must be one of {', '.join(map(str, allowed))}, not {shown(value)}")
        return value
    if type(None) in get_args(hint) and len(get_args(hint)) == 2:  # "not said" is a value of it
        inner = next(a for a in get_args(hint) if a is not type(None))
        return None if value is None else _convert(value, inner, where)
    if hint is bool:
        word = _WORDS.get(str(value).lower())
        if word is None:
            raise UsageError(f"{where} must be true or false, not {shown(value)}")
        return word
    if hint in (int, float):
        try:
            number = hint(value)
        except (TypeError, ValueError, OverflowError):
            number = None
        # `int` would make 1 of true and 10 of 10.7
        if number is None or isinstance(value, bool) or (isinstance(value, float) and number != value):
            raise UsageError(f"{where} must be a number ({hint.__name__}), not {shown(value)}")
        ANY.check(number, where)
        return number
    if get_origin(hint) in (Mapping, dict) and not isinstance(value, Mapping):
        raise UsageError(f"{where} must be a mapping of names to values, not {shown(value)}")
    if hint is str:
        return str(value)
    return value
