"""What a model in this process offers to those who ask it, whatever its family: the one interface.

`mmrerank.vl.qwen.QwenVL` and `mmrerank.vl.generic.AnyModel` are such models; `mmrerank.vl.prefix` and
`mmrerank.chat.transformers` know nothing more of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from mmrerank.loading import ModelLock
from mmrerank.messages import Message
from mmrerank.ports import Ability, Capability
from mmrerank.types import Image
from mmrerank.vl.features import FeatureStore, Picture
from mmrerank.vl.prompts import Encoded

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Prompts side by side from token ``start`` on, left padded to one length L.

    ``ids`` (B, L), ``positions`` (3, B, L) or (1, B, L), ``mask`` (B, start + L): padding stands between what
    the rows share and what they do not, so that every row's last token is at the end. ``extra``: what else
    the family's processor returned for them.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    positions: torch.Tensor
    pictures: tuple[Picture, ...]
    extra: Mapping[str, Any] = field(default_factory=dict)


class Weights:
    """What all families share: sizes, the tokens that end a reply, and prompts side by side."""

    model: Any
    tokenizer: Any

    @property
    def vocabulary(self) -> int:
        """Width of the logits: the embedding table's rows, at least the tokenizer's tokens."""
        return int(self.model.config.get_text_config().vocab_size)

    @property
    def width(self) -> int:
        """Width of a hidden state."""
        return int(self.model.config.get_text_config().hidden_size)

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """Token ids that end a reply."""
        stop = self.model.generation_config.eos_token_id
        ids = stop if isinstance(stop, list) else [stop]
        return tuple(sorted({i for i in (*ids, self.tokenizer.eos_token_id) if i is not None}))

    def collate(self, rows: Sequence[Encoded], start: int = 0) -> Batch:
        """``rows`` from token ``start`` on, left padded to one length, on the model's device.

        Positions come with the prompts (of M-RoPE a time, a row and a column for each token) and are not
        counted here: padding must not shift them.
        """
        import torch

        length = max(r.length for r in rows) - start
        pad = self.tokenizer.pad_token_id
        ids = torch.full((len(rows), length), 0 if pad is None else pad)
        mask = torch.zeros(len(rows), start + length, dtype=torch.long)
        mask[:, :start] = 1
        positions = torch.zeros(len(rows[0].positions), len(rows), length, dtype=torch.long)
        for n, row in enumerate(rows):
            first = length - (row.length - start)
            ids[n, first:] = row.ids[start:]
            mask[n, start + first :] = 1
            positions[:, n, first:] = row.positions[:, start:]
        device = self.model.device
        return Batch(
            ids=ids.to(device),
            mask=mask.to(device),
            positions=positions.to(device),
            pictures=tuple(p for r in rows for p in r.pictures_between(start, r.length)),
        )


class LocalModel(Protocol):
    """A loaded checkpoint. ``lock`` must be held while the model runs: all methods but `encode`, `ahead`."""

    name: str
    family: str
    model: Any
    tokenizer: Any
    lock: ModelLock
    features: FeatureStore

    @property
    def before(self) -> str:
        """What stands before the first token of an answer."""
        ...

    @property
    def resumes(self) -> bool:
        """Whether a prompt may go on from a beginning that was computed for another."""
        ...

    @property
    def abilities(self) -> tuple[Ability, ...]:
        """What this family can do and what not."""
        ...

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Which questions it answers; see `mmrerank.ports.Capability`."""
        ...

    @property
    def eyes(self) -> str:
        """A digest of what, beside the weights, changes an image's features."""
        ...

    @property
    def vocabulary(self) -> int:
        """Width of the logits."""
        ...

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Token ids that end a reply."""
        ...

    def encode(self, messages: Sequence[Message], *, image_tokens: int, words: bool = False) -> Encoded:
        """The prompt that asks for an answer to ``messages``."""
        ...

    def ahead(self, images: Iterable[tuple[Image, int]]) -> list[Picture]:
        """Pictures of images and their tokens, ready for `encode` while the list is held."""
        ...

    def collate(self, rows: Sequence[Encoded], start: int = 0) -> Batch:
        """``rows`` from token ``start`` on, side by side."""
        ...

    def forward(self, batch: Batch, cache: Any = None) -> torch.Tensor:
        """Logits (B, vocabulary) float32 at each row's last prompt token; fills ``cache`` if given."""
        ...

    def hidden(self, batch: Batch, cache: Any = None) -> torch.Tensor:
        """The last layer's normed states (B, L, width) float32; fills ``cache`` if given."""
        ...

    def attention(self, batch: Batch, cache: Any) -> torch.Tensor:
        """Attention (B, L, start + L) float32 from each new token, summed over heads and layers."""
        ...

    def step(
        self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: Any
    ) -> torch.Tensor:
        """Logits (B, vocabulary) after one more token a row."""
        ...

    def new_cache(self) -> Any:
        """An empty key-value cache for `forward`, `hidden` and `step`."""
        ...
