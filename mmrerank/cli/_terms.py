"""``--plus`` and ``--minus``: words or an image, and how much they weigh. A flag's text becomes a `Term`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from mmrerank.cli._files import no_file_name, visible
from mmrerank.cli.options import existing_image
from mmrerank.errors import QueryError, UsageError
from mmrerank.paths import expanded

if TYPE_CHECKING:
    from mmrerank.types import Term

PlusFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--plus", metavar="[W:]TEXT|FILE", show_default=False,
        help="Add words or an image to what is searched for, W times; may be repeated. "
        "A file begins with ./ or / or ends like an image's name.",
    ),
]  # fmt: skip
MinusFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--minus", metavar="[W:]TEXT|FILE", show_default=False,
        help="Take words or an image away from what is searched for, W times; may be repeated.",
    ),
]  # fmt: skip
_WEIGHT = re.compile(r"([+-]?)([0-9]+(?:\.[0-9]*)?|\.[0-9]+):(.*)", re.DOTALL)
_PATHS = ("./", "../", "/", "~/", ".\\", "..\\")


def terms(plus: Sequence[str] | None, minus: Sequence[str] | None) -> tuple[Term, ...]:
    """The terms of both flags, those that are added first. Raises `UsageError` and `InputError`."""
    return (
        *(_term(text, "--plus", 1) for text in plus or ()),
        *(_term(text, "--minus", -1) for text in minus or ()),
    )


def _term(given: str, flag: str, sign: int) -> Term:
    from mmrerank.types import Image, Term

    weight, text = _weighed(given, flag)
    if text.strip() == "-":
        raise UsageError(f"{flag} does not read stdin (-); TEXT and --image do")
    if not visible(text):
        raise UsageError(f"{flag} is empty")
    try:
        if not _is_file(text, flag):
            return Term(text=text.strip(), weight=sign * weight)
        path = existing_image(expanded(text.strip()), flag)
        return Term(image=Image(path=path), weight=sign * weight)
    except QueryError as error:
        raise UsageError(f"{flag}: {error}") from error


def _weighed(given: str, flag: str) -> tuple[float, str]:
    """``2:grass`` as 2 and ``grass``; without a number before the colon everything is the text."""
    found = _WEIGHT.fullmatch(given.strip())
    if found is None:
        return 1.0, given
    if found[1] == "-":
        other = "--minus" if flag == "--plus" else "--plus"
        raise UsageError(
            f"{flag} {given}: a weight has no sign; {other} {given.strip()[1:]} is the other way, and {flag} "
            f"1:{given.strip()} takes these very words"
        )
    return float(found[2]), found[3]


def _is_file(text: str, flag: str) -> bool:
    """Whether ``text`` names an image: as a path, by its ending, or by an address, which is refused."""
    from mmrerank.inputs import looks_like_picture

    named = text.strip()
    if problem := no_file_name(named):
        raise UsageError(f"{flag}: {problem}")
    return named.startswith(_PATHS) or looks_like_picture(named)
