"""Messages as any multimodal model reads them: its own template and its own processor decide every token.

Where what the processor makes of an image does not depend on the images beside it (measured when the model is
opened), each image is prepared once and prompts are put together from its text; else the processor is given
whole prompts. It runs no layer of the model; several threads may encode at once.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from mmrerank.errors import ChatError, ModelError
from mmrerank.images import decode
from mmrerank.messages import Message, Role
from mmrerank.types import Image
from mmrerank.vl.features import FeatureStore, Picture
from mmrerank.vl.load import Checkpoint
from mmrerank.vl.prompts import MAX_RATIO, Encoded, Words, in_threads, widened
from mmrerank.vl.sizing import Made, Options, Sizing
from mmrerank.vl.turns import Turns

if TYPE_CHECKING:
    import PIL.Image
    import torch

_OWN = frozenset({"input_ids", "attention_mask", "text_replacement_offsets"})
GRID = "image_grid_thw"
"""The one value of an image, beside its tokens, that positions are made of."""


@dataclass(kw_only=True, eq=False)
class Shown(Picture):
    """An image of a prompt: ``text`` stands for it, ``inputs`` are its pixels until it was looked at."""

    text: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    image: PIL.Image.Image | None = None
    options: Options = field(default_factory=dict)
    tokens: int = 0

    @property
    def size(self) -> int:
        """Bytes that it holds, of pixels or of features."""
        inputs, features, image = self.inputs, self.features, self.image
        held = features.size if features is not None else sum(t.nbytes for t in inputs.values())
        return held + (3 * image.width * image.height if image is not None else 0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Prompt(Encoded):
    """One prompt of any family. ``extents``: where each picture's text starts and ends (exclusive).

    ``types``: what else the processor says of each token, (L,) each. ``text`` has placeholders for images.
    """

    extents: tuple[tuple[int, int], ...] = ()
    types: Mapping[str, torch.Tensor] = field(default_factory=dict)
    text: str = ""

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """Where each picture's tokens start and end (exclusive), those around it included."""
        return self.extents

    def beginning(self, length: int) -> Prompt:
        """The prompt's first ``length`` tokens."""
        cut = super().beginning(length)
        assert isinstance(cut, Prompt)
        return replace(cut, types={k: v[:length] for k, v in self.types.items()},
                       extents=self.extents[: len(cut.pictures)])  # fmt: skip


class GenericPrompts(Turns):
    """Turns messages into `Prompt`. ``apart`` says whether an image's tokens are its own affair, ``why``."""

    def __init__(self, checkpoint: Checkpoint, features: FeatureStore) -> None:
        super().__init__(checkpoint)
        self._model = checkpoint.model
        self._features = features
        self._alive: WeakValueDictionary[str, Picture] = WeakValueDictionary()
        self._lock = threading.Lock()  # tokenizers and processors keep settings between calls
        try:  # families with positions in three axes
            self._rope = checkpoint.model.base_model.get_rope_index
        except AttributeError:
            self._rope = None
        self.axes = 1 if self._rope is None else 3
        self.types: dict[str, dict[int, int]] = {}
        self.learn()
        self.apart, self.why, self.placeholder = True, "", ""
        if self._sees:
            self.placeholder = str(self._processor.image_token)
            self.image_id = _image_id(checkpoint)
            settings = self._processor.image_processor.to_dict()
            self.sizing = Sizing(settings, lambda image, options: self._make(image, options, 1))
            self._beside = self.sizing
            self._measure(settings)
        else:
            self.image_id = -1

    # ------------------------------------------------------------------ what the processor does

    def process(
        self, texts: Sequence[str], images: Sequence[Sequence[PIL.Image.Image]], options: Options
    ) -> dict[str, Any]:
        """What the processor returns for prompts side by side, left padded, and nothing cut off."""
        bos = self._tokenizer.bos_token
        with self._lock:
            found = self._processor(
                text=list(texts),
                images=[list(i) for i in images] if any(images) else None,
                padding=True,
                padding_side="left",
                return_tensors="pt",
                return_text_replacement_offsets=True,
                # as `apply_chat_template` does: a template may begin with the token that begins a text
                add_special_tokens=not (bos and texts[0].startswith(bos)),
                **options,
            )
        return dict(found)

    def _make(self, image: PIL.Image.Image, options: Options, beside: int) -> Made:
        """What the processor makes of ``image``, ``beside`` times in one prompt."""
        found = self.process([self.placeholder * beside], [[image] * beside], options)
        tokens = int((found["input_ids"] == self.image_id).sum()) // beside
        text = str(found["text_replacement_offsets"][0][0]["replacement"])
        inputs = {k: v for k, v in found.items() if k not in _OWN and not k.endswith("token_type_ids")}
        return Made(image=image, options=options, tokens=tokens, text=text, inputs=inputs)

    def _measure(self, settings: Mapping[str, Any]) -> None:
        """Finds out whether prompts may be put together from images prepared one by one."""
        one, two = noise(90, 70, 1), noise(60, 150, 2)
        shown = [{"type": "image"}, {"type": "text", "text": "and"}]
        text = self.apply([{"role": "user", "content": [*shown, *shown]}])
        options = self.sizing.fit(one, 256).options
        whole = self.process([text], [[one, two]], options)
        ids = whole["input_ids"]
        for key, value in whole.items():
            if key not in _OWN and value.shape == ids.shape:
                pairs = list(zip(ids[0].tolist(), value[0].tolist(), strict=True))
                self.types[key] = {i: v for i, v in pairs if v}
        pictures = [self._shown(self._make(i, options, 1), "") for i in (one, two)]
        mine = self.assemble(text, pictures)
        same = mine.ids.tolist() == ids[0].tolist()
        same &= all(mine.types[k].tolist() == whole[k][0].tolist() for k in self.types)
        if not same:
            self.apart = False
            self.why = "how many tokens an image has depends on the images beside it"
            self._beside = Sizing(settings, lambda image, given: self._make(image, given, 2))

    # ------------------------------------------------------------------ prompts

    def encode(self, messages: Sequence[Message], *, image_tokens: int, words: bool = False) -> Prompt:
        """The prompt that asks for an answer to ``messages``, each image within ``image_tokens`` tokens.

        Raises `ImageError` or `OSError` when an image cannot be read or decoded, and `ChatError` where the
        model takes no images at all.
        """
        shown = [p.image for m in messages for p in m.parts if p.image is not None]
        if shown and not self._sees:
            raise ChatError(
                f"{self._name} reads text only and cannot see images; give a multimodal checkpoint, or "
                "candidates that are texts",
                kind="no_images",
            )
        text = self.render(messages)
        pictures = [self._of(image, image_tokens, len(shown)) for image in shown]
        prompt = self.assemble(text, pictures, self._parts(messages, text) if words else ())
        most = max((p.tokens for p in pictures), default=0)
        if most <= image_tokens:
            return prompt
        note = f"an image takes {most} tokens of {self._name} at least; {image_tokens} were asked for"
        return replace(prompt, notes=(note,))

    def assemble(
        self, text: str, pictures: Sequence[Shown], parts: Sequence[tuple[int, Role, int, int]] = ()
    ) -> Prompt:
        """The prompt ``text``, which holds one placeholder a picture; ``parts`` as in `Prompts.assemble`."""
        import torch

        pieces = text.split(self.placeholder) if self._sees else [text]
        if len(pieces) != len(pictures) + 1:
            raise ModelError(f"{self._name}: its chat template drops images; give another checkpoint")
        whole: dict[str, Any] = {}
        texts = [p.text for p in pictures]
        if pictures and not self.apart:
            whole = self.process([text], [[p.image for p in pictures if p.image]], pictures[0].options)
            texts = [str(r["replacement"]) for r in whole["text_replacement_offsets"][0]]
        expanded, edges = pieces[0], list[tuple[int, int]]()
        for own, piece in zip(texts, pieces[1:], strict=True):
            edges.append((len(expanded), len(expanded) + len(own)))
            expanded += own + piece

        def moved(at: int) -> int:
            """Where the character ``at`` stands once placeholders are replaced."""
            before = text.count(self.placeholder, 0, at) if texts else 0
            return at + sum(len(t) - len(self.placeholder) for t in texts[:before])

        encoding = self._tokens(expanded)
        ids = torch.tensor(encoding["input_ids"])
        if whole and ids.tolist() != whole["input_ids"][0].tolist():
            raise ModelError(f"{self._name}: its processor reads prompts otherwise than its tokenizer does")
        offsets = encoding["offset_mapping"]
        types = {k: torch.tensor([t.get(i, 0) for i in ids.tolist()]) for k, t in self.types.items()}
        return Prompt(
            ids=ids,
            positions=self._positions(ids, types, pictures, whole),
            pictures=tuple(pictures),
            image_id=self.image_id,
            words=tuple(
                Words(message=m, role=r, start=span[0], end=span[1])
                for m, r, a, b in parts
                if (span := _within(offsets, moved(a), moved(b)))
            ),
            extents=tuple(_within(offsets, a, b) or (0, 0) for a, b in edges),
            types=types,
            text=text,
            company=repr(dict(pictures[0].options)) if whole else "",
        )

    def _tokens(self, text: str) -> Any:
        bos = self._tokenizer.bos_token
        with self._lock:
            return self._tokenizer(
                text, add_special_tokens=not (bos and text.startswith(bos)), return_offsets_mapping=True
            )

    def _positions(
        self,
        ids: torch.Tensor,
        types: Mapping[str, torch.Tensor],
        pictures: Sequence[Shown],
        whole: Mapping[str, Any],
    ) -> torch.Tensor:
        """(3, L) where a family has positions in three axes, else (1, L)."""
        import torch

        if self._rope is None:
            return torch.arange(len(ids))[None]
        known: dict[str, Any] = {**whole, **{k: v[None] for k, v in types.items()}}
        known["mm_token_type_ids"] = known.get("mm_token_type_ids", (ids == self.image_id).int()[None])
        if pictures and not whole:
            known[GRID] = torch.stack([p.grid for p in pictures])
        takes = inspect.signature(self._rope).parameters
        positions, _ = self._rope(
            ids[None], **{k: v for k, v in known.items() if k in takes and k not in _OWN}
        )
        found: torch.Tensor = positions[:, 0]
        return found

    def placed(self) -> str:
        """Where images stand in a prompt, for a person."""
        if not self.image_text:
            return "the chat template leaves images where they stand"
        return "the chat template would put all images first; they are written where they stand"

    # ------------------------------------------------------------------ pictures

    def picture(self, image: Image, tokens: int) -> Picture:
        """``image`` within ``tokens`` visual tokens, as it is alone in a prompt."""
        return self._of(image, tokens, 1)

    def ahead(self, images: Iterable[tuple[Image, int]]) -> list[Picture]:
        """`picture` for each image and its tokens, in threads; `encode` finds what this list holds."""
        return in_threads(self.picture, images) if self.apart and self._sees else []

    def _of(self, image: Image, tokens: int, beside: int) -> Shown:
        sizing = self.sizing if beside == 1 else self._beside
        key = f"{image.digest}:{tokens}" + ("" if sizing is self.sizing else ":beside")
        alive = self._alive.get(key)
        if isinstance(alive, Shown):
            return alive
        features = self._features.get(key) if self.apart else None
        if features is not None:
            tokens_made = features.pooled[..., 0].numel()
            made = Shown(
                key=key, grid=features.grid, features=features, text=features.text, tokens=tokens_made
            )
        else:
            made = self._shown(sizing.fit(widened(decode(image), MAX_RATIO), tokens), key)
        kept = self._alive.setdefault(key, made)
        assert isinstance(kept, Shown)
        return kept

    def _shown(self, made: Made, key: str) -> Shown:
        import torch

        grid = made.inputs[GRID][0] if GRID in made.inputs else torch.zeros(0, dtype=torch.long)
        return Shown(
            key=key, grid=grid, text=made.text, tokens=made.tokens, options=made.options,
            inputs=made.inputs if self.apart else {}, image=None if self.apart else made.image,
        )  # fmt: skip


def _within(offsets: Sequence[tuple[int, int]], first: int, last: int) -> tuple[int, int] | None:
    """The tokens, as a span, that hold any character from ``first`` to ``last``."""
    own = [n for n, (a, b) in enumerate(offsets) if a < last and b > first]
    return (own[0], own[-1] + 1) if own else None


def _image_id(checkpoint: Checkpoint) -> int:
    config = checkpoint.model.config
    try:
        return int(config.image_token_id)
    except AttributeError:
        return int(checkpoint.processor.image_token_id)


def noise(wide: int, high: int, seed: int) -> PIL.Image.Image:
    """An RGB image of random pixels, to see what a processor and a vision tower do."""
    import numpy as np
    from PIL import Image as Pillow

    drawn = np.random.default_rng(seed).integers(0, 256, (high, wide, 3), dtype=np.uint8)
    return Pillow.fromarray(drawn)
