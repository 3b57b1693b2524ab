"""What a local model holds of a prompt instead of what it says: attention and hidden states.

Shapes and meaning are those of `mmrerank.messages.Reply.states`. The caller holds the model's lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmrerank.errors import ChatError
from mmrerank.messages import Ask
from mmrerank.vl.local import LocalModel
from mmrerank.vl.prefix import Prefixes, Start
from mmrerank.vl.prompts import Encoded, Words

if TYPE_CHECKING:
    import torch

States = tuple[NDArray[np.float32], ...]


def reusable(ask: Ask, prompt: Encoded) -> int:
    """How many tokens of ``prompt`` may be taken as computed: up to the first whose state is wanted.

    Raises `ChatError` where there is nothing to read.
    """
    if ask.read == "attention":
        return _asking(ask, prompt).start
    if ask.read == "token_embeddings":
        return _wanted(prompt)[0][0]
    return prompt.length - 1


def attention(qwen: LocalModel, prefixes: Prefixes, ask: Ask, prompt: Encoded) -> States:
    """Attention that the tokens of each image get from those of the last text part."""
    import torch

    words = _asking(ask, prompt)
    # where words begin, tokens may be cut differently from query to query
    start = prefixes.compute(prompt, prompt.cut(words.start), slack=16)
    with torch.inference_mode():
        batch = qwen.collate([prompt], start.length)
        paid = qwen.attention(batch, prefixes.cache(start, rows=1))[0]
    asking = paid[words.start - start.length : words.end - start.length].mean(0).cpu().numpy()
    return tuple(asking[first:last][prompt.visual(first, last)] for first, last in prompt.spans)


def embeddings(
    qwen: LocalModel, prefixes: Prefixes, prompts: Sequence[Encoded], start: Start
) -> list[States]:
    """One unit vector a prompt: the state of its last token."""
    states = _hidden(qwen, prefixes, prompts, start)[:, -1]
    return [(vector,) for vector in _unit(states)]


def token_embeddings(
    qwen: LocalModel, prefixes: Prefixes, prompts: Sequence[Encoded], start: Start
) -> list[States]:
    """Unit vectors of the tokens of the images, or else of the user's words; one array a prompt."""
    import torch

    states = _hidden(qwen, prefixes, prompts, start)
    found: list[States] = []
    for row, prompt in enumerate(prompts):
        at = states.shape[1] - prompt.length  # of its first token, were the beginning there too
        spans = [states[row, at + first : at + last][own] for first, last, own in _wanted(prompt)]
        found.append((_unit(torch.cat(spans)),))
    return found


def _hidden(qwen: LocalModel, prefixes: Prefixes, prompts: Sequence[Encoded], start: Start) -> torch.Tensor:
    import torch

    with torch.inference_mode():
        cache = prefixes.cache(start, len(prompts))
        states = qwen.hidden(qwen.collate(prompts, start.length), cache)
    prefixes.keep(prompts, start, cache)
    return states


def _asking(ask: Ask, prompt: Encoded) -> Words:
    """The last text part of the last message."""
    last = len(ask.messages) - 1
    found = [w for w in prompt.words if w.message == last]
    if not found or not prompt.spans:
        raise ChatError("attention is read from the words of the last message to images; there are none")
    return found[-1]


def _wanted(prompt: Encoded) -> list[tuple[int, int, NDArray[np.bool_]]]:
    """Where the tokens stand whose states are wanted, and which: those of images, or the user's words."""
    if prompt.spans:
        return [(a, b, prompt.visual(a, b)) for a, b in prompt.spans]
    spans = [(w.start, w.end) for w in prompt.words if w.role == "user"]
    if not spans:
        raise ChatError("token embeddings are read of images or of the user's words; there are none")
    return [(a, b, np.ones(b - a, dtype=np.bool_)) for a, b in spans]


def _unit(states: torch.Tensor) -> NDArray[np.float32]:
    import torch

    unit = torch.nn.functional.normalize(states.float(), dim=-1)
    found: NDArray[np.float32] = unit.cpu().numpy()
    return found
