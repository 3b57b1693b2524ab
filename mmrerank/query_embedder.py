"""Opens the embedder for the queries of an index: the one that was named, else the one that made the index.

A manifest is data, and may be somebody else's. What it says chooses among installed plug-ins, short names and
models that a hub has given already; a folder or file of this machine is opened only where the user names it.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

from mmrerank import catalog, registry
from mmrerank.embed.open import open_embedder
from mmrerank.errors import ImageIndexError, MismatchError, ModelError
from mmrerank.index import presence
from mmrerank.index.manifest import Manifest
from mmrerank.kept_tower import kept_tower
from mmrerank.ports import Embedder

_REPOSITORY = re.compile(r"(?:.*:)?([A-Za-z0-9][\w.-]*/[\w.-]+)(?:@[\w.-]+)?")
_FILES = ("open_clip_config.json", "config.json")


def words_embedder(facts: Manifest, index: Path, named: str = "", **options: Any) -> Embedder:
    """What `embedder_for` gives, to embed words at first: by the index's text tower, where that is its.

    Then no model is loaded until a query has an image. ``options`` are the plug-in's; with others than
    ``device="cpu"`` the model is opened at once. Raises what `embedder_for` raises.
    """

    def whole() -> Embedder:
        return embedder_for(facts, index, named, **options)

    if facts.imported or options not in ({}, {"device": "cpu"}):
        return whole()
    return kept_tower(facts, index, named, whole) or whole()


def embedder_for(
    facts: Manifest, index: str | Path, named: str = "", *, compare: bool = True, **options: Any
) -> Embedder:
    """The embedder ``named``, or where that is empty the one that the index remembers.

    Its files are compared with the index's fingerprint before its weights are loaded, where the plug-in can;
    without ``compare`` they are not, as for an index that is made anew. ``options`` are the plug-in's. Raises
    what `check_remembered` and `open_embedder` raise, `MismatchError` for other files than those that made
    the index.
    """
    if not named:
        check_remembered(facts, index)
    spec = named or facts.embedder
    expect = facts.fingerprint if compare and not facts.imported else ""
    try:
        return open_embedder(spec, remembered_by="" if named else index, expect=expect, **options)
    except MismatchError as error:
        made_by = f"{facts.embedder} ({facts.fingerprint[:19]}, {facts.dim}-d)"
        raise MismatchError(
            f"{index} was made with {made_by}. The weights, prompt or preprocessing of {spec} are now "
            f"others, and were not loaded: {error}. Bring those back, name the model that made the index "
            "with --embedder, or index again with --rebuild"
        ) from error


def check_remembered(facts: Manifest, index: str | Path) -> None:
    """Raises unless what the index remembers may be opened on its word alone.

    `ModelError` for a folder or file of this machine, and for a repository that the hub has not given yet;
    `ImageIndexError` for a plug-in that is not installed.
    """
    spec = facts.embedder
    plugin = catalog.resolve("embedder", spec.strip()).spec.partition(":")[0]
    if plugin not in registry.names("embedder"):
        raise ImageIndexError(
            f"{index} was made with the embedder {spec!r}, which is not installed here; "
            f"{registry.forms('embedder')}. Name the same model with --embedder (in Python: embedder=...)"
        )
    local = catalog.is_local("embedder", spec)
    if local and (away := presence.missing_model(spec)):
        raise ModelError(
            f"{index}: {away}. If it was moved, name its new place with --embedder (in Python: "
            "embedder=...); `mmrerank index` with it lets the index remember it"
        )
    if local:
        raise ModelError(
            f"{index} was made with {spec!r}, which names a model on this machine. Only the index says so, "
            f"and an index may come from anybody; nothing was opened. {_way(facts)}"
        )
    if name := _unfetched(spec):
        raise ModelError(
            f"{index} was made with {spec!r}, and {name} is not in the hub's cache. Only the index names it, "
            f"so it is not downloaded. {_way(facts)}"
        )


def _way(facts: Manifest) -> str:
    """How a user says that the model is meant."""
    shown = shlex.quote(facts.embedder) if facts.embedder.isprintable() else "SPEC"
    compared = "" if facts.imported else ". Its files are compared with the index before they are used"
    return (
        f"If you trust that model, run the same command again with: --embedder {shown} (search, index "
        f"and app also read MMRERANK_EMBEDDER; in Python: embedder=...){compared}"
    )


def _unfetched(spec: str) -> str:
    """The hub's name in ``spec``, where the hub has not given it yet and no row of the catalogue has it."""
    spec = spec.strip()
    found = _REPOSITORY.fullmatch(spec)
    known = any(spec in (c.name, c.spec) for c in catalog.cards())
    # what a name means to somebody's plug-in is not known
    built_in = registry.place("embedder", spec.partition(":")[0]).startswith("mmrerank.") if found else False
    if found is None or known or not built_in:
        return ""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        fetched = any(isinstance(try_to_load_from_cache(found[1], file), str) for file in _FILES)
    except HFValidationError:
        return ""
    return "" if fetched else found[1]
