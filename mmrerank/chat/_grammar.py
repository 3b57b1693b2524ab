"""JSON schemas as token masks (xgrammar): compiled once per schema, one matcher per reply.

Output is compact JSON with the schema's properties in their order: no white space, which a weak model
would fill the reply with.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mmrerank.errors import UsageError

if TYPE_CHECKING:
    import torch

KEPT = 64
"""Compiled schemas kept; a schema changes with the labels and components it names."""


class Grammars:
    """Compiles schemas for one tokenizer: ``width`` of the logits, ``stop`` ids that end a reply."""

    def __init__(self, tokenizer: Any, *, width: int, stop: Sequence[int]) -> None:
        self._tokenizer, self._width, self._stop = tokenizer, width, list(stop)
        self._compiler: Any = None
        self._batch: Any = None
        self._compiled: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()

    def matcher(self, schema: Mapping[str, Any]) -> Any:
        """A fresh matcher. Raises `UsageError` for a schema that xgrammar does not take."""
        import xgrammar

        text = json.dumps(schema, default=list)  # the order of keys is the order of the reply
        key = hashlib.sha256(text.encode()).hexdigest()
        with self._lock:
            if self._compiler is None:
                info = xgrammar.TokenizerInfo.from_huggingface(
                    self._tokenizer, vocab_size=self._width, stop_token_ids=self._stop
                )
                self._compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
                self._batch = xgrammar.BatchGrammarMatcher(max_threads=1)
            if key not in self._compiled:
                try:
                    self._compiled[key] = self._compiler.compile_json_schema(
                        text, any_whitespace=False, separators=(",", ":")
                    )
                except RuntimeError as error:
                    why = " ".join(str(error).split())[:300]
                    raise UsageError(f"the reply schema cannot be enforced: {why}") from error
                if len(self._compiled) > KEPT:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(key)
            return xgrammar.GrammarMatcher(self._compiled[key])

    def mask(self, logits: torch.Tensor, matchers: Sequence[Any | None]) -> None:
        """Sets forbidden tokens of ``logits`` (B, width) to minus infinity, in the rows with a matcher."""
        import xgrammar

        rows = [n for n, m in enumerate(matchers) if m is not None]
        if not rows:
            return
        bits = xgrammar.allocate_token_bitmask(len(matchers), self._width)
        self._batch.batch_fill_next_token_bitmask([matchers[n] for n in rows], bits, rows)
        xgrammar.apply_token_bitmask_inplace(logits, bits.to(logits.device), indices=rows)
