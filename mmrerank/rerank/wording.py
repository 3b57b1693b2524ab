"""What single words of a reply stand for: labels of images, verdicts, numbers and names of fields.

Takes what is plain ("Image A", "Partially met", "8/10", full-width digits) and refuses what could mean two
things: the caller gets None and reports it. Nothing here looks for words in prose.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmrerank.types import Component, VerdictName

_INVISIBLE = re.compile("[\ufeff\u200b-\u200f\u2060\u00ad\ufe0e\ufe0f]")
_MARKS = " \t\r\n[](){}<>\"'`*#:.;,!?$“”‘’「」【】、。~"
_BOXED = re.compile(r"\\boxed\{([^{}]*)\}|\\text\{([^{}]*)\}")
_NOUN = re.compile(
    r"(?i:the\s+)?(?i:images?|img|pictures?|pic|photos?|photograph|figure|fig|option|candidate|choice|item|"
    r"document|doc|passage|label|letter|number|图像|图片|图)(?:[\W_]+|(?=\d)|(?<=[a-z])(?=[A-Z]\Z)|(?<=[图片像]))"
)
_ORDINAL = re.compile(r"0*(\d+)(?:\.0+)?")
_MAX_WORD = 60
_MAX_SAID = 2_000  # characters that are read of one entry of an order


def folded(text: str) -> str:
    """``text`` with full-width letters, digits and signs as plain ones, and without marks nobody sees."""
    return _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))


def one_spaced(line: str) -> str:
    """``line`` with one space for each run of blanks: patterns over it take time in proportion to it."""
    return " ".join(line.split())


def field_name(key: str) -> str:
    """A key as one lower-case name: ``"Final Ranking:"`` -> ``final_ranking``."""
    return re.sub(r"[\W_]+", "_", folded(key[:_MAX_WORD]).casefold()).strip("_")


# --- labels ------------------------------------------------------------------------------------------


def label_text(item: Any) -> str:
    """``"Image C"``, ``"image_c"``, ``"[C]"``, ``" c) "`` -> ``"C"``; ``"1.0"`` -> ``"1"``."""
    if isinstance(item, bool) or not isinstance(item, str | int | float):
        return ""
    text = folded(str(item)[:_MAX_WORD])
    text = _BOXED.sub(lambda m: m[1] or m[2] or "", text).strip(_MARKS)
    noun = _NOUN.match(text)
    text = text[noun.end() :].strip(_MARKS) if noun else text
    number = _ORDINAL.fullmatch(text)
    return number[1] if number else text.upper()


def known_labels(labels: Sequence[str]) -> dict[str, str]:
    """Labels by what `label_text` makes of them."""
    return {label_text(n): n for n in labels}


_AFTER_LABEL = re.compile(r"[*`\"'”’]*\s*(?:[:：)\]–—]|\.\s|\s-\s|\s\(|,\s)")


def label_of(item: Any, known: Mapping[str, str]) -> str | None:
    """The label that ``item`` names, alone or before an explanation (``"B: the red boat"``)."""
    if found := known.get(label_text(item)):
        return found
    if not isinstance(item, str):
        return None
    text = folded(item[:_MAX_SAID]).strip().lstrip(_MARKS)
    noun = _NOUN.match(text)
    text = text[noun.end() :].lstrip(_MARKS) if noun else text
    word = re.match(r"\w{1,4}", text)
    if word is None or not _AFTER_LABEL.match(text, word.end()):
        return None
    label = known.get(label_text(word[0])) if noun or word[0] == word[0].upper() else None
    rest = text[word.end() :]
    # "A, B" and "A: or C" name two
    others = re.findall(r"(?<![\w'])[A-Z\d]{1,4}(?![\w'])", rest)
    return None if any(known.get(o) not in (None, label) for o in others) else label


# --- numbers -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Number:
    """A number and how it was written: ``plain``, ``percent``, or out of ``top``."""

    value: float
    form: str = "plain"
    top: float = 0.0


_IN_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_PLAIN = re.compile(r"([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?)(.*)", re.S)
_OUT_OF = re.compile(r"\s*(?:/|(?i:out\s+of|of)\s)\s*(\d+(?:\.\d+)?)\s*(?i:points?)?(?P<rest>.*)", re.S)
_SAID = re.compile(r"\s*(?i:points?|pts|分|stars?)?\s*(?:\Z|[(\[:;,–—-](?P<rest>.*)\Z)", re.S)


def number_of(value: Any) -> Number | None:
    """The one number in ``value``: 3, "3", "３", "3.0", "80%", "8/10", "8 out of 10", "3 (good)", "three"."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return _finite(value)
    if not isinstance(value, str):
        return None
    text = folded(value[:200]).strip(" \t\r\n\"'`*$\\{}[]()")
    text = re.sub(r"(?i)^(?:grade|score|rating|mark|relevance)\s*[:=]?\s*", "", text)
    if text.casefold() in _IN_WORDS:
        return Number(float(_IN_WORDS.index(text.casefold())))
    match = _PLAIN.match(text)
    if match is None:
        return None
    number, rest = match[1], match[2]
    if percent := re.match(r"\s*%(.*)", rest, re.S):
        return _finite(number, "percent") if _plainly_said(percent[1]) else None
    if share := _OUT_OF.match(rest):
        top = float(share[1])
        return _finite(number, "out of", top) if top > 0 and _plainly_said(share["rest"]) else None
    return _finite(number) if _plainly_said(rest) else None


def _plainly_said(rest: str) -> bool:
    """Whether what stands after a number is a remark without another one ("2-3" is not one number)."""
    said = _SAID.match(rest.rstrip(" .!*"))
    return said is not None and not re.search(r"\d", rest)


def _finite(value: str | float, form: str = "plain", top: float = 0.0) -> Number | None:
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return Number(number, form, top) if math.isfinite(number) else None


def whole(value: Any, top: int) -> int | None:
    """A whole number from 0 to ``top``, also as ``"3.0"``, ``"8/10"`` or ``"80%"``; None for anything else.

    A share of another scale counts where it comes to a whole number of ours.
    """
    found = number_of(value)
    if found is None:
        return None
    number = found.value
    if found.form == "percent":
        number = number * top / 100
    elif found.form == "out of" and found.top != top:
        number = number * top / found.top
    near = round(number)
    return near if abs(number - near) < 1e-9 and 0 <= near <= top else None


# --- verdicts ----------------------------------------------------------------------------------------

_VERDICTS: dict[str, VerdictName] = {
    **dict.fromkeys(
        ("met", "fully met", "completely met", "is met", "satisfied", "fully satisfied", "fulfilled",
         "fully fulfilled", "pass", "passed", "满足", "符合", "完全满足", "完全符合"), "met"),
    **dict.fromkeys(
        ("partly", "partly met", "partially", "partially met", "partial", "partial match", "partial met",
         "partially satisfied", "partly satisfied", "partially fulfilled", "partly fulfilled",
         "partially matched", "partially matches", "mostly met", "somewhat met", "half met", "部分满足",
         "部分符合"), "partly"),
    **dict.fromkeys(
        ("missed", "not met", "unmet", "is not met", "isn t met", "not satisfied", "unsatisfied",
         "not fulfilled", "unfulfilled", "fail", "failed", "fails", "violated", "不满足", "不符合",
         "未满足"), "missed"),
    **dict.fromkeys(
        ("cannot tell", "can t tell", "cant tell", "can not tell", "could not tell", "cannot be told",
         "cannot say", "can t say", "unclear", "unknown", "uncertain", "unsure", "not sure",
         "undetermined", "undeterminable", "indeterminate", "cannot determine", "cannot be determined",
         "can t be determined", "cannot judge", "cannot be judged", "hard to tell", "inconclusive",
         "无法判断", "不确定", "无法确定"), "cannot_tell"),
}  # fmt: skip
# of a thing that is not wanted, these could mean the thing or the wish
_OF_A_THING: dict[str, VerdictName] = {
    **dict.fromkeys(
        ("yes", "true", "present", "match", "matched", "matches", "full match", "shown", "✓", "✔", "✅"),
        "met",
    ),
    **dict.fromkeys(
        ("no", "false", "absent", "missing", "not present", "no match", "not matched", "mismatch",
         "does not match", "doesn t match", "not shown", "✗", "✘", "❌"), "missed"),
}  # fmt: skip
_SIGNS = "✓✔✅✗✘❌"
_NEGATIVE = re.compile(r"(?i)(no|not|without|never|none|free of)\b")
_QUALIFIED = re.compile(
    r"(?i)\b(?:but|however|although|though|only|partial\w*|partly|mostly|except|almost|nearly|"
    r"not\s+(?:fully|entirely|completely|quite|exactly))\b"
)
_PARTS = re.compile(r"[:;,(\n–—/|]|\.\s|\s-+\s|\s(?:or|and|to|but|because|since|as)\s")


def verdict_of(value: Any, component: Component) -> VerdictName | None:
    """The verdict that ``value`` plainly is, or None.

    ``yes`` and ``absent`` are not taken for a part that is not wanted: "no people: absent" says two things.
    """
    if isinstance(value, bool):
        value = "true" if value else "false"
    if not isinstance(value, str):
        return None
    unwanted = component.kind == "exclusion" or bool(_NEGATIVE.match(component.text))
    words = _VERDICTS if unwanted else {**_VERDICTS, **_OF_A_THING}
    text = folded(value[:300]).replace("’", "'")
    signs = {_OF_A_THING[c] for c in text if c in _SIGNS}
    text = "".join(c for c in text if c not in _SIGNS) if re.search(r"\w", text) else text
    if found := words.get(_word(text)):
        return found if signs <= {found} else None
    first, *more = _PARTS.split(text)
    found = words.get(_word(first))
    if _QUALIFIED.search(text[len(first) :]):
        return None
    # "met or partly" names two; "met: the boat is red" one with its reason
    return None if any(words.get(_word(m)) not in (None, found) for m in more) else found


def _word(text: str) -> str:
    return " ".join(re.sub(rf"[^\w{_SIGNS}]+|_", " ", text.casefold()).split())
