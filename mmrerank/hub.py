"""The model hub: what its cache holds already, and whether it answers. Fetches nothing itself.

The hub's client tries again for half a minute where there is no network. So the hub is looked at once, for a
few seconds, before anything is fetched from it; where it does not answer, only its cache is used.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from mmrerank.errors import MmrerankError, ModelError, one_line
from mmrerank.paths import expanded

_SECONDS = 4.0
"""How long the hub may take to answer."""
_FRESH = 60.0
"""Seconds for which an answer stands."""
_TRUE = frozenset({"1", "on", "yes", "true"})
_WEIGHTS = frozenset({".safetensors", ".bin", ".pt", ".pth", ".npz"})
_lock = threading.RLock()
_known: tuple[float, str] | None = None


def forbidden() -> str:
    """The variable that forbids asking the hub; empty where none does."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return next((n for n in names if os.environ.get(n, "").strip().lower() in _TRUE), "")


def host() -> str:
    """The hub's name for a message, such as ``huggingface.co``."""
    address = os.environ.get("HF_ENDPOINT", "").strip() or "https://huggingface.co"
    return address.partition("://")[2].rstrip("/") or address


def holds(repository: str) -> bool:
    """Whether the hub's cache has weights of ``ORG/NAME[@REVISION]``. Looks at names of files only.

    >>> holds("nobody/nothing")
    False
    """
    name = repository.partition("@")[0].replace("/", "--")
    snapshots = _cache() / f"models--{name}" / "snapshots"
    try:
        return any(f.suffix in _WEIGHTS for f in snapshots.glob("*/*"))
    except OSError:
        return False


def _cache() -> Path:
    env = os.environ
    if own := env.get("HF_HUB_CACHE") or env.get("HUGGINGFACE_HUB_CACHE"):
        return expanded(own)
    home = env.get("HF_HOME") or Path(env.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return expanded(home) / "hub"


def out_of_reach() -> str:
    """Why the hub cannot be asked now; empty where it answers. Takes a few seconds at most."""
    global _known
    if forbidden():
        return f"{forbidden()} is set"
    with _lock:
        if _known is None or time.monotonic() - _known[0] > _FRESH:
            _known = (time.monotonic(), _asked())
        return _known[1]


def _asked() -> str:
    answer: list[str] = []

    def ask() -> None:
        try:
            from huggingface_hub import constants, get_session

            get_session().head(constants.ENDPOINT, timeout=_SECONDS)
        except Exception as error:  # the client's network library has many kinds of errors
            answer.append(one_line(str(error), 200) or type(error).__name__)
        else:
            answer.append("")

    # looking up a name has no time limit of its own
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_SECONDS + 1)
    return answer[0] if answer else f"no answer within {_SECONDS:.0f} seconds"


def absent(what: str, why: str, way: str) -> ModelError:
    """That ``what`` is not here and the hub cannot give it, in three lines, ``way`` in the last."""
    asked = "is not asked" if forbidden() else "cannot be reached"
    return ModelError(f"{what} is not on this machine\nthe model hub {host()} {asked}: {why}\n{way}")


def copied(repository: str, option: str) -> str:
    """The two ways to a model of the hub: the same command with a network, or a folder that was copied.

    ``option`` names the folder, such as ``--embedder open_clip:local-dir:FOLDER``.
    """
    which, _, revision = repository.partition("@")
    more = f" --revision {revision}" if revision else ""
    return (
        "run the same again where it can be, or fetch a folder elsewhere with "
        f"`hf download {which}{more} --local-dir FOLDER`, copy it here and name it: {option}"
    )


@contextmanager
def asked(what: str, way: str) -> Iterator[None]:
    """Within it a library may fetch ``what``; it looks into its cache alone where the hub does not answer.

    Whatever it raises becomes a `ModelError` of three lines, with ``way`` in the last.
    """
    why = out_of_reach()
    try:
        with _cache_alone() if why else nullcontext():
            yield
    except MmrerankError:
        raise
    except Exception as error:  # the hub's client, its network and its cache have many kinds of errors
        if why:
            raise absent(what, why, way) from error
        text = one_line(str(error), 300) or type(error).__name__
        raise ModelError(
            f"{what} is not on this machine\n"
            f"the model hub {host()} did not give it: {text}\n"
            f"check the name, or {way}"
        ) from error


@contextmanager
def _cache_alone() -> Iterator[None]:
    from huggingface_hub import constants

    with _lock:
        before = constants.HF_HUB_OFFLINE
        constants.HF_HUB_OFFLINE = True
        try:
            yield
        finally:
            constants.HF_HUB_OFFLINE = before
