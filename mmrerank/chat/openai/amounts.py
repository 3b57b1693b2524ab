"""The numbers in a server's words: how long to wait, how many images, how large. Pure functions."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

LONGEST_NAMED = 1e9
"""Seconds of waiting that are taken from words; more is no time that anybody waits."""
_WAIT = re.compile(
    r"(?:(?:try again|retry|wait|reset\w*|available)(?: \w+){0,3}?\s(?:in|after|for)|wait)\s+"
    r"((?:\d+(?:\.\d+)?\s*"
    r"(?:ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?)"
    r"(?![a-z])[,\s]*(?:and\s+)?)+)"
    r"|(?:retryDelay|retry_after)\W{1,4}((?:\d+(?:\.\d+)?\s*s?))",
    re.I,
)
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|milli|s|m|h|d)?", re.I)
_UNIT = {"ms": 1e-3, "milli": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "": 1.0}


def wait_in_words(text: str) -> float | None:
    """Seconds to wait that a message names ("try again in 6m1.5s"); None where it names none.

    >>> wait_in_words("Rate limit reached. Please try again in 1h2m3.5s.")
    3723.5
    """
    found = _WAIT.search(text)
    if found is None:
        return None
    spans = _SPAN.findall(found[1] or found[2])
    return min(sum(float(number) * _UNIT[unit.casefold()] for number, unit in spans), LONGEST_NAMED)


_LIMITING = re.compile(
    r"\b(at most|up to|no more than|not more than|maximum|max|limit\w*|exceed\w*|only|fewer|less|smaller|"
    r"greater|between|range|too (many|large|big|high)|must be|supports?|allow\w*|above|below)\b|[<>]=?",
    re.I,
)
_NUMBER = re.compile(r"(?<![\w.,#/-])(\d{1,9})(?![\w/-]|[.,]\d)")
_LESS = re.compile(
    r"\b(?:less|fewer|smaller|lower) than (?!or )(\d{1,9})|[\[(]\s*\d{1,9}\s*,\s*(\d{1,9})\s*\)", re.I
)


def number_below(text: str, sent: int) -> int | None:
    """The limit, smaller than ``sent``, that a complaint names; None where it names none.

    >>> number_below("Invalid value for 'top_logprobs': must be less than or equal to 5.", 20)
    5
    >>> number_below("Requested sample logprobs of 20, which is greater than max allowed: 5", 20)
    5
    """
    if not _LIMITING.search(text):
        return None
    if (less := _LESS.search(text)) is not None:
        found = int(less[1] or less[2]) - 1
        return found if 0 < found < sent else None
    numbers = [int(n) for n in _NUMBER.findall(text)]
    return max((n for n in numbers if 0 < n < sent), default=None)


_WORDS = {"no": 0, "one": 1, "single": 1, "two": 2, "three": 3, "four": 4, "five": 5, "ten": 10}
_COUNTED = r"(?:image|picture|photo|media|multi-?modal|attachment|file|vision)"
_AMOUNT = rf"(\d{{1,4}}|{'|'.join(_WORDS)})"
_NOT_SIZE = (
    r"(?!\s*(?:[KMG]i?B|bytes?|px|pixels?|tokens?|%|x ?\d|s\b|seconds?|ms\b|MP\b|mega|channel|dimension|"
    r"bits?\b|frame|colou?r|time|char|message|turn|tool|label)|[\d.,]*\d)"
)
_BEFORE = (
    r"(at most|max(?:imum)?(?: of| is|:)?|up to|(?:no|not) more than|only|limit(?:ed)?(?: of| to| is|:)?|a|"
    r"than|allow(?:s|ed)?|supports?|accepts?|exceeds?(?: the)?(?: limit| maximum)?(?: of)?|>|<=?)"
)
_AFTER = (
    r"(max(?:imum)?(?: of| is| allowed(?: is)?|:| number(?: is)?)*|at most|limit(?: of| is|:| to)?|"
    r"exceed(?:s|ed|ing)?(?: the)?(?: limit| maximum)?(?: of| is|:)?|(?:no|not) more than|up to|"
    r"(?:less|fewer) than(?: or equal to)?|only|<=?|>)"
)
_MOST = (
    # at most 4 image(s), max 16 images, up to 5 images, maximum of 10 pictures, only one image
    rf"{_BEFORE}\s*(?:only |just |a |the )?{_AMOUNT}{_NOT_SIZE} (?:\w+ ){{0,2}}?[`'\"]?{_COUNTED}",
    # too many images (6); maximum is 4. number of images ... must not exceed 4. image count 6 exceeds limit 4
    rf"{_COUNTED}\w*(?:\(s\))?[^.;]{{0,80}}?[.;]?[^.;]{{0,40}}?(?<!\w){_AFTER}"
    rf"\s*[:=(]?\s*{_AMOUNT}\b{_NOT_SIZE}",
    # the maximum number of images is 10
    rf"(max\w*|most|limit|allowed number)[^.;:]{{0,25}}{_COUNTED}s?(?: inputs?)?"
    rf"(?: per \w+| in (?:a|one) \w+)?\s*(?:is|are|was|allowed|of|[:=(])*\s*{_AMOUNT}\b{_NOT_SIZE}",
    # older vLLM: You set image=4 (or defaulted to 1) in `--limit-mm-per-prompt`, but passed 6; '{"image": 1}'
    rf"(limit)?(?:you set|set or default)\W.{{0,40}}?image\W{{1,4}}{_AMOUNT}\b{_NOT_SIZE}",
    # SGLang: Multimodal image count 6 exceeds limit_mm_data_per_request['image'] = 4
    rf"(limit)_mm\w*\W{{1,4}}image\W{{1,8}}{_AMOUNT}\b{_NOT_SIZE}",
    # 6 images + 0 documents > 4; image inputs exceed the limit: 6 > 4
    rf"{_COUNTED}[^.;]{{0,60}}?\d+\s*(>)\s*{_AMOUNT}\b{_NOT_SIZE}",
    rf"\d+ {_COUNTED}s?[^.]{{0,30}}?(>)\s*{_AMOUNT}\b{_NOT_SIZE}",
)
_SEARCHED = 2_000
"""Characters of a complaint in which sizes and amounts are looked for: a sentence or two say them."""
_MOST_IMAGES = [re.compile(p, re.I | re.S) for p in _MOST]
_MANY = re.compile(
    rf"(too many|number of|multiple|more than (one|a single)) {_COUNTED}|{_COUNTED}s? (count|limit|number)",
    re.I,
)
_TOO_MANY = re.compile(r"too many|not (support|allow)|exceed|only|limit", re.I)


def most_images(text: str, sent: int) -> int | None:
    """How many images a question may hold, in the words of a server that refused ``sent``; else None.

    One less than were sent, where it says that they are too many and names no number.

    >>> most_images("Too many images in request. Max is 4.", 6)
    4
    """
    text = text[:_SEARCHED]
    found: list[int] = []
    for pattern in _MOST_IMAGES:
        for hit in pattern.finditer(text):
            word, amount = (hit[1] or "").casefold(), hit[2].casefold()
            number = _WORDS[amount] if amount in _WORDS else int(amount)
            below = word in ("less than", "fewer than", "<") or re.search(
                r"(?i)(less|fewer) $", text[: hit.start(1)]
            )
            number -= bool(below)
            if number < sent:
                found.append(number)
    if found:
        return max(found)
    return sent - 1 if sent > 1 and _MANY.search(text) and _TOO_MANY.search(text) else None


_UNITS = {"b": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_BYTES = re.compile(
    r"(?<![\w.])(\d{1,15}(?:\.\d{1,9})?)\s*([KMG])?i?(?:B|bytes|megabytes)\b|bytes\D{1,40}?(\d{4,15})", re.I
)
_WHOLE = re.compile(
    r"payload|request (body|entity|size|too|exceed)|request_too_large|entity|total size|body", re.I
)


@dataclass(frozen=True, kw_only=True)
class SizeLimits:
    """What a server says an image may measure; 0 where it does not say."""

    least_side: int = 0
    most_side: int = 0
    most_bytes: int = 0


_LEAST_SIDE = re.compile(
    r"larger than (?:factor\W{0,2})?(\d{1,9})"
    r"|(?:at least|minimum(?: \w+){0,3}?(?: is| of|:)?|smaller than|less than|below|>=?) (\d{1,9})"
    r" ?(?:x ?\d+|px|pixel)"
    r"|(?:too small|minimum).{0,60}?(\d{1,9}) ?(?:x ?\d+|px|pixel)",
    re.I | re.S,
)
_SIDES = re.compile(r"(?<![\w.])(\d{2,9}) ?(?:[x\u00d7] ?(\d{1,9})|px|pixel)", re.I)
_BARE_SIDE = re.compile(
    r"(?:dimension|width|height|side|resolution)\w*.{0,60}?(?:max\w*|at most|exceed\w*|limit|<=?|>)"
    r"\D{0,30}(\d{3,5})\b",
    re.I | re.S,
)


def size_limits(text: str) -> SizeLimits:
    """The limits of images' sizes that a complaint names.

    >>> size_limits("image exceeds 5 MB maximum: 5316852 bytes > 5242880 bytes").most_bytes
    5000000
    >>> size_limits("dimensions exceed max allowed size: 8000 pixels").most_side
    8000
    """
    text = text[:_SEARCHED]
    if (least := _LEAST_SIDE.search(text)) is not None:
        return SizeLimits(least_side=int(next(g for g in least.groups() if g)))
    sizes = [
        int(float(n) * _UNITS[(unit or "b").casefold()]) if n else int(bare)
        for n, unit, bare in _BYTES.findall(text)
    ]
    if sizes:
        return SizeLimits() if _WHOLE.search(text) else SizeLimits(most_bytes=min(sizes))
    # the smaller is the limit, the larger the image
    sides = (
        [max(int(one), int(other or 0)) for one, other in _SIDES.findall(text)]
        if _LIMITING.search(text)
        else []
    )
    bare = _BARE_SIDE.search(text)
    most = min(sides, default=int(bare[1]) if bare else 0)
    # what is no side is an area
    return SizeLimits(most_side=math.isqrt(most) if most > 100_000 else most)
