"""More ways of asking than the picture book's own, for the multimodal model to practise on.

From a dozen leads a model learns those leads. Put together from pieces, an opening, what is to be shown and
an end, there are very many, so that what it learns is what a lead is. None of `wording.HELD_OUT_LEADS` is
in any of them, with other manners neither: evaluation asks in ways that nobody practised.
"""

from __future__ import annotations

import numpy as np

from mmrerank.picturebook.wording import FRAMES, HELD_OUT_LEADS, LEADS, Phrasing
from mmrerank.picturebook.world import pick

_GREETINGS = (
    "", "", "", "", "", "", "", "", "hi,", "hey,", "ok,", "so,", "good morning,", "excuse me,",
)  # fmt: skip
_ORDERS = (
    "", "", "", "", "", "find", "show", "show me", "give me", "get me", "search for", "look for",
    "looking for", "i want", "i need", "i want to see", "i would like", "i am looking for",
    "let me see", "please find", "please get", "help me find", "let us see", "fetch", "bring me",
    "pull up", "list", "display", "check for", "pick out", "choose", "collect", "select", "open", "all",
    "every", "see if there is", "point me to", "i wonder if there is", "we would like", "she asked for",
    "my son wants", "our class needs", "i am after", "tell me where to find", "in need of", "i saw",
    "i think i saw", "i am sure there was", "only show me", "we are making a poster of",
    "they told me about",
)  # fmt: skip
_QUESTIONS = (
    "can you find", "can you get me", "could you find", "could i see", "do you have", "do we have",
    "have you got", "is there", "are there", "where is", "where can i see", "which one has",
    "may i see", "would you show me", "will you find", "has anyone got", "who has", "was there",
    "did anyone paint", "do you know", "any chance of", "what do you have of", "which of these show",
    "how many show", "how do i find",
)  # fmt: skip
_SHOWN = (
    "", "", "", "", "", "", "a picture of", "a picture with", "pictures of", "pictures with",
    "an image of", "an image with", "images of", "images showing", "a photo of", "photos with",
    "some photos of", "a scene with", "scenes with", "a drawing of", "one with", "something with",
    "any picture of", "the one with", "the picture with", "a sketch of", "a painting of", "a view of",
    "a card with", "stuff with", "the ones showing", "all that show", "images containing",
    "images that contain", "photographs of", "pics of", "a snapshot of", "a couple of pictures with",
    "the best picture of", "whatever has",
)  # fmt: skip
_ENDS = (
    "", "", "", "", "", "", "", "", "please", "please", "please", "thanks", "thanks", ", please",
    "if you have it", "for me", "for my homework", "for a talk", "again", "now", "today",
    "as soon as you can", "when you have time", "for the kids", "in this collection", "among these",
    "from the album", "if there are any", "for my son", "in here", "or close to it", "that would help",
    "this time",
)  # fmt: skip
_ASKED_LATE = (
    ", do you have that?", ", is it there?", ", where is it?", ", have you got one?",
    ", would that be in here?", ", which one is it?",
)  # fmt: skip
_MANNERS = ("please", "thanks")


def lead(rng: np.random.Generator) -> str:
    """``hi, show me a picture of {} please``: with one ``{}``, in lower case, and no held-out one in it."""
    while True:
        turn = rng.random()
        start = pick(rng, _QUESTIONS if turn < 0.4 else _ORDERS)
        shown = f"{start} {pick(rng, _SHOWN)} {{}}".split()
        if bare(" ".join(shown)) in _HELD_OUT:
            continue
        end = pick(rng, _ASKED_LATE if turn > 0.88 else _ENDS)
        words = (pick(rng, _GREETINGS), *shown, end)
        return " ".join(w for w in words if w).replace(" ,", ",") + ("?" if turn < 0.4 else "")


def bare(lead: str) -> str:
    """``lead`` without manners and marks: ``please show me {}?`` is ``show me {}``."""
    return " ".join(w for w in lead.replace(",", "").replace("?", "").split() if w not in _MANNERS)


def any_phrasing(rng: np.random.Generator) -> Phrasing:
    """A `lead` and a frame."""
    return lead(rng), pick(rng, FRAMES)


# but "please show me {}", which is a practised one with manners
_HELD_OUT = {bare(lead) for lead in HELD_OUT_LEADS} - {bare(lead) for lead in LEADS}
