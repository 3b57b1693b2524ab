"""Prompt profiles: the product's own (`full`), those of the catalogue's models, a folder of anybody's.

A profile is a folder of prompt files. What it lacks is asked with the file of `full`, and the result says so
(`mmrerank.rerank.prompting.profile`). A folder that is not a package's own is checked when it is opened.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from mmrerank import catalog
from mmrerank.errors import InputError, UsageError
from mmrerank.paths import expanded, reason
from mmrerank.ports import Chat
from mmrerank.rerank import prompting

FULL = "full"


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A profile: ``folder`` is empty for `full`, ``models`` are the names of those that it is meant for."""

    name: str
    folder: str = ""
    models: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """The names of its own files, sorted."""
        place = Path(self.folder) if self.folder else files("mmrerank.rerank") / "prompts"
        return tuple(sorted(f.name for f in place.iterdir() if f.name.endswith(".md")))

    @property
    def lacking(self) -> tuple[str, ...]:
        """The prompts that it has no file for: those of `full` stand in their place."""
        return tuple(n for n in prompting.names() if f"{n}.md" not in self.files)

    @property
    def digest(self) -> str:
        """SHA-256 over the prompts as they are asked, those of `full` that stand in included."""
        total = hashlib.sha256()
        with prompting.profile(self.folder):
            for name in prompting.names(self.folder):
                total.update(f"{name}\0{prompting.load(name).digest}\0".encode())
        return total.hexdigest()


def named() -> tuple[Profile, ...]:
    """The profiles that have a name: `full`, then those of the catalogue's models."""
    found: dict[str, Profile] = {}
    for card in catalog.cards():
        if card.profile and card.prompts:
            before = found.get(card.profile, Profile(name=card.profile, folder=card.prompts))
            models = (*before.models, card.name)
            found[card.profile] = Profile(name=card.profile, folder=before.folder, models=models)
    return (Profile(name=FULL), *found.values())


def of(folder: str) -> Profile:
    """The profile whose prompts lie in ``folder``, as `mmrerank.ports.Chat.prompts` names it."""
    return next((p for p in named() if p.folder == folder), Profile(name=folder, folder=folder))


def opened(wanted: str | Path) -> Profile:
    """The profile of this name or in this folder, which is checked.

    Raises `UsageError` that names the file, what is wrong with it and what is allowed, or `InputError` where
    it cannot be read.

    >>> opened("full").name
    'full'
    """
    known = {p.name: p for p in named()}
    if isinstance(wanted, str) and wanted in known:
        return known[wanted]
    folder = expanded(wanted)
    try:
        there = folder.is_dir()
    except OSError as error:
        raise InputError(f"the prompts in {folder} cannot be read: {reason(error)}") from error
    if not there:
        raise UsageError(
            f"there is no prompt profile {str(wanted)!r}: it is {', '.join(known)} or a folder of prompt "
            "files. `mmrerank prompts full --to DIR` writes a folder to begin with"
        )
    from mmrerank.rerank.profile_check import check

    found = Profile(name=str(wanted), folder=str(folder.resolve()))
    now = _state(folder)
    if _checked.get(found.folder) != now:
        prompting.forget()  # its files may have changed since they were read
        check(found)
        _checked[found.folder] = now
    return found


_checked: dict[str, tuple[tuple[str, int, int], ...]] = {}
"""What the folders were like that were found right: they are looked at again after a change."""


def _state(folder: Path) -> tuple[tuple[str, int, int], ...]:
    try:
        looked = [(p.name, p.stat()) for p in sorted(folder.iterdir())]
    except OSError as error:
        raise InputError(f"the prompts in {folder} cannot be read: {reason(error)}") from error
    return tuple((name, s.st_size, s.st_mtime_ns) for name, s in looked)


def folder_of(wanted: str | Path) -> str | None:
    """The folder of a profile as `mmrerank.ports.Chat.prompts` has it; None where none is named.

    Raises what `opened` raises.
    """
    return opened(wanted).folder if str(wanted) else None


@contextmanager
def holding(chat: Chat | None) -> Iterator[dict[str, None]]:
    """Within it, prompts are those of the profile of ``chat``.

    What it gives holds, afterwards, what a result has to say of prompts that the profile lacks.
    """
    folder = chat.prompts if chat else ""
    notes: dict[str, None] = {}
    with prompting.profile(folder) as lacked:
        yield notes
    for name in lacked:
        notes[
            f"the question {name!r} was asked with the product's own prompt (full): the profile "
            f"{of(folder).name} has no {name}.md"
        ] = None


def texts(profile: Profile) -> Iterator[tuple[str, str]]:
    """The names and texts of a profile's own files."""
    for name in profile.files:
        yield name, prompting.source(name, profile.folder)
