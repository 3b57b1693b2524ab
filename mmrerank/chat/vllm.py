"""Any vision-language model in this process under vLLM: ``vllm:PATH_OR_NAME``, all questions in one batch.

Offers `generate`, under the ask's schema if it has one, and `choice_logprobs` with every choice's own
value. The prefix cache is on: what questions begin with alike is read once. A vLLM server is
``vllm:MODEL@HOST`` instead, which is `mmrerank.chat.openai`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mmrerank.chat.labels import log_sum, normalised, token_ids
from mmrerank.chat.openai.amounts import most_images
from mmrerank.chat.openai.complaints import meaning, system_refused
from mmrerank.chat.openai.dialect import Dialect
from mmrerank.chat.openai.wire import conversation
from mmrerank.chat.text import valid_json, without_thinking
from mmrerank.chat.thinking import with_thoughts
from mmrerank.chat.transformers import revision as revision
from mmrerank.errors import ChatError, InputError, MissingExtraError, ModelError, UsageError
from mmrerank.images.budget import pixels_per_token
from mmrerank.loading import loading
from mmrerank.messages import Ask, Reply
from mmrerank.paths import expanded, looked_at
from mmrerank.ports import LEAST_SHARE, Capability, Chat, Room
from mmrerank.reply_shape import shows_shape
from mmrerank.types import Usage
from mmrerank.vl.model_folder import check_folder, warn_of_code

FORM = "vllm:PATH_OR_NAME"
IMAGES = 20
"""Images that one question may hold."""
LABELS = 128
"""Log-probabilities that the engine may give for one token: the labels of a question in all spellings."""


@dataclass(frozen=True, kw_only=True)
class _Ready:
    """An ask that can be run; ``place`` is its position among the asks."""

    place: int
    ask: Ask
    messages: list[dict[str, Any]]
    notes: tuple[str, ...]


class VllmChat(Chat):
    """A vLLM engine. Safe to call from several threads; they take turns."""

    def __init__(self, engine: Any, name: str) -> None:
        self.spec = f"vllm:{name}"
        self.name = name
        self.capabilities: frozenset[Capability] = frozenset({"generate", "choice_logprobs"})
        self._engine = engine
        self._dialect = Dialect(pixels_per_token=pixels_per_token(name))
        self._tokenizer = engine.get_tokenizer()
        self._labels: dict[tuple[tuple[str, ...], bool], dict[str, tuple[int, ...]]] = {}
        self._by_id = True
        """Whether labels are asked for by their tokens' ids, which newer engines take."""
        self._lock = threading.Lock()
        self.batch = 64

    def reply(self, asks: Sequence[Ask]) -> list[Reply]:
        """Answers every ask in one batch. Raises `UsageError` for choices that are not single tokens."""
        return with_thoughts(asks, self._replies)

    def _replies(self, asks: Sequence[Ask]) -> list[Reply]:
        replies: dict[int, Reply] = {}
        ready: list[_Ready] = []
        for place, ask in enumerate(asks):
            self._ids(ask)
            try:
                if ask.read:
                    raise ChatError(f"vLLM does not give {ask.read}")
                ready.append(self._ready(place, ask))
            except ChatError as error:
                replies[place] = _failed(error)
            except (InputError, OSError) as error:
                shown = ChatError(f"an image of the question cannot be shown: {error}", kind="image")
                replies[place] = _failed(shown)
        with self._lock:
            for row, reply in zip(ready, self._run(ready), strict=True):
                replies[row.place] = reply
        return [replies[place] for place in range(len(asks))]

    def _ids(self, ask: Ask) -> dict[str, tuple[int, ...]]:
        """The tokens that spell each choice of ``ask``; none where it has no choices."""
        key = (ask.choices, ask.exact)
        if ask.choices and key not in self._labels:
            self._labels[key] = token_ids(
                ask.choices,
                lambda text: [int(n) for n in self._tokenizer.encode(text, add_special_tokens=False)],
                lambda id_: str(self._tokenizer.decode([id_])),
                exact=ask.exact,
                name=self.name,
            )
        return self._labels.get(key, {})

    def _ready(self, place: int, ask: Ask) -> _Ready:
        notes: dict[str, None] = {}
        messages = conversation(ask, self._dialect, notes=notes)
        return _Ready(
            place=place, ask=ask, messages=messages, notes=(*notes, *self._dialect.told(Dialect(), ask))
        )

    def _run(self, ready: Sequence[_Ready]) -> list[Reply]:
        """Replies to one batch; if it fails, each ask on its own, so that one cannot spoil the others."""
        if not ready:
            return []
        start = time.perf_counter()
        try:
            outputs = self._engine.chat(
                [row.messages for row in ready],
                [self._sampling(row.ask) for row in ready],
                use_tqdm=False,
                chat_template_kwargs={"enable_thinking": False},
            )
        except Exception as error:  # a prompt that is too long is a ValueError of the whole batch
            if len(ready) > 1:
                return [r for row in ready for r in self._run([row])]
            why = " ".join(str(error).split())[:300]
            if self._dialect.system and system_refused(why, ready[0].messages):
                # a chat template without a system turn
                self._dialect = replace(self._dialect, system=False)
                return self._run([self._ready(ready[0].place, ready[0].ask)])
            return [_failed(_meant(f"{self.spec} failed: {type(error).__name__}: {why}", ready[0].messages))]
        share = Usage(seconds=(time.perf_counter() - start) / len(ready))
        return [
            replace(reply, usage=reply.usage + share, notes=row.notes)
            for row, reply in zip(ready, map(self._reading, [r.ask for r in ready], outputs), strict=True)
        ]

    def _sampling(self, ask: Ask) -> Any:
        """Parameters of one request; vLLM writes into them, so that no two requests share any."""
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        if ask.choices:
            ids = sorted(n for own in self._ids(ask).values() for n in own)
            plain = {"max_tokens": 1, "temperature": 0.0}
            if self._by_id:
                try:  # their values among all tokens, however unlikely they are
                    return SamplingParams(**plain, logprob_token_ids=ids)
                except TypeError:  # an older vLLM
                    self._by_id = False
            return SamplingParams(**plain, logprobs=len(ids), allowed_token_ids=ids)
        return SamplingParams(
            max_tokens=ask.max_tokens,
            temperature=ask.temperature,
            seed=int(ask.digest()[:15], 16) if ask.temperature > 0 else None,
            structured_outputs=None
            if ask.schema is None
            else StructuredOutputsParams(json=dict(ask.schema), disable_any_whitespace=not shows_shape(ask)),
        )

    def _reading(self, ask: Ask, output: Any) -> Reply:
        made = output.outputs[0]
        usage = Usage(
            calls=1,
            input_tokens=len(output.prompt_token_ids or ()),
            output_tokens=len(made.token_ids),
            images=sum(p.image is not None for m in ask.messages for p in m.parts),
        )
        if ask.choices:
            return replace(self._chosen(ask, made), usage=usage)
        text = valid_json(made.text) if ask.schema is not None else made.text
        finish: Any = "length" if made.finish_reason == "length" else "stop"
        return Reply(text=without_thinking(text), usage=usage, finish=finish)

    def _chosen(self, ask: Ask, made: Any) -> Reply:
        listed = made.logprobs[0] if made.logprobs else {}
        given = {c: [listed[n] for n in ids if n in listed] for c, ids in self._ids(ask).items()}
        if missing := ", ".join(c for c, rows in given.items() if not rows):
            return _failed(ChatError(f"{self.spec} gave no log-probability of {missing}"))
        values, total = normalised({c: log_sum(float(v.logprob) for v in r) for c, r in given.items()})
        # under a mask the labels share all that there is
        return Reply(logprobs=values, mass=min(total, 0.0) if self._by_id else None)


def _meant(why: str, messages: Sequence[dict[str, Any]]) -> ChatError:
    """An error of the engine, with its kind where its words tell."""
    parts = [p for m in messages if isinstance(m["content"], list) for p in m["content"]]
    shown = sum(p["type"] == "image_url" for p in parts)
    if (most := most_images(why, shown)) is not None:
        return ChatError(
            f"{why}; ask with fewer (a smaller window or group_size), or open it with "
            f"--chat-option images={shown}",
            kind="too_many_images",
            limit=most,
        )
    kind = meaning(400, why)
    return ChatError(why, kind=kind if kind in ("context", "image", "too_large", "no_images") else "other")


def _failed(error: ChatError) -> Reply:
    return Reply(error=error, finish="error", usage=Usage(calls=1))


def open(
    rest: str,
    *,
    dtype: str = "auto",
    max_model_len: int = 0,
    gpu_memory: float = 0.9,
    tensor_parallel: int = 1,
    images: int = IMAGES,
    label_share: float = LEAST_SHARE,
    trust_remote_code: bool = False,
) -> VllmChat:
    """Starts an engine for ``PATH_OR_NAME``.

    ``max_model_len`` is the longest prompt with its reply in tokens (0: the model's own), ``gpu_memory``
    the share of each GPU's memory that vLLM takes, ``tensor_parallel`` the number of GPUs, ``images`` how
    many a question may hold. Labels that hold less than ``label_share`` of the probability are asked for
    again as text. ``trust_remote_code`` lets Python files of the model run, with a warning. Raises
    `MissingExtraError` without vLLM, `ModelError` when it does not start.
    """
    if not rest:
        raise UsageError(f"{FORM} needs a folder or a name; a server is vllm:MODEL@HOST")
    try:
        from vllm import LLM
    except ImportError as error:
        raise MissingExtraError(
            f"vLLM is not installed: pip install 'mmrerank[vllm]'; or start `vllm serve {rest}` elsewhere "
            f"and name it as vllm:{rest}@HOST, or run it here as transformers:{rest}"
        ) from error
    folder = expanded(rest)
    with looked_at(folder, "the model folder", ModelError):
        if folder.is_dir():
            check_folder(folder, trust=trust_remote_code)
            if not any(folder.glob("*.safetensors")):
                raise ModelError(f"{folder} holds no weights as .safetensors; pickled ones are not read")
        elif trust_remote_code:
            warn_of_code(rest)
    settings = {"max_model_len": max_model_len} if max_model_len else {}
    try:
        with loading():
            engine = LLM(
                model=rest,
                trust_remote_code=trust_remote_code,
                dtype=dtype,
                gpu_memory_utilization=gpu_memory,
                tensor_parallel_size=tensor_parallel,
                limit_mm_per_prompt={"image": images},
                enable_prefix_caching=True,
                max_logprobs=LABELS,
                # as they are once all but the labels are masked
                logprobs_mode="processed_logprobs",
                **settings,
            )
    except Exception as error:  # from a missing folder to a GPU that is too small
        why = " ".join(str(error).split())[:400]
        raise ModelError(f"vLLM does not start with {rest!r}: {type(error).__name__}: {why}") from error
    chat = VllmChat(engine, rest)
    chat.label_share = label_share
    chat.room = Room(images=images, tokens=max_model_len)
    return chat
