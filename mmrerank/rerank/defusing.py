"""Text of others made harmless before it stands in a prompt: it forges no image, role, label or component.

One pass may make what the next one finds ("c1: (x):" becomes "c1 (x):"), so `defuse` goes on until nothing
changes: ``defuse(defuse(x)) == defuse(x)``.
"""

from __future__ import annotations

import re
import unicodedata

# controls, line and direction marks, what is drawn as nothing, private use (markers of ours and of others)
_UNSAFE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    r"\u2028-\u202e\u2060-\u206f\u3164\ue000-\uf8ff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    r"\U000e0000-\U0010ffff]+"
)
_COLONS = ":\uff1a\ufe55\ufe13\u2236\ua789\u02d0\u05c3\u0589\u1804"
"""The colon and what looks like one."""
_MARKS = (
    r"[\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u064b-\u065f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff"
    r"\ufe20-\ufe2f]{0,8}"
)
"""What may be drawn over a letter, which stays the letter that it is."""
_LOOKS_LIKE = {
    "i": "i\u0456\u0131\u03b9", "m": "m\u043c\u03bc", "a": "a\u0430\u03b1", "g": "g\u0261\u0581",
    "e": "e\u0435\u03b5", "c": "c\u0441\u03f2",
}  # fmt: skip
"""Letters of the words that open a line, and those of other scripts that are drawn the same."""


def _word(word: str) -> str:
    return "".join(f"[{_LOOKS_LIKE.get(letter, letter)}]{_MARKS}" for letter in word)


_GAP = r"[\s_#()*\[\]\-]{0,4}"
_CLOSED = r"[\s)*\]]{0,4}"
_KIND = r"(?:[(\[][^()\[\]]{0,200}[)\]]?|[-\u2013\u2014]\s?\w{1,12})?"
_LABEL = re.compile(
    rf"(?i)\b((?:{_word('image')}{_GAP}(?:\w{_MARKS}){{1,4}}|(?:{_word('c')}|component{_GAP})"
    rf"(?:\d{_MARKS}){{1,4}}){_CLOSED}{_KIND}{_CLOSED})(?:\s*[{_COLONS}])+"
)
"""How prompts call an image and a part of the search: ``Image A:``, ``Image 27:``, ``c1 (subject):``."""
_ROLE = re.compile(
    rf"(?<!\w)((?:USER|ASSISTANT|SYSTEM|HUMAN|User|Assistant|System|Human)\s*)(?:\s*[{_COLONS}])+"
)
"""How templates without tags call who speaks (Vicuna, LLaVA)."""
_TAG = re.compile(r"<(?=[/!|\uff5c\w<])|\[(?=/?\w{0,4}[A-Z_]{3}\w{0,24}\])|\u25c1(?=/?\w)")
"""What opens a tag of some chat template: ``<|im_end|>``, ``</think>``, ``<start_of_turn>``, ``[INST]``."""
_QUOTE = re.compile('"')
_MOST_PASSES = 20
"""After so many, whatever could open anything goes: no text of a person takes more than three."""
_OPENING = re.compile(rf"[{_COLONS}<\[\u25c1|]")


def defuse(text: str) -> str:
    """User text made harmless: one line, no control or marker characters, no role, tag or label syntax.

    What opens a tag of a chat template is set apart by a space and bars go, a straight double quote becomes
    a single one (it would close our quotation), and ``Image X:``, ``c1 (kind):`` and ``USER:`` lose their
    colon. Text that is harmful only once a tokenizer has folded its letters (NFKC) is folded first.
    """
    for _ in range(_MOST_PASSES):
        before, text = text, _once(text)
        if text == before:
            return text
    # folded, so that nothing new opens by folding; then every pass only takes away
    text = _OPENING.sub(" ", unicodedata.normalize("NFKC", text))
    while (after := _OPENING.sub(" ", _once(text))) != text:
        text = after
    return text


def _once(text: str) -> str:
    # single spaces before any pattern is tried: a long run of them would be searched again and again
    text = _spaced(text.encode("utf-8", "replace").decode("utf-8"))
    folded = _spaced(unicodedata.normalize("NFKC", text))
    if any(len(p.findall(folded)) > len(p.findall(text)) for p in (_TAG, _LABEL, _ROLE, _QUOTE)):
        text = folded
    text = _TAG.sub(lambda found: f"{found[0]} ", text).replace("|>", " >").replace("< |", "<  ")
    text = _ROLE.sub(r"\1", _LABEL.sub(r"\1", text))
    return " ".join(_QUOTE.sub("'", text).split())


def _spaced(text: str) -> str:
    return " ".join(_UNSAFE.sub(" ", text).split())
