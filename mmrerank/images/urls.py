"""Pictures by address, where the user allows it: fetched within limits, and not from private networks.

http and https alone, without proxies, keys or cookies. A name is resolved once, its addresses are checked,
and the connection goes to what was checked; each redirect is checked again.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import time
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from mmrerank.errors import ImageError, UsageError, one_line
from mmrerank.limits import in_force, way
from mmrerank.version import __version__

_REDIRECTS = 3
_PIECE = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Urls:
    """What may be fetched. ``private`` allows addresses that are not of the public internet, such as
    ``localhost``; ``seconds`` bound one picture with all its redirects.

    >>> Urls(seconds=5).private
    False
    """

    private: bool = False
    seconds: float = 20.0

    def __post_init__(self) -> None:
        if not 0 < self.seconds <= 3600:
            raise UsageError(
                f"seconds for a picture must be more than 0 and at most 3600, not {self.seconds}"
            )


def is_url(text: str) -> bool:
    """Whether ``text`` is an address of the web.

    >>> is_url("https://example.org/boat.jpg"), is_url("a boat")
    (True, False)
    """
    return text.strip()[:8].casefold().startswith(("http://", "https://"))


def fetch(url: str, allowed: Urls) -> bytes:
    """The bytes of a picture at ``url``. Raises `ImageError` with the reason."""
    end = time.monotonic() + allowed.seconds
    try:
        where = url.strip()
        for _ in range(_REDIRECTS + 1):
            found = _get(where, allowed, end)
            if isinstance(found, bytes):
                return found
            where = urljoin(where, found)
        raise ImageError(f"more than {_REDIRECTS} redirects")
    except ImageError as error:
        raise ImageError(f"{one_line(url, 300)} cannot be fetched: {error}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        why = one_line(str(error) or type(error).__name__, 200)
        raise ImageError(f"{one_line(url, 300)} cannot be fetched: {why}") from None


def _get(url: str, allowed: Urls, end: float) -> bytes | str:
    """The body at ``url``, or where it redirects to."""
    split = urlsplit(url)
    if split.scheme not in ("http", "https") or not split.hostname:
        raise ImageError("only http and https addresses are fetched")
    if split.username is not None:
        raise ImageError("an address with a name or a password in it is not fetched")
    port = split.port or (443 if split.scheme == "https" else 80)
    connection = http.client.HTTPConnection(split.hostname, port)
    plain = _connected(split.hostname, port, allowed, end)
    try:
        connection.sock = (
            ssl.create_default_context().wrap_socket(plain, server_hostname=split.hostname)
            if split.scheme == "https"
            else plain
        )
        path = f"{split.path or '/'}{f'?{split.query}' if split.query else ''}"
        connection.request(
            "GET", path, headers={"User-Agent": f"mmrerank/{__version__}", "Accept": "image/*"}
        )
        response = connection.getresponse()
        if response.status in (301, 302, 303, 307, 308):
            return response.headers.get("Location") or ""
        if response.status != 200:
            raise ImageError(f"the server answered {response.status} {one_line(response.reason, 60)}")
        return _body(response, connection, end)
    finally:
        connection.close()
        plain.close()


def _body(response: http.client.HTTPResponse, connection: http.client.HTTPConnection, end: float) -> bytes:
    most = in_force().url_bytes
    data = bytearray()
    while True:
        if connection.sock is not None:  # the response has taken it over where the server closes
            connection.sock.settimeout(_left(end))
        _left(end)
        piece = response.read1(_PIECE)
        if not piece:
            break
        data += piece
        if len(data) > most:
            raise ImageError(f"it is larger than {most:,} bytes; {way('url_bytes')}")
    if response.length:
        raise ImageError("the server broke off before the end")
    return bytes(data)


def _connected(host: str, port: int, allowed: Urls, end: float) -> socket.socket:
    """A connection to an address of ``host`` that may be fetched from."""
    failed: OSError | None = None
    for *_, where in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        number = str(where[0])
        if not allowed.private and not _public(number):
            raise ImageError(
                f"{host} is {number}, which is no public address; allow_urls=Urls(private=True) "
                "(mmrerank.images.urls) allows those"
            )
        try:
            return socket.create_connection((number, port), timeout=_left(end))
        except OSError as error:
            failed = error
    raise failed or OSError(f"{host} has no address")


def _public(number: str) -> bool:
    address = ipaddress.ip_address(number.partition("%")[0])
    inner = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (inner or address).is_global and not (inner or address).is_multicast


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError("it took too long")
    return left
