"""What every argument and option goes through: no empty name of a file, and a home for ``~``.

A shell variable that is not set gives an empty text, and as a path that is the current folder: whatever lies
there would be indexed, searched or written to. A ``~`` reaches a program as it is where a shell does not
replace it: in ``--run=~/x``, in quotes, in a container's or a service's settings.
"""

from __future__ import annotations

from typing import Any

import typer

from mmrerank.paths import expanded

_FREE = ("TEXT", "NAME=VALUE")
"""What stands for values that are no names: an empty one is allowed, or has a check of its own."""

_WORDS = {"X": "the name or the folder of an index", "INDEX": "the name or the folder of an index"}


def checked(command: Any) -> Any:
    """``command`` with the values of its parameters checked, those of its subcommands too."""
    for parameter in command.params:
        if parameter.metavar is not None and parameter.metavar not in _FREE:
            _check(parameter)
    return command


def _check(parameter: Any) -> None:
    process = parameter.process_value

    def looked_at(context: Any, value: Any) -> Any:
        source = context.get_parameter_source(parameter.name)
        if source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT"):
            many = isinstance(value, list | tuple)
            values = [_one(context, parameter, v) for v in (value if many else [value])]
            value = type(value)(values) if many else values[0]
        return process(context, value)

    # what the command line was given: a `Path` has forgotten whether it was empty
    parameter.process_value = looked_at


def _one(context: Any, parameter: Any, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if not value.strip():
        leave = "" if parameter.required else ", or leave it out"
        wanted = _WORDS.get(parameter.metavar, parameter.metavar)
        why = f"it is empty; give {wanted}{leave}. Is a variable of the shell not set?"
        raise typer.BadParameter(why, ctx=context, param=parameter)
    if parameter.metavar in _WORDS and (value == "-" or "://" in value):
        what = "stdin or stdout" if value == "-" else "an address"
        raise typer.BadParameter(f"{value} is {what}, and an index is a folder", ctx=context, param=parameter)
    name, equals, rest = value.partition("=")  # compare takes NAME=PATH
    if equals and rest.startswith("~") and "/" not in name:
        return f"{name}={expanded(rest)}"
    return str(expanded(value)) if value.startswith("~") else value
