"""Which model a verb takes where nobody named one, and what is shown before it is downloaded."""

from __future__ import annotations

from mmrerank.cli.console import one_line, say

_WORDS = {"chat": ("language model", "--chat"), "embedder": ("embedder", "--embedder")}


def chosen(kind: str, named: str, corpus: str) -> str:
    """The spec ``named``, else the model that is meant for ``corpus``, else the person's default, told.

    ``kind`` is ``embedder`` or ``chat``. Raises `ModelError` where there is none of them.
    """
    from mmrerank import catalog, config

    usual = "" if named else config.usual(kind)
    spec = catalog.chosen(kind, named, corpus, usual=usual)
    if usual and spec == usual:
        say(f"{_WORDS[kind][0]} {one_line(spec)} (your default)")
    return spec


def announce(kind: str, spec: str) -> None:
    """Says what ``spec`` is about to download, with size and licence where they are known.

    Raises `ModelError`, in three lines, where it has to be downloaded and the hub cannot be reached. Says
    nothing of a model that is here, nor of one of which is not known before it is opened what it fetches.
    """
    from mmrerank import catalog, hub

    repository = catalog.repository(kind, spec)
    if not repository or hub.holds(repository):
        return
    card = catalog.resolve(kind, spec.strip())
    known = catalog.in_words(card)
    about = f"{repository}, {known}" if known else repository
    if why := hub.out_of_reach():
        word, flag = _WORDS[kind]
        what = f"the {word} {one_line(spec)} ({about})"
        raise hub.absent(what, why, hub.copied(repository, f"{flag} {_in_folder(card.spec)}"))
    say(f"downloading {one_line(spec)} once from {hub.host()}: {about}")


def _in_folder(spec: str) -> str:
    """How the same model is named once it lies in a folder."""
    plugin, _, rest = spec.partition(":")
    if plugin == "open_clip":
        return "open_clip:local-dir:FOLDER"
    before, colon, _ = rest.rpartition(":")
    return f"{plugin}:{before}{colon}FOLDER"
