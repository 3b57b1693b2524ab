"""A stand-in for the package vLLM, which needs a GPU build: its documented names and shapes, tiny weights.

Only what `mmrerank.chat.vllm` touches is here, as vLLM's documentation shows it: ``LLM(...)``, ``LLM.chat``,
``SamplingParams`` (of before ``logprob_token_ids`` with ``installed(old=True)``), ``StructuredOutputsParams``
and the output objects. Nothing of vLLM is tested by it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, ClassVar

from tiny_server import ask_of, next_token


@dataclass
class StructuredOutputsParams:
    json: Any = None
    choice: list[str] | None = None
    disable_any_whitespace: bool = False
    used: bool = False


@dataclass
class SamplingParams:
    n: int = 1
    temperature: float = 1.0
    seed: int | None = None
    max_tokens: int | None = 16
    logprobs: int | None = None
    logprob_token_ids: list[int] | None = None
    allowed_token_ids: list[int] | None = None
    structured_outputs: StructuredOutputsParams | None = None


def _old_params(
    *,
    temperature: float = 1.0,
    max_tokens: int = 16,
    logprobs: int | None = None,
    allowed_token_ids: list[int] | None = None,
    seed: int | None = None,
    structured_outputs: StructuredOutputsParams | None = None,
) -> SamplingParams:
    return SamplingParams(
        temperature=temperature,
        max_tokens=max_tokens,
        logprobs=logprobs,
        allowed_token_ids=allowed_token_ids,
        seed=seed,
        structured_outputs=structured_outputs,
    )


@dataclass
class Logprob:
    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


@dataclass
class CompletionOutput:
    index: int
    text: str
    token_ids: list[int]
    logprobs: list[dict[int, Logprob]] | None = None
    finish_reason: str | None = None


@dataclass
class RequestOutput:
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput] = field(default_factory=list)


class LLM:
    """An engine over a chat of `mmrerank.chat.transformers`; ``models`` has them by name."""

    models: ClassVar[dict[str, Any]] = {}
    longest = 4000

    def __init__(self, model: str, **settings: Any) -> None:
        if model not in self.models:
            raise OSError(f"{model} is not a local folder and is not a valid model identifier")
        self.chat_model = self.models[model]
        self.settings = settings
        self.calls: list[int] = []

    def get_tokenizer(self) -> Any:
        return self.chat_model.qwen.tokenizer

    def chat(
        self,
        messages: list[list[dict[str, Any]]],
        sampling_params: list[SamplingParams],
        use_tqdm: bool = True,
        chat_template_kwargs: dict[str, Any] | None = None,
    ) -> list[RequestOutput]:
        self.calls.append(len(messages))
        return [self._one(m, p) for m, p in zip(messages, sampling_params, strict=True)]

    def _one(self, messages: list[dict[str, Any]], params: SamplingParams) -> RequestOutput:
        for held in (params.structured_outputs,):
            if held is not None:
                assert not held.used, "vLLM writes into these: a fresh one for each request"
                held.used = True
        schema = params.structured_outputs.json if params.structured_outputs else None
        ask = ask_of(messages, schema=schema, max_tokens=params.max_tokens or 16)
        qwen = self.chat_model.qwen
        prompt = qwen.encode(ask.messages, image_tokens=ask.image_tokens).ids.tolist()
        if len(prompt) > self.longest:
            raise ValueError(f"The decoder prompt (length {len(prompt)}) is longer than the maximum")
        if params.logprob_token_ids:
            # the sampled token and those asked for, with their values among all tokens
            assert params.logprobs is None, "top-k is replaced by the list"
            assert len(params.logprob_token_ids) <= 128
            values = next_token(self.chat_model, ask)
            first = int(values.argmax())
            rows = {i: Logprob(float(values[i])) for i in (first, *params.logprob_token_ids)}
            one = CompletionOutput(0, qwen.tokenizer.decode([first]), [first], [rows], "length")
            return RequestOutput(prompt, [one])
        if params.logprobs is None:
            made = self.chat_model.reply([ask])[0]
            ids = qwen.tokenizer(made.text, add_special_tokens=False)["input_ids"]
            one = CompletionOutput(0, made.text, ids, finish_reason=made.finish)
            return RequestOutput(prompt, [one])
        # logprobs_mode="processed_logprobs": after the mask
        assert self.settings["logprobs_mode"] == "processed_logprobs"
        assert params.logprobs <= self.settings["max_logprobs"]
        values = next_token(self.chat_model, ask, allowed=params.allowed_token_ids)
        best = values.topk(params.logprobs)
        listed = {
            int(i): Logprob(float(v), n + 1, qwen.tokenizer.decode([int(i)]))
            for n, (v, i) in enumerate(zip(best.values, best.indices, strict=True))
        }
        first = int(best.indices[0])
        one = CompletionOutput(0, qwen.tokenizer.decode([first]), [first], [listed], "length")
        return RequestOutput(prompt, [one])


@contextmanager
def installed(*, old: bool = False) -> Iterator[type[LLM]]:
    """The stand-in in the place of the package while the block runs; ``old`` takes no ids of labels."""
    package, params = ModuleType("vllm"), ModuleType("vllm.sampling_params")
    package.LLM = LLM  # type: ignore[attr-defined]
    package.SamplingParams = _old_params if old else SamplingParams  # type: ignore[attr-defined]
    params.StructuredOutputsParams = StructuredOutputsParams  # type: ignore[attr-defined]
    before = {n: sys.modules.get(n) for n in ("vllm", "vllm.sampling_params")}
    sys.modules.update({"vllm": package, "vllm.sampling_params": params})
    try:
        yield LLM
    finally:
        for name, module in before.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module
