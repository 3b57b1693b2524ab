"""Any multimodal model of transformers, or one that reads text only: ``transformers:PATH_OR_NAME``.

It runs in this process. Offers `generate`, under the ask's schema if it has one, `choice_logprobs`, and what
only a local model has and its family can do: `attention`, `embed` and `token_embeddings`. Sampling draws from
a seed made of the ask itself, so a reply never depends on its neighbours or on what was asked before; what is
kept of earlier asks only saves time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from mmrerank import cancel
from mmrerank.answering import Numbered, ending, filled, in_order, over
from mmrerank.chat.labels import token_ids
from mmrerank.chat.text import valid_json, without_thinking
from mmrerank.chat.thinking import each_with_thoughts
from mmrerank.chat.transformers import read as _read
from mmrerank.chat.transformers.generate import Row, generate
from mmrerank.chat.transformers.grammar import Grammars
from mmrerank.errors import CancelledError, ChatError, InputError, UsageError
from mmrerank.messages import Ask, Reply
from mmrerank.ports import LEAST_SHARE, Capability, Chat, ChatFacts, Room
from mmrerank.reply_shape import shows_shape
from mmrerank.types import Image, Usage
from mmrerank.vl import feature_folder as on_disk
from mmrerank.vl import features, prefix
from mmrerank.vl.feature_folder import FeatureFolder
from mmrerank.vl.features import FeatureStore, Picture
from mmrerank.vl.load import weights_digest
from mmrerank.vl.local import LocalModel
from mmrerank.vl.open import open_model
from mmrerank.vl.prefix import NOTHING, Prefixes, PromptGroup, Start
from mmrerank.vl.prompts import Encoded

FORM = "transformers:PATH_OR_NAME"
BATCH = 32
TOKENS = 16384
PIXEL_BYTES = 1 << 30
"""Pixels that wait at once: what more images bring is prepared only after these were looked at."""
AHEAD = 64
"""Images that are prepared at once, in threads."""


@dataclass(frozen=True, kw_only=True)
class _Job:
    """An ask on its way through a batch; ``place`` is its position among the asks."""

    place: int
    ask: Ask
    prompt: Encoded
    choices: tuple[tuple[int, ...], ...]
    """The tokens of each label."""
    reusable: int
    seconds: float


class TransformersChat(Chat):
    """A checkpoint that answers asks. Safe to call from several threads; they take turns."""

    def __init__(
        self,
        qwen: LocalModel,
        *,
        batch_size: int = BATCH,
        batch_tokens: int = TOKENS,
        prefix_bytes: int = prefix.BYTES,
    ) -> None:
        if batch_size < 1 or batch_tokens < 1:
            raise UsageError("batch_size and batch_tokens must be at least 1")
        self.spec = f"transformers:{qwen.name}"
        self.fingerprint = str(qwen.model.dtype)  # what else than the weights changes a reply
        self.capabilities: frozenset[Capability] = qwen.capabilities
        self.qwen = qwen
        longest = qwen.model.config.get_text_config().to_dict().get("max_position_embeddings")
        self.room = Room(tokens=int(longest or 0))
        self._batch_size, self._batch_tokens = batch_size, batch_tokens
        self._grammars = Grammars(qwen.tokenizer, width=qwen.vocabulary, stop=qwen.stop_ids)
        self._prefixes = Prefixes(qwen, prefix_bytes)
        self._labels: dict[tuple[tuple[str, ...], bool], tuple[tuple[int, ...], ...]] = {}

    def reply(self, asks: Sequence[Ask]) -> list[Reply]:
        """Answers every ask, batched. Raises `UsageError` for choices that are not single tokens."""
        return in_order(self.reply_each(asks))

    def reply_within(self, asks: Sequence[Ask], seconds: float | None) -> list[Reply]:
        """`reply`; the time is looked at between batches."""
        return in_order(self.reply_each(asks, seconds))

    def reply_each(self, asks: Sequence[Ask], seconds: float | None = None) -> Numbered:
        """Replies as batches end. Between two of them it can be closed, and the time is looked at."""
        end = ending(seconds)
        return filled(each_with_thoughts(asks, partial(self._replies, end=end)), len(asks), end)

    def _replies(self, asks: Sequence[Ask], *, end: float | None) -> Numbered:
        choices = [self._choices(ask) for ask in asks]
        waiting: list[_Job] = []
        held: dict[int, int] = {}  # bytes of pixels or features, by picture
        for place, ask in self._prepared(asks):
            try:
                job = self._job(place, ask, choices[place])
            except (InputError, OSError, ValueError) as error:
                why = ChatError(f"an image of the question cannot be shown: {error}", kind="image")
                yield place, _failed(why)
            except ChatError as error:
                yield place, _failed(error)
            else:
                waiting.append(job)
                held |= {id(p): p.size for p in job.prompt.pictures}
                if sum(held.values()) > PIXEL_BYTES:
                    yield from self._answer_all(waiting, end)
                    waiting, held = [], {}
        yield from self._answer_all(waiting, end)

    def facts(self) -> ChatFacts:
        """What its family can do and what not."""
        return ChatFacts(model=self.qwen.name, abilities=self.qwen.abilities)

    def _prepared(self, asks: Sequence[Ask]) -> Iterator[tuple[int, Ask]]:
        """Asks with their places, the pictures of the next few ready whenever one comes."""
        ready: list[Picture] = []
        until = 0
        for place, ask in enumerate(asks):
            if place == until:
                images: list[tuple[Image, int]] = []
                while until < len(asks) and len(images) < AHEAD:
                    shown = [p.image for m in asks[until].messages for p in m.parts]
                    images += [(i, asks[until].image_tokens) for i in shown if i is not None]
                    until += 1
                ready[:] = self.qwen.ahead(images)
            yield place, ask

    def _job(self, place: int, ask: Ask, choices: tuple[tuple[int, ...], ...]) -> _Job:
        start = time.perf_counter()
        words = ask.read in ("attention", "token_embeddings")
        prompt = self.qwen.encode(ask.messages, image_tokens=ask.image_tokens, words=words)
        if self.room.tokens and prompt.length > self.room.tokens:
            raise ChatError(
                f"the question has {prompt.length} tokens; {self.qwen.name} reads {self.room.tokens}. "
                "Show fewer images at a time, or smaller ones",
                kind="context",
            )
        return _Job(
            place=place,
            ask=ask,
            prompt=prompt,
            choices=choices,
            reusable=_read.reusable(ask, prompt),
            seconds=time.perf_counter() - start,
        )

    def _choices(self, ask: Ask) -> tuple[tuple[int, ...], ...]:
        """The tokens of each label of ``ask``, all its spellings. Raises `UsageError` for none."""
        key = (ask.choices, ask.exact)
        if key not in self._labels:
            tokenizer = self.qwen.tokenizer
            found = token_ids(
                ask.choices,
                lambda text: tokenizer.encode(text, add_special_tokens=False),
                lambda id_: tokenizer.decode([id_]),
                before=self.qwen.before,
                exact=ask.exact,
                name=self.qwen.name,
            )
            self._labels[key] = tuple(found.values())
        return self._labels[key]

    def _answer_all(self, jobs: Sequence[_Job], end: float | None) -> Numbered:
        """Replies with their places until ``end``: jobs of one kind together, by what their prompts share."""
        for alike in sorted({(j.ask.needs, j.prompt.company) for j in jobs}):
            own = [j for j in jobs if (j.ask.needs, j.prompt.company) == alike]
            with self.qwen.lock:
                groups = self._prefixes.groups([j.prompt for j in own], [j.reusable for j in own])
            for group in groups:
                for batch in self._batches([own[n] for n in group.places]):
                    cancel.check()
                    if over(end):
                        return
                    for job, reply in zip(batch, self._answer(batch, group), strict=True):
                        yield job.place, reply

    def _batches(self, jobs: Sequence[_Job]) -> Iterator[list[_Job]]:
        """Jobs of similar length together, within the rows and padded tokens allowed."""
        batch: list[_Job] = []
        for job in sorted(jobs, key=lambda j: j.prompt.length):
            room = len(batch) < self._batch_size
            if batch and not (room and (len(batch) + 1) * job.prompt.length <= self._batch_tokens):
                yield batch
                batch = []
            batch.append(job)
        if batch:
            yield batch

    def _answer(self, jobs: Sequence[_Job], group: PromptGroup) -> list[Reply]:
        """Replies to one batch; if it fails, each ask on its own, so that one cannot spoil the others."""
        run: Callable[[Sequence[_Job], Start], list[Reply]] = {
            "generate": self._generate,
            "choice_logprobs": self._choose,
        }.get(jobs[0].ask.needs, self._read)
        began = time.perf_counter()
        why = ""
        try:
            with self.qwen.lock:
                start = group.start
                if group.shared:
                    start = self._prefixes.compute(jobs[0].prompt, group.shared)
                replies = run(jobs, start)
        except (UsageError, CancelledError):
            raise
        except Exception as error:  # out of memory above all, but nothing may take down the other asks
            why = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        if why:
            # only now: while the error lives, so does all that did not fit
            alone = len(jobs) == 1 and not group.shared and not group.start.length
            start, group = NOTHING, PromptGroup(places=(0,))
            self._free()
            if alone:
                return [_failed(ChatError(f"{self.spec} failed: {why}", kind="server"))]
            return [r for job in jobs for r in self._answer([job], group)]
        share = (time.perf_counter() - began) / len(jobs)
        return [
            replace(r, usage=r.usage + _used(j, seconds=share + j.seconds), notes=(*r.notes, *j.prompt.notes))
            for j, r in zip(jobs, replies, strict=True)
        ]

    def _generate(self, jobs: Sequence[_Job], start: Start) -> list[Reply]:
        rows = [
            Row(
                prompt=job.prompt,
                limit=job.ask.max_tokens,
                temperature=job.ask.temperature,
                seed=int(job.ask.digest()[:15], 16) if job.ask.temperature > 0 else 0,
                writing=None
                if job.ask.schema is None
                else self._grammars.writing(job.ask.schema, job.ask.max_tokens, spaced=shows_shape(job.ask)),
            )
            for job in jobs
        ]
        replies = []
        made = generate(self.qwen, self._grammars, rows, self._prefixes, start)
        for row, written in zip(rows, made, strict=True):
            text: str = self.qwen.tokenizer.decode(written.ids, skip_special_tokens=True)
            if row.writing is not None:
                text = valid_json(text)
            # the stop token was computed as well, though it is no part of the text
            usage = Usage(output_tokens=len(written.ids) + (written.finish == "stop"))
            replies.append(Reply(text=without_thinking(text), usage=usage, finish=written.finish))
        return replies

    def _choose(self, jobs: Sequence[_Job], start: Start) -> list[Reply]:
        import torch

        prompts = [j.prompt for j in jobs]
        with torch.inference_mode():
            cache = self._prefixes.cache(start, len(jobs))
            logits = self.qwen.forward(self.qwen.collate(prompts, start.length), cache).cpu()
        self._prefixes.keep(prompts, start, cache)
        replies = []
        for job, row in zip(jobs, logits, strict=True):
            values = torch.stack([torch.logsumexp(row[list(ids)], -1) for ids in job.choices])
            logprobs = torch.log_softmax(values, -1).tolist()
            named: dict[str, float] = dict(zip(job.ask.choices, logprobs, strict=True))
            among = torch.logsumexp(values, -1) - torch.logsumexp(row, -1)
            replies.append(Reply(logprobs=named, mass=float(among), usage=Usage(output_tokens=1)))
        return replies

    def _read(self, jobs: Sequence[_Job], start: Start) -> list[Reply]:
        prompts = [j.prompt for j in jobs]
        if jobs[0].ask.read == "attention":
            states = [_read.attention(self.qwen, self._prefixes, j.ask, j.prompt) for j in jobs]
        elif jobs[0].ask.read == "embed":
            states = _read.embeddings(self.qwen, self._prefixes, prompts, start)
        else:
            states = _read.token_embeddings(self.qwen, self._prefixes, prompts, start)
        return [Reply(states=s) for s in states]

    def _free(self) -> None:
        import torch

        with self.qwen.lock:
            self._prefixes.clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _used(job: _Job, *, seconds: float) -> Usage:
    images = len(job.prompt.pictures)
    return Usage(calls=1, input_tokens=job.prompt.length, images=images, seconds=seconds)


def _failed(error: ChatError) -> Reply:
    return Reply(error=error, finish="error", usage=Usage(calls=1))


def open(
    rest: str,
    *,
    device: str | None = None,
    dtype: str | None = None,
    batch_size: int = BATCH,
    batch_tokens: int = TOKENS,
    prefix_bytes: int = prefix.BYTES,
    feature_bytes: int = features.BYTES,
    feature_folder: Path | str | None = None,
    feature_folder_bytes: int = on_disk.BYTES,
    label_share: float = LEAST_SHARE,
    trust_remote_code: bool = False,
) -> TransformersChat:
    """Loads ``PATH_OR_NAME``.

    ``device`` and ``dtype`` as in `mmrerank.vl.load.load`; ``batch_size`` rows and ``batch_tokens``
    padded prompt tokens bound a batch. ``prefix_bytes`` and ``feature_bytes`` bound what is kept of prompts'
    beginnings (on the device) and of images (in main memory); 0 keeps nothing. ``feature_folder`` keeps
    images' features on disk too, at most ``feature_folder_bytes``, the least recently used deleted first.
    Labels that hold less than ``label_share`` of the probability are asked for again as text.
    ``trust_remote_code`` lets Python files of the checkpoint run, with a warning.
    Raises `ModelError` when there is no such model.
    """
    store = FeatureStore(feature_bytes)
    qwen = open_model(rest, device=device, dtype=dtype, features=store, trust_remote_code=trust_remote_code)
    if feature_folder is not None:
        store.folder = FeatureFolder(
            Path(feature_folder).expanduser(),
            owner=f"{weights_digest(rest)} {qwen.model.dtype} {qwen.eyes}",
            limit=feature_folder_bytes,
        )
    chat = TransformersChat(qwen, batch_size=batch_size, batch_tokens=batch_tokens, prefix_bytes=prefix_bytes)
    chat.label_share = label_share
    return chat


def revision(rest: str) -> str | None:
    """The commit of a hub name's weights in the local cache; None for a folder, or where there is none."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(rest, "config.json")
    except HFValidationError:
        return None
    # .../snapshots/COMMIT/config.json
    return Path(found).parent.name if isinstance(found, str) else None
