"""Where a server is, as its failures tell a person: its name, its key's variable, and how it is started."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from mmrerank import catalog

LOCAL = ("localhost", "127.", "0.0.0.0", "::1", "[::1]")


@dataclass(frozen=True, kw_only=True)
class Place:
    """A model at a base URL. ``server`` is what is known of its kind; its ``name`` is empty otherwise."""

    model: str
    url: str
    server: catalog.Server = field(
        default_factory=lambda: catalog.Server(name="", url="", key="OPENAI_API_KEY")
    )

    @property
    def host(self) -> str:
        """Host and port, without a user."""
        return urlsplit(self.url).netloc.rpartition("@")[2]

    def __str__(self) -> str:
        return f"{self.model} at {self.host}"

    @property
    def local(self) -> bool:
        """Whether the server runs on this machine."""
        return (urlsplit(self.url).hostname or "").startswith(LOCAL)

    @property
    def start(self) -> str:
        """The command that starts the server; a server without a name is known by its port. Or empty."""
        split = urlsplit(self.url)
        if self.server.start:
            return self.server.started(self.model, split.port)
        if split.port is None:  # a site, not a program of one's own
            return ""
        known = {urlsplit(s.url).port: s for s in catalog.servers() if s.start}
        vllm = next(s for s in catalog.servers() if s.name == "vllm")
        return known.get(split.port, vllm).started(self.model, split.port)
