"""What a backend really does, found by asking it: a few tiny questions, none of whose 200s is trusted."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from mmrerank.errors import ChatError, FailureKind, ModelError
from mmrerank.messages import Ask, Message, Part, Reply
from mmrerank.ports import Chat
from mmrerank.types import Image

COUNTS = (1, 4, 10, 20)
"""Numbers of images that are tried in one question."""
_PLAIN = (("Is fire hot?", "yes"), ("Is ice hot?", "no"))
"""Questions to which every model knows the answer; one of each, or a liking for yes would pass."""
_ONE_WORD = (
    "switch thinking off, or use a model that answers in one word, or a method that writes (cotrr, listwise)"
)
_WORD = "kiwi"
_LIMITS: tuple[FailureKind, ...] = ("too_many_images", "too_large", "context", "no_images")
"""Kinds of failure that tell how many images may be shown."""
_SCHEMA = {
    "type": "object",
    "properties": {"fruit": {"type": "string", "enum": [_WORD]}},
    "required": ["fruit"],
    "additionalProperties": False,
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was tried. ``off`` is a thing the backend does not do; ``broken`` one it should."""

    name: str
    status: Literal["ok", "off", "broken"]
    detail: str
    fix: str = ""


class _Stop(Exception):
    """The backend answers nothing any more: what follows would only repeat it."""


def probe(chat: Chat) -> Iterator[Finding]:
    """Asks ``chat`` about a dozen short questions and tells what came of each. Raises no `ChatError`.

    Only what the backend showed or said itself is called missing; where a question failed for another
    reason, the finding is ``broken`` and says that reason. It ends where every further question would fail.
    """
    try:
        yield from _probe(chat)
    except _Stop:
        return
    except (ChatError, ModelError) as error:
        yield _broken("answers", error)


def _probe(chat: Chat) -> Iterator[Finding]:
    if (listed := _models(chat)) is not None:
        yield listed
    if "generate" not in chat.capabilities and "token_embeddings" in chat.capabilities:
        yield from _finding("vectors", _vectors, chat)
        yield from _finding("offers", _offers, chat)
        return
    reply = chat.reply([_ask("What is two and two? Answer with one word.", max_tokens=64)])[0]
    if reply.error is not None:
        yield _broken("answers", reply.error)
        return
    cost = f"{reply.usage.input_tokens} + {reply.usage.output_tokens} tokens"
    yield Finding(
        name="answers", status="ok",
        detail=f"{reply.text.strip()[:40]!r} in {reply.usage.seconds:.2f} s, {cost}",
    )  # fmt: skip
    for name, look in (
        ("logprobs", _logprobs), ("json_schema", _schema), ("images", _images), ("looks at them", _colour),
    ):  # fmt: skip
        yield from _finding(name, look, chat)
    if chat.facts().cached_tokens is not None:
        yield from _finding("prefix cache", _prefix, chat)
    if (thinks := chat.facts().thinks) is not None:
        yield Finding(
            name="thinking", status="ok" if thinks else "off",
            detail="sends thoughts, kept apart from answers" if thinks
            else "sends no thoughts (--chat-option thinking=2048 asks a thinking model for some)",
        )  # fmt: skip
    for ability in chat.facts().abilities:
        yield Finding(name=ability.name, status="ok" if ability.on else "off", detail=ability.why)
    yield from _finding("offers", _offers, chat)


def _finding(name: str, look: Callable[[Chat], Finding], chat: Chat) -> Iterator[Finding]:
    """What ``look`` finds, or why it could not look."""
    try:
        yield look(chat)
    except ChatError as error:
        yield _broken(name, error)
        # a server that hangs up may do so over one question, such as one with images
        if error.systemic and error.kind != "unreachable":
            raise _Stop from None


def _broken(name: str, error: Exception, fix: str = "") -> Finding:
    return Finding(name=name, status="broken", detail=str(error), fix=fix)


def _vectors(chat: Chat) -> Finding:
    """Of a model that writes nothing: a vector for each token of words and of an image, of one width."""
    words = _ask("a red square", read="token_embeddings")
    shown = Ask(
        messages=(Message(role="user", parts=(Part(image=_square((220, 30, 30))),)),),
        image_tokens=64,
        read="token_embeddings",
    )
    replies = chat.reply([words, shown])
    for reply in replies:
        if reply.error is not None:
            return _broken("vectors", reply.error)
    shapes = [reply.states[0].shape for reply in replies]
    alike = shapes[0][1] == shapes[1][1]
    detail = f"{shapes[0][0]} for three words, {shapes[1][0]} for an image, of {shapes[0][1]} numbers"
    return Finding(name="vectors", status="ok" if alike else "broken", detail=detail)


def _offers(chat: Chat) -> Finding:
    return Finding(name="offers", status="ok", detail=", ".join(sorted(chat.capabilities)))


def _ask(text: str, *images: Image, **settings: Any) -> Ask:
    parts = (*(Part(image=i) for i in images), Part(text=text))
    return Ask(messages=(Message(role="user", parts=parts),), image_tokens=64, **settings)


def _models(chat: Chat) -> Finding | None:
    try:
        names = chat.models()
    except ChatError as error:
        if error.kind == "unreachable":
            return None  # or it has no such list and hangs up: the first question tells
        if error.systemic and error.kind not in ("not_found", "address"):
            raise
        return Finding(name="model list", status="off", detail=str(error))
    if names is None:
        return None
    model = chat.facts().model
    if not names:
        return Finding(name="model list", status="off", detail="the server lists none")
    shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    if any(model in n or n in model for n in names):
        return Finding(name="model list", status="ok", detail=shown)
    return Finding(
        name="model list", status="broken", detail=f"{model!r} is not among them: {shown}",
        fix="name one of these in --chat",
    )  # fmt: skip


def _logprobs(chat: Chat) -> Finding:
    name = "logprobs"
    if "choice_logprobs" not in chat.capabilities:
        return Finding(
            name=name, status="off",
            detail="none come back: pointwise, prp and setwise cannot use this backend",
        )  # fmt: skip
    seen: list[str] = []
    notes: dict[str, None] = {}
    wrong = False
    for question, right in _PLAIN:
        reply = chat.reply([_ask(f"{question} Answer yes or no.", choices=("yes", "no"))])[0]
        if reply.error is not None:
            if reply.error.kind not in ("reply", "labels"):
                raise reply.error
            return _broken(name, reply.error, _ONE_WORD)
        notes |= dict.fromkeys(reply.notes)
        seen.append(f"{question} {_shown(reply)}")
        margin = reply.logprobs.get("yes", math.nan) - reply.logprobs.get("no", math.nan)
        wrong = wrong or not (margin > 0 if right == "yes" else margin < 0)
        weak = reply.mass is not None and reply.mass < math.log(max(chat.label_share, 1e-9))
        if weak and not chat.domain:
            held = math.exp(reply.mass or 0.0)
            seen[-1] += f", and both together hold {held:.2g} of the probability: it would say something else"
            return Finding(name=name, status="broken", detail="; ".join(seen), fix=_ONE_WORD)
    detail = "; ".join((*seen, *notes))
    if wrong and chat.domain:
        return Finding(name=name, status="ok", detail=f"{detail} (it knows {chat.domain})")
    if wrong:
        return Finding(
            name=name, status="broken", detail=f"answers plain questions wrongly: {detail}",
            fix="an order by these would be wrong: use a method that writes (cotrr, listwise)",
        )  # fmt: skip
    return Finding(name=name, status="ok", detail=detail)


def _shown(reply: Reply) -> str:
    """The log-probabilities of a reply; of a label that was not listed, that they are no higher."""
    values = (f"{n} {'at most ' if n in reply.bounds else ''}{v:.2f}" for n, v in reply.logprobs.items())
    return ", ".join(values)


def _schema(chat: Chat) -> Finding:
    name = "json_schema"
    # nothing in the question asks for it: only a grammar makes this answer
    question = _ask("Write a sentence about the sea.", schema=_SCHEMA, max_tokens=64)
    reply = chat.reply([question])[0]
    if reply.error is not None and reply.error.kind not in ("reply", "no_room", "refusal"):
        raise reply.error
    held = _held(reply)
    schema = chat.facts().schema
    if held and schema in ("", "obeyed"):
        return Finding(name=name, status="ok", detail="obeyed")
    how = "refused" if schema == "refused" else "ignored"
    what = "follows it when it stands in the prompt" if held else "does not follow it in words either"
    why = f"; {reply.error}" if reply.error is not None else ""
    return Finding(name=name, status="off", detail=f"{how}; {what}{why}")


def _held(reply: Reply) -> bool:
    try:
        found = json.loads(reply.text)
    except ValueError:
        return False
    return bool(found == {"fruit": _WORD})


def _images(chat: Chat) -> Finding:
    most, why, answer = 0, "", ""
    for count in COUNTS:
        shown = [_square((count * 12 % 256, n * 12 % 256, 90)) for n in range(count)]
        reply = chat.reply([_ask("How many images are these?", *shown, max_tokens=16)])[0]
        if reply.error is not None:
            if reply.error.kind not in _LIMITS and not (most and reply.error.kind == "bad_request"):
                raise reply.error
            why = str(reply.error)
            break
        most, answer = count, reply.text.strip()[:40]
    if not most:
        return Finding(name="images", status="broken", detail=f"none: {why}")
    # a server may take them and look at one: what it says of their number is for people to judge
    detail = f"at least {most} a question (asked how many these are, it answers {answer!r})"
    return Finding(name="images", status="ok", detail=f"{detail}; with more: {why}" if why else detail)


def _colour(chat: Chat) -> Finding:
    seen = []
    for colour, pixel in (("red", (230, 20, 20)), ("blue", (20, 20, 230))):
        question = "Which colour is this, red or blue? Answer with one word."
        reply = chat.reply([_ask(question, _square(pixel), max_tokens=16)])[0]
        if reply.error is not None and reply.error.kind != "no_images":
            raise reply.error
        seen.append(colour in reply.text.casefold() and reply.error is None)
    return Finding(
        name="looks at them", status="ok" if all(seen) else "off",
        detail="tells a red image from a blue one" if all(seen)
        else "does not tell a red image from a blue one: is this a model with eyes?",
    )  # fmt: skip


def _prefix(chat: Chat) -> Finding:
    before = chat.facts().cached_tokens or 0
    long = " ".join(f"Line {n} of a long list that both questions begin with." for n in range(120))
    for last in ("first", "second"):
        reply = chat.reply([_ask(f"{long}\nThis is the {last} question. Say yes.", max_tokens=4)])[0]
        if reply.error is not None and reply.error.kind not in ("reply", "no_room"):
            raise reply.error
    found = (chat.facts().cached_tokens or 0) - before
    return Finding(
        name="prefix cache", status="ok" if found else "off",
        detail=f"{found} tokens of a repeated prompt were not read again" if found
        else "the server does not tell of one",
        fix="" if found else "vLLM: --enable-prefix-caching --enable-prompt-tokens-details",
    )  # fmt: skip


def _square(colour: tuple[int, int, int]) -> Image:
    from PIL import Image as Pillow

    file = io.BytesIO()
    Pillow.new("RGB", (64, 64), colour).save(file, "png")
    return Image(data=file.getvalue())
