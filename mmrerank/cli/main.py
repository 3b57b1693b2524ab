"""The command ``mmrerank``: starts, and imports the verb that is asked for."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer

from mmrerank import __version__
from mmrerank.cli.console import DEBUG, quiet_libraries
from mmrerank.cli.lazy import SETTINGS, VerbGroup

_CODES = """\b
Exit codes:
  0    done
  1    something went wrong inside mmrerank
  2    an argument, option, name or recipe key is wrong
  3    a source, image, request or file cannot be used
  4    an index is missing, foreign, damaged or busy, or was made with another embedder
  5    a model or an optional package is missing, or cannot do what the method needs
  6    the language model failed outright: there is no answer
  7    answered, but some judgements failed (the first-stage order stands there), or a metric
  130  interrupted
"""
_STREAMS = """\b
Results go to stdout, progress and warnings to stderr; --output json prints JSON.
Environment: MMRERANK_{INDEX,EMBEDDER,CHAT,RERANK,K,CANDIDATES,DEVICE,CACHE} stand in
for flags of index, search, rerank and app, CHAT and CACHE for those of eval and
recommend too, MMRERANK_DEBUG=1 for --debug; MMRERANK_LEDGER=FILE or off says where
`mmrerank usage` counts; MMRERANK_LIMITS=NAME=N,... raises a limit that an error names;
HF_HUB_OFFLINE, OPENAI_BASE_URL, OPENAI_API_KEY, the keys of `mmrerank list servers`
and NO_COLOR are respected.
"""

cli = typer.Typer(
    name="mmrerank",
    cls=VerbGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # plain text: the same in a terminal, a file and a test, and nothing to import for it
    rich_markup_mode=None,
    context_settings=SETTINGS,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mmrerank {__version__}")
        raise typer.Exit


@cli.callback(epilog=_CODES + "\n" + _STREAMS)
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and what libraries say.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Find images in plain words; a multimodal language model looks at them, ranks them and says why."""
    if debug:
        os.environ[DEBUG] = "1"
        quiet_libraries()


def main() -> None:
    """Runs the command line and exits with its code."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if vars(sys)[name] is None:  # closed by whoever started the process
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 - until the process ends
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # a terminal that cannot show a character gets its escape, not a traceback
            stream.reconfigure(errors="backslashreplace")
    quiet_libraries()
    cli(prog_name="mmrerank")
