"""The language model's layers for training in bfloat16: the same numbers, on processors in half the time.

Under autocast the layers of transformers spend two thirds of a step outside matrix products: activations
change their precision at every product, scores are masked and softened in float32, norms are five passes.
Here a layer is one function in bfloat16 around a float32 residual, and where there is a C++ compiler, one
compiled function. A test compares the gradients with those of float32: no further off than autocast's are.
On a GPU, where starting a computation costs more than doing it, a fifth fewer are started.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

HALF = torch.bfloat16


def run_layers_fast(model: Any, *, compiled: bool) -> None:
    """Replaces ``model``'s language layers' forward, in place. Weights, caches and callers stay as they are.

    On a GPU rows are taken to be whole and padded on the right: give no mask, and no cache.

    With ``compiled`` the rows of a batch go through a function that torch compiles on first use, which takes
    a minute or two; without a compiler, torch says so and goes on without.
    """
    many = _layer
    if compiled:
        torch._dynamo.config.suppress_errors = True
        many = torch.compile(_layer, dynamic=True)
    halves = _Halves()
    for number, layer in enumerate(model.model.language_model.layers):
        layer.forward = _Forward(layer, number, many, halves)


class _Halves:
    """The mask and the rotation of a forward pass in half precision: the same for all its layers."""

    def __init__(self) -> None:
        self.key: tuple[torch.Tensor | None, ...] = ()
        self.made: tuple[Any, ...] = ()

    def of(self, *given: torch.Tensor | None) -> tuple[Any, ...]:
        if [id(t) for t in self.key] != [id(t) for t in given]:
            self.key = given
            self.made = tuple(t if t is None else t.to(HALF) for t in given)
        return self.made


class _Forward:
    """What stands in for one layer's ``forward``."""

    def __init__(self, layer: Any, number: int, many: Any, halves: _Halves) -> None:
        self.layer, self.number, self.many, self.halves = layer, number, many, halves

    def __call__(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        past_key_values: Any = None,
        **_: Any,
    ) -> torch.Tensor:
        attention, mlp = self.layer.self_attn, self.layer.mlp
        weights = [
            self.layer.input_layernorm.weight,
            *(w for p in (attention.q_proj, attention.k_proj, attention.v_proj) for w in p.parameters()),
            attention.o_proj.weight,
            self.layer.post_attention_layernorm.weight,
            mlp.gate_proj.weight,
            mlp.up_proj.weight,
            mlp.down_proj.weight,
        ]
        cache = past_key_values
        kept = None if cache is None else cache.layers[self.number]
        keys, values = None, None
        if kept is not None and kept.is_initialized:
            keys, values = kept.keys, kept.values
        # torch compiles anew for a batch of one and for a missing cache, which are short or seldom
        layer = self.many if keys is not None and len(hidden_states) > 1 else _layer
        with torch.autocast(hidden_states.device.type, enabled=False):
            mask, cos, sin = self.halves.of(attention_mask, *position_embeddings)
            cos, sin = cos[:, None], sin[:, None]
            out, new_keys, new_values = layer(hidden_states, mask, cos, sin, keys, values, *weights)
        if kept is not None and keys is None:
            cache.update(new_keys, new_values, self.number)
        return out


def _layer(
    x: torch.Tensor,
    mask: torch.Tensor | None,
    cos: torch.Tensor,
    sin: torch.Tensor,
    old_keys: torch.Tensor | None,
    old_values: torch.Tensor | None,
    norm: torch.Tensor,
    wq: torch.Tensor,
    bq: torch.Tensor,
    wk: torch.Tensor,
    bk: torch.Tensor,
    wv: torch.Tensor,
    bv: torch.Tensor,
    wo: torch.Tensor,
    second_norm: torch.Tensor,
    gate: torch.Tensor,
    up: torch.Tensor,
    down: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """``x`` (B, L, D) through one layer, and its keys and values (B, H, L, 32), old ones before them.

    Without ``mask`` every token sees itself and those before it.
    """
    rows, length, width = x.shape
    weights, biases = torch.cat((wq, wk, wv)).to(HALF), torch.cat((bq, bk, bv)).to(HALF)
    mixed = functional.linear(_normed(x, norm), weights, biases).view(rows, length, 3, -1, 32)
    query, keys, values = mixed.permute(2, 0, 3, 1, 4).unbind(0)
    query, keys = _turned(query, cos, sin), _turned(keys, cos, sin)
    if old_keys is not None and old_values is not None:
        keys, values = torch.cat((old_keys, keys), 2), torch.cat((old_values, values), 2)
    if mask is None:
        seen = functional.scaled_dot_product_attention(query, keys, values, is_causal=True)
    else:
        scores = torch.matmul(query * 32**-0.5, keys.transpose(2, 3)) + mask
        seen = torch.matmul(torch.softmax(scores, -1), values)
    seen = seen.transpose(1, 2).reshape(rows, length, width)
    x = x + functional.linear(seen, wo.to(HALF))
    both = functional.linear(_normed(x, second_norm), torch.cat((gate, up)).to(HALF))
    opened, passed = both.chunk(2, -1)
    x = x + functional.linear(functional.silu(opened) * passed, down.to(HALF))
    return x, keys, values


def _normed(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return functional.rms_norm(x, x.shape[-1:], weight, 1e-6).to(HALF)


def _turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding, of ``x`` (B, H, L, 32)."""
    left, right = x.chunk(2, -1)
    return x * cos + torch.cat((-right, left), -1) * sin
