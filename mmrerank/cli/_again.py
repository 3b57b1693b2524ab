"""The command that was given, to be shown with an option more."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import typer


def again(context: typer.Context, option: str) -> str:
    """The running command as a person would type it, with ``option`` at its end."""
    words: list[str] = ["mmrerank", context.info_name or ""]
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is None or source.name != "COMMANDLINE" or option in parameter.opts:
            continue
        value: Any = context.params[parameter.name or ""]
        if parameter.param_type_name == "argument":
            words.extend(map(str, value))
        elif isinstance(value, bool):
            words.append(parameter.opts[0])
        else:
            for each in [value] if isinstance(value, str | Path | int) else value:
                words.extend((parameter.opts[0], str(each)))
    return shlex.join([*words, option])
