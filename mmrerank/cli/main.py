"""The command ``mmrerank``: gathers the verbs, one file each, and starts. Imports no model."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from mmrerank import __version__
from mmrerank.cli import app as app_verb
from mmrerank.cli import (
    cache,
    compare,
    doctor,
    index,
    info,
    recommend,
    rerank,
    score,
    search,
    usage,
    verify,
)
from mmrerank.cli import eval as eval_verb
from mmrerank.cli import list as list_verb
from mmrerank.cli.console import DEBUG, guarded, quiet_libraries
from mmrerank.picturebook import verb as demo

_CODES = """\b
Exit codes:
  0    done
  1    something went wrong inside mmrerank
  2    an argument, option, name or recipe key is wrong
  3    a source, image, request or file cannot be used
  4    an index is missing, foreign, damaged or busy, or was made with another embedder
  5    a model or an optional package is missing, or cannot do what the method needs
  6    the language model failed outright: there is no answer
  7    answered, but some judgements failed; the first-stage order stands there
  130  interrupted
"""
_STREAMS = """\b
Results go to stdout, progress and warnings to stderr; --output json prints JSON.
Environment: MMRERANK_{INDEX,EMBEDDER,CHAT,RERANK,K,CANDIDATES,DEVICE,CACHE} stand in
for flags of index, search, rerank and app, CHAT and CACHE for those of eval, demo and
recommend too, MMRERANK_DEBUG=1 for --debug; MMRERANK_LEDGER=FILE or off says where
`mmrerank usage` counts; HF_HUB_OFFLINE, OPENAI_BASE_URL, OPENAI_API_KEY, the keys of
`mmrerank list servers` and NO_COLOR are respected.
"""
_ORDER = (
    "demo",
    "index",
    "search",
    "rerank",
    "app",
    "eval",
    "score",
    "compare",
    "info",
    "verify",
    "cache",
    "usage",
    "list",
    "recommend",
    "doctor",
)
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class _Verbs(TyperGroup):
    """Lists the verbs in the order in which a newcomer meets them."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=_ORDER.index)


cli = typer.Typer(
    name="mmrerank",
    cls=_Verbs,
    add_completion=False,
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
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks and what libraries say.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Find images in plain words; a multimodal language model looks at them, ranks them and says why."""
    if debug:
        os.environ[DEBUG] = "1"
        quiet_libraries()


def _epilog(module: ModuleType) -> str:
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in module.EXAMPLE.splitlines())


def _add(name: str, module: ModuleType, verb: Callable[..., Any]) -> None:
    cli.command(name, epilog=_epilog(module), context_settings=SETTINGS)(guarded(verb))


_add("index", index, index.index)
_add("search", search, search.search)
_add("rerank", rerank, rerank.rerank)
cli.add_typer(demo.COMMAND, name="demo", epilog=_epilog(demo), context_settings=SETTINGS)
_add("app", app_verb, app_verb.app)
cli.add_typer(eval_verb.group, name="eval", epilog=_epilog(eval_verb), context_settings=SETTINGS)
_add("score", score, score.score)
_add("compare", compare, compare.compare)
_add("info", info, info.info)
_add("verify", verify, verify.verify)
cli.add_typer(cache.group, name="cache", epilog=_epilog(cache), context_settings=SETTINGS)
_add("usage", usage, usage.usage)
_add("list", list_verb, list_verb.list_)
_add("recommend", recommend, recommend.recommend)
_add("doctor", doctor, doctor.doctor)


def main() -> None:
    """Runs the command line and exits with its code."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by whoever started the process
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 - until the process ends
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # a terminal that cannot show a character gets its escape, not a traceback
            stream.reconfigure(errors="backslashreplace")
    quiet_libraries()
    cli(prog_name="mmrerank")
