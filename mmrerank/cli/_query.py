"""The query of `mmrerank search`, out of its words and flags."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmrerank.cli._files import STDIN, piped_bytes, piped_text, visible
from mmrerank.cli.options import existing_image
from mmrerank.errors import UsageError

if TYPE_CHECKING:
    from mmrerank.types import Query, Term


def query_of(
    text: str | None,
    images: Sequence[Path],
    exclude: Sequence[str],
    turns: Sequence[str],
    terms: tuple[Term, ...],
) -> Query:
    """The query of these words, files, exclusions, turns and terms. Raises `UsageError` and `InputError`."""
    from mmrerank.types import Image, Query

    for name, values in (("--exclude", exclude), ("--turn", turns)):
        if any(v == "-" for v in values):
            raise UsageError(f"{name} does not read stdin (-); TEXT and --image do")
        if not all(map(visible, values)):
            raise UsageError(f"{name} is empty")
    if text and text.strip() and not visible(text):
        raise UsageError("TEXT holds no character that can be seen")
    if [text, *map(str, images)].count(str(STDIN)) > 1:
        raise UsageError("stdin (-) can be read once: by TEXT or by one --image")
    try:
        return Query(
            text=piped_text("TEXT") if text == str(STDIN) else text or "",
            images=tuple(
                Image(data=piped_bytes("--image")) if p == STDIN else Image(path=existing_image(p, "--image"))
                for p in images
            ),
            exclude=tuple(exclude),
            turns=tuple(turns),
            terms=terms,
        )
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(f"{error}: give TEXT, --image or --turn") from error
