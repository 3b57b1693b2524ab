"""Which model a backend is: its plug-in, the digest of its weights where they are here, else its name."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from mmrerank import catalog, registry
from mmrerank.ports import Chat

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".json", ".jinja", ".txt", ".model")


def chat_identity(chat: str | Chat) -> dict[str, Any]:
    """``{"spec", "digest"}`` of a language model; the digest is None where nothing here tells its weights.

    That is the SHA-256 over the files of a folder, or of the one file that is named, or the commit of a
    name on a model hub. Raises `UsageError` for an unknown form.
    """
    spec = chat if isinstance(chat, str) else chat.spec
    card = catalog.resolve("chat", spec)
    plugin, _, rest = card.spec.partition(":")
    if rest and Path(rest).expanduser().exists():
        return {"spec": spec, "digest": files_digest(Path(rest).expanduser())}
    # an object of somebody's own may have any spec
    kind = registry.kind_of("chat", plugin)
    known = plugin in registry.names(kind) or isinstance(chat, str)
    digest = registry.load(kind, plugin).revision(rest) if known else None
    return {"spec": spec, "digest": digest}


def files_digest(path: Path) -> str:
    """SHA-256 over a file, or over the names and bytes of a model folder's files (not of its notes)."""
    total = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(path.iterdir()):
        if file.is_file() and (file == path or file.suffix in _WEIGHTS):
            with file.open("rb") as opened:
                own = hashlib.file_digest(opened, "sha256").hexdigest()
            total.update(f"{'' if file == path else file.name}\0{own}\0".encode())
    return total.hexdigest()


def fingerprint(chat: Chat) -> str:
    """Everything but the question that can change a reply of ``chat``, as far as it can be known here.

    Two backends with one fingerprint are taken to give the same replies. A server that changes the model
    behind a name cannot be identity from one that does not.
    """
    identity = chat_identity(chat)
    plugin = catalog.resolve("chat", chat.spec).spec.partition(":")[0]
    body = [plugin, identity["digest"] or chat.spec, chat.fingerprint, dict(chat.settings)]
    return json.dumps(body, sort_keys=True, default=str)
