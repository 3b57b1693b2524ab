"""Messages as a checkpoint's chat template writes them, and text that cannot pass for anything else.

User text is defused: no spelling of a special or added token in it stays one. What a template cannot do
(a system turn, images between words) is found out by `Turns.learn` and written another way.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from mmrerank.errors import ModelError
from mmrerank.messages import Message, Role
from mmrerank.vl.load import Checkpoint
from mmrerank.vl.model_folder import template_of

_STAND_IN = re.compile("\ue000(\\d+)\ue001")
_MARKER = re.compile(r"[^\w\s\u2581]")
_HEAD, _MID, _TAIL = "\ue000head\ue001", "\ue000mid\ue001", "\ue000tail\ue001"
"""Private characters and words that no template knows, to see where it writes things."""


class Turns:
    """The chat template of one checkpoint.

    ``folds_system``: a system turn is written at the head of the user's, because the template takes none.
    ``image_text``: what stands for an image within text, where the template would put all images first.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._name = checkpoint.name
        self._processor = checkpoint.processor
        self._tokenizer = checkpoint.tokenizer
        self._thinks = "enable_thinking" in str(self._processor.chat_template)
        self._sees = checkpoint.sees
        self.folds_system = False
        self.image_text = ""

    def learn(self) -> None:
        """Finds out what the template cannot do. Raises `ModelError` where it drops words or images."""
        user = {"role": "user", "content": [{"type": "text", "text": _TAIL}]}
        try:
            found = self.apply([{"role": "system", "content": [{"type": "text", "text": _HEAD}]}, user])
        except ModelError:
            found = ""
        self.folds_system = _HEAD not in found
        if _TAIL not in self.apply([user]):
            raise ModelError(f"{self._name}: its chat template drops words; give another checkpoint")
        if self._sees:
            self._place_images()

    def _place_images(self) -> None:
        def shown(*parts: str) -> str:
            content = [{"type": "text", "text": p} if p else {"type": "image"} for p in parts]
            return self.apply([{"role": "user", "content": content}])

        plain, one = shown(_TAIL), shown("", _TAIL)
        first = next((n for n, (a, b) in enumerate(zip(plain, one, strict=False)) if a != b), len(plain))
        piece = one[first : first + len(one) - len(plain)]
        if not piece.strip():
            raise ModelError(f"{self._name}: its chat template drops images; give another checkpoint")
        written = shown(_HEAD, "", _MID, "", _TAIL)
        places = [written.find(p) for p in (_HEAD, _MID, _TAIL)]
        between = [written[a:b].count(piece.strip()) for a, b in itertools.pairwise(places)]
        if between != [1, 1]:
            self.image_text = piece

    @cached_property
    def before(self) -> str:
        """What the template writes between the user's last word and the first of an answer."""
        turn = {"role": "user", "content": [{"type": "text", "text": _TAIL}]}
        return self.apply([turn]).rpartition(_TAIL)[2]

    @cached_property
    def _special(self) -> re.Pattern[str]:
        # added tokens are more than the special ones: <think>, <tool_call>; runs of blanks and plain words
        # may be added too, and mean nothing but themselves
        added = {n for n in self._tokenizer.get_added_vocab() if _MARKER.search(n)}
        names = {*self._tokenizer.all_special_tokens, *added}
        if self._sees:
            names |= set(self._processor.all_special_multimodal_tokens)
        return re.compile("|".join(re.escape(n) for n in sorted(names, key=len, reverse=True) if n))

    def defuse(self, text: str) -> str:
        """``text`` with every special token's spelling opened by a space, so that it stays plain text."""
        return self._special.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)

    def render(self, messages: Sequence[Message]) -> str:
        """``messages`` as the chat template writes them, one placeholder an image, thinking switched off."""
        turns = [{"role": m.role, "content": [dict(c) for c in self._content(m)]} for m in messages]
        return self.apply(turns)

    def apply(self, turns: Sequence[dict[str, Any]]) -> str:
        """What the chat template makes of ``turns``, up to where the answer begins."""
        options = {"enable_thinking": False} if self._thinks else {}
        with template_of(self._name):
            text: str = self._processor.apply_chat_template(
                self._adapted(turns), tokenize=False, add_generation_prompt=True, **options
            )
        # templates of thinking models open the block whatever they are encoding
        opened = text.rstrip()
        return f"{opened}\n\n</think>\n\n" if opened.endswith("<think>") else text

    def _adapted(self, turns: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """``turns`` as this template can write them."""
        adapted = [dict(t) for t in turns]
        if self.folds_system and len(adapted) > 1 and adapted[0]["role"] == "system":
            head, first, *rest = adapted
            gap = {"type": "text", "text": "\n\n"}
            adapted = [{**first, "content": _merged([*head["content"], gap, *first["content"]])}, *rest]
        if self.image_text:
            for turn in adapted:
                inside = {"type": "text", "text": self.image_text}
                turn["content"] = _merged([inside if c["type"] == "image" else c for c in turn["content"]])
        if not self._sees:  # templates of text-only models take strings
            for turn in adapted:
                turn["content"] = "".join(c["text"] for c in turn["content"])
        return adapted

    def _content(self, message: Message) -> Iterator[dict[str, str]]:
        for run in _runs(message):
            # joined first: a special token could be spelt across two parts
            text = {"type": "text", "text": self.defuse("".join(run or ()))}
            yield {"type": "image"} if run is None else text

    def _parts(self, messages: Sequence[Message], text: str) -> list[tuple[int, Role, int, int]]:
        """Where in ``text`` each text part stands, found by filling in the template with stand-ins."""
        runs: list[tuple[int, Role, list[str]]] = []
        turns = []
        for number, message in enumerate(messages):
            content = []
            for run in _runs(message):
                content.append({"type": "image"} if run is None else
                               {"type": "text", "text": f"\ue000{len(runs)}\ue001"})  # fmt: skip
                if run is not None:
                    runs.append((number, message.role, run))
            turns.append({"role": message.role, "content": content})
        pieces = _STAND_IN.split(self.apply(turns))
        parts: list[tuple[int, Role, int, int]] = []
        rebuilt = pieces[0]
        for which, after in zip(pieces[1::2], pieces[2::2], strict=True):
            message_number, role, run = runs[int(which)]
            whole = self.defuse("".join(run))
            ends = [len(self.defuse("".join(run[: n + 1]))) for n in range(len(run))]
            # a template may trim what it is given
            trimmed = 0
            if not text.startswith(whole, len(rebuilt)):
                trimmed, whole = len(whole) - len(whole.lstrip()), whole.strip()
            ends = [len(rebuilt) + min(max(0, end - trimmed), len(whole)) for end in ends]
            starts = [len(rebuilt), *ends]
            parts += [(message_number, role, a, b) for a, b in zip(starts, ends, strict=False) if b > a]
            rebuilt += whole + after
        if rebuilt != text:
            raise ModelError(
                f"{self._name}: its chat template rewrites texts, so that their tokens cannot be encoding; "
                "give another checkpoint, or a method that needs no hidden states"
            )
        return parts


def _merged(content: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """``content`` with neighbouring texts as one."""
    merged: list[dict[str, str]] = []
    for part in content:
        if part["type"] == "text" and merged and merged[-1]["type"] == "text":
            merged[-1] = {"type": "text", "text": merged[-1]["text"] + part["text"]}
        else:
            merged.append(dict(part))
    return merged


def _runs(message: Message) -> Iterator[list[str] | None]:
    """A message's texts, neighbours together, and None for each image."""
    run: list[str] = []
    for part in message.parts:
        if part.text is not None:
            run.append(part.text)
            continue
        if run:
            yield run
        run = []
        yield None
    if run:
        yield run
