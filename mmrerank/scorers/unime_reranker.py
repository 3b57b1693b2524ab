"""UniME-V2-Reranker and LamRA-Rank: ``unime_reranker:PATH_OR_NAME``, Qwen2.5-VL trained on two questions.

``mode=pair``: is this candidate what is asked for, exactly ``Yes`` or ``No``; the score is the probability of
Yes over No. ``mode=list``: which of several is best, answered as ``Ans: (3)``; the prompt begins that answer,
and the probabilities of the digits that may follow order all of them at once. Nine at most: ``10`` begins
like ``1``. Wording of GaryGuTC/UniME-v2@e3deb73, Embedding/src/model_utils.py
(``construct_rerank_messages``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from mmrerank.chat.transformers import revision as revision
from mmrerank.errors import UsageError
from mmrerank.ports import Marks
from mmrerank.scorers._local import BATCH, TOKENS, LocalScorer, label_ids, sigmoid
from mmrerank.types import Candidate, Query
from mmrerank.vl.load import load
from mmrerank.vl.scoring import Piece, Pixels, Prompt, Reader, Turn

if TYPE_CHECKING:
    import torch

FORM = "unime_reranker:PATH_OR_NAME"
TYPES = {"qwen2_5_vl": "UniME-V2-Reranker"}
PAIR = (
    "I will provide you with a query and a candidate. Please evaluate whether the candidate meets the "
    "requirements of the query. If it does, respond with 'Yes'; if it doesn't, respond with 'No'."
)
LIST = (
    "I will provide you with a query followed by multiple candidates in the format: (1) cand1 (2) "
    "cand2, etc. Each candidate is independent of the others. Evaluate each candidate against the "
    "query, and respond with the number corresponding to the candidate that best meets the "
    "requirements of the query."
)
BEGUN = "Ans: ("
MOST = 9
"""Candidates of one list: each is called by one digit."""
PIXELS = Pixels(least=4 * 28 * 28, most=300 * 28 * 28)


class UniMEPairs(LocalScorer):
    """Each candidate by itself."""

    labels: ClassVar[tuple[str, str]] = ("Yes", "No")
    marks_of_form: ClassVar[re.Pattern[str] | None] = re.compile(r"(?<=Query):|(?<=Candidate):")

    def __init__(self, reader: Reader, *, spec: str) -> None:
        super().__init__(reader, spec=spec)
        yes, no = self.reader.weights(label_ids(reader, self.labels))
        self._line = yes - no

    def prompt(self, query: Query, candidate: Candidate, instruction: str) -> Prompt:
        """One turn of the user; an instruction of one's own stands before the query's words."""
        pieces = [PAIR, *self.asked(query, instruction), "Candidate:", *self.shown(candidate)]
        return Prompt(turns=(Turn(role="user", pieces=tuple(pieces)),))

    def asked(self, query: Query, instruction: str) -> list[Piece]:
        """The query's part of either question."""
        told = [f"{self.reader.safe(instruction)} "] if instruction else []
        words = self.shown(query)
        images = len(query.images)
        return ["Query:", *words[:images], *told, *words[images:]]

    def values(self, states: torch.Tensor) -> list[float]:
        """P(Yes) / (P(Yes) + P(No))."""
        return [sigmoid(v) for v in (states @ self._line).tolist()]


class UniMEList(UniMEPairs):
    """Up to nine candidates together: the probability that each is the answer."""

    marks_of_form: ClassVar[re.Pattern[str] | None] = re.compile(r"\((?=\d+\))|(?<=Query):|(?<=Candidates):")

    def __init__(self, reader: Reader, *, spec: str) -> None:
        super().__init__(reader, spec=spec)
        self.group = MOST
        self._digits = self.reader.weights(label_ids(reader, "123456789"))

    def list_prompt(self, query: Query, candidates: Sequence[Candidate], instruction: str) -> Prompt:
        """All candidates under their numbers, up to where the digit of the answer stands."""
        pieces: list[Piece] = [LIST, *self.asked(query, instruction), "Candidates:"]
        for n, candidate in enumerate(candidates, start=1):
            pieces += [f"({n}) ", *self.shown(candidate)]
        return Prompt(turns=(Turn(role="user", pieces=tuple(pieces)),), begun=BEGUN)

    def marks(self, query: Query, candidates: Sequence[Candidate], instruction: str = "") -> Marks:
        """The probability of each digit among those asked about. `UsageError` for more than nine."""
        if len(candidates) > MOST:
            raise UsageError(f"{self.spec} takes at most {MOST} candidates together, not {len(candidates)}")
        prompt = self.list_prompt(query, candidates, instruction.strip() or self.instruction)
        (state,) = self.reader.states([prompt])
        count = len(candidates)
        if state.state is None:
            error = state.error
            failures = dict.fromkeys(range(count), error) if error is not None else {}
            return Marks(scores=(math.nan,) * count, failures={n: e for n, e in failures.items() if e})
        logits = self._digits[:count] @ state.state
        tokens = (state.tokens, *(0 for _ in range(count - 1)))
        return Marks(scores=tuple(logits.double().softmax(-1).tolist()), tokens=tokens)


def open(
    rest: str,
    *,
    mode: Literal["pair", "list"] = "pair",
    device: str | None = None,
    dtype: str | None = None,
    batch_size: int = BATCH,
    batch_tokens: int = TOKENS,
    image_tokens: int = 0,
    trust_remote_code: bool = False,
) -> UniMEPairs:
    """Loads ``PATH_OR_NAME``; ``mode`` is ``pair`` or ``list``, and the rest is as in
    `mmrerank.scorers.qwen3_vl_reranker.open`.
    """
    if mode not in ("pair", "list"):
        raise UsageError(f"mode must be pair or list, not {mode!r}")
    loaded = load(rest, device=device, dtype=dtype, types=TYPES, trust_remote_code=trust_remote_code)
    reader = Reader(
        loaded, PIXELS, batch_size=batch_size, batch_tokens=batch_tokens, image_tokens=image_tokens
    )
    return (UniMEList if mode == "list" else UniMEPairs)(reader, spec=f"unime_reranker:{rest}")
