"""MM-R5: ``mm_r5:PATH_OR_NAME``, Qwen2.5-VL that thinks about all images and writes their order.

i2vec/MM-R5@0806019, examples/reranker.py (arXiv 2506.12364): system and user turn, ``Image i:`` before each
image, temperature 0.3, up to 8192 tokens, ``<think>...</think><answer>[3, 1]</answer>``. The score is the
share of the others that an image stands before. An image that the answer leaves out has none: the authors'
code puts it at the end, which the model did not say.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace

from mmrerank.chat.transformers import TransformersChat
from mmrerank.chat.transformers import open as open_chat
from mmrerank.chat.transformers import revision as revision
from mmrerank.errors import ReplyError, UsageError
from mmrerank.messages import Ask, Message, Part
from mmrerank.ports import Marks, Scorer
from mmrerank.types import Candidate, Query

FORM = "mm_r5:PATH_OR_NAME"
SYSTEM = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. "
    "The assistant first thinks about the reasoning process in the mind and then provides the user "
    "with the answer. The reasoning process and answer are enclosed within <think> </think> and "
    "<answer> </answer> tags, respectively, i.e., <think> reasoning process here </think><answer> "
    "answer here </answer>"
)
QUESTION = (
    "Please rank the following images according to their relevance to the question. Provide your "
    "response in the format: <think>your reasoning process here</think><answer>[image_id_1, "
    "image_id_2, ...]</answer> where the numbers in the list represent the ranking order of images'id "
    "from most to least relevant. Before outputting the answer, you need to analyze each image and "
    "provide your analysis process.For example: <think>Image 1 shows the most relevant content "
    "because...</think><answer>[id_most_relevant, id_second_relevant, ...]</answer>\nThe question is: "
    "{question}\n\nThere are {count} images, id from 1 to {count}, Image ID to image mapping:\n"
)
GROUP = 20
"""Images of one question: what the model was evaluated with."""
_ANSWER = re.compile(r"<answer>\s*\[(.*?)\]\s*</answer>", re.DOTALL)
_MARK = re.compile(r"Image(?=\s+\d+\s*:)|<(?=/?(?:think|answer)>)")


class MMR5(Scorer):
    """The order that the model writes, as scores from 1 (the best) to 0."""

    group = GROUP

    def __init__(self, chat: TransformersChat, *, spec: str, image_tokens: int, max_tokens: int) -> None:
        self.chat, self.spec = chat, spec
        self.image_tokens, self.writes = image_tokens, max_tokens
        self.fingerprint = f"MMR5 1 {chat.fingerprint} {image_tokens} {max_tokens}"

    def ask(self, query: Query, candidates: Sequence[Candidate], instruction: str = "") -> Ask:
        """The authors' question. An instruction of one's own stands before the query."""
        words = _safe(f"{instruction} {query.text}" if instruction else query.text)
        parts = [Part(text=QUESTION.format(question=words, count=len(candidates)))]
        for n, candidate in enumerate(candidates, start=1):
            parts.append(Part(text=f"\nImage {n}: "))
            parts += [Part(image=candidate.image)] if candidate.image is not None else []
            parts += [Part(text=_safe(candidate.text))] if candidate.text else []
        system = Message(role="system", parts=(Part(text=SYSTEM),))
        return Ask(
            messages=(system, Message(role="user", parts=tuple(parts))),
            max_tokens=self.writes,
            temperature=0.3,
            image_tokens=self.image_tokens,
        )

    def score(self, query: Query, candidates: Sequence[Candidate], instruction: str = "") -> Sequence[float]:
        """Scores from 1 to 0, NaN for an image that the answer leaves out."""
        return self.marks(query, candidates, instruction).scores

    def marks(self, query: Query, candidates: Sequence[Candidate], instruction: str = "") -> Marks:
        """`score` with what was read and written. A query with images is a `ReplyError`."""
        count = len(candidates)
        nothing = Marks(scores=(math.nan,) * count)
        if query.images:
            odd = ReplyError(f"{self.spec} takes queries in words only; this one has an image")
            return replace(nothing, failures=dict.fromkeys(range(count), odd))
        (reply,) = self.chat.reply([self.ask(query, candidates, instruction.strip())])
        tokens = (reply.usage.input_tokens, *(0 for _ in range(count - 1)))
        cost = replace(nothing, tokens=tokens, written=reply.usage.output_tokens)
        if reply.error is not None:
            return replace(cost, failures=dict.fromkeys(range(count), reply.error))
        order = read(reply.text, count)
        if not order:
            start = " ".join(reply.text.split())[-80:]
            odd = ReplyError(f"{self.spec} wrote no <answer>[...]</answer>; its text ends {start!r}")
            return replace(cost, failures=dict.fromkeys(range(count), odd))
        scores = [math.nan] * count
        for place, n in enumerate(order):
            scores[n] = (count - 1 - place) / (count - 1) if count > 1 else 1.0
        lost = count - len(order)
        notes = (f"the model's order left out {lost} of {count} images",) if lost else ()
        return replace(cost, scores=tuple(scores), notes=notes)

    def close(self) -> None:
        """Frees the model."""
        self.chat.close()


def read(text: str, count: int) -> list[int]:
    """The places, from 0, that the last ``<answer>[3, 1]</answer>`` of ``text`` orders; each once.

    >>> read("<think>Image 3 shows it.</think><answer>[3, 1, 9]</answer>", 4)
    [2, 0]
    """
    found = _ANSWER.findall(text)
    numbers = [int(n) - 1 for n in re.findall(r"\d{1,6}", found[-1])] if found else []
    return [n for n in dict.fromkeys(numbers) if 0 <= n < count]


def _safe(text: str) -> str:
    """Somebody's text without the marks of this prompt: it names no image and gives no answer."""
    return _MARK.sub(lambda mark: f"{mark[0]} " if mark[0] == "<" else mark[0].lower(), text)


def open(
    rest: str,
    *,
    device: str | None = None,
    dtype: str | None = None,
    batch_tokens: int = 16384,
    image_tokens: int = 1280,
    max_tokens: int = 8192,
    trust_remote_code: bool = False,
) -> MMR5:
    """Loads ``PATH_OR_NAME``. ``image_tokens`` bounds the visual tokens of an image, ``max_tokens`` what is
    written.

    Other options and errors as in `mmrerank.chat.transformers.open`.
    """
    if not 1 <= image_tokens <= 16384 or max_tokens < 1:
        raise UsageError("image_tokens must be from 1 to 16384, max_tokens at least 1")
    chat = open_chat(
        rest, device=device, dtype=dtype, batch_tokens=batch_tokens, trust_remote_code=trust_remote_code
    )
    return MMR5(chat, spec=f"mm_r5:{rest}", image_tokens=image_tokens, max_tokens=max_tokens)
