"""MM-R5: ``mm_r5:PATH_OR_NAME``, Qwen2.5-VL that thinks about all images and writes their order.

i2vec/MM-R5@0806019, examples/reranker.py (arXiv 2506.12364): system and user turn, ``Image i:`` before each
image, temperature 0.3, up to 8192 tokens, ``<think>...</think><answer>[3, 1]</answer>``. The score is the
share of the others that an image stands before. An image that the answer leaves out has none: the authors'
code puts it at the end, which the model did not say.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence

from mmrerank.chat.transformers import revision as revision
from mmrerank.chat.transformers.generate import Generated, Row, generate
from mmrerank.chat.transformers.grammar import Grammars
from mmrerank.errors import CancelledError, ChatError, InputError, ReplyError, UsageError
from mmrerank.ports import Marks
from mmrerank.scorers._local import LocalScorer
from mmrerank.types import Candidate, Query
from mmrerank.vl.load import load
from mmrerank.vl.prefix import NOTHING, Prefixes
from mmrerank.vl.prompts import Encoded
from mmrerank.vl.scoring import Piece, Pixels, Prompt, Reader, Turn

FORM = "mm_r5:PATH_OR_NAME"
TYPES = {"qwen2_5_vl": "MM-R5"}
TEMPERATURE = 0.3
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


class MMR5(LocalScorer):
    """The order that the model writes, as scores from 1 (the best) to 0."""

    group = GROUP

    def __init__(self, reader: Reader, *, spec: str, max_tokens: int) -> None:
        super().__init__(reader, spec=spec, instruction="")
        self.writes = max_tokens
        self.fingerprint = f"{self.fingerprint} {max_tokens}"
        qwen = reader.qwen
        self._grammars = Grammars(qwen.tokenizer, width=qwen.vocabulary, stop=qwen.stop_ids)
        self._prefixes = Prefixes(qwen, 0)

    def list_prompt(self, query: Query, candidates: Sequence[Candidate], instruction: str) -> Prompt:
        """The authors' question. An instruction of one's own stands before the query."""
        words = self._said(f"{instruction} {query.text}" if instruction else query.text)
        pieces: list[Piece] = [QUESTION.format(question=words, count=len(candidates))]
        for n, candidate in enumerate(candidates, start=1):
            pieces.append(f"\nImage {n}: ")
            pieces += [] if candidate.image is None else [candidate.image]
            pieces += [self._said(candidate.text)] if candidate.text else []
        system = Turn(role="system", pieces=(SYSTEM,))
        return Prompt(turns=(system, Turn(role="user", pieces=tuple(pieces))))

    def marks(self, query: Query, candidates: Sequence[Candidate], instruction: str = "") -> Marks:
        """Scores from 1 to 0, NaN for an image that the answer leaves out, and what was read and written."""
        count = len(candidates)
        if query.images:
            return _nothing(
                count, ReplyError(f"{self.spec} takes queries in words only; this one has an image")
            )
        try:
            encoded = self.reader.encode(self.list_prompt(query, candidates, instruction.strip()))
        except (InputError, OSError, ValueError) as error:
            return _nothing(
                count, ChatError(f"an image of the question cannot be shown: {error}", kind="image")
            )
        tokens = (encoded.length, *(0 for _ in range(count - 1)))
        try:
            written = self._write(encoded)
        except CancelledError:
            raise
        except Exception as error:  # out of memory above all; the next question may be shorter
            why = f"{self.spec} failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
            return _nothing(count, ChatError(why, kind="server"), tokens)
        text: str = self.reader.tokenizer.decode(written.ids, skip_special_tokens=True)
        order = read(text, count)
        if not order:
            end = " ".join(text.split())[-80:]
            cut = f" within {self.writes} tokens (max_tokens)" if written.finish == "length" else ""
            why = f"{self.spec} wrote no <answer>[...]</answer>{cut}; its text ends {end!r}"
            return _nothing(count, ReplyError(why), tokens, len(written.ids))
        scores = [math.nan] * count
        for place, n in enumerate(order):
            scores[n] = (count - 1 - place) / (count - 1) if count > 1 else 1.0
        lost = count - len(order)
        notes = (f"the model's order left out {lost} of {count} images",) if lost else ()
        thoughts = " ".join(text.partition("<answer>")[0].replace("<think>", "").split("</think>")[0].split())
        return Marks(
            scores=tuple(scores), tokens=tokens, written=len(written.ids), text=thoughts, notes=notes
        )  # fmt: skip

    def _write(self, encoded: Encoded) -> Generated:
        """One answer, drawn from a seed made of the question: the same question has the same answer."""
        seed = hashlib.sha256(encoded.marks.tobytes()).hexdigest()[:15]
        row = Row(prompt=encoded, limit=self.writes, temperature=TEMPERATURE, seed=int(seed, 16))
        with self.reader.qwen.lock:
            (written,) = generate(self.reader.qwen, self._grammars, [row], self._prefixes, NOTHING)
        return written

    def _said(self, text: str) -> str:
        """Somebody's text without the marks of this prompt: it names no image and gives no answer."""
        plain = _MARK.sub(lambda mark: "< " if mark[0] == "<" else mark[0].lower(), text)
        return self.reader.safe(plain)


def _nothing(count: int, error: ChatError, tokens: tuple[int, ...] = (), written: int = 0) -> Marks:
    failures = dict.fromkeys(range(count), error)
    return Marks(scores=(math.nan,) * count, failures=failures, tokens=tokens, written=written)


def read(text: str, count: int) -> list[int]:
    """The places, from 0, that the last ``<answer>[3, 1]</answer>`` of ``text`` orders; each once.

    >>> read("<think>Image 3 shows it.</think><answer>[3, 1, 9]</answer>", 4)
    [2, 0]
    """
    found = _ANSWER.findall(text)
    numbers = [int(n) - 1 for n in re.findall(r"\d{1,6}", found[-1])] if found else []
    return [n for n in dict.fromkeys(numbers) if 0 <= n < count]


def open(
    rest: str,
    *,
    device: str | None = None,
    dtype: str | None = None,
    image_tokens: int = 1280,
    max_tokens: int = 8192,
    trust_remote_code: bool = False,
) -> MMR5:
    """Loads ``PATH_OR_NAME``.

    ``image_tokens`` bounds the visual tokens of an image (0: as its processor has it), ``max_tokens`` what is
    written. Other options and errors as in `mmrerank.vl.load.load`.
    """
    if max_tokens < 1:
        raise UsageError("max_tokens must be at least 1")
    loaded = load(rest, device=device, dtype=dtype, types=TYPES, trust_remote_code=trust_remote_code)
    reader = Reader(loaded, Pixels(), image_tokens=image_tokens)
    return MMR5(reader, spec=f"mm_r5:{rest}", max_tokens=max_tokens)
