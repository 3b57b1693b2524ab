"""Groups of commands that are imported when they run. Lists them by the first sentence of their files.

Imports no plug-in and no command.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command_name, get_group

from mmrerank import discovery
from mmrerank.cli._arguments import checked
from mmrerank.cli.console import guarded
from mmrerank.errors import MmrerankError, UsageError

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class LazyGroup(TyperGroup):
    """A group with a command for each plug-in of a ``kind``, beside those that are added in the usual way.

    A subclass says how a plug-in becomes a command (`command`) and which come first (``first``). Until one
    runs, or its own help is asked for, a name and a line of help stand for it. A plug-in that does not work
    is an error that names its file when it is run, and costs no other command.
    """

    kind: str
    first: tuple[str, ...] = ()

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self._places = {get_command_name(n): n for n in discovery.names(self.kind)}
        lines = {c: discovery.about(self.kind, n) for c, n in self._places.items()}
        own = {c: TyperCommand(c, help=lines[c]) for c in (*self.first, *lines) if c in lines}
        self.commands = {**own, **self.commands}

    def command(self, name: str, plugin: Any) -> Any:
        """The command for a loaded plug-in, made by `as_command`."""
        raise NotImplementedError

    def resolve_command(self, ctx: Any, args: Any) -> Any:
        """As the base class, which guesses what a misspelt name meant, with the command imported."""
        if args and args[0] in self._places:
            self.commands[args[0]] = guarded(self._loaded)(args[0])
        return super().resolve_command(ctx, args)

    def _loaded(self, name: str) -> Any:
        place = self._places[name]
        plugin = discovery.load(self.kind, place)
        try:
            return self.command(name, plugin)
        except MmrerankError:
            raise
        except Exception as error:  # such as annotations that Typer cannot read
            word, where = discovery.KINDS[self.kind].word, discovery.place(self.kind, place)
            why = f"{type(error).__name__}: {error}"
            raise UsageError(f"the {word} {place!r} ({where}) cannot be used: {why}") from error


class VerbGroup(LazyGroup):
    """The verbs of ``mmrerank``, in the order in which a newcomer meets them; foreign ones follow."""

    kind = "verb"
    first = ("search", "setup", "index", "rerank", "app", "eval", "score", "compare", "info", "verify",
             "cache", "usage", "list", "recommend", "doctor")  # fmt: skip

    def command(self, name: str, plugin: Any) -> Any:
        """The verb's ``COMMAND``, with its ``EXAMPLE`` below the help."""
        return as_command(plugin.COMMAND, name, epilog=example(plugin.EXAMPLE))


def as_command(verb: Callable[..., Any] | typer.Typer, name: str, *, epilog: str = "") -> Any:
    """A function with Typer's annotations, or a ``typer.Typer``, as a command of a `LazyGroup`.

    Its errors become messages and exit codes, as `guarded` says.
    """
    holder = typer.Typer(add_completion=False, rich_markup_mode=None)
    about: Any = {"name": name, "context_settings": SETTINGS, **({"epilog": epilog} if epilog else {})}
    if isinstance(verb, typer.Typer):
        holder.add_typer(verb, **about)
    else:
        holder.command(**about)(verb)
    return _guarded(get_group(holder).commands[name])


def _guarded(command: Any) -> Any:
    # one place for all: what is typed is checked before, and what is raised afterwards
    checked(command)
    if command.callback is not None:
        command.callback = guarded(command.callback)
    for inner in command.commands.values() if isinstance(command, TyperGroup) else ():
        _guarded(inner)
    return command


def example(lines: str) -> str:
    """The end of a help text that shows ``lines``, one command each, as they are."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines.splitlines())
