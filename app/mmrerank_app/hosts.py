"""Under which names the page answers, and for which sites: against DNS rebinding and cross-site requests.

A site that a visitor has open elsewhere can let its own name point at this machine. The browser then takes
our page for a part of that site. Such a request carries that site's name as ``Host``, so names are checked.
It cannot carry an address in numbers, because a browser takes those literally.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from mmrerank.errors import UsageError

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
EVERYWHERE = frozenset({"", "0.0.0.0", "::"})
"""Addresses to listen at that mean all addresses of this machine."""
_AUTHORITY = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9_.-]{1,253})(?::(\d{1,5}))?", re.ASCII)


def host_name(authority: str) -> str | None:
    """The lower-case name in ``NAME:PORT``; None where it is no such thing.

    >>> host_name("LocalHost:7860"), host_name("[::1]:7860"), host_name("localhost@evil.example")
    ('localhost', '::1', None)
    """
    match = _AUTHORITY.fullmatch(authority.strip().lower())
    return match[1].strip("[]").removesuffix(".") if match else None


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


class Hosts:
    """The names under which a page that listens at ``host`` answers.

    Those of loopback and ``host`` itself. A page that listens at all addresses also answers under any address
    in numbers. ``allow`` are further names, as of a proxy; ``*`` is every name. Raises `UsageError`.

    >>> Hosts("127.0.0.1").allows("localhost:7860"), Hosts("127.0.0.1").allows("evil.example")
    (True, False)
    """

    def __init__(self, host: str = "127.0.0.1", *, allow: Iterable[str] = ()) -> None:
        self.everywhere = host in EVERYWHERE
        self.allowed: set[str] = set()
        for given in allow:
            name = given if given == "*" else host_name(given)
            if name is None:
                raise UsageError(f"--allow-host takes a host name, such as photos.example.org, not {given!r}")
            self.allowed.add(name)
        own = set() if self.everywhere else {host.strip("[]").lower()}
        self.names = LOOPBACK | own | self.allowed

    def allows(self, authority: str) -> bool:
        """Whether a request for ``authority`` (the Host header) is answered."""
        name = host_name(authority)
        if name is None:
            return False
        if name in self.names or "*" in self.allowed:
            return True
        address = _address(name)
        return address is not None and (self.everywhere or address.is_loopback)

    def same_site(self, origin: str, authority: str) -> bool:
        """Whether a request from pages of ``origin`` (the Origin header) comes from this page itself.

        It has the Host of the request, with its port, or it is a name that was allowed on purpose.
        """
        scheme, _, rest = origin.strip().lower().partition("://")
        if scheme not in ("http", "https"):
            return False  # "null" among them: sandboxed frames, files
        return rest == authority.strip().lower() or host_name(rest) in self.allowed
