"""Flags that several verbs share, and what their text means. Opens models only when a method needs them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from mmrerank.cli._console import Output
from mmrerank.errors import InputError, UsageError
from mmrerank.ports import Chat

OutputFlag = Annotated[Output, typer.Option("--output", help="How results are printed on stdout.")]
OptionsFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--option", "-o", metavar="NAME=VALUE", help="An option of the method; may be repeated."
    ),
]
ChatOptionsFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--chat-option", metavar="NAME=VALUE",
        help="An option of the backend, such as timeout=30 or batch_size=4; may be repeated.",
    ),
]  # fmt: skip
ChatFlag = Annotated[
    str | None,
    typer.Option(
        "--chat", metavar="SPEC", show_default=False,
        help="The language model: bundled (default), transformers:PATH_OR_NAME, "
        "openai:MODEL@BASE_URL, oracle[:FILE], scripted:FILE, or a name of `mmrerank list models`.",
    ),
]  # fmt: skip
DeviceFlag = Annotated[
    str | None,
    typer.Option(
        "--device", metavar="DEVICE", show_default=False,
        help="Where models run, such as cpu or cuda:0 (default: a GPU where there is one).",
    ),
]  # fmt: skip


def pairs(texts: Sequence[str] | None, flag: str) -> dict[str, Any]:
    """``["a=1"]`` as ``{"a": "1"}``; the last of a name counts. Raises `UsageError` without ``=``."""
    found = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"{flag} takes NAME=VALUE, not {text!r}")
        found[name.strip()] = value
    return found


def chat_for(
    method: str, spec: str, *, device: str = "", options: Sequence[str] | None = None
) -> Chat | None:
    """The backend for ``method``, opened, or None when the method asks no model.

    ``device`` goes to backends that run here; ``options`` (``NAME=VALUE``) to any. Raises `UsageError` for
    unknown names, and what opening raises.
    """
    from mmrerank import catalog, registry
    from mmrerank.chat._open import open_chat

    given = pairs(options, "--chat-option")
    if not registry.load("strategy", method).NEEDS:
        return None
    plugin = catalog.resolve("chat", spec).spec.partition(":")[0]
    values: dict[str, Any] = {}
    if plugin in registry.names("chat"):
        known = inspect.signature(registry.load("chat", plugin).open).parameters
        values = {
            k: _typed(v, known[k].default if k in known else None, k) for k, v in given.items()
        }
        if device and "device" in known:
            values.setdefault("device", device)
    return open_chat(spec, **values)


def _typed(text: str, default: Any, name: str) -> Any:
    """``text`` as what the option's default is."""
    if isinstance(default, bool) or not isinstance(default, int | float):
        return text
    try:
        return type(default)(text)
    except ValueError:
        kind = type(default).__name__
        raise UsageError(f"--chat-option {name} must be a number ({kind}), not {text!r}") from None


def existing_image(path: Path, where: str) -> Path:
    """``path``, when a file is there. Raises `InputError` starting with ``where``."""
    if not path.is_file():
        raise InputError(f"{where}: there is no image file {str(path)!r}")
    return path
