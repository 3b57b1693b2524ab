"""A key, and its removal from whatever a server says: as it is, escaped, percent-encoded or in base64.

Servers quote the headers that they got, gateways put them into addresses, and frameworks escape what they
quote. The key must not come back into a message, a trace or a record by any of these ways.
"""

from __future__ import annotations

import base64
import re

LEAST = 8
"""Characters of a key that is blotted out: a placeholder such as EMPTY is a word that messages may hold."""
BLOT = "***"


class Secret:
    """Blots one key out of texts.

    >>> Secret("sk-12345678").clean("you sent Bearer sk-12345678, c2stMTIzNDU2Nzg=")
    'you sent Bearer ***, ***='
    """

    def __init__(self, key: str) -> None:
        self._text = self._bytes = None
        if len(key) < LEAST:
            return
        pattern = "|".join(_spelt(form) for form in _forms(key))
        self._text = re.compile(pattern, re.I)
        self._bytes = re.compile(pattern.encode("ascii"), re.I)

    def clean(self, text: str) -> str:
        """``text`` without the key."""
        return text if self._text is None else self._text.sub(BLOT, text)

    def clean_bytes(self, data: bytes) -> bytes:
        """``data`` without the key; JSON stays JSON."""
        return data if self._bytes is None else self._bytes.sub(BLOT.encode(), data)


def _forms(key: str) -> list[str]:
    """The key, its hex digits, and what base64 makes of it wherever it begins in a longer text."""
    data = key.encode()
    forms = [key, data.hex()]
    for before in range(3):  # base64 turns three bytes into four letters
        whole = base64.b64encode(b"\0" * before + data).decode().rstrip("=")
        # the first and last letters also encode parts of the neighbouring characters
        inner = whole[(0, 2, 3)[before] : len(whole) if (before + len(data)) % 3 == 0 else -1]
        forms += [inner, inner.replace("+", "-").replace("/", "_")]
    return list(dict.fromkeys(forms))


def _spelt(text: str) -> str:
    """A pattern for ``text``, each of its characters plain or as JSON, HTML or an address may write it."""
    return "".join(
        rf"(?:{re.escape(c)}|\\{{1,2}}u00{ord(c):02x}|%{ord(c):02x}|&\#(?:x0*{ord(c):x}|0*{ord(c)});"
        + (r"|\\{1,2}/)" if c == "/" else ")")
        for c in text
    )
