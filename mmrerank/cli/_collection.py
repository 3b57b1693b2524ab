"""``search --in``: the index of the sources that are named, made or brought up to date before the search.

It is found again from any folder (`mmrerank.index.own`). A model is loaded where an image is new, and is then
the one that embeds the query.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmrerank.cli._counting import counted
from mmrerank.cli._models import announce, chosen
from mmrerank.cli.console import one_line, progress, say, working
from mmrerank.cli.options import trusting
from mmrerank.durations import lasting
from mmrerank.errors import ImageIndexError, InputError, MismatchError, UsageError

if TYPE_CHECKING:
    from mmrerank.config import Settings
    from mmrerank.index.build import BuildReport
    from mmrerank.index.manifest import Manifest
    from mmrerank.ports import Corpus, Embedder

InFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--in", metavar="SOURCE", show_default=False,
        help="Search these images, whose index is made and brought up to date first: a folder, or another "
        "source of `mmrerank index`. May be given again. The index is kept for the next time (see "
        "`mmrerank list indexes`), in a folder of yours or where --index says.",
    ),
]  # fmt: skip
NoUpdateFlag = Annotated[
    bool, typer.Option("--no-update", help="For --in: do not look what changed, search what is indexed.")
]


UrlsFlag = Annotated[
    bool, typer.Option("--allow-urls", help="For --in: fetch images and shards that are at addresses.")
]


@dataclass(frozen=True, kw_only=True)
class Collection:
    """An index that is ready: its folder, and what embeds queries: a spec, empty for the index's own, or a
    model that was loaded for new images.
    """

    index: Path
    embedder: str | Embedder


def ready(
    sources: Sequence[str],
    settings: Settings,
    *,
    index: str | None,
    update: bool,
    allow_urls: bool,
    trust: bool,
) -> Collection:
    """The index of ``sources``, brought up to date unless ``update`` is false. ``index`` names another place.

    Says on stderr what was done. Raises `UsageError`, `InputError`, `ModelError` and `ImageIndexError`.
    """
    from mmrerank.index import own

    if "-" in sources and index is None:
        raise UsageError("--in - reads a list, which is another one each time: name its index with --index")
    places = [s if s == "-" else own.absolute(s) for s in sources]
    work = _Work(places, settings, trust)
    with working():
        work.choose(index)
        if update:
            work.update(allow_urls)
        elif work.facts is None:
            what = ", ".join(map(one_line, places))
            raise UsageError(f"there is no index of {what} yet; leave out --no-update to make one")
    return Collection(index=work.place, embedder=work.for_queries())


class _Work:
    """The steps towards one collection."""

    def __init__(self, places: Sequence[str], settings: Settings, trust: bool) -> None:
        self.places, self.named = places, settings.embedder
        self.options: dict[str, Any] = {"device": settings.device or None}
        self.options |= trusting(settings.embedder, trust)
        self.place = Path()
        self.facts: Manifest | None = None
        self.spec = self.named
        self.model: Embedder | None = None

    def choose(self, index: str | None) -> None:
        """Where the index is, and which embedder makes it."""
        from mmrerank import config
        from mmrerank.index import manifest, own
        from mmrerank.index.folders import is_index, standing
        from mmrerank.index.places import index_path

        if index is not None:
            self.place = index_path(index)
            there = standing(self.place)
            self.facts = manifest.read(there) if is_index(there) else None
            return
        if self.named:
            self.place = own.place_of(self.places, self.named)
            self.facts = manifest.read(self.place) if is_index(self.place) else None
            return
        made = own.made_of(self.places)
        usual = own.place_of(self.places, spec) if (spec := config.usual("embedder")) else None
        known = [k for k in made if k.path == usual] or made
        if len(known) > 1:
            those = ", ".join(one_line(k.manifest.embedder) for k in known)
            raise UsageError(f"these images are indexed with {those}; say which with --embedder")
        if known:
            self.place, self.facts = known[0].path, known[0].manifest
            # this person's own command made it, so its word is theirs
            self.spec = self.facts.embedder

    def update(self, allow_urls: bool) -> None:
        """Makes the index, or looks what changed since."""
        from mmrerank.corpus import open_corpora
        from mmrerank.index.index import ImageIndex

        try:
            # a wrong source is reported before a model is loaded for it
            corpora = open_corpora(self.places, allow_urls=allow_urls)
        except InputError as error:
            if self.facts is None:
                raise
            raise InputError(f"{error}; --no-update searches what is indexed") from error
        embedder = self._known() if self.facts is not None else self._new(corpora)
        begun = time.monotonic()
        try:
            with progress("indexing") as step:
                step = counted(step, self.places)
                report = ImageIndex.build(self.place, corpora, embedder, progress=step)
        except KeyboardInterrupt:
            stopped(self.place)
            raise typer.Exit(130) from None
        except MismatchError:
            raise
        except ImageIndexError as error:
            if not self._searchable():
                raise
            say(f"warning: not brought up to date: {one_line(str(error))}")
            return
        _tell(report, embedder, made=self.facts is None, seconds=time.monotonic() - begun)
        self.spec = self.spec or embedder.spec

    def _new(self, corpora: Sequence[Corpus]) -> Embedder:
        """The embedder that makes the index."""
        from mmrerank.embed.open import open_embedder
        from mmrerank.index import own

        domains = {c.domain for c in corpora}
        self.spec = chosen("embedder", self.named, domains.pop() if len(domains) == 1 else "")
        if self.place == Path():
            self.place = own.place_of(self.places, self.spec)
        announce("embedder", self.spec)
        self.model = open_embedder(self.spec, **self.options)
        say(f"indexing {', '.join(map(one_line, self.places))} with {one_line(self.spec)}")
        return self.model

    def _known(self) -> Embedder:
        """The embedder of the index that is there, which is loaded when an image is new."""
        from mmrerank import catalog, registry
        from mmrerank.embed.later import LaterEmbedder

        facts = self.facts
        assert facts is not None
        plugin = catalog.resolve("embedder", facts.embedder).spec.partition(":")[0]
        prepares = plugin in registry.names("embedder") and registry.load("embedder", plugin).PREPARES
        return LaterEmbedder(
            self._open, spec=facts.embedder, fingerprint=facts.fingerprint, dim=facts.dim,
            domain=facts.domain, prepares=prepares,
        )  # fmt: skip

    def _open(self) -> Embedder:
        from mmrerank.query_embedder import check_remembered, embedder_for

        assert self.facts is not None
        if not self.spec:
            check_remembered(self.facts, self.place)
        announce("embedder", self.spec or self.facts.embedder)
        self.model = embedder_for(self.facts, self.place, self.spec, **self.options)
        return self.model

    def _searchable(self) -> bool:
        from mmrerank.index.index import ImageIndex

        try:
            ImageIndex.open(self.place).close()
        except ImageIndexError:
            return False
        return True

    def for_queries(self) -> str | Embedder:
        """What embeds queries: the model that is loaded already, else its name where that has to be said."""
        from mmrerank import catalog

        if self.model is not None:
            return self.model
        if self.named or "trust_remote_code" in self.options:
            return self.named
        return self.spec if self.spec and catalog.is_local("embedder", self.spec) else ""


def stopped(place: Path) -> None:
    """Says what an index holds whose making was interrupted."""
    from mmrerank.index.folders import count_of

    count = count_of(place) if place.is_dir() else 0
    say(f"stopped: {count:,} images are in {one_line(str(place))} and stay; the same command goes on there")


def _tell(report: BuildReport, embedder: Embedder, *, made: bool, seconds: float) -> None:
    counts = {"added": report.added, "changed": report.changed, "removed": report.removed}
    place = one_line(str(report.index))
    if made:
        say(
            f"indexed {report.added:,} images in {lasting(seconds)}; their index is {place} "
            "(`mmrerank list indexes` shows all)"
        )
        for each in report.left_out:
            say(f"left out: {one_line(each.line)}")
    elif any(counts.values()):
        say(f"index brought up to date: {', '.join(f'{n:,} {what}' for what, n in counts.items() if n)}")
    for remark in report.remarks:
        say(f"warning: {one_line(remark)}")
    if report.withheld:
        say(
            f"to take {report.withheld:,} images out of the index: "
            f"mmrerank index {' '.join(report.sources)} --index {place} --allow-removal"
        )
    if report.failed:
        first = report.failed[0]
        say(
            f"{len(report.failed):,} images cannot be used, such as {one_line(first.source)}: "
            f"{one_line(first.error)}; the others are searched"
        )
