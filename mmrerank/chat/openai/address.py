"""Where a model is: ``MODEL@BASE_URL``, ``MODEL@SERVER+BASE_URL``, or ``MODEL`` alone, taken apart."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from mmrerank import catalog
from mmrerank.errors import UsageError

FORM = "openai:MODEL[@BASE_URL]"
_ADDRESS = re.compile(r"(?P<model>.+?)@(?:(?P<server>[a-z]+)\+)?(?P<url>https?://.+)")
_SECRET = re.compile(r"(?i)key|token|secret|passw|^(sig|code|sas)$")
_HOSTED = (".openai.com", ".googleapis.com")


@dataclass(frozen=True, kw_only=True)
class Address:
    """A model at a URL. ``server`` says what is known of its kind; ``limit`` is the field it takes there."""

    model: str
    url: str
    server: catalog.Server
    limit: str

    def key(self, given: str | None) -> str:
        """The key: the one given, or its variable's. Raises `UsageError` where there must be one."""
        host = urlsplit(self.url).hostname or ""
        key = (given or os.environ.get(self.server.key) or "").strip()  # of a file's last line, say
        if not (key.isascii() and key.isprintable()):
            raise UsageError(f"the key in {self.server.key} holds characters that no key has; copy it again")
        if not key and host.endswith(_HOSTED):
            raise UsageError(
                f"{host} needs a key: set {self.server.key}, or name another server as openai:MODEL@BASE_URL"
            )
        return key or "none"


def address(rest: str) -> Address:
    """``rest`` taken apart; a model alone is at ``OPENAI_BASE_URL``, or OpenAI's own server.

    Raises `UsageError` for a spec that names no model, no usable address or an unknown kind of server.
    """
    found = _ADDRESS.fullmatch(rest)
    model, name = (found["model"], found["server"] or "") if found else (rest, "openai")
    url = found["url"] if found else os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
    known = {s.name: s for s in catalog.servers()}
    split = urlsplit(url)
    wrong = not model or (not found and "@" in model) or not split.hostname or bool(split.fragment)
    if wrong or (name and name not in known):
        shown = re.sub(r"//.*@", "//***@", rest)  # an address may hold a password
        raise UsageError(
            f"openai:{shown} is not {FORM}; BASE_URL begins with http:// or https://, "
            f"and servers with a name are {', '.join(known)}"
        )
    if "@" in split.netloc:
        where = "an address" if found else "OPENAI_BASE_URL"
        raise UsageError(f"{where} holds no password: put the key of {model} into its variable")
    if secret := next((n for n, _ in parse_qsl(split.query) if _SECRET.search(n)), ""):
        raise UsageError(f"a base URL holds no key ({secret}=...): put the key of {model} into its variable")
    # what people copy out of a manual is often the whole address of the call
    path = split.path.rstrip("/").removesuffix("/chat/completions").rstrip("/")
    url = split._replace(path=path).geturl()
    elsewhere = catalog.Server(name="", url=url, key="OPENAI_API_KEY")
    server = known.get(name) or elsewhere
    # the OpenAI protocol elsewhere is older than OpenAI's own field
    there = split.hostname == urlsplit(server.url).hostname
    if name == "openai" and not there:
        server = elsewhere
    return Address(model=model, url=url, server=server, limit=server.limit if there else "max_tokens")
