"""Where figures come from: versions, commit, prompts, models, candidates. Plain data to lie beside a run.

Imports none of the packages whose versions it reports, and opens no model.
"""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from importlib.resources import files
from pathlib import Path
from typing import Any

import mmrerank
from mmrerank import catalog
from mmrerank.errors import InputError
from mmrerank.ports import Chat
from mmrerank.rerank import profiles, prompting
from mmrerank.rerank.profiles import Profile
from mmrerank.types import Query, Ranking

PACKAGES = (
    "torch", "torchvision", "transformers", "tokenizers", "accelerate", "timm", "open_clip_torch", "vllm",
    "xgrammar", "faiss-cpu", "faiss-gpu", "numpy", "pillow", "pyarrow", "ir-measures", "pytrec-eval-terrier",
)  # fmt: skip
"""Packages whose version can change a result; those not installed are left out."""


def provenance(
    *,
    config: Mapping[str, Any],
    models: Mapping[str, Mapping[str, Any]],
    seed: int | None = None,
    first_stage: str = "",
    chat: str | Chat = "",
    prompts: Path | str = "",
    data: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What is needed to get the same figures again, as plain data.

    ``config`` is what was asked for (benchmark, method, options, ...), ``models`` what each role's model
    is, ``first_stage`` the `candidates_digest` of the lists that were reranked, ``data`` the benchmark's
    files (`mmrerank.evaluation.experiment.settings`).
    """
    return {
        "mmrerank": mmrerank.__version__,
        **_own_commit(),
        "code": code_digest(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": versions(),
        "config": dict(config),
        "data": dict(data or {}),
        "seed": seed,
        "models": {role: dict(model) for role, model in models.items()},
        "prompt_profile": profile_of(chat, prompts).name if "chat" in models else "",
        "prompts": prompt_digests(chat, prompts) if "chat" in models else {},
        "first_stage": first_stage,
    }


def undated(origin: Mapping[str, Any]) -> dict[str, Any]:
    """What is printed: the same for the same figures. The files say the date as well."""
    return {k: v for k, v in origin.items() if k != "date"}


def versions() -> dict[str, str]:
    """The installed versions of `PACKAGES`."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit(package: Path | None = None) -> dict[str, Any]:
    """``{"commit", "changed"}``: git's commit of this code and whether files differ from it; None without.

    A repository that merely contains the installation does not count.
    """
    folder = package or Path(str(files("mmrerank")))

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *arguments],
                capture_output=True, text=True, timeout=20, check=False,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if git("ls-files", "--error-unmatch", "__init__.py") is None:
        return {"commit": None, "changed": None}
    changes = git("status", "--porcelain", "--", ".")
    return {"commit": git("rev-parse", "HEAD"), "changed": None if changes is None else bool(changes)}


@cache
def _own_commit() -> dict[str, Any]:
    """`commit`, once: the code that runs is that which was loaded."""
    return commit()


@cache
def code_digest() -> str:
    """SHA-256 over this package's own source files: results of other code are other results."""
    total = hashlib.sha256()
    folder = Path(str(files("mmrerank")))
    for file in sorted(folder.rglob("*.py")):
        own = hashlib.sha256(file.read_bytes()).hexdigest()
        total.update(f"{file.relative_to(folder).as_posix()}\0{own}\0".encode())
    return total.hexdigest()


def profile_of(chat: str | Chat = "", prompts: Path | str = "") -> Profile:
    """The prompt profile that ``chat`` is asked with: the one that ``prompts`` names, else its own.

    Raises what `mmrerank.rerank.profiles.opened` raises.
    """
    if str(prompts):
        return profiles.opened(prompts)
    return profiles.of(catalog.resolve("chat", chat).prompts if isinstance(chat, str) else chat.prompts)


def prompt_digests(chat: str | Chat = "", prompts: Path | str = "") -> dict[str, str]:
    """SHA-256 by prompt that ``chat`` is asked with, of everything in it and in what it includes.

    ``prompts`` as in `profile_of`.
    """
    folder = profile_of(chat, prompts).folder
    with prompting.profile(folder):
        return {n: prompting.load(n).digest for n in prompting.names(folder)}


def candidates_digest(items: Sequence[tuple[Query, Ranking]]) -> str:
    """SHA-256 over queries and the candidates of each, in order: what every method starts from.

    Counts a query's words and reference images, and a candidate's id and text. Scores and the pixels of
    candidates do not count: last bits of a score differ between machines, and reading every image would
    take longer than many a run. Raises `InputError` when a reference image cannot be read.
    """
    total = hashlib.sha256()
    for query, ranking in items:
        try:
            shown = [i.digest for i in query.images]
        except OSError as error:
            raise InputError(f"query {query.id!r}: its reference image cannot be read: {error}") from error
        words = [query.id, query.text, query.turns, query.exclude, query.instruction]
        body = {"query": [*words, shown], "candidates": [[c.id, c.text] for c in ranking]}
        total.update(json.dumps(body).encode() + b"\n")
    return total.hexdigest()
