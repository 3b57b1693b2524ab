"""Exercises that no strategy asks: many looks at one picture for what one costs in a judgement.

`tell` is notes and verdicts and little else, `find` where things are, which numbers and relations are noted
by, `name` only the words for things, each of which is to know what is shown of it (`vlm_named`), `list`
everything there is.
"""

from __future__ import annotations

from collections.abc import Sequence

from mmrerank.messages import Message, Part
from mmrerank.picturebook.facts import CountFact, Fact, Noun
from mmrerank.picturebook.training.vlm_example import Example
from mmrerank.picturebook.training.vlm_named import named_in
from mmrerank.picturebook.training.vlm_notes import seen
from mmrerank.picturebook.world import COLUMNS, ROWS, Scene, cell
from mmrerank.types import Image

LIST_PROMPT = "List what the image shows."
FIND_PROMPT = "Say of each thing where the image shows it."
NAME_PROMPT = "Look each thing up in the image."
TELL_PROMPT = "Say of each part what the image shows of it, then give a verdict."


def list_all(scene: Scene, number: int) -> Example:
    """Everything that ``scene`` shows; ``number`` is its place in the pool."""
    reply = listing(scene)
    return Example(task="list", messages=_shown(LIST_PROMPT), reply=reply, scenes=(number,))


def tell(scene: Scene, number: int, facts: Sequence[Fact]) -> Example:
    """Of each of ``facts`` what is seen and the verdict."""
    answers = [f"{seen(f, scene)}, {f.judge(scene).verdict}" for f in facts]
    return _one_by_one("tell", TELL_PROMPT, number, scene, [f.text for f in facts], answers)


def find(scene: Scene, number: int, nouns: Sequence[Noun]) -> Example:
    """Of each of ``nouns`` where it is and how many there are."""
    answers = [seen(CountFact(noun=noun, count=1), scene) for noun in nouns]
    asked = [noun.bare for noun in nouns]
    return _one_by_one("find", FIND_PROMPT, number, scene, asked, answers)


def name(scene: Scene, number: int, phrases: Sequence[str]) -> Example:
    """Nouns as they are ``phrases``, and nothing to reply: looks at the picture side by side."""
    reply = "; ".join(phrases)
    return Example(
        task="name",
        messages=_shown(NAME_PROMPT),
        reply=reply,
        scenes=(number,),
        given=(reply,),
        named=named_in(reply, scene),
    )


def listing(scene: Scene) -> str:
    """Place, weather and every thing by where it is, in reading order."""
    things = sorted(scene.things, key=lambda t: (cell(t.x, t.y), t.inside is not None))
    answers = []
    for thing in things:
        row, column = cell(thing.x, thing.y)
        where = "inside" if thing.inside is not None else f"{ROWS[row]} {COLUMNS[column]}"
        answers.append(f"{where} {thing.size} {thing.colour} {thing.kind}")
    return f"{scene.place}, {scene.weather}; " + ", ".join(answers)


def _shown(prompt: str) -> tuple[Message, ...]:
    """``prompt`` and one picture, for exercises that no strategy asks."""
    return (
        Message(role="system", parts=(Part(text="You judge images for a search engine."),)),
        Message(role="user", parts=(Part(text=prompt), Part(image=Image(data=b"0")))),
    )


def _one_by_one(
    task: str, prompt: str, number: int, scene: Scene, asked: Sequence[str], answers: Sequence[str]
) -> Example:
    """``asked: answer; asked: answer``, of which only the answers have to be learnt."""
    given = tuple(f"{'; ' if i else ''}{a}:" for i, a in enumerate(asked))
    reply = "".join(f"{ask} {tell}" for ask, tell in zip(given, answers, strict=True))
    return Example(
        task=task,
        messages=_shown(prompt),
        reply=reply,
        scenes=(number,),
        given=given,
        named=named_in(reply, scene),
    )
