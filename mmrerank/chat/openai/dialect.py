"""What one server understands of the OpenAI format, and how a refusal teaches it.

A field is given up only where the complaint names it, or where the same question was refused twice with it
and passes without it. What was learnt of one question counts for the next.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from mmrerank.chat.openai.amounts import number_below
from mmrerank.chat.openai.complaints import system_refused
from mmrerank.images.budget import LEAST_SIDE
from mmrerank.messages import Ask

TOP = 20
"""Alternatives asked for with a log-probability question: the most that OpenAI and vLLM give by default."""
FEWER = {20: 5, 5: 2, 2: 1}
"""What is asked for where that is too many and the complaint names no number."""
CALMER = {"none": "minimal", "minimal": "low"}
"""The next reasoning_effort where a model knows no lower one."""
Form = Literal["strict", "loose", "object", "none"]
"""How a reply's form is asked for: a strict JSON schema, a loose one, any JSON object, or words alone."""


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """What a server takes. ``schema`` as response_format; ``schema_in_prompt`` if it must stand there.

    ``extra`` fields go into every request, ``quiet`` ones (which switch thinking off) where no thinking is
    wanted. ``top`` is how many log-probabilities are asked for; ``usage`` asks a stream for its tokens.
    ``system`` is whether there is a turn of that role. Sides are pixels of an image, ``most_bytes`` bytes of
    its file; 0 is no limit.
    """

    schema: Form = "strict"
    schema_in_prompt: bool = False
    limit: str = "max_tokens"
    most_tokens: int = 0
    temperature: bool = True
    top: int = TOP
    stream: bool = False
    usage: bool = True
    system: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)
    quiet: Mapping[str, Any] = field(default_factory=dict)
    chooses: bool = False
    """Whether choices are sent as vLLM's ``structured_outputs``."""
    by_id: bool = False
    """Whether choices are asked for by their tokens' ids, as vLLM's ``logprob_token_ids``."""
    least_side: int = LEAST_SIDE
    most_side: int = 0
    most_bytes: int = 0
    pixels_per_token: int = 28 * 28
    """Pixels of an image that a visual token sees: a fact of the model."""

    def after(self, before: Dialect, learnt: Dialect) -> Dialect:
        """What makes ``learnt`` differ from ``before``, on top of what others have learnt meanwhile."""
        new = {
            f.name: vars(learnt)[f.name]
            for f in fields(Dialect)
            if vars(learnt)[f.name] != vars(before)[f.name]
        }
        return replace(self, **new)

    def named(self, complaint: str, request: Mapping[str, Any]) -> Iterator[Dialect]:
        """What to try after a server refused ``request``, by what ``complaint`` names, first named first."""
        places: list[tuple[int, Dialect]] = []
        text = _without_allowed(complaint)
        for pattern, without in _FIELDS:
            found = pattern.search(text)
            if found is not None and (plainer := without(self, complaint, request)) is not None:
                places.append((found.start(), plainer))
        if self.system and system_refused(complaint, request["messages"]):
            places.append((-1, replace(self, system=False)))
        for _, plainer in sorted(places, key=lambda row: row[0]):
            yield plainer

    def suspects(self, request: Mapping[str, Any]) -> Iterator[tuple[str, Dialect]]:
        """Fields that may be what an unsaid complaint is about, each with what to try: the rarest first."""
        if "logprob_token_ids" in request:
            yield "logprob_token_ids", replace(self, by_id=False)
        if "structured_outputs" in request:
            yield "structured_outputs", replace(self, chooses=False)
        for name in [n for n in self.quiet if n in request]:
            yield name, replace(self, quiet={k: v for k, v in self.quiet.items() if k != name})
        if "response_format" in request:
            yield "response_format", replace(self, schema="none", schema_in_prompt=True)

    def told(self, wanted: Dialect, ask: Ask) -> tuple[str, ...]:
        """What of ``wanted`` this server does not get with ``ask`` although it can change the reply."""
        found = []
        if (
            ask.schema is not None
            and not ask.choices
            and self.schema_in_prompt
            and not wanted.schema_in_prompt
        ):
            found.append("the server does not hold replies to a JSON schema: it stands in the prompt instead")
        if not self.temperature and wanted.temperature:
            found.append(f"the server takes no temperature: its own was used, not {ask.temperature:g}")
        if ask.choices and self.top < wanted.top:
            found.append(
                f"the server gives at most {self.top} log-probabilities, not {wanted.top}: of a choice that "
                "is not among them only a bound is known, the least of them"
            )
        if not self.system and any(m.role == "system" for m in ask.messages):
            found.append("the model takes no system turn: its text stands in the first user turn")
        if self.most_tokens and not ask.choices and ask.max_tokens > self.most_tokens:
            found.append(f"the server writes at most {self.most_tokens} tokens, not {ask.max_tokens}")
        return tuple(found)


_ALLOWED = re.compile(
    r"\b(?<!not )(supported|allowed|valid|known|permitted|accepted|available|expected)\b"
    r"( \w+){0,3}( are| is)?:.*|, expected( one of)?.*",
    re.I | re.S,
)


def _without_allowed(complaint: str) -> str:
    """``complaint`` without the list of what would have been right, which names everything."""
    cut = _ALLOWED.sub("", complaint)
    return cut if cut.strip() else complaint


def _limit(now: Dialect, text: str, request: Mapping[str, Any]) -> Dialect | None:
    if now.limit not in request:
        return None
    most = number_below(text, request[now.limit])
    other = "max_tokens" if now.limit == "max_completion_tokens" else "max_completion_tokens"
    if most and re.search(r"(?i)too (large|big|high)|at most|less than|<=|exceed|maximum|range", text):
        return replace(now, most_tokens=most)
    if now.limit == "max_completion_tokens" and "max_completion_tokens" not in text:
        return None
    if (
        now.limit == "max_tokens"
        and "max_completion_tokens" not in text
        and not re.search(
            r"(?i)un(supported|known|recogni[sz]ed|expected)|not (supported|permitted|allowed)|extra", text
        )
    ):
        return None
    return replace(now, limit=other)


def _fewer(now: Dialect, text: str, request: Mapping[str, Any]) -> Dialect | None:
    asked = request.get("top_logprobs")
    if not asked:
        return None
    most = number_below(text, asked)
    if most is None and "top_logprobs" in text:
        most = FEWER.get(asked) or (asked // 2 or None)
    return replace(now, top=most) if most else None


def _no_temperature(now: Dialect, text: str, request: Mapping[str, Any]) -> Dialect | None:
    return replace(now, temperature=False) if "temperature" in request else None


def _no_usage(now: Dialect, text: str, request: Mapping[str, Any]) -> Dialect | None:
    return replace(now, usage=False) if "stream_options" in request else None


def _no_stream(now: Dialect, text: str, request: Mapping[str, Any]) -> Dialect | None:
    return replace(now, stream=False) if request.get("stream") else None


def _no_choices(now: Dialect, text: str, request: Mapping[str, Any]) -> Dialect | None:
    return replace(now, chooses=False) if "structured_outputs" in request else None


def _no_ids(now: Dialect, text: str, request: Mapping[str, Any]) -> Dialect | None:
    return replace(now, by_id=False) if "logprob_token_ids" in request else None


def _calmer(now: Dialect, text: str, request: Mapping[str, Any]) -> Dialect | None:
    if "reasoning_effort" not in now.quiet or "reasoning_effort" not in request:
        return None
    effort = CALMER.get(now.quiet["reasoning_effort"])
    rest = {k: v for k, v in now.quiet.items() if k != "reasoning_effort"}
    return replace(
        now, quiet={**rest, "reasoning_effort": effort} if effort and "value" in text.casefold() else rest
    )


def _no_template(now: Dialect, text: str, request: Mapping[str, Any]) -> Dialect | None:
    if "chat_template_kwargs" not in now.quiet or "chat_template_kwargs" not in request:
        return None
    return replace(now, quiet={k: v for k, v in now.quiet.items() if k != "chat_template_kwargs"})


def _looser(now: Dialect, text: str, request: Mapping[str, Any]) -> Dialect | None:
    form = request.get("response_format")
    if form is None:
        return None
    strict = r"(?i)\bstrict\b|additionalProperties|not permitted|invalid schema|unsupported (keyword|schema)"
    if now.schema == "strict" and re.search(strict, text):
        return replace(now, schema="loose")
    if now.schema in ("strict", "loose") and re.search(r"(?i)json_(schema|object)|\btype\b", text):
        return replace(now, schema="object", schema_in_prompt=True)
    return replace(now, schema="none", schema_in_prompt=True)


_FIELDS = [
    (re.compile(names, re.I), without)
    for names, without in (
        (r"max_(completion_|new_)?tokens", _limit),
        (r"logprob_token_ids|tokens_as_token_ids", _no_ids),
        (r"logprobs", _fewer),
        (r"temperature", _no_temperature),
        (r"stream_options|include_usage", _no_usage),
        (r"(?<!_)\bstream(ing)?\b(?!_)", _no_stream),
        (r"structured_outputs|guided_", _no_choices),
        (r"reasoning_effort|reasoning effort", _calmer),
        (r"chat_template(_kwargs)?|enable_thinking", _no_template),
        (
            r"response[_ ]format|json[_ ]?(schema|object|mode)|structured[_ ]outputs?|grammar"
            r"|\bschema\b|additionalProperties|guided[_ ](json|decoding)",
            _looser,
        ),
    )
]
