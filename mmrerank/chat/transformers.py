"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL in this process: ``transformers:PATH_OR_NAME``.

Offers `generate`, under the ask's schema if it has one, and `choice_logprobs`. Sampling draws from a seed
made of the ask itself, so a reply never depends on its neighbours or on what was asked before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mmrerank.chat._generate import Row, generate
from mmrerank.chat._grammar import Grammars
from mmrerank.chat._text import valid_json, without_thinking
from mmrerank.errors import ChatError, InputError, UsageError
from mmrerank.messages import Ask, Reply
from mmrerank.ports import Capability
from mmrerank.types import Usage
from mmrerank.vl.qwen import Encoded, QwenVL

FORM = "transformers:PATH_OR_NAME"
BATCH = 32
TOKENS = 16384


@dataclass(frozen=True, kw_only=True)
class _Job:
    """An ask on its way through a batch; ``place`` is its position among the asks."""

    place: int
    ask: Ask
    prompt: Encoded
    choices: tuple[int, ...]
    seconds: float


class TransformersChat:
    """A Qwen-VL checkpoint that answers asks. Safe to call from several threads; they take turns."""

    domain = ""

    def __init__(
        self, qwen: QwenVL, *, batch_size: int = BATCH, batch_tokens: int = TOKENS
    ) -> None:
        if batch_size < 1 or batch_tokens < 1:
            raise UsageError("batch_size and batch_tokens must be at least 1")
        self.spec = f"transformers:{qwen.name}"
        self.capabilities: frozenset[Capability] = frozenset({"generate", "choice_logprobs"})
        self.qwen = qwen
        self._batch_size, self._batch_tokens = batch_size, batch_tokens
        self._grammars = Grammars(qwen.tokenizer, width=qwen.vocabulary, stop=qwen.stop_ids)

    def reply(self, asks: Sequence[Ask]) -> list[Reply]:
        """Answers every ask, batched. Raises `UsageError` for choices that are not single tokens."""
        replies: list[Reply | None] = [None] * len(asks)
        jobs: list[_Job] = []
        for place, ask in enumerate(asks):
            start = time.perf_counter()
            choices = tuple(self._token(c) for c in ask.choices)
            if len(set(choices)) != len(choices):
                raise UsageError(f"choices must differ; these are {', '.join(ask.choices)}")
            try:
                prompt = self.qwen.encode(ask.messages, image_tokens=ask.image_tokens)
            except (InputError, OSError) as error:
                replies[place] = _failed(
                    ChatError(f"an image of the question cannot be shown: {error}")
                )
                continue
            seconds = time.perf_counter() - start
            jobs.append(_Job(place=place, ask=ask, prompt=prompt, choices=choices, seconds=seconds))
        for batch in self._batches(jobs):
            for job, reply in zip(batch, self._answer(batch), strict=True):
                replies[job.place] = reply
        return [r for r in replies if r is not None]

    def _token(self, choice: str) -> int:
        ids: list[int] = self.qwen.tokenizer(choice, add_special_tokens=False)["input_ids"]
        if len(ids) != 1:
            raise UsageError(
                f"the choice {choice!r} is {len(ids)} tokens of {self.qwen.name}; choices are single "
                "tokens, such as one letter or one digit"
            )
        return ids[0]

    def _batches(self, jobs: Sequence[_Job]) -> list[list[_Job]]:
        """Jobs of one kind and similar length together, within the rows and padded tokens allowed."""
        batches: list[list[_Job]] = []
        for job in sorted(jobs, key=lambda j: (j.ask.needs, j.prompt.length)):
            last = batches[-1] if batches else []
            fits = (
                len(last) < self._batch_size
                and (len(last) + 1) * job.prompt.length <= self._batch_tokens
            )
            if last and fits and last[0].ask.needs == job.ask.needs:
                last.append(job)
            else:
                batches.append([job])
        return batches

    def _answer(self, jobs: Sequence[_Job]) -> list[Reply]:
        """Replies to one batch; if it fails, each ask on its own, so that one cannot spoil the others."""
        run: Callable[[Sequence[_Job]], list[Reply]] = (
            self._choose if jobs[0].choices else self._generate
        )
        start = time.perf_counter()
        try:
            with self.qwen.lock:
                replies = run(jobs)
        except UsageError:
            raise
        except (
            Exception
        ) as error:  # out of memory above all, but nothing may take down the other asks
            self._free()
            if len(jobs) > 1:
                return [r for job in jobs for r in self._answer([job])]
            why = " ".join(str(error).split())[:300]
            return [_failed(ChatError(f"{self.spec} failed: {type(error).__name__}: {why}"))]
        share = (time.perf_counter() - start) / len(jobs)
        return [
            replace(r, usage=r.usage + _used(j, seconds=share + j.seconds))
            for j, r in zip(jobs, replies, strict=True)
        ]

    def _generate(self, jobs: Sequence[_Job]) -> list[Reply]:
        rows = [
            Row(
                prompt=job.prompt,
                limit=job.ask.max_tokens,
                temperature=job.ask.temperature,
                seed=int(job.ask.digest()[:15], 16) if job.ask.temperature > 0 else 0,
                matcher=None if job.ask.schema is None else self._grammars.matcher(job.ask.schema),
            )
            for job in jobs
        ]
        replies = []
        for row, made in zip(rows, generate(self.qwen, self._grammars, rows), strict=True):
            text: str = self.qwen.tokenizer.decode(made.ids, skip_special_tokens=True)
            if row.matcher is not None:
                text = valid_json(text)
            # the stop token was computed as well, though it is no part of the text
            usage = Usage(output_tokens=len(made.ids) + (made.finish == "stop"))
            replies.append(Reply(text=without_thinking(text), usage=usage, finish=made.finish))
        return replies

    def _choose(self, jobs: Sequence[_Job]) -> list[Reply]:
        import torch

        with torch.inference_mode():
            logits = self.qwen.forward(self.qwen.collate([j.prompt for j in jobs])).cpu()
        replies = []
        for job, row in zip(jobs, logits, strict=True):
            logprobs = torch.log_softmax(row[list(job.choices)], -1).tolist()
            named: dict[str, float] = dict(zip(job.ask.choices, logprobs, strict=True))
            replies.append(Reply(logprobs=named, usage=Usage(output_tokens=1)))
        return replies

    def _free(self) -> None:
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _used(job: _Job, *, seconds: float) -> Usage:
    images = 0 if job.prompt.grids is None else len(job.prompt.grids)
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
) -> TransformersChat:
    """Loads ``PATH_OR_NAME``.

    ``device`` and ``dtype`` as in `mmrerank.vl.load.load`; ``batch_size`` rows and ``batch_tokens``
    padded prompt tokens bound a batch. Raises `ModelError` when there is no such model.
    """
    qwen = QwenVL.load(rest, device=device, dtype=dtype)
    return TransformersChat(qwen, batch_size=batch_size, batch_tokens=batch_tokens)


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
