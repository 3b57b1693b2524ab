"""Reranking gains nothing once the pictures are taken away: what is gained comes from looking."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from tempfile import TemporaryDirectory

import pytest
from PIL import Image as Pillow

import mmrerank
from mmrerank.chat.open import open_chat
from mmrerank.messages import Ask, Message, Part, Reply
from mmrerank.ports import Chat
from mmrerank.types import Image

pytestmark = pytest.mark.slow


class Blindfold(Chat):
    """The bundled model, shown grey in place of every picture, or another candidate's picture."""

    def __init__(self, shuffled: bool) -> None:
        self.inner: Chat = open_chat("bundled")
        self.spec, self.domain = self.inner.spec, self.inner.domain
        self.capabilities, self.prompts = self.inner.capabilities, self.inner.prompts
        self.shuffled = shuffled
        file = io.BytesIO()
        Pillow.new("RGB", (384, 384), (128, 128, 128)).save(file, "PNG")
        self.grey = Image(data=file.getvalue())

    def reply(self, asks: Sequence[Ask]) -> list[Reply]:
        shown = [p.image for a in asks for m in a.messages for p in m.parts if p.image]
        # far enough that a query's pictures do not only trade places among its best candidates
        other = iter([*shown[7:], *shown[:7]])

        def change(part: Part) -> Part:
            if part.image is None:
                return part
            return Part(image=next(other) if self.shuffled else self.grey)

        def changed(message: Message) -> Message:
            return replace(message, parts=tuple(map(change, message.parts)))

        return self.inner.reply([replace(a, messages=tuple(map(changed, a.messages))) for a in asks])


@pytest.fixture(scope="module")
def gain() -> Callable[[str | Chat], list[float]]:
    """The interval of what the bundled model's verdicts, summed, gain in nDCG@10 on one new world.

    The sum, because it is an order that the verdicts alone decide.
    """

    def measured(chat: str | Chat) -> list[float]:
        world = {"seed": 6, "scenes": 1400, "queries": 70}
        with TemporaryDirectory() as runs:
            body = mmrerank.evaluate("demo", options=world, methods=["cotrr"], chat=chat, runs=runs).to_dict()
        found: list[float] = body["sum_of_verdicts"]["gain"]["nDCG@10"]["ci"]
        return found

    return measured


@pytest.mark.timeout(900)
def test_with_the_pictures_something_is_gained(gain: Callable[[str | Chat], list[float]]) -> None:
    assert gain("bundled")[0] > 0


@pytest.mark.timeout(900)
@pytest.mark.parametrize("shuffled", [False, True], ids=["blank", "shuffled"])
def test_without_the_pictures_nothing_is_gained(
    shuffled: bool, gain: Callable[[str | Chat], list[float]]
) -> None:
    assert gain(Blindfold(shuffled))[0] <= 0
