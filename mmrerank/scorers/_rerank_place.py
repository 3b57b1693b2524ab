"""Where a reranking server is: ``MODEL@URL``, ``MODEL@NAME``, ``MODEL@NAME+URL`` or ``MODEL@HOST:PORT``."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from mmrerank.catalog import Server
from mmrerank.chat.openai.place import Place
from mmrerank.errors import UsageError
from mmrerank.scorers._rerank_wire import WAYS, Way

FORM = "rerank:MODEL@URL"
SERVERS = {
    s.name: s
    for s in (
        Server(
            name="vllm", url="http://127.0.0.1:8000", key="VLLM_API_KEY",
            start="vllm serve MODEL --runner pooling [--port PORT]",
        ),
        Server(name="cohere", url="https://api.cohere.com", key="COHERE_API_KEY"),
        Server(name="jina", url="https://api.jina.ai", key="JINA_API_KEY"),
        Server(
            name="tei", url="http://127.0.0.1:8080", key="TEI_API_KEY",
            start="text-embeddings-router --model-id MODEL [--port PORT]",
        ),
    )
}  # fmt: skip
"""Servers with a name: where they listen, and the variable of their key."""
OTHER = "RERANK_API_KEY"
"""The variable of the key of a server without a name."""
_FORMS = {
    "cohere": ("plain",),
    "jina": ("jina", "plain"),
    "tei": ("tei", "plain"),
    "vllm": ("content", "score"),
}
_SPEC = re.compile(r"(?P<model>[^@]+)@(?:(?P<name>[a-z]+)(?:\+|$))?(?P<url>.*)")
_SECRET = re.compile(r"(?i)key|token|secret|passw|^(sig|code|sas)$")
_PATH = re.compile(r"(/v\d)?/(rerank|score)/?$|/v\d/?$|/$")


@dataclass(frozen=True, kw_only=True)
class Address:
    """A reranker at a root URL, without ``/v1`` or a path of a call. ``ways`` are tried in this order."""

    place: Place
    ways: tuple[Way, ...]

    def key(self, given: str | None) -> str:
        """The key: the one given, or its variable's. Raises `UsageError` where there must be one."""
        server = self.place.server
        key = (given or os.environ.get(server.key) or "").strip()
        if not (key.isascii() and key.isprintable()):
            raise UsageError(f"the key in {server.key} holds characters that no key has; copy it again")
        if (
            not key
            and urlsplit(self.place.url).hostname == urlsplit(server.url).hostname
            and "https" in server.url
        ):
            raise UsageError(f"{self.place.host} needs a key: set {server.key}")
        return key or "none"


def address(rest: str) -> Address:
    """``rest`` taken apart. Raises `UsageError` for a spec that names no model or no usable address."""
    found = _SPEC.fullmatch(rest)
    model, name, url = (found["model"], found["name"] or "", found["url"] or "") if found else ("", "", "")
    server = SERVERS.get(name) or _by_host(url)
    url = url or server.url
    url = url if "://" in url else f"http://{url}"
    split = urlsplit(url)
    unknown = name and name not in SERVERS
    if not model or unknown or not split.hostname or split.scheme not in ("http", "https"):
        shown = re.sub(r"//.*@", "//***@", rest)  # an address may hold a password
        raise UsageError(
            f"rerank:{shown} is not {FORM}; URL begins with http:// or https://, and servers with a name "
            f"are {', '.join(SERVERS)}, as in rerank:MODEL@vllm"
        )
    if "@" in split.netloc or any(_SECRET.search(n) for n, _ in parse_qsl(split.query)):
        raise UsageError(f"an address holds no password and no key: put the key into {server.key}")
    # what people copy out of a manual is often the whole address of the call
    asked = _PATH.search(split.path)
    root = split._replace(path=_PATH.sub("", split.path)).geturl()
    forms = _FORMS.get(server.name)
    ways = tuple(w for w in WAYS if forms is None or w.form in forms)
    if asked and asked[2]:  # the whole address of a call: that one first
        path = f"{asked[1] or ''}/{asked[2]}"
        ways = (*(w for w in ways if w.path == path), *(w for w in ways if w.path != path))
    return Address(place=Place(model=model, url=root, server=server), ways=ways)


def _by_host(url: str) -> Server:
    host = urlsplit(url).hostname
    known = (s for s in SERVERS.values() if s.url.startswith("https") and urlsplit(s.url).hostname == host)
    return next(known, Server(name="", url="", key=OTHER))
