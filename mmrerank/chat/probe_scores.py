"""What a dedicated reranker really does, found by asking it about words and pictures."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

from mmrerank.chat.probe import Finding
from mmrerank.errors import ChatError, ModelError
from mmrerank.messages import Message, Part, Reply, Scoring
from mmrerank.ports import Chat
from mmrerank.types import Image

COUNT = 20
"""Pictures that are scored together."""


def probe(chat: Chat) -> Iterator[Finding]:
    """Asks for scores of words and of pictures and tells what came of it. Raises no `ChatError`."""
    try:
        yield from _probe(chat)
    except (ChatError, ModelError) as error:
        yield Finding(name="scores", status="broken", detail=str(error))


def _probe(chat: Chat) -> Iterator[Finding]:
    replies = _asked(chat, "a red square", [Part(text="a red square"), Part(text="the history of tax law")])
    yield _told("texts", replies, "the words that are asked for")
    pictures = [Part(image=_square(c)) for c in ((230, 20, 20), (20, 20, 230))]
    red, blue = _asked(chat, "a red square", pictures), _asked(chat, "a blue square", pictures)
    yield _told("images", red, "")
    if all(_values(r) for r in (*red, *blue)):
        first, second = _values(red[0])[0] - _values(red[-1])[-1], _values(blue[0])[0] - _values(blue[-1])[-1]
        looks = first > second
        yield Finding(
            name="looks at them",
            status="ok" if looks else "off",
            detail="tells a red image from a blue one" if looks
            else "does not tell a red image from a blue one: is this a model with eyes?",
        )  # fmt: skip
    many = _asked(chat, "a red square", [Part(image=_square((9 * n, 40, 90))) for n in range(COUNT)])
    failed = next((r.error for r in many if r.error is not None), None)
    detail = (
        f"{COUNT} in one ranking, {chat.group} read together" if chat.group > 1 else f"{COUNT} in one ranking"
    )
    notes = dict.fromkeys(n for r in many for n in r.notes)
    yield Finding(
        name="twenty images",
        status="ok" if failed is None else "broken",
        detail="; ".join((detail, *notes)) if failed is None else str(failed),
    )


def _asked(chat: Chat, query: str, parts: Sequence[Part]) -> list[Reply]:
    """Replies to a question about each, or about as many together as the model reads."""
    size = min(max(chat.group, 1), len(parts))
    asked = Message(role="user", parts=(Part(text=query),))
    groups = [parts[n : n + size] for n in range(0, len(parts), size)]
    return chat.reply(
        [
            Scoring(messages=(asked, *(Message(role="user", parts=(p,)) for p in g)), kind="fit")
            for g in groups
        ]
    )


def _values(reply: Reply) -> tuple[float, ...]:
    return () if reply.error is not None else reply.scores


def _told(name: str, replies: Sequence[Reply], first: str) -> Finding:
    error: ChatError | None = next((r.error for r in replies if r.error is not None), None)
    if error is not None:
        return Finding(name=name, status="broken" if name == "images" else "off", detail=str(error))
    values = [v for r in replies for v in r.scores]
    shown = ", ".join(f"{v:.4f}" for v in values)
    kind = "logits" if any(r.logits for r in replies) else "0 to 1"
    seconds = sum(r.usage.seconds for r in replies)
    ok = not first or values[0] > values[-1]
    why = "" if ok else f"; it does not prefer {first}"
    return Finding(
        name=name, status="ok" if ok else "broken", detail=f"{shown} ({kind}) in {seconds:.2f} s{why}"
    )


def _square(colour: tuple[int, int, int]) -> Image:
    from PIL import Image as Pillow

    file = io.BytesIO()
    Pillow.new("RGB", (64, 64), colour).save(file, "png")
    return Image(data=file.getvalue())
