"""Results as HTML: a piece for a notebook or the app, or a page that needs no other file.

Everything a model, a user or a file name says is escaped by the template engine. Pictures are small JPEG
copies inside the page; one that cannot be read becomes a tile that says so. Nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mmrerank.errors import ImageError
from mmrerank.images import data_uri, thumbnail
from mmrerank.types import Hit, Image, Verdict

if TYPE_CHECKING:
    from mmrerank.results import SearchResult

SIGNS = {"met": "✓", "partly": "◐", "missed": "✗", "cannot_tell": "?"}
_STEPS_SHOWN = 30


@cache
def environment() -> Environment:
    """The package's templates; whatever is put into one is escaped."""
    return Environment(
        loader=PackageLoader("mmrerank", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def fragment(result: SearchResult) -> str:
    """One result as a ``<section>`` with its own style: query, components, before and after, why, cost."""
    from mmrerank.results import copies_text

    thumbs: dict[tuple[int, int], str] = {}

    def thumb(image: Image | None, size: int) -> str:
        key = (id(image), size)
        if key not in thumbs:
            thumbs[key] = picture_uri(image, size)
        return thumbs[key]

    return _whole(
        environment()
        .get_template("fragment.html.j2")
        .render(
            result=result,
            before=result.first,
            matrix=any(h.assessment and h.assessment.verdicts for h in result.hits),
            reasons=any(h.assessment and h.assessment.reason for h in result.hits),
            thumb=thumb,
            dict_of=_verdicts,
            copies=copies_text,
            signs=SIGNS,
            steps_shown=_STEPS_SHOWN,
        )
    )


def page(results: Sequence[SearchResult], *, title: str = "mmrerank: what was found, and why") -> str:
    """A whole page of results, in order."""
    pieces: list[Any] = [Markup(fragment(r)) for r in results]
    return _whole(environment().get_template("page.html.j2").render(title=title, pieces=pieces))


def _whole(text: str) -> str:
    """``text`` that can be written as UTF-8: a model's reply may hold half of a character ("\\ud83d")."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _verdicts(hit: Hit) -> dict[str, Verdict]:
    return {v.component: v for v in hit.assessment.verdicts} if hit.assessment else {}


def picture_uri(image: Image | None, size: int) -> str:
    """A small copy as a ``data:`` URI; empty where there is no image, or it cannot be read."""
    if image is None:
        return ""
    try:
        return data_uri(thumbnail(image, size))
    except (ImageError, OSError):
        return ""  # the template shows a tile instead
