"""JSON schemas as token masks (xgrammar): compiled once per schema, one `Writing` per reply.

Output is JSON with the schema's properties in their order. Where the question shows the form of the reply,
white space may stand between its signs, as real models write it; a run of it is bounded, since a weak model
would fill the reply with it. Elsewhere there is none.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmrerank.chat.transformers.room import Allowance, Shape, shape_of
from mmrerank.errors import UsageError

if TYPE_CHECKING:
    import torch

SPACE = 12
"""Characters of white space in a row: a line break and six levels of indentation."""
KEPT = 64
"""Compiled schemas kept; a schema changes with the labels and components it names."""


@dataclass(frozen=True, kw_only=True)
class Writing:
    """A reply being written: where it stands in its grammar, and the tokens it may still take."""

    matcher: Any
    allowance: Allowance | None
    never: frozenset[int]

    def take(self, token: int) -> bool:
        """Writes ``token`` if the grammar takes it and enough is left to finish; else changes nothing."""
        # special tokens are never taken, and xgrammar warns on stderr when it is asked about them
        if token in self.never or not self.matcher.accept_token(token):
            return False
        if self.matcher.is_terminated() or self.allowance is None:
            return True
        if not self.allowance.allows(token):
            self.matcher.rollback(1)
            return False
        self.allowance.take(token)
        return True


class Grammars:
    """Compiles schemas for one tokenizer: ``width`` of the logits, ``stop`` ids that end a reply."""

    def __init__(self, tokenizer: Any, *, width: int, stop: Sequence[int]) -> None:
        self._tokenizer, self._width, self.stop = tokenizer, width, list(stop)
        self._compiler: Any = None
        self._batch: Any = None
        self._compiled: OrderedDict[str, tuple[Any, Shape | None]] = OrderedDict()
        self._spelling: list[bytes] = []
        self._never: frozenset[int] = frozenset()
        self.bytes: list[int] = []
        self._lock = threading.Lock()

    def writing(self, schema: Mapping[str, Any], limit: int, *, spaced: bool = False) -> Writing:
        """A reply to be written, ``spaced`` where it may hold white space.

        Raises `UsageError` for a schema that xgrammar does not take.
        """
        import xgrammar

        text = json.dumps(schema, default=list)  # the order of keys is the order of the reply
        key = hashlib.sha256(f"{spaced} {text}".encode()).hexdigest()
        with self._lock:
            if self._compiler is None:
                info = xgrammar.TokenizerInfo.from_huggingface(
                    self._tokenizer, vocab_size=self._width, stop_token_ids=self.stop
                )
                self._compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
                self._batch = xgrammar.BatchGrammarMatcher(max_threads=1)
                self._spelling = info.decoded_vocab
                special = {*info.special_token_ids, *self._tokenizer.all_special_ids}
                self._never = frozenset(special - set(self.stop))
                self.bytes = [
                    n
                    for n, spelling in enumerate(self._spelling)
                    if len(spelling) == 1 and n not in self._never and n not in self.stop
                ]
            # compiling takes longer than writing a short reply, and a ranking repeats few schemas
            if key not in self._compiled:
                try:
                    form = {"max_whitespace_cnt": SPACE} if spaced else {"separators": (",", ":")}
                    grammar = self._compiler.compile_json_schema(text, any_whitespace=spaced, **form)
                except RuntimeError as error:
                    why = " ".join(str(error).split())[:300]
                    raise UsageError(f"the reply schema cannot be enforced: {why}") from error
                self._compiled[key] = (grammar, shape_of(schema))
                if len(self._compiled) > KEPT:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(key)
            grammar, shape = self._compiled[key]
            allowance = None if shape is None else Allowance(shape, self._spelling, limit)
            matcher = xgrammar.GrammarMatcher(grammar)
            return Writing(matcher=matcher, allowance=allowance, never=self._never)

    def mask(self, logits: torch.Tensor, written: Sequence[Writing]) -> None:
        """Sets what the grammars forbid in ``logits`` (B, width) to minus infinity."""
        import xgrammar

        bits = xgrammar.allocate_token_bitmask(len(written), self._width)
        self._batch.batch_fill_next_token_bitmask(
            [w.matcher for w in written], bits, list(range(len(written)))
        )
        xgrammar.apply_token_bitmask_inplace(logits, bits.to(logits.device))
