"""Labels of a question (yes, no, A, 7) and the tokens that mean them, in any vocabulary. Pure.

A model that is asked for "yes or no" answers ``Yes``, ``yes`` or `` Yes``, as its training had it, and the
probability of a label is that of all its spellings together. A model that was trained to score by one token
means that token alone (`Ask.exact`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from mmrerank.errors import UsageError

NEWLINE = "\n"
"""What labels stand behind where a chat template is not known: a turn's head ends so in most of them."""
_MARKS = str.maketrans({"\u2581": " ", "\u0120": " ", "\u010a": "\n"})
"""How vocabularies write a space (SentencePiece, byte-level BPE) and a line's end."""
_ID = re.compile(r"token_id:(\d{1,9})")


def spellings(label: str) -> tuple[str, ...]:
    """What a model may write for ``label``, itself first: of words six, of letters and numbers two.

    >>> spellings("yes")
    ('yes', 'Yes', 'YES', ' yes', ' Yes', ' YES')
    >>> spellings("A")
    ('A', ' A')
    """
    word = len(label) > 1 and label.isalpha()
    cases = [label, label.lower(), label.capitalize(), label.upper()] if word else [label]
    bare = tuple(dict.fromkeys(cases))
    return (*bare, *(f" {s}" for s in bare))


def spelt(labels: Sequence[str], *, exact: bool = False) -> dict[str, tuple[str, ...]]:
    """The spellings of each of ``labels``: only the label itself where ``exact``.

    A spelling that two labels could have belongs to the one that it is, or to none.
    """
    found = {n: (n,) if exact else spellings(n) for n in labels}
    owners: dict[str, int] = {}
    for own in found.values():
        for s in own:
            owners[s] = owners.get(s, 0) + 1
    return {n: tuple(s for s in own if s == n or owners[s] == 1) for n, own in found.items()}


def label_of(token: str, labels: Iterable[str], *, exact: bool = False) -> str | None:
    """The label that the text of a ``token`` spells, or None: space around it and case say nothing.

    The case of a single letter does, and so does all of it where ``exact``.

    >>> label_of(" YES", ("yes", "no")), label_of("Not", ("yes", "no")), label_of("a", ("A", "B"))
    ('yes', None, None)
    """
    known = tuple(labels)
    if token in known:
        return token
    if exact:
        return None
    bare = token.translate(_MARKS).strip()
    if bare in known:
        return bare
    found = [n for n in known if len(n) > 1 and n.casefold() == bare.casefold()]
    return found[0] if len(found) == 1 else None


def id_of(token: str) -> int | None:
    """The id in ``token_id:9454``, as vLLM writes tokens on request; None for the text of a token."""
    found = _ID.fullmatch(token)
    return int(found[1]) if found else None


def token_ids(
    labels: Sequence[str],
    encode: Callable[[str], Sequence[int]],
    decode: Callable[[int], str],
    *,
    before: str = NEWLINE,
    exact: bool = False,
    name: str = "this model",
) -> dict[str, tuple[int, ...]]:
    """The tokens by label that can follow ``before``, each of which is one of the label's spellings whole.

    ``encode`` gives the ids of a text without marks at its ends, ``decode`` the text of one id. Raises
    `UsageError` for a label without any, or two labels with the same.

    >>> words = {"\\n": 0, "yes": 1, "Yes": 2, "no": 3}
    >>> ids = lambda text: [0, *([words[text[1:]]] if text[1:] in words else map(ord, text[1:]))]
    >>> token_ids(("yes", "no"), ids, {v: k for k, v in words.items()}.__getitem__)
    {'yes': (1, 2), 'no': (3,)}
    """
    start = list(encode(before))
    found: dict[str, tuple[int, ...]] = {}
    for label, texts in spelt(labels, exact=exact).items():
        own = [_next(s, start, before, encode, decode) for s in texts]
        found[label] = tuple(dict.fromkeys(n for n in own if n is not None))
        if not found[label]:
            raise UsageError(_unusable(label, exact, len(encode(label)), name))
    ids = [n for own in found.values() for n in own]
    if len(set(ids)) != len(ids) or len(found) != len(labels):
        raise UsageError(f"choices must differ; these are {', '.join(labels)}")
    return found


def _next(
    text: str,
    start: Sequence[int],
    before: str,
    encode: Callable[[str], Sequence[int]],
    decode: Callable[[int], str],
) -> int | None:
    """The id of ``text`` behind ``before``; None where it is several tokens or merges with what precedes.

    Encoded by itself, a text would get the mark of a word's beginning in some vocabularies, and what merges
    with the head of the answer is never the next token. The token must be the text: unknown ones are not.
    """
    ids = list(encode(f"{before}{text}"))
    if len(ids) != len(start) + 1 or ids[:-1] != list(start):
        return None
    back = decode(ids[-1]).translate(_MARKS).strip()
    return ids[-1] if back.casefold() == text.strip().casefold() else None


def _unusable(label: str, exact: bool, tokens: int, name: str) -> str:
    if tokens == 1:
        return (
            f"the choice {label!r} merges with the beginning of an answer of {name}, so it is never the next "
            "token; choices are bare letters or digits, without brackets or spaces"
        )
    spelling = "" if exact else ", in whichever spelling"
    return (
        f"the choice {label!r} is {tokens} tokens of {name}{spelling}; choices are single tokens, such as "
        "one letter or one digit"
    )


def log_sum(values: Iterable[float]) -> float:
    """The logarithm of the sum of what these are logarithms of; minus infinity of nothing.

    >>> round(log_sum([math.log(0.25), math.log(0.5)]), 6) == round(math.log(0.75), 6)
    True
    """
    known = list(values)
    top = max(known, default=-math.inf)
    if top == -math.inf:
        return top
    return top + math.log(sum(math.exp(v - top) for v in known))


def normalised(found: Mapping[str, float]) -> tuple[dict[str, float], float]:
    """Log-probabilities of labels among themselves, and that of all together."""
    total = log_sum(found.values())
    return {n: v - total for n, v in found.items()}, total
